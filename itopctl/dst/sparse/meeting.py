"""What happens where values of a sparse weight meet in one operation, and stand at the positions of two topologies.

Values at the same positions: the operation as it is. At different ones:

- Out of place, every operand is taken at the positions of the weight that is trained now: zero where it has no value
  there, as the network had. Where none of the operands stands there, the operation is refused.
- In place, a copy moves to the positions of the trained weight first (with `copy_`, to those of its source), so that
  an average follows the topology. Into the trained weight, values of other positions are refused.
- Values without positions are refused where they are to replace those of a weight whose topology has moved; other
  changes by ordinary tensors (noise, clamping) are allowed.

So are views of a weight's memory that the weight has left. Results of the weight's size keep the positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from itopctl.dst.sparse.positioned import Origin, Positioned, aligned, move, plain, replace, same, without_positions
from itopctl.errors import UserError

_REORDERING = frozenset({
    "__getitem__", "sort", "msort", "argsort", "topk", "flip", "fliplr", "flipud", "roll", "cumsum", "cumprod",
    "cummax", "cummin", "logcumsumexp", "index_select", "take", "take_along_dim", "gather", "searchsorted",
    "bucketize", "unique", "multinomial",
})  # fmt: skip
"""Operations whose results may be of the weight's size, with other values at its places."""

_LIKE = frozenset({"view_as", "reshape_as", "expand_as", "type_as", "to"})
"""Operations that look at the shape or type of a second tensor alone."""

_COPYING = frozenset({"copy_", "set_", "__setitem__"})


class SparseValues(Positioned, Tensor):
    """Values of a sparse weight as `detach`, `clone`, `data` and operations give them, with where they stand.

    Saved by `torch.save` or pickled, they are an ordinary tensor.
    """

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, arguments: Sequence[Any] = (), options: Any = None
    ) -> Any:
        return computed(function, arguments, options or {})

    @property
    def data(self) -> Tensor:
        return data_of(self)

    @data.setter
    def data(self, values: Tensor) -> None:
        put(self, values)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = plain(self).detach().clone().requires_grad_(self.requires_grad)
            memo[id(self)] = positioned(copied, self.positions, self.origin)
        made: Tensor = memo[id(self)]
        return made

    def __reduce_ex__(self, protocol: Any) -> Any:
        return plain(self).detach().__reduce_ex__(protocol)


def positioned(values: Tensor, positions: Tensor, origin: Origin, owner: Positioned | None = None) -> Tensor:
    """An ordinary tensor, which nobody else holds, as values that stand at these positions."""
    values.__class__ = SparseValues
    assert isinstance(values, SparseValues)
    values.place(positions, origin, owner)
    return values


def data_of(holder: Any) -> Tensor:
    """`holder.data`, with its positions."""
    with without_positions():
        return positioned(Tensor.data.__get__(holder), holder.positions, holder.origin, holder.root)  # type: ignore[attr-defined]


def put(holder: Any, values: Tensor) -> None:
    """`holder.data = values`: values that stand elsewhere take a copy there, and are refused by a trained weight."""
    with without_positions():
        moves = values.shape != holder.shape
        if isinstance(values, Positioned):
            values.check_current()
            if not same(values.positions, holder.positions):
                _refuse_if_trained(holder)
                holder.place(values.positions, values.origin)
                moves = True
        elif not _check_unknown(holder, values):
            holder.__class__ = Tensor
        if not moves:
            Tensor.data.__set__(holder, plain(values))  # type: ignore[attr-defined]
        else:
            replace(holder, values)
        holder.owner = None  # it has other memory now


