"""A linear layer whose weight exists at its nonzeros alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from itopctl.dst.sparse.csr import Csr

Watch = Callable[[nn.Module, Tensor, Tensor], None]
"""Told a layer, its input and the gradient of its output by every backward pass."""


class SparseLinear(nn.Linear):
    """A linear layer that multiplies by the nonzeros of its weight alone.

    Made of an `nn.Linear` in place, by `compress`. Its `weight` is one-dimensional then, the nonzeros in row-major
    order. Activations are laid out feature by feature, [features, batch] in memory, behind tensors of the usual shape:
    such layers pass them on to each other, through what works element by element, without a copy.

    Attributes:
        structure: where the nonzeros stand in the weight of shape [out_features, in_features].
    """

    structure: Csr
    _watch: weakref.WeakMethod[Any] | None = None

    @property
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the weight, zeros included."""
        return self.out_features, self.in_features

    def compress(self, positions: Tensor) -> None:
        """Have nonzeros at these flat positions, ascending. Their values, `weight`, are the caller's affair."""
        self.structure = Csr(positions, (self.out_features, self.in_features))

    def watch(self, watch: Watch | None) -> None:
        """Have a bound method told the input and the output's gradient of every backward pass; it is not kept alive."""
        self._watch = None if watch is None else weakref.WeakMethod(watch)

    def forward(self, input: Tensor) -> Tensor:
        rows = input.to(self.weight.dtype).reshape(-1, self.in_features)
        output: Tensor = _Linear.apply(rows, self.weight, self.bias, self)
        return output if input.dim() == 2 else output.reshape(*input.shape[:-1], self.out_features)

    def dense_gradient(self, input: Tensor, gradient: Tensor) -> Tensor:
        """∂L/∂w of all weights, zeros included, of the two that `watch` was told."""
        return gradient.t() @ input

    def __getstate__(self) -> dict[str, Any]:
        """Without who watches: a copy is somebody else's."""
        return {name: value for name, value in self.__dict__.items() if name != "_watch"}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        make_room(self.get_parameter("weight"), state_dict.get(f"{prefix}weight"))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def make_room(weight: nn.Parameter, values: Tensor | None) -> None:
    """Give a compressed weight the length of values to come: redistribution may have given the layer another one."""
    if isinstance(values, Tensor) and values.dim() == 1 and values.shape != weight.shape:
        replace(weight, weight.detach().new_zeros(values.shape))


def replace(weight: nn.Parameter, values: Tensor) -> None:
    """Give a parameter other values, of whatever shape; it has no gradient then."""
    weight.grad = None
    if values.shape != weight.shape:
        # What adds up its gradient expects the old shape for as long as some graph holds on to it. It is made anew
        # where the type of the values changes.
        other = torch.float64 if weight.dtype != torch.float64 else torch.float32
        weight.data = torch.empty(0, dtype=other, device=weight.device)
    weight.data = values


def tell(layer: Any, input: Tensor, gradient: Tensor) -> None:
    """Tell a layer's watch of a backward pass."""
    watch = None if layer._watch is None else layer._watch()
    if watch is not None:
        watch(layer, input, gradient)


class _Linear(torch.autograd.Function):
    """input [batch, in], nonzeros [count], bias [out] or None → output [batch, out]."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, values: Tensor, bias: Tensor | None, layer: SparseLinear) -> Tensor:
        by_feature = input.t().contiguous()
        structure = ctx.structure = layer.structure
        ctx.layer = layer
        ctx.save_for_backward(by_feature, values)
        product = structure.by_rows.product(values, by_feature)
        if bias is not None:
            product += bias.unsqueeze(1)
        # The transpose, but no view: models change what a layer gives in place.
        return product.new_empty(0).set_(product.untyped_storage(), 0, product.shape[::-1], (1, product.shape[1]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, values = ctx.saved_tensors
        by_feature = gradient.t().contiguous()
        structure: Csr = ctx.structure
        of_input = structure.by_columns.product(values, by_feature).t() if ctx.needs_input_grad[0] else None
        of_values = structure.by_rows.sampled(by_feature, input) if ctx.needs_input_grad[1] else None
        of_bias = by_feature.sum(dim=1) if ctx.needs_input_grad[2] else None
        tell(ctx.layer, input.t(), by_feature.t())
        return of_input, of_values, of_bias, None
