"""A training with sparse layers, and an average of whole weights to compare others with."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst import SparseParameter, SparseTraining

DECAY = 0.8
NAME = "0.weight"


class Training:
    """A short training whose topology moves at every second step, and what its network was after each step."""

    def __init__(self, **rules: Any) -> None:
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 9), nn.Linear(9, 3))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        settings: dict[str, Any] = {"method": "set-itop", "update_interval": 2, "drop_fraction": 0.5} | rules
        self.sparse = SparseTraining(
            self.model, self.optimizer, sparsity=0.7, total_steps=100, compute="sparse", **settings
        )
        self.steps_done = 0

    @property
    def weight(self) -> Any:
        return self.sparse.weight(NAME)

    def dense(self) -> dict[str, Tensor]:
        return dense_weights(self.model)

    def step(self) -> None:
        generator = torch.Generator().manual_seed(self.steps_done)
        images = torch.randn(8, 12, generator=generator)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(images), torch.arange(8) % 3).backward()
        self.sparse.step()
        self.steps_done += 1

    def steps(self, count: int) -> Iterator[int]:
        for index in range(count):
            self.step()
            yield index


def dense_weights(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of a network, zeros included, however it is kept."""
    return {
        name: parameter.dense() if isinstance(parameter, SparseParameter) else parameter.detach().clone()
        for name, parameter in model.named_parameters()
    }


class Reference:
    """An average kept by hand of whole weights: zero off the present positions, since what is dropped is forgotten."""

    def __init__(self, decay: float | None) -> None:
        self.average: dict[str, Tensor] = {}
        self.decay, self.count = decay, 0

    def update(self, training: Training) -> None:
        share = 1 / (self.count + 1) if self.decay is None else 1 - self.decay
        for name, now in training.dense().items():
            mask = training.sparse.mask(name) if name in training.sparse.compressed else torch.ones_like(now).bool()
            before = self.average.get(name, now)
            self.average[name] = (before + share * (now - before)) * mask
        self.count += 1

    def assert_is(self, averaged: dict[str, Tensor]) -> None:
        for name, expected in self.average.items():
            torch.testing.assert_close(averaged[name], expected, msg=name)


def assert_computes(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """A network with sparse layers gives what a dense one with these weights does."""
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 9), nn.Linear(9, 3))
    dense.load_state_dict(weights, strict=False)
    dense[1].load_state_dict(network[1].state_dict())
    images = torch.randn(5, 12)
    torch.testing.assert_close(network.eval()(images), dense.eval()(images), atol=1e-5, rtol=1e-4)


def moved() -> tuple[Training, Tensor, nn.Module]:
    """A training, and what was kept of it before its topology moved: values of a weight, and a copy of the model."""
    training = Training()
    training.step()
    kept = training.weight.detach().clone(), copy.deepcopy(training.model)
    list(training.steps(3))
    return training, *kept


def saved(value: Any) -> Any:
    """What comes back of a file, without code of ours."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