def computed(function: Callable[..., Any], arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The result of a PyTorch function of which some argument is positioned.

    Raises:
        UserError: values stand at different positions, and which are meant is not known.
    """
    name = function.__name__
    with without_positions():
        if name in ("__get__", "__set__", "__repr__", "__format__", "backward"):
            return function(*arguments, **options)
        if name.startswith("_foreach_"):
            return _each(function, name, arguments, options)
        if isinstance(options.get("out"), Tensor):
            target = options["out"]
            result = computed(function, arguments, {key: value for key, value in options.items() if key != "out"})
            return computed(Tensor.copy_, (target, result), {})
        target = arguments[0] if _in_place(name) else None
        if name in _LIKE and not isinstance(arguments[0], Positioned):
            return function(*arguments, **options)
        direct = [value for value in [*arguments, *options.values()] if isinstance(value, Positioned)]
        listed = [item for value in arguments if isinstance(value, (list, tuple)) for item in value]
        source = _source(name, arguments)
        meeting = _Meeting(target, direct, [item for item in listed if isinstance(item, Positioned)], source)
        named = {key: meeting.taken(value) for key, value in options.items()}
        result = function(*map(meeting.taken, arguments), **named)
        return meeting.stamped(result, name)


class _Meeting:
    """Operands of one operation, brought to the same positions; a target that is a copy is moved there.

    Args:
        target: what is changed in place, if so.
        direct: positioned operands that belong together, the target among them.
        listed: positioned items of a list, as `torch.cat` has: those of one weight belong together.
        source: what replaces the target's values, if the operation does that.
    """

    def __init__(self, target: Any, direct: Iterable[Any], listed: Iterable[Any], source: Tensor | None) -> None:
        self._operands = list(direct)
        self._aligned: dict[int, Tensor] = {}
        self._forgets = False
        self._stamp: tuple[Tensor, Origin] | None = None
        families: dict[int, list[Any]] = {0: self._operands} if self._operands else {}
        for item in listed:
            families.setdefault(id(item.origin.family), []).append(item)
        for operands in families.values():
            for operand in operands:
                operand.check_current()
            self._stamp = self._brought_together(target, operands, source)
        if len(families) > 1:
            self._stamp = None
        if source is not None and isinstance(target, Positioned) and not isinstance(source, Positioned):
            self._forgets = not _check_unknown(target, source)
        self._target = target

    def _brought_together(self, target: Any, operands: list[Any], source: Tensor | None) -> tuple[Tensor, Origin]:
        first = operands[0]
        if all(same(first.positions, other.positions) for other in operands):
            return first.positions, first.origin
        if isinstance(target, Positioned):
            _refuse_if_trained(target)
        if isinstance(source, Positioned):
            positions, origin = source.positions, source.origin
        else:
            positions, origin = _present(operands)
        if isinstance(target, Positioned) and not same(target.positions, positions):
            move(target, positions, origin)
        for operand in operands:
            if not same(operand.positions, positions):
                self._aligned[id(operand)] = aligned(operand, positions)
        return positions, origin

    def taken(self, argument: Any) -> Any:
        """An argument as the operation is to be given it."""
        if isinstance(argument, (list, tuple)) and self._aligned:
            return type(argument)(map(self.taken, argument)) if type(argument) in (list, tuple) else argument
        return self._aligned.get(id(argument), argument)

    def stamped(self, result: Any, name: str) -> Any:
        """A result, with its positions if it has the weight's size."""
        if type(result) in (list, tuple):
            return type(result)(self.stamped(part, name) for part in result)
        if self._forgets and result is self._target:
            for forgetful in (self._target.root, self._target):
                forgetful.__class__ = Tensor
            return result
        if self._stamp is None or type(result) is not Tensor or name in _REORDERING:
            return result
        positions, origin = self._stamp
        if result.shape != positions.shape or result.layout != torch.strided:
            return result
        owners = (operand.root for operand in self._operands if Tensor.data_ptr(operand) == result.data_ptr())
        return positioned(result, positions, origin, next(owners, None))


def _each(function: Callable[..., Any], name: str, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """The result of a function of lists, of which the first items belong together, the second, and so on."""
    in_place = name.endswith("_")
    lists = [value for value in arguments if isinstance(value, (list, tuple))]
    meetings = []
    for row in zip(*(part for part in lists if len(part) == len(lists[0])), strict=True):
        source = row[1] if name == "_foreach_copy_" else None
        meetings.append(
            _Meeting(row[0] if in_place else None, [item for item in row if isinstance(item, Positioned)], [], source)
        )
    taken = [
        [meeting.taken(item) for meeting, item in zip(meetings, value, strict=True)]
        if isinstance(value, (list, tuple)) and len(value) == len(meetings)
        else value
        for value in arguments
    ]
    results = function(*taken, **options)
    made = arguments[0] if in_place else results
    stamped = [meeting.stamped(result, name) for meeting, result in zip(meetings, made, strict=True)]
    return results if in_place else type(results)(stamped)


def _present(operands: list[Any]) -> tuple[Tensor, Origin]:
    """The positions of the trained weight that operands come from, if one of them stands there."""
    trained = [operand.origin for operand in operands if operand.origin.trained]
    if len({id(origin.family) for origin in trained}) > 1:
        raise UserError(
            "values of the sparse layers of two trainings, which stand at different positions, were put together; "
            "that would mix values of different places."
        )
    for operand in operands:
        if operand.origin.trained and same(operand.positions, operand.origin.positions):
            return operand.positions, operand.origin
    raise UserError(
        "kept values of a sparse layer's weight, taken at different topologies, were put together; that would mix "
        "values of different places. Put .dense() of each together, or keep an average with "
        "itopctl.dst.WeightAverage."
    )


def _refuse_if_trained(target: Positioned) -> None:
    if target.root.trained:
        raise UserError(
            "values of other positions were written into the weight of a sparse layer: its topology has changed since "
            "they were taken. Bring a network back with load_state_dict, whose states say where values stand; keep an "
            "average with itopctl.dst.WeightAverage, and update it after each step."
        )


def _check_unknown(target: Positioned, source: Tensor) -> bool:
    """Whether a target still stands where it did when it was given values whose positions are not known.

    Raises:
        UserError: it is the weight of a layer, whose topology has moved.
    """
    if source.dim() == 0:
        return True
    if not isinstance(target.root, torch.nn.Parameter):
        return False
    if target.origin.moved:
        raise UserError(
            "an ordinary tensor was copied into the weight of a sparse layer whose topology has changed since the "
            "training began: where its values stand is not known. Bring a network back with load_state_dict, whose "
            "states say it, or copy what .data, detach() or clone() of the weight gave."
        )
    return True


def _in_place(name: str) -> bool:
    return name in _OPERATORS or name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


_OPERATORS = frozenset({
    "__iadd__", "__isub__", "__imul__", "__itruediv__", "__idiv__", "__ifloordiv__", "__imod__", "__ipow__", "__iand__",
    "__ior__", "__ixor__", "__ilshift__", "__irshift__",
})  # fmt: skip


def _source(name: str, arguments: Sequence[Any]) -> Tensor | None:
    """What replaces the target's values, if an operation does that."""
    if name not in _COPYING or len(arguments) < 2:
        return None
    if name == "__setitem__":
        index = arguments[1]
        whole = index is Ellipsis or (isinstance(index, slice) and index == slice(None))
        source = arguments[2] if whole else None
    else:
        source = arguments[1]
    return source if isinstance(source, Tensor) else None
