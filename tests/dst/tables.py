"""Layers whose masks, weights and gradients are written by hand, so that an update can be checked with a pencil."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.dst.explored_set import pack_bits
from tests.dst.nets import set_by_hand


class Tables:
    """Layers "0", "1", …, each of 1×n or r×c weights written by hand; SGD, ζ constant, an update at every step.

    Args:
        method: its preset gives the rules; `settings` override it.
        masks, values: one list (or list of rows) a layer.
        momentum: of SGD.
        lr: of SGD.
    """

    def __init__(
        self, method: str, masks: list[list], values: list[list], momentum: float = 0.0, lr: float = 1.0, **settings
    ) -> None:
        active = [torch.tensor(mask).float() for mask in masks]
        active = [mask if mask.dim() == 2 else mask.unsqueeze(0) for mask in active]
        self.model = nn.ModuleList(nn.Linear(mask.shape[1], mask.shape[0], bias=False) for mask in active)
        self.weights = [layer.weight for layer in self.model]
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=lr, momentum=momentum)
        density = float(sum(mask.sum() for mask in active)) / sum(mask.numel() for mask in active)
        fixed = {str(index): float(mask.mean()) for index, mask in enumerate(active)}
        settings = {"drop_schedule": {"name": "constant"}, "update_interval": 1, "total_steps": 100, **settings}
        self.sparse = SparseTraining(
            self.model, self.optimizer, method, sparsity=1 - density, layer_density=fixed, **settings
        )
        self.masked = {layer.name for layer in self.sparse.layers() if layer.active < layer.size}
        for index, (mask, rows) in enumerate(zip(masks, values, strict=True)):
            if self.name(index) in self.masked:
                set_by_hand(self.sparse, self.weights[index], self.name(index), mask, rows)
                self.set_history(index, mask)
            else:
                self.set_values(index, rows)

    @staticmethod
    def name(index: int) -> str:
        return f"{index}.weight"

    def set_values(self, index: int, values: list) -> None:
        """Give a layer other weights."""
        with torch.no_grad():
            self.weights[index].copy_(torch.tensor(values).reshape(self.weights[index].shape))

    def set_history(self, index: int, times_active: list) -> None:
        """Say at how many topologies each weight of a layer was active; where it was at any, it is explored."""
        counts = torch.tensor(times_active, dtype=torch.int32).reshape(-1)
        state = self.sparse.state_dict()
        layer = state["layers"][self.name(index)]
        layer["explored"] = pack_bits(counts > 0)
        if "times_active" in layer:
            layer["times_active"] = counts
        self.sparse.load_state_dict(state)

    def step(self, *gradients: list):
        """A step of which the dense gradient of each layer is given."""
        self.optimizer.zero_grad()
        for weight, gradient in zip(self.weights, gradients, strict=True):
            (weight * torch.tensor(gradient, dtype=weight.dtype).reshape(weight.shape)).sum().backward()
        return self.sparse.step()

    @property
    def masks(self) -> list[list]:
        return [_rows(self.sparse.mask(self.name(index)).int()) for index in range(len(self.weights))]

    @property
    def all_values(self) -> list[list]:
        return [_rows(weight) for weight in self.weights]

    @property
    def counts(self) -> list[int]:
        return [layer.active for layer in self.sparse.layers()]

    def times_active(self, index: int) -> list[int]:
        return self.sparse.state_dict()["layers"][self.name(index)]["times_active"].tolist()


class Table(Tables):
    """The same with one layer."""

    def __init__(self, method: str, mask: list, values: list, momentum: float = 0.0, **settings) -> None:
        super().__init__(method, [mask], [values], momentum, **settings)
        self.layer = self.model[0]

    @property
    def mask(self) -> list:
        return self.masks[0]

    @property
    def values(self) -> list:
        return self.all_values[0]


def chi_square(found: Counter, expected: dict) -> float:
    """Of what was counted against what was expected, in cells that are all there are."""
    assert set(found) <= set(expected)
    return sum((found[cell] - count) ** 2 / count for cell, count in expected.items())


def _rows(tensor: torch.Tensor) -> list:
    rows = tensor.tolist()
    return rows[0] if len(rows) == 1 else rows
