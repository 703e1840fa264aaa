"""A weight with its mask and its explored set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.exploration import ExploredSet, count_bits, pack_bits, unpack_bits
from itopctl.dst.keyed import keyed_generator
from itopctl.dst.select import positions


class MaskedLayer:
    """A weight with its mask; the initial one is drawn here.

    Attributes:
        dropped: weights dropped by all topology updates so far; one that is dropped again counts again.
        keep: int8 tensor of the weight's shape and layout, -1 where active and 0 where the weight must be zero.
        active_count: number of weights that are active, always.
        explored: the weights that were ever active.
        times_active: flat int32 tensor, at how many topologies (the initial one is the first) each weight was
            active; None where no rule counts them.

    Args:
        index: of the layer in its model; with the seed, it determines the draw.
        name: of the parameter.
        weight: any shape.
        active_count: in [1, number of weights).
        seed: of the training.
        counted: whether `times_active` is kept.
    """

    def __init__(
        self, index: int, name: str, weight: nn.Parameter, active_count: int, seed: int, counted: bool = False
    ) -> None:
        self.index = index
        self.name = name
        self.weight = weight
        self.active_count = active_count
        self.dropped = 0
        # Drawn on the CPU, so that a training starts from the same network on every device.
        order = torch.randperm(weight.numel(), generator=keyed_generator(seed, index, 0), device="cpu")
        flat = torch.zeros(weight.numel(), dtype=torch.int8, device="cpu")
        flat[order[:active_count]] = -1
        self.keep = torch.empty_like(weight, dtype=torch.int8, requires_grad=False)
        self.keep.copy_(flat.view(weight.shape))
        self.times_active: Tensor | None = None
        if counted:
            self.times_active = torch.zeros(weight.numel(), dtype=torch.int32, device=weight.device)
        self.start_over()

    @property
    def size(self) -> int:
        return self.weight.numel()

    @property
    def active(self) -> Tensor:
        """Bool tensor of the weight's shape, True where active."""
        return self.keep != 0

    def active_positions(self) -> Tensor:
        """Flat (row-major) positions of the active weights, ascending."""
        return positions(self.keep.reshape(-1) != 0)

    def set_active(self, active: Tensor) -> int:
        """Take over a mask, flat and row-major, int8 as `keep`; returns how many weights are active for the first time.

        Also counts this topology, where topologies are counted.
        """
        self.keep.copy_(active.view(self.weight.shape))
        flags = active != 0
        new = self.explored.add(flags)
        if self.times_active is not None:
            self.times_active += flags
        self.active_count = int(torch.count_nonzero(active))
        return new

    def start_over(self) -> None:
        """Forget all topologies but the present one."""
        flags = self.active.reshape(-1)
        self.explored = ExploredSet(flags)
        if self.times_active is not None:
            self.times_active.copy_(flags)

    def saved(self) -> dict[str, Any]:
        """Shape, mask and explored set as bits, and counts where they are kept; nothing shared with this layer."""
        entry = {
            "shape": list(self.weight.shape),
            "mask": pack_bits(self.active).cpu(),
            "explored": self.explored.bits.clone().cpu(),
            "dropped": self.dropped,
        }
        if self.times_active is not None:
            entry["times_active"] = self.times_active.clone().cpu()
        return entry

    def check_saved(self, entry: dict[str, Any]) -> None:
        """Raise ValueError unless `saved` gave this entry for a layer like this one."""
        missing = {"shape", "mask", "explored"} - set(entry)
        if missing:
            raise ValueError(f"{self.name}: the saved state lacks {', '.join(sorted(missing))}")
        if entry["shape"] != list(self.weight.shape):
            raise ValueError(f"{self.name}: saved shape {entry['shape']}, model's {list(self.weight.shape)}")
        if not entry["mask"].numel() == entry["explored"].numel() == self.explored.bits.numel():
            raise ValueError(f"{self.name}: the saved mask or explored set is not of {self.size} weights")
        dropped = entry.get("dropped", 0)
        if not isinstance(dropped, int) or dropped < 0:
            raise ValueError(f"{self.name}: {dropped!r} is no number of dropped weights")
        counts = entry.get("times_active")
        if (counts is None) != (self.times_active is None) or (counts is not None and counts.numel() != self.size):
            raise ValueError(f"{self.name}: how often weights were active is not saved as this method needs it")
        if bool((entry["mask"] & ~entry["explored"]).any()):
            raise ValueError(f"{self.name}: an active weight is saved as never explored")

    @staticmethod
    def saved_count(entry: dict[str, Any]) -> int:
        """How many weights are active in what `saved` gave."""
        return count_bits(entry["mask"])

    def take_over(self, entry: dict[str, Any]) -> None:
        """Become what `saved` gave; checked before."""
        device = self.weight.device
        active = unpack_bits(entry["mask"].to(device), self.size)
        self.keep.copy_(active.to(torch.int8).neg_().view(self.weight.shape))
        self.active_count = int(active.sum())
        self.explored.take_over(entry["explored"].to(device, copy=True))
        self.dropped = entry.get("dropped", 0)  # states of old have none
        if self.times_active is not None:
            self.times_active.copy_(entry["times_active"])
