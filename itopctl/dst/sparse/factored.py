"""The dense gradient of a sparse layer, not multiplied out."""

from __future__ import annotations

import torch
from torch import Tensor

from itopctl.dst.sparse.module import SparseModule

_SURELY_FINITE = 1e38


class FactoredGradient:
    """The dense gradient of a layer as what it is made of: the input, and the gradient of the output.

    It is multiplied out where it is read, and not kept: one layer's dense gradient is in memory at a time. Only where
    several backward passes add up to it, it is kept, since what they are made of could be larger.

    Args:
        module: the layer.
    """

    def __init__(self, module: SparseModule) -> None:
        self._module = module
        self._factors: tuple[Tensor, Tensor] | None = None
        self._total: Tensor | None = None
        self._active: Tensor | None = None

    def add(self, input: Tensor, gradient: Tensor) -> None:
        """Add what a backward pass brings."""
        if self._factors is None and self._total is None:
            self._factors = (input, gradient)
            return
        with torch.autocast(input.device.type, enabled=False):
            if self._factors is not None:
                self._total, self._factors = self._module.dense_gradient(*self._factors), None
            assert self._total is not None
            self._total += self._module.dense_gradient(input, gradient)

    def set_active(self, values: Tensor) -> None:
        """Say what the gradient is at the nonzeros: the loss may depend on these otherwise, too, by a penalty."""
        self._active = values

    def dense(self) -> Tensor:
        """∂L/∂w of all weights, in the weight's shape; the caller's own."""
        return self.rows(0, self._module.dense_shape[0])

    def rows(self, start: int, stop: int) -> Tensor:
        """∂L/∂w of some rows of the weight (slices along its first dimension), [rows, …]; the caller's own."""
        module = self._module
        if self._factors is not None:
            with torch.autocast(self._factors[0].device.type, enabled=False):  # the step may be made inside of it
                rows = module.dense_gradient_of_rows(*self._factors, start, stop)
        elif self._total is not None:
            rows = self._total[start:stop].clone()
        else:
            weight = module.get_parameter("weight")
            rows = torch.zeros(stop - start, *module.dense_shape[1:], dtype=weight.dtype, device=weight.device)
        if self._active is None:
            return rows
        flat = rows.contiguous().view(-1)
        first = start * torch.Size(module.dense_shape[1:]).numel()
        ends = torch.tensor([first, first + flat.numel()], device=flat.device)
        low, high = torch.searchsorted(module.positions, ends).tolist()
        flat[module.positions[low:high] - first] = self._active[low:high]
        return flat.view(rows.shape)

    def active_values(self) -> Tensor:
        """What it is at the nonzeros."""
        if self._active is not None:
            return self._active
        module, width = self._module, torch.Size(self._module.dense_shape[1:]).numel()
        parts = []
        for start, stop in module.row_blocks:
            ends = torch.tensor([start * width, stop * width], device=module.positions.device)
            low, high = torch.searchsorted(module.positions, ends).tolist()
            flat = self.rows(start, stop).reshape(-1)
            parts.append(flat[module.positions[low:high] - start * width])
        return torch.cat(parts)

    def finite(self) -> bool:
        """Whether every entry is finite; most often without multiplying out."""
        if self._factors is not None:
            input, gradient = self._factors
            largest = 0.0
            if input.numel() and gradient.numel():
                largest = float(input.abs().max()) * float(gradient.abs().max()) * gradient.numel()
            if largest < _SURELY_FINITE and (self._active is None or bool(self._active.isfinite().all())):
                return True
        return bool(self.dense().isfinite().all())
