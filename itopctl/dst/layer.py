"""A weight of which some entries are active: what the engine and the rules know of it, however it is kept in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.explored_set import ExploredSet, count_bits, pack_bits, unpack_bits
from itopctl.dst.optimizers import Optimizers
from itopctl.dst.random_streams import keyed_generator
from itopctl.dst.top_k import distinct

_SHUFFLED = 2**26  # weights of a layer up to which all positions are shuffled to draw the first active ones


class Layer(ABC):
    """A weight with its topology.

    Attributes:
        index: of the layer in its model; with the seed, it determines what is drawn for it.
        name: of the weight.
        parameter: the parameter that is the weight, or that has it as some of its rows.
        shape, size: of the weight, zeros included.
        active_count: number of weights that are active, always.
        dropped: weights dropped by all topology updates so far; one that is dropped again counts again.
        explored: the weights that were ever active.
        times_active: flat int32 tensor, at how many topologies (the initial one is the first) each weight was
            active; None where no rule counts them.
    """

    explored: ExploredSet

    def __init__(
        self, index: int, name: str, parameter: nn.Parameter, shape: tuple[int, ...], active_count: int, counted: bool
    ) -> None:
        self.index = index
        self.name = name
        self.parameter = parameter
        self.shape = shape
        self.size = torch.Size(shape).numel()
        self.active_count = active_count
        self.dropped = 0
        self.times_active: Tensor | None = None
        if counted:
            self.times_active = torch.zeros(self.size, dtype=torch.int32, device=parameter.device)

    @property
    def weight(self) -> Tensor:
        """The weight, as it is kept: whole or its nonzeros alone."""
        return self.parameter

    @property
    def gradient_of_weight(self) -> Tensor | None:
        """What is in the parameter's `grad` of this weight."""
        return self.parameter.grad

    @property
    @abstractmethod
    def backend(self) -> str:
        """How the layer is computed."""

    @property
    @abstractmethod
    def active(self) -> Tensor:
        """Bool tensor of the weight's shape, True where active."""

    @abstractmethod
    def active_positions(self) -> Tensor:
        """Flat (row-major) positions of the active weights, ascending."""

    @abstractmethod
    def values(self, entries: Tensor | None) -> Tensor:
        """The weights at these flat positions; without any, all of them, flat, zeros included."""

    @property
    def row_blocks(self) -> list[tuple[int, int]]:
        """Rows, from and to, that are looked at at a time by what need not see the whole weight."""
        return [(0, self.shape[0])]

    def zeros(self) -> Tensor:
        """A dense tensor of the weight's shape and layout, all zero."""
        return torch.zeros(self.shape, dtype=self.weight.dtype, device=self.weight.device)

    @abstractmethod
    def joined(self, kept: Tensor, grown: Tensor) -> Tensor:
        """The topology of these flat positions, as `take` has it.

        Raises:
            AssertionError: a weight is in both.
        """

    @abstractmethod
    def counted(self, topology: Tensor) -> int:
        """How many weights are active in a topology."""

    @abstractmethod
    def take(self, topology: Tensor, optimizers: Optimizers) -> tuple[int, int]:
        """Become active where a topology says, and nowhere else; weight, gradient and optimizer state follow.

        What has grown starts at zero, whatever stood there, with the optimizer state of a new weight; a weight that
        was active before keeps its value and state.

        Returns:
            How many weights are active that were not before, and for the first time.
        """

    def bits(self) -> Tensor:
        """Which weights are active, as `pack_bits` has it."""
        return pack_bits(self.active)

    def start_over(self) -> None:
        """Forget all topologies but the present one."""
        self.explored = ExploredSet(self.size, self.bits())
        if self.times_active is not None:
            self.times_active.zero_()
            self.times_active[self.active_positions()] = 1

    def saved(self) -> dict[str, Any]:
        """Shape, mask and explored set as bits, how many weights were dropped, how many active ones are not zero, and
        counts where they are kept; nothing shared with this layer."""
        entry = {
            "shape": list(self.shape),
            "mask": self.bits().cpu(),
            "explored": self.explored.bits.clone().cpu(),
            "dropped": self.dropped,
            "nonzeros": int(torch.count_nonzero(self.values(self.active_positions()))),
        }
        if self.times_active is not None:
            entry["times_active"] = self.times_active.clone().cpu()
        return entry

    def check_saved(self, entry: dict[str, Any]) -> None:
        """Raise ValueError unless `saved` gave this entry for a layer like this one."""
        missing = {"shape", "mask", "explored"} - set(entry)
        if missing:
            raise ValueError(f"{self.name}: the saved state lacks {', '.join(sorted(missing))}")
        if entry["shape"] != list(self.shape):
            raise ValueError(f"{self.name}: saved shape {entry['shape']}, model's {list(self.shape)}")
        if not entry["mask"].numel() == entry["explored"].numel() == self.explored.bits.numel():
            raise ValueError(f"{self.name}: the saved mask or explored set is not of {self.size} weights")
        dropped = entry.get("dropped", 0)
        if not isinstance(dropped, int) or dropped < 0:
            raise ValueError(f"{self.name}: {dropped!r} is no number of dropped weights")
        if not isinstance(entry.get("nonzeros", 0), int):
            raise ValueError(f"{self.name}: {entry['nonzeros']!r} is no number of weights")
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
        """Become what `saved` gave; checked before. The weight has been loaded already."""
        device = self.parameter.device
        self._activate(unpack_bits(entry["mask"].to(device), self.size))
        self.explored.take_over(entry["explored"].to(device, copy=True))
        self.dropped = entry.get("dropped", 0)  # states of old have none
        if self.times_active is not None:
            self.times_active.copy_(entry["times_active"])

    @abstractmethod
    def _activate(self, active: Tensor) -> None:
        """Be active where a flat bool tensor says; weight and optimizer state are what they should be already."""


def drawn_positions(size: int, active_count: int, seed: int, index: int) -> Tensor:
    """Flat positions of a layer's first active weights, in no order.

    Drawn on the CPU, so that a training starts from the same network on every device. In very large layers by a draw
    whose time and memory grow with the active weights alone.
    """
    generator = keyed_generator(seed, index, 0)
    if size > _SHUFFLED:
        return distinct(size, active_count, generator)
    return torch.randperm(size, generator=generator, device="cpu")[:active_count]
