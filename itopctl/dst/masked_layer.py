"""A weight that is kept whole, zeros included, under a mask."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from itopctl.dst.layer import Layer, drawn_positions, tensors_in
from itopctl.dst.masking import Masker
from itopctl.dst.select import positions


class MaskedLayer(Layer):
    """A weight with its mask; the initial one is drawn here.

    Attributes:
        keep: int8 tensor of the weight's shape and layout, -1 where active and 0 where the weight must be zero.

    Args:
        index: of the layer in its model; with the seed, it determines the draw.
        name: of the parameter.
        weight: any shape.
        active_count: in [1, number of weights).
        seed: of the training.
        counted: whether `times_active` is kept.
        masker: applies the mask.
    """

    def __init__(
        self,
        index: int,
        name: str,
        weight: nn.Parameter,
        active_count: int,
        seed: int,
        counted: bool = False,
        masker: Masker | None = None,
    ) -> None:
        super().__init__(index, name, weight, tuple(weight.shape), active_count, counted)
        self._masker = masker or Masker()
        flat = torch.zeros(self.size, dtype=torch.int8, device="cpu")
        flat[drawn_positions(self.size, active_count, seed, index)] = -1
        self.keep = torch.empty_like(weight, dtype=torch.int8, requires_grad=False)
        self.keep.copy_(flat.view(weight.shape))
        self.start_over()

    @property
    def backend(self) -> str:
        """How the layer is computed."""
        return "masked"

    @property
    def active(self) -> Tensor:
        """Bool tensor of the weight's shape, True where active."""
        return self.keep != 0

    def active_positions(self) -> Tensor:
        """Flat (row-major) positions of the active weights, ascending."""
        return positions(self.keep.reshape(-1) != 0)

    def values(self, entries: Tensor | None) -> Tensor:
        """The weights at these flat positions; without any, all of them, flat."""
        flat = self.weight.detach().reshape(-1)
        return flat if entries is None else flat[entries]

    def zeros(self) -> Tensor:
        """A tensor of the weight's shape and layout, all zero."""
        return torch.zeros_like(self.weight, requires_grad=False)

    def joined(self, kept: Tensor, grown: Tensor) -> Tensor:
        """A flat, row-major mask, int8 as `keep`."""
        keep = torch.zeros(self.size, dtype=torch.int8, device=self.weight.device)
        keep[kept] = -1
        if bool((keep[grown] != 0).any()):
            raise AssertionError(f"{self.name}: kept and grown weights overlap")
        keep[grown] = -1
        return keep

    def counted(self, topology: Tensor) -> int:
        """How many weights are active in a topology."""
        return int(torch.count_nonzero(topology))

    @torch.no_grad()
    def take(self, topology: Tensor, optimizer: torch.optim.Optimizer) -> tuple[int, int]:
        """Take over a flat mask. Also counts this topology, where topologies are counted."""
        moved = int(torch.count_nonzero(topology & ~self.keep.reshape(-1)))
        self.keep.copy_(topology.view(self.shape))
        flags = topology != 0
        new = self.explored.add(flags)
        if self.times_active is not None:
            self.times_active += flags
        self.active_count = self.counted(topology)
        self.mask(optimizer)
        return moved, new

    @torch.no_grad()
    def mask(self, optimizer: torch.optim.Optimizer) -> None:
        """Zero weights, gradient and every optimizer slot of the weight's shape, off the mask."""
        self._masker.mask_(self.weight, self.keep)
        if self.weight.grad is not None:
            self._masker.mask_(self.weight.grad, self.keep)
        for slot in tensors_in(optimizer.state.get(self.weight, {})):
            if slot.shape == self.weight.shape:
                self._masker.mask_(slot, self.keep)

    def _activate(self, active: Tensor) -> None:
        self.keep.copy_(active.to(torch.int8).neg_().view(self.shape))
        self.active_count = int(active.sum())
