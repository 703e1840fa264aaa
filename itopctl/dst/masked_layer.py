"""A weight with its mask and its explored set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.exploration import ExploredSet, pack_bits, unpack_bits
from itopctl.dst.keyed import keyed_generator


class MaskedLayer:
    """A weight with its mask; the initial one is drawn here.

    Attributes:
        inactive: bool tensor of the weight's shape and layout, True where the weight must be zero.
        active_count: number of weights that are active, always.
        explored: the weights that were ever active.

    Args:
        index: of the layer in its model; with the seed, it determines the draw.
        name: of the parameter.
        weight: any shape.
        active_count: in [1, number of weights).
        seed: of the training.
    """

    def __init__(self, index: int, name: str, weight: nn.Parameter, active_count: int, seed: int) -> None:
        self.index = index
        self.name = name
        self.weight = weight
        self.active_count = active_count
        # Drawn on the CPU, so that a training starts from the same network on every device.
        order = torch.randperm(weight.numel(), generator=keyed_generator(seed, index, 0))
        flat = torch.ones(weight.numel(), dtype=torch.bool)
        flat[order[:active_count]] = False
        self.inactive = torch.empty_like(weight, dtype=torch.bool, requires_grad=False)
        self.inactive.copy_(flat.view(weight.shape))
        self.explored = ExploredSet(~self.inactive)

    @property
    def active(self) -> Tensor:
        return ~self.inactive

    def set_active(self, active: Tensor) -> None:
        """Take over a mask, given flat, row-major."""
        self.inactive.copy_(~active.view(self.weight.shape))

    def saved(self) -> dict[str, Any]:
        """Shape, and mask and explored set as bits; nothing shared with this layer."""
        return {
            "shape": list(self.weight.shape),
            "mask": pack_bits(self.active).cpu(),
            "explored": self.explored.bits.clone().cpu(),
        }

    def check_saved(self, entry: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """The mask, flat, and a copy of the explored set that `saved` gave. Raises ValueError for another layer's."""
        size, device = self.weight.numel(), self.weight.device
        if entry["shape"] != list(self.weight.shape):
            raise ValueError(f"{self.name}: saved shape {entry['shape']}, model's {list(self.weight.shape)}")
        if not entry["mask"].numel() == entry["explored"].numel() == self.explored.bits.numel():
            raise ValueError(f"{self.name}: the saved mask or explored set is not of {size} weights")
        active = unpack_bits(entry["mask"].to(device), size)
        if int(active.sum()) != self.active_count:
            raise ValueError(f"{self.name}: {int(active.sum())} weights saved, {self.active_count} expected")
        return active, entry["explored"].to(device, copy=True)
