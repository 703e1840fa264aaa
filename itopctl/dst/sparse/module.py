"""What sparse layers have in common: nonzeros for a weight, where they stand, and somebody who is told of passes."""

from __future__ import annotations

import weakref
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Watch = Callable[[Tensor, Tensor, bool], None]
"""Told by every backward pass: the input of a layer, the gradient of its output, and whether the input may be changed
later by its owner, as a buffer of images may."""


class SparseModule(nn.Module):
    """A layer whose `weight` is one-dimensional: its nonzeros, in row-major order.

    Its state has `positions` beside `weight`: values alone would be wrong at another topology.

    Attributes:
        positions: flat row-major positions of the nonzeros, int64, ascending.
    """

    positions: Tensor
    _watch: weakref.WeakMethod[Any] | None = None

    @property
    @abstractmethod
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the weight, zeros included."""

    @abstractmethod
    def dense_gradient(self, input: Tensor, gradient: Tensor) -> Tensor:
        """∂L/∂w of all weights, zeros included, of the two that `watch` was told."""

    @property
    def row_blocks(self) -> list[tuple[int, int]]:
        """Rows of the weight (slices along its first dimension), from and to, of which a dense gradient is made at a
        time where no more is needed: a few megabytes."""
        return [(0, self.dense_shape[0])]

    def dense_gradient_of_rows(self, input: Tensor, gradient: Tensor, start: int, stop: int) -> Tensor:
        """`dense_gradient` of some rows of the weight."""
        return self.dense_gradient(input, gradient)[start:stop]

    def compress(self, positions: Tensor) -> None:
        """Have nonzeros at these flat positions, ascending. Their values, `weight`, are the caller's affair."""
        self.positions = positions

    def watch(self, watch: Watch | None) -> None:
        """Have a bound method told of every backward pass; it is not kept alive."""
        self._watch = None if watch is None else weakref.WeakMethod(watch)

    def tell(self, input: Tensor, gradient: Tensor, changeable: bool) -> None:
        """Tell of a backward pass."""
        watch = None if self._watch is None else self._watch()
        if watch is not None:
            watch(input, gradient, changeable)

    def __getstate__(self) -> dict[str, Any]:
        """Without who watches: a copy is somebody else's."""
        return {name: value for name, value in self.__dict__.items() if name != "_watch"}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}positions"] = self.positions

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        weight, values = self.get_parameter("weight"), state_dict.get(f"{prefix}weight")
        positions = state_dict.pop(f"{prefix}positions", None)
        if isinstance(values, Tensor) and values.dim() == 1 and values.shape != weight.shape:
            replace(weight, weight.detach().new_zeros(values.shape))  # redistribution gives a layer more or fewer
        super()._load_from_state_dict(state_dict, prefix, *rest)
        if positions is not None and not torch.equal(positions.to(weight.device), self.positions):
            self.compress(positions.to(weight.device))


def structure_names(model: nn.Module) -> frozenset[str]:
    """Names, in a model's state, of what says where nonzeros stand."""
    modules = model.named_modules(remove_duplicate=False)
    return frozenset(f"{name}.positions".lstrip(".") for name, module in modules if isinstance(module, SparseModule))


def replace(weight: nn.Parameter, values: Tensor) -> None:
    """Give a parameter other values, of whatever shape; it has no gradient then."""
    weight.grad = None
    if values.shape != weight.shape:
        # What adds up its gradient expects the old shape for as long as some graph holds on to it. It is made anew
        # where the type of the values changes.
        other = torch.float64 if weight.dtype != torch.float64 else torch.float32
        weight.data = torch.empty(0, dtype=other, device=weight.device)
    weight.data = values
