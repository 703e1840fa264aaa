"""A linear layer whose weight exists at its nonzeros alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.sparse.csr import Csr
from itopctl.dst.sparse.derivative import differentiable_once
from itopctl.dst.sparse.module import SparseModule
from itopctl.dst.sparse.positioned import for_kernels

_BLOCK = 2**17  # weights whose dense gradient is made at a time


class SparseLinear(SparseModule, nn.Linear):
    """A linear layer that multiplies by the nonzeros of its weight alone.

    Made of an `nn.Linear` in place, by `compress`. Activations are laid out feature by feature, [features, batch] in
    memory, behind tensors of the usual shape: such layers pass them on to each other, through what works element by
    element, without a copy.

    Attributes:
        structure: where the nonzeros stand in the weight of shape [out_features, in_features].
    """

    structure: Csr
    _built = ("structure",)

    @property
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the weight, zeros included."""
        return self.out_features, self.in_features

    def _build(self, positions: Tensor) -> None:
        self.structure = Csr(positions, (self.out_features, self.in_features))

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-1] != self.in_features:
            raise RuntimeError(f"{self.in_features} features expected; the input has shape {tuple(input.shape)}")
        weight = self.follow()
        rows = input.to(weight.dtype).reshape(input.shape[:-1].numel(), self.in_features)
        output: Tensor = _Linear.apply(rows, weight, self.bias, self)
        return output if input.dim() == 2 else output.contiguous().view(*input.shape[:-1], self.out_features)

    def dense_gradient(self, input: Tensor, gradient: Tensor) -> Tensor:
        """∂L/∂w of all weights, zeros included, of the two that `watch` was told."""
        return gradient.t() @ input

    @property
    def row_blocks(self) -> list[tuple[int, int]]:
        rows = max(1, _BLOCK // self.in_features)
        return [(start, min(start + rows, self.out_features)) for start in range(0, self.out_features, rows)]

    def dense_gradient_of_rows(self, input: Tensor, gradient: Tensor, start: int, stop: int) -> Tensor:
        return gradient[:, start:stop].t() @ input


class _Linear(torch.autograd.Function):
    """input [batch, in], nonzeros [count], bias [out] or None → output [batch, out]."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, values: Tensor, bias: Tensor | None, layer: SparseLinear) -> Tensor:
        by_feature = input.t().contiguous()
        structure = ctx.structure = layer.structure
        ctx.layer = layer
        ctx.save_for_backward(by_feature, values)
        product = structure.by_rows.product(for_kernels(values), by_feature)
        if bias is not None:
            product += bias.unsqueeze(1)
        # The transpose, but no view: models change what a layer gives in place.
        return product.new_empty(0).set_(product.untyped_storage(), 0, product.shape[::-1], (1, product.shape[1]))

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, values = ctx.saved_tensors
        by_feature = gradient.t().contiguous()
        structure: Csr = ctx.structure
        of_input = (
            structure.by_columns.product(for_kernels(values), by_feature).t() if ctx.needs_input_grad[0] else None
        )
        of_values = structure.by_rows.sampled(by_feature, input) if ctx.needs_input_grad[1] else None
        of_bias = by_feature.sum(dim=1) if ctx.needs_input_grad[2] else None
        ctx.layer.tell(input.t(), by_feature.t(), not ctx.needs_input_grad[0])
        return of_input, of_values, of_bias, None
