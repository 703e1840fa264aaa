"""Trainings that are saved after every step, as their files hold them, and gone on from."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from itopctl.config.run_config import RunConfig
from itopctl.train.checkpoint import decode, encode
from itopctl.train.loop import Training
from tests.faults.trials import without_times
from tests.helpers import run_config

DATA = Path("data")
STEPS = 12

OWN = '''
"""A user's own rule and models."""

import random

import numpy as np
import torch
from torch import nn

from itopctl.dst import rule


@rule(needs=("momentum", "times_active"))
def seldom_and_steep(layer):
    return layer.momentum.abs() / (1 + layer.times_active)


class Restless(nn.Module):
    """Batch norm, dropout, and draws from Python's and NumPy's generators, of which both keep one for the next call."""

    def __init__(self, inputs, classes, always):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(inputs, 40), nn.BatchNorm1d(40), nn.Linear(40, classes)
        self.always = always

    def forward(self, images):
        draws = self.training or self.always
        hidden = nn.functional.dropout(self.norm(self.first(images.flatten(1))), 0.3, draws)
        if draws:
            hidden = hidden * (1 + 0.1 * random.gauss(0, 1)) + 0.1 * np.random.randn() + 0.1 * random.random()
        return self.last(hidden)


def restless(input_shape, classes):
    return Restless(input_shape[0] * input_shape[1] * input_shape[2], classes, always=False)


def restless_always(input_shape, classes):
    return Restless(input_shape[0] * input_shape[1] * input_shape[2], classes, always=True)


def small_cnn(input_shape, classes):
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, classes),
    )
'''


def config_of(**settings: Any) -> RunConfig:
    """A run of twelve steps in two epochs, with a topology update after every third, saved after each step."""
    return run_config(**{
        "batch_size": 250, "epochs": 2, "update_interval": 3, "sparsity": 0.8, "checkpoint_minutes": 1e-9, **settings,
    })  # fmt: skip


@dataclass
class Trained:
    """A training that has run to its end.

    Attributes:
        events: evaluations and topology updates in order, without times.
        saved: of each checkpoint: the file's content, and how many events came before it.
        result, state: in the end.
    """

    events: list[Any] = field(default_factory=list)
    saved: list[tuple[bytes, int]] = field(default_factory=list)
    result: Any = None
    state: Any = None

    def emit(self, name: str, fields: dict[str, Any]) -> None:
        if name in ("evaluated", "topology"):
            self.events.append((name, without_times(fields)))

    def save(self, state: dict[str, Any]) -> None:
        self.saved.append((encode(state), len(self.events)))


def train(config: RunConfig, checkpoint: bytes | None = None, saves: bool = True) -> Trained:
    """Train from the start, or from a checkpoint; not `saves`: without saving anything."""
    made = Trained()
    if not saves:
        config = config.model_copy(update={"checkpoint_minutes": 1e4})
    for scramble in (torch.manual_seed, random.seed, np.random.seed):
        scramble(99)
    training = Training(config, DATA, made.emit, checkpoint=made.save)
    if checkpoint is not None:
        np.random.randn(3)
        random.gauss(0, 1)
        training.load_state_dict(decode(checkpoint))
    made.result = without_times(training.run())
    made.state = without_times(training.state_dict())
    return made


def resumed(config: RunConfig, whole: Trained) -> Iterator[tuple[int, Trained, list[Any]]]:
    """From each checkpoint: the step, what becomes of it, and the events that must come."""
    for content, before in whole.saved:
        yield decode(content)["progress"]["step"], train(config, content), whole.events[before:]
