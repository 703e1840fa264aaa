"""The weight of a sparse layer: a parameter that knows where its values stand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.sparse.meeting import computed, data_of, put
from itopctl.dst.sparse.positioned import Origin, Positioned, plain, same


class SparseParameter(Positioned, nn.Parameter):
    """The weight of a sparse layer: its nonzeros, and the positions where they stand.

    What is taken of it (`detach()`, `clone()`, `data`, `state_dict()`, arithmetic, `copy.deepcopy`) keeps the
    positions, which move with the topology while the shape stays. So values of two topologies do not mix: an average
    follows the positions, and what cannot be right raises UserError (`itopctl.dst.sparse.meeting` has the rules).

    Four things cannot be noticed. Arithmetic in place with ordinary tensors (`weight.lerp_(tensor)`) may be meant; in
    the others PyTorch runs no Python code of ours:

    - Functions of `torch` that are given the trained weight itself (`torch.clone(weight)`, `torch.zeros_like(weight)`,
      `torch.lerp(weight, …)`, `tensor.add_(weight)`) make ordinary tensors. Copying such a tensor back into a weight
      whose topology has moved is refused, and so is a forward pass with it in the weight's place.
    - Functions of lists of trained weights and ordinary tensors alone (`torch._foreach_copy_(weights, tensors)`).
    - Writes by NumPy or through a raw pointer.
    """

    @property
    def trained(self) -> bool:
        """Whether a training changes the values and moves the positions: not of a copy."""
        return type(self) is SparseParameter

    def stand_at(self, positions: Tensor) -> None:
        """Say that the values stand elsewhere from now on; those who hold copies are not concerned."""
        if same(self.positions, positions):
            return
        self.positions = positions
        if self.trained:
            self.origin.positions, self.origin.moved = positions, True

    def become_trained(self) -> None:
        """Be the weight of a training of its own, which was copied or unpickled with its layer."""
        old = self.origin
        self.__class__ = SparseParameter
        self.place(self.positions, Origin(old.shape, self.positions, old.moved, old.family))

    @property
    def data(self) -> Tensor:
        return data_of(self)

    @data.setter
    def data(self, values: Tensor) -> None:
        put(self, values)

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Parameter:
        if id(self) not in memo:
            values = plain(self).detach().clone(memory_format=torch.preserve_format)
            memo[id(self)] = _copied(values, self.requires_grad, self.positions, self.origin)
        made: nn.Parameter = memo[id(self)]
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _copied, (plain(self).detach(), self.requires_grad, self.positions, self.origin)


class _CopiedParameter(SparseParameter):
    """The weight of a copy of a sparse layer: nothing moves it but what is written into it."""

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, arguments: Sequence[Any] = (), options: Any = None
    ) -> Any:
        return computed(function, arguments, options or {})


def as_sparse_parameter(weight: nn.Parameter, positions: Tensor, shape: tuple[int, ...]) -> None:
    """Make a parameter the trained weight of a sparse layer, in place; it holds its nonzeros already."""
    weight.__class__ = SparseParameter
    assert isinstance(weight, SparseParameter)
    weight.place(positions, Origin(shape, positions))


def _copied(values: Tensor, requires_grad: bool, positions: Tensor, origin: Origin) -> nn.Parameter:
    copied = _CopiedParameter(values, requires_grad)
    copied.place(positions, origin)
    return copied


# A trained weight pays nothing for what it knows: PyTorch treats it as any other parameter, and functions of `torch`
# ask it nothing. These methods of it look at their arguments, since there values can meet.
_CHANGING = (
    "add_", "sub_", "subtract_", "mul_", "multiply_", "div_", "divide_", "true_divide_", "lerp_", "addcmul_",
    "addcdiv_", "pow_", "__iadd__", "__isub__", "__imul__", "__itruediv__",
)  # fmt: skip
_KEEPING = (
    "detach", "clone", "to", "cpu", "cuda", "type", "float", "double", "half", "bfloat16", "contiguous", "view",
    "view_as", "reshape", "reshape_as", "flatten", "ravel", "add", "sub", "subtract", "mul", "multiply", "div",
    "divide", "true_divide", "lerp", "addcmul", "addcdiv", "pow", "square", "sqrt", "abs", "neg", "sign", "exp",
    "clamp", "clip", "maximum", "minimum", "where", "dot", "__add__", "__radd__", "__sub__", "__rsub__", "__mul__",
    "__rmul__", "__truediv__", "__rtruediv__", "__pow__", "__neg__", "__setitem__", "copy_", "set_",
)  # fmt: skip


def _looking(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def method(self: SparseParameter, *arguments: Any, **options: Any) -> Any:
        for value in arguments:
            if isinstance(value, Positioned):
                return computed(original, (self, *arguments), options)
        return original(self, *arguments, **options)

    return method


def _keeping(name: str) -> Callable[..., Any]:
    original = getattr(Tensor, name)

    def method(self: SparseParameter, *arguments: Any, **options: Any) -> Any:
        return computed(original, (self, *arguments), options)

    return method


for _name in _CHANGING:
    setattr(SparseParameter, _name, _looking(_name))
for _name in _KEEPING:
    setattr(SparseParameter, _name, _keeping(_name))

# Optimizers take their batched loops by default for parameters of exactly the types in this list.
_types = getattr(import_module("torch.optim.optimizer"), "_foreach_supported_types", None)
if isinstance(_types, list) and SparseParameter not in _types:
    _types.append(SparseParameter)
