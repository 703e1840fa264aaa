"""A network as a program of `torch.export`; elsewhere, `torch.export.load(path).module()(images)` gives logits."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.inference import with_nonzeros_alone
from itopctl.train.export.network import Classifier, TrainedNetwork
from itopctl.train.export.quiet import quiet

ABOUT = "itopctl.json"
"""The file inside that says what network it is."""


def written(network: TrainedNetwork, sparse: bool) -> bytes:
    """The program.

    Args:
        network: to write down.
        sparse: whether layers keep, and multiply by, their nonzeros alone.
    """
    classifier = network.dense()
    if sparse:
        images = classifier.normalise(network.example())
        thin = with_nonzeros_alone(copy.deepcopy(network.model), network.active, images)
        classifier = Classifier(thin, network.normalisation).eval()
    buffer = io.BytesIO()
    torch.export.save(exported(classifier, network.example()), buffer, extra_files={ABOUT: network.about()})
    return buffer.getvalue()


def exported(model: nn.Module, example: Tensor) -> Any:
    """A model as an exported program, for batches of any size; the example has two or more."""
    batch = {0: torch.export.Dim("batch")}
    with quiet():
        program = torch.export.export(model, (example,), dynamic_shapes=(batch,), strict=False)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def reader(data: bytes, network: TrainedNetwork) -> Callable[[Tensor], Tensor]:
    """The program that was written."""
    program: Callable[[Tensor], Tensor] = torch.export.load(io.BytesIO(data)).module()
    return program
