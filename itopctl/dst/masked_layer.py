"""A weight that is kept whole, zeros included, under a mask."""

from __future__ import annotations

import torch
from torch import Tensor

from itopctl.dst.layer import Layer, drawn_positions
from itopctl.dst.maskable import Maskable
from itopctl.dst.masking import Masker
from itopctl.dst.optimizers import Optimizers
from itopctl.dst.top_k import positions


class MaskedParameter:
    """A parameter under a mask; the layers that are blocks of it share the mask.

    Attributes:
        name: of the parameter.
        parameter: the parameter.
        module, attribute: where it lies.
        keep: int8 tensor of its shape and layout, -1 where active and 0 where it must be zero.

    Args:
        weight: it, or one of its blocks.
        masker: applies the mask.
    """

    def __init__(self, weight: Maskable, masker: Masker) -> None:
        self.name = weight.parameter_name
        self.module, self.attribute = weight.module, weight.attribute
        self.parameter = weight.parameter
        self.keep = torch.full_like(self.parameter, -1, dtype=torch.int8, requires_grad=False)
        self._masker = masker

    def mask_gradient(self, gradient: Tensor) -> None:
        """Zero a gradient of it off the mask."""
        self._masker.mask_(gradient, self.keep)

    def mask_weight(self) -> None:
        """Zero it off the mask."""
        self._masker.mask_(self.parameter, self.keep)

    def mask(self, optimizers: Optimizers) -> None:
        """Zero it, and its gradient, off the mask; optimizer state there is that of a new weight."""
        self.mask_part(None, self.keep, optimizers)

    def mask_part(self, rows: tuple[int, int] | None, keep: Tensor, optimizers: Optimizers) -> None:
        """`mask` some of its rows, by a mask of these rows alone.

        Args:
            rows: from and to; None for all.
            keep: as `self.keep`, of these rows.
            optimizers: that train it.
        """
        self._masker.mask_(_rows(self.parameter.detach(), rows), keep)
        if self.parameter.grad is not None:
            self._masker.mask_(_rows(self.parameter.grad, rows), keep)
        self._mask_state(rows, keep, optimizers)

    def mask_state(self, optimizers: Optimizers) -> None:
        """Off the mask, make its optimizer state that of a new weight."""
        self._mask_state(None, self.keep, optimizers)

    def _mask_state(self, rows: tuple[int, int] | None, keep: Tensor, optimizers: Optimizers) -> None:
        for slot, fresh in optimizers.state_of(self.parameter):
            if slot.shape != self.parameter.shape:
                continue
            if fresh == 0:
                self._masker.mask_(_rows(slot, rows), keep)
            else:
                _rows(slot, rows).masked_fill_(keep == 0, fresh)


class MaskedLayer(Layer):
    """A weight with its mask; the initial one is drawn here.

    Args:
        index: of the layer in its model; with the seed, it determines the draw.
        weight: which it is.
        active_count: in [1, number of weights).
        seed: of the training.
        counted: whether `times_active` is kept.
        home: the parameter that it is, or is a block of; made here by default.
    """

    def __init__(
        self,
        index: int,
        weight: Maskable,
        active_count: int,
        seed: int,
        counted: bool = False,
        home: MaskedParameter | None = None,
    ) -> None:
        super().__init__(index, weight.name, weight.parameter, weight.shape, active_count, counted)
        self.home, self._rows = home or MaskedParameter(weight, Masker()), weight.rows
        flat = torch.zeros(self.size, dtype=torch.int8, device="cpu")
        flat[drawn_positions(self.size, active_count, seed, index)] = -1
        self.keep.copy_(flat.view(self.shape))
        self.start_over()

    @property
    def weight(self) -> Tensor:
        """The weight: the parameter, or its rows."""
        return _rows(self.parameter, self._rows)

    @property
    def gradient_of_weight(self) -> Tensor | None:
        """The weight's part of the parameter's gradient."""
        gradient = self.parameter.grad
        return None if gradient is None else _rows(gradient, self._rows)

    @property
    def keep(self) -> Tensor:
        """int8 tensor of the weight's shape and layout, -1 where active and 0 where the weight must be zero."""
        return _rows(self.home.keep, self._rows)

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
        keep = torch.zeros(self.size, dtype=torch.int8, device=self.parameter.device)
        keep[kept] = -1
        if bool((keep[grown] != 0).any()):
            raise AssertionError(f"{self.name}: kept and grown weights overlap")
        keep[grown] = -1
        return keep

    def counted(self, topology: Tensor) -> int:
        """How many weights are active in a topology."""
        return int(torch.count_nonzero(topology))

    def begin(self, topology: Tensor) -> None:
        """Begin with a flat mask, rather than the drawn one; the caller masks the parameter."""
        self._activate(topology != 0)
        self.start_over()

    @torch.no_grad()
    def take(self, topology: Tensor, optimizers: Optimizers) -> tuple[int, int]:
        """Take over a flat mask. Also counts this topology, where topologies are counted."""
        keep, wanted = self.keep, topology.view(self.shape)
        moved = int(torch.count_nonzero(wanted & ~keep))
        stay = keep.clone().bitwise_and_(wanted)  # what is neither dropped nor grown keeps its value and state
        keep.copy_(wanted)
        self.home.mask_part(self._rows, stay, optimizers)
        flags = topology != 0
        new = self.explored.add(flags)
        if self.times_active is not None:
            self.times_active += flags
        self.active_count = self.counted(topology)
        return moved, new

    def _activate(self, active: Tensor) -> None:
        self.keep.copy_(active.to(torch.int8).neg_().view(self.shape))
        self.active_count = int(active.sum())


def _rows(tensor: Tensor, rows: tuple[int, int] | None) -> Tensor:
    return tensor if rows is None else tensor[rows[0] : rows[1]]
