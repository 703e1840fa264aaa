"""Values of a sparse weight that know where in the weight they stand, so that values of two topologies never mix.

What is known here; what an operation on such values does is decided in `itopctl.dst.sparse.meeting`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function_unary

from itopctl.dst.top_k import located
from itopctl.errors import UserError

without_positions = torch._C.DisableTorchFunctionSubclass
"""Context in which operations take positioned values for ordinary tensors."""


class Origin:
    """The weight that values were taken of, as far as they need to know it.

    Attributes:
        shape: of the weight, zeros included.
        positions: where its nonzeros stand now.
        moved: whether they have ever stood elsewhere.
        trained: whether a training in this process moves them; not after unpickling.
        family: the same object for the weight and for that of a copy of its training.
    """

    def __init__(self, shape: tuple[int, ...], positions: Tensor, moved: bool = False, family: object = None) -> None:
        self.shape, self.positions, self.moved, self.trained = shape, positions, moved, True
        self.family = object() if family is None else family

    def __deepcopy__(self, memo: Any) -> Origin:
        return self  # a copy of a weight comes from the same training

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "trained": False}


class Positioned:
    """A one-dimensional tensor of values, the nonzeros of a weight, that stand at known positions of it.

    Attributes:
        positions: flat row-major positions, int64, ascending; never changed in place.
        origin: the weight that the values were taken of.
        owner: the positioned tensor whose memory this one shares, if so.
    """

    positions: Tensor
    origin: Origin
    owner: Positioned | None

    @property
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the weight, zeros included."""
        return self.origin.shape

    @property
    def trained(self) -> bool:
        """Whether a training changes the values and moves the positions: not of a copy."""
        return False

    @property
    def root(self) -> Positioned:
        """Whose memory it is."""
        return self if self.owner is None else self.owner

    def place(self, positions: Tensor, origin: Origin, owner: Positioned | None = None) -> None:
        """Say where the values stand."""
        self.positions, self.origin, self.owner = positions, origin, owner

    def dense(self) -> Tensor:
        """The weight, zeros included, as an ordinary tensor."""
        values = plain(self).detach()
        whole = values.new_zeros(torch.Size(self.dense_shape).numel())
        whole[self.positions.to(values.device)] = values
        return whole.view(self.dense_shape)

    def check_current(self) -> None:
        """Raise UserError for a view of memory that its owner has left since: which values are meant is not known."""
        if self.owner is not None and _address(self.owner) != _address(self):
            if not same(self.owner.positions, self.positions):
                raise UserError(
                    "a tensor taken of a sparse layer's weight by .data, detach() or state_dict() was used after the "
                    "layer's topology had changed; take it anew, or take a clone() to keep values."
                )
            self.owner = None


def plain(values: Any) -> Tensor:
    """An ordinary tensor that shares the memory."""
    if type(values) is Tensor:
        return values
    with without_positions():
        ordinary: Tensor = Tensor.as_subclass(values, Tensor)
        return ordinary


def _address(values: Any) -> int:
    with without_positions():
        address: int = Tensor.data_ptr(values)
        return address


def for_kernels(values: Tensor) -> Tensor:
    """The tensor, or an ordinary one where functions of `torch` would ask it for its positions."""
    return plain(values) if has_torch_function_unary(values) else values


def same(positions: Tensor, others: Tensor) -> bool:
    """Whether positions are the same; at once where they are the same tensor."""
    if positions is others:
        return True
    return positions.shape == others.shape and torch.equal(positions, others.to(positions.device))


def aligned(values: Positioned, positions: Tensor) -> Tensor:
    """The weight's values at other positions: zero where there is no nonzero."""
    tensor = plain(values)
    if not tensor.numel():
        return tensor.new_zeros(positions.shape)
    found, there = located(positions.to(tensor.device), values.positions.to(tensor.device))
    return torch.where(there, tensor[found], tensor.new_zeros(()))


def replace(holder: Any, values: Tensor) -> None:
    """Give a tensor other values, of whatever shape, in new memory; a parameter has no gradient then."""
    with without_positions():
        data: Any = Tensor.data
        if isinstance(holder, nn.Parameter):
            holder.grad = None
            if values.shape != holder.shape:
                # What adds up its gradient expects the old shape for as long as some graph holds on to it. It is made
                # anew where the type of the values changes.
                other = torch.float64 if holder.dtype != torch.float64 else torch.float32
                data.__set__(holder, torch.empty(0, dtype=other, device=holder.device))
        data.__set__(holder, plain(values))


def move(target: Positioned, positions: Tensor, origin: Origin) -> None:
    """Have a copy's values stand at other positions: those that it has there, and zeros; in new memory."""
    root = target.root
    with torch.inference_mode(False):  # what is made in this mode could not be changed outside of it
        values = aligned(root, positions).detach()
    replace(root, values)
    root.place(positions, origin)
    if target is not root:
        replace(target, values)
        target.place(positions, origin, root)
