"""A trained network, taken from what a finished run keeps."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.catalogue import DATASETS, MODELS
from itopctl.config.run_config import RunConfig
from itopctl.dst import SparseTraining
from itopctl.dst.explored_set import pack_bits, unpack_bits
from itopctl.train.checkpoint import pack, whole_model

Normalisation = tuple[Tensor, Tensor]
"""Mean and standard deviation of each channel, [channels, 1, 1], in units of a pixel's byte."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network, on the CPU, in evaluation mode.

    Attributes:
        run_id, config: of the run.
        model: takes normalised images; its weights are whole, zeros included.
        active: name of each weight that has inactive entries → bool tensor of its shape.
        normalisation: of images.
    """

    run_id: str
    config: RunConfig
    model: nn.Module
    active: Mapping[str, Tensor]
    normalisation: Normalisation

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image: channels, height, width."""
        channels, height, width = DATASETS.get(self.config.dataset).options["shape"]
        return channels, height, width

    @functools.cached_property
    def parameters(self) -> int:
        """Numbers in all, zeros included."""
        return sum(tensor.numel() for tensor in self.model.state_dict().values() if isinstance(tensor, Tensor))

    @functools.cached_property
    def nonzeros(self) -> int:
        """Numbers that are not zeros of inactive weights."""
        return self.parameters - sum(int((~active).sum()) for active in self.active.values())

    def about(self) -> str:
        """What a reader of a file wants to know, as JSON."""
        mean, std = (values.flatten().tolist() for values in self.normalisation)
        config = self.config
        return json.dumps({
            "run_id": self.run_id, "model": config.model, "dataset": config.dataset, "method": config.method,
            "sparsity": config.sparsity, "seed": config.seed, "image_shape": list(self.shape),
            "classes": DATASETS.get(config.dataset).options["classes"], "mean": mean, "std": std,
            "shapes": {name: list(active.shape) for name, active in self.active.items()},
        })  # fmt: skip

    def dense(self) -> Classifier:
        """From images as bytes to logits, with whole weights."""
        return Classifier(self.model, self.normalisation).eval()

    def example(self, batch: int = 2) -> Tensor:
        """Images of noise, uint8 [batch, channels, height, width]."""
        generator = torch.Generator().manual_seed(0)
        return torch.randint(0, 256, (batch, *self.shape), generator=generator, dtype=torch.uint8)


class Classifier(nn.Module):
    """A network that takes images as bytes.

    Args:
        model: takes normalised images.
        normalisation: of these.
    """

    def __init__(self, model: nn.Module, normalisation: Normalisation) -> None:
        super().__init__()
        self.normalise = _Normalise(normalisation)
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [batch, channels, height, width] → logits [batch, classes]."""
        logits: Tensor = self.model(self.normalise(images))
        return logits


class _Normalise(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.register_buffer("mean", normalisation[0].clone())
        self.register_buffer("std", normalisation[1].clone())

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(torch.float32) - self.mean) / self.std


def kept_of(
    run_id: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    sparse: SparseTraining,
    normalisation: Normalisation,
) -> dict[str, Any]:
    """What a run keeps of its network: weights without the zeros off the masks, masks, and what images need.

    Args:
        run_id: of the run.
        model, optimizer, sparse: of its training.
        normalisation: of images.
    """
    masks = sparse.masks
    layers = {name: {"shape": list(mask.shape), "mask": pack_bits(mask).cpu()} for name, mask in masks.items()}
    state = {"model": dict(model.state_dict()), "optimizer": {"state": {}}, "sparse": {"layers": layers}}
    packed = pack(state, model, optimizer, sparse)["model"]
    mean, std = (values.cpu().clone() for values in normalisation)
    return {"run_id": run_id, "model": packed, "sparse": {"layers": layers}, "mean": mean, "std": std}


def trained_network(run_id: str, config: RunConfig, state: Mapping[str, Any]) -> TrainedNetwork:
    """The network of a run.

    Args:
        run_id, config: of the run.
        state: what `kept_of` gave, or a checkpoint with `mean` and `std` beside.

    Raises:
        ValueError, KeyError, RuntimeError, …: it is no such state, or not of this run's model.
    """
    if state.get("run_id", run_id) != run_id:
        raise ValueError(f"it is of run {state['run_id']}")
    options = DATASETS.get(config.dataset).options
    shape, classes, args = tuple(options["shape"]), options["classes"], config.args("model")
    model: nn.Module = MODELS.function(config.model)(input_shape=shape, classes=classes, **args)
    active = {name: _mask(saved["mask"], saved["shape"]) for name, saved in state["sparse"]["layers"].items()}
    model.load_state_dict(whole_model(state, active))
    of_weight = {weight: active[name] for name, weight in model.named_parameters() if name in active}
    tied = model.named_parameters(remove_duplicate=False)
    active = {name: of_weight[weight] for name, weight in tied if weight in of_weight}
    channels = options["shape"][0]
    mean, std = (state[name].to(torch.float32).view(channels, 1, 1) for name in ("mean", "std"))
    return TrainedNetwork(run_id, config, model.requires_grad_(False).eval(), active, (mean, std))


def _mask(bits: Tensor, shape: list[int]) -> Tensor:
    size = math.prod(shape)
    if -(-size // 8) != bits.numel():
        raise ValueError(f"a mask of {bits.numel()} bytes is not of {size} weights")
    return unpack_bits(bits, size).view(shape)
