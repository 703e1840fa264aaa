"""Accuracies of a network: how they are measured, and at which topology updates."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from itopctl.config.run_config import RunConfig
from itopctl.train.data.tensors import ImageData, Part
from itopctl.train.network import Network

_SHARE = 0.25  # of the training cost, at most, for accuracies at topology updates


@dataclass(frozen=True)
class Evaluation:
    """Accuracies after `step` steps, fractions in [0, 1]; validation is None where nothing is held out."""

    step: int
    validation_accuracy: float | None
    test_accuracy: float


def evaluate(network: Network, data: ImageData) -> tuple[float | None, float]:
    """Validation and test accuracy of a network, as in `Evaluation`."""
    validation = _accuracy(network, data, data.validation) if len(data.validation) else None
    return validation, _accuracy(network, data, data.test)


@torch.no_grad()
def _accuracy(network: Network, data: ImageData, part: Part) -> float:
    network.model.eval()
    correct = torch.zeros((), dtype=torch.int64, device=part.labels.device)
    for images, labels in data.evaluation_batches(part):
        with network.precision():
            logits = network.logits(images)
        correct += (logits.argmax(dim=1) == labels).sum()
    network.model.train()
    return int(correct) / len(part)


def evaluation_stride(config: RunConfig, samples: int) -> int | None:
    """Accuracy is measured at updates whose step is a multiple of this; None: at none.

    A whole multiple of the update interval, so that evaluating costs at most `_SHARE` of training (a training sample
    costs three forward passes).

    Args:
        config: the resolved run.
        samples: that one evaluation takes.
    """
    interval, choice = config.update_interval, config.evaluate_updates
    if interval is None or choice == "never":
        return None
    if choice == "always":
        return interval
    affordable = _SHARE * 3 * interval * config.batch_size
    return interval * math.ceil(samples / affordable)
