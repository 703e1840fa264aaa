"""What sparse layers have in common: nonzeros for a weight, where they stand, and somebody who is told of passes."""

from __future__ import annotations

import weakref
import zlib
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.sparse.meeting import positioned
from itopctl.dst.sparse.parameter import SparseParameter, as_sparse_parameter
from itopctl.dst.sparse.positioned import Origin, Positioned, plain, replace, same
from itopctl.errors import UserError

Watch = Callable[[Tensor, Tensor, bool], None]
"""Told by every backward pass: the input of a layer, the gradient of its output, and whether the input may be changed
later by its owner, as a buffer of images may."""


class SparseModule(nn.Module):
    """A layer whose `weight` is one-dimensional: its nonzeros, in row-major order.

    The weight knows where its values stand (`itopctl.dst.sparse.parameter`), and the layer follows it: what is made of
    the positions is made anew at the first pass after they have changed. The layer's state has `positions` beside
    `weight`: values alone would be wrong at another topology.
    """

    _watch: weakref.WeakMethod[Any] | None = None
    _known: tuple[Tensor, Origin] | None = None  # what the weight said last, for one that says nothing
    _built_for: Tensor | None = None
    _built: tuple[str, ...] = ()  # attributes that `_build` makes

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

    @property
    def positions(self) -> Tensor:
        """Flat row-major positions of the nonzeros, int64, ascending.

        Raises:
            UserError: the weight was replaced by an ordinary tensor, and the topology has changed since the training
                began.
        """
        weight: Any = self.weight
        if isinstance(weight, Positioned):
            return weight.positions
        if self._known is None or self._known[1].moved:
            raise UserError(
                "the weight of a sparse layer was replaced by an ordinary tensor: where its values stand is not known. "
                "Write into the weight, or load a state with load_state_dict."
            )
        return self._known[0]

    def compress(self, positions: Tensor) -> None:
        """Have nonzeros at these flat positions, ascending. Their values, `weight`, are the caller's affair."""
        weight = self.get_parameter("weight")
        if isinstance(weight, SparseParameter):
            weight.stand_at(positions)
        else:
            as_sparse_parameter(weight, positions, self.dense_shape)
        self.follow()

    def follow(self) -> Tensor:
        """The weight; what a pass needs to know of its positions is made, where they have changed since the last."""
        weight: Any = self.weight
        knows = isinstance(weight, Positioned)
        positions = weight.positions if knows else self.positions
        if positions is not self._built_for:
            if knows:
                self._known = positions, weight.origin
            with torch.inference_mode(False):  # it is used in training, too
                self._build(positions.to(weight.device))
            self._built_for = positions
        followed: Tensor = weight
        return followed

    @abstractmethod
    def _build(self, positions: Tensor) -> None:
        """Make what a pass needs to know of these positions."""

    def watch(self, watch: Watch | None) -> None:
        """Have a bound method told of every backward pass; it is not kept alive."""
        self._watch = None if watch is None else weakref.WeakMethod(watch)

    def tell(self, input: Tensor, gradient: Tensor, changeable: bool) -> None:
        """Tell of a backward pass."""
        watch = None if self._watch is None else self._watch()
        if watch is not None:
            watch(input, gradient, changeable)

    def __getstate__(self) -> dict[str, Any]:
        """Without who watches, since a copy is somebody else's, and what is made of the positions."""
        left_out = {"_watch", "_known", "_built_for", *self._built}
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        weight, positions = self.get_parameter("weight"), self.positions
        own = positions.clone()  # averages of whole states write into it
        if isinstance(weight, Positioned):
            own = positioned(own, positions, weight.origin)
        destination[f"{prefix}positions"] = own
        destination[f"{prefix}{_CHECK}"] = torch.tensor(_check_of(positions))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        """Take over nonzeros, and where they stand; of a dense weight those at the positions that the layer has.

        Raises:
            UserError: the state does not say where its nonzeros stand, and the topology has changed since the training
                began; or it says it as no state of a sparse layer does.
        """
        key, values, weight = f"{prefix}weight", state_dict.get(f"{prefix}weight"), self.get_parameter("weight")
        positions, check = state_dict.pop(f"{prefix}positions", None), state_dict.pop(f"{prefix}{_CHECK}", None)
        if isinstance(values, Tensor):
            values = plain(values).detach()
            whole = tuple(values.shape) == self.dense_shape
            if positions is not None:
                positions = _checked(f"{prefix}positions", positions, check, self.dense_shape).to(weight.device)
            elif not whole and isinstance(weight, Positioned) and weight.origin.moved:
                raise UserError(
                    f"the state to load has no {prefix}positions: where the nonzeros of {key} stand is not known, and "
                    "the topology has changed since the training began."
                )
            else:
                positions = self.positions
            if whole:
                values = values.reshape(-1)[positions.to(values.device)]
            if values.dim() == 1 and (values.shape != weight.shape or not same(self.positions, positions)):
                replace(weight, plain(weight).detach().new_zeros(values.shape))  # redistribution may change how many
            if values.shape == positions.shape:
                self.compress(positions)
            if isinstance(weight, Positioned) and values.shape == weight.shape:
                values = positioned(values, weight.positions, weight.origin)
            state_dict[key] = values
        # The weight stays the parameter that it is, also where others are asked to be replaced (`assign=True`).
        metadata = {**local_metadata, "assign_to_params_buffers": False}
        super()._load_from_state_dict(state_dict, prefix, metadata, *rest)


_CHECK = "positions_check"
"""Name, in a layer's state, of a number that belongs to its positions: the mean of the positions of two topologies is
ascending, too, but its number is not the mean of theirs."""


def _check_of(positions: Tensor) -> int:
    """So small that sums of some hundreds are exact in any type of number."""
    return zlib.crc32(positions.cpu().numpy().tobytes()) & 0xFFFF


def _checked(name: str, positions: Any, check: Any, shape: tuple[int, ...]) -> Tensor:
    """Positions that a state gives, int64. Those of an average of states are right where all had the same.

    Raises:
        UserError: these are none.
    """
    size = torch.Size(shape).numel()
    if isinstance(positions, Tensor) and positions.dim() == 1:
        whole = plain(positions).detach().to(torch.int64)
        rising = bool((whole[1:] > whole[:-1]).all()) and bool((whole == plain(positions)).all())
        inside = not whole.numel() or (int(whole[0]) >= 0 and int(whole[-1]) < size)
        if rising and inside and (check is None or float(check) == _check_of(whole)):
            return whole
    raise UserError(
        f"{name} of the state to load do not say where nonzeros of {size} weights stand. States of different "
        "topologies cannot be averaged; keep an average with itopctl.dst.WeightAverage."
    )


def structure_names(model: nn.Module) -> frozenset[str]:
    """Names, in a model's state, of what says where nonzeros stand."""
    modules = [pair for pair in model.named_modules(remove_duplicate=False) if isinstance(pair[1], SparseModule)]
    return frozenset(f"{name}.{entry}".lstrip(".") for name, _ in modules for entry in ("positions", _CHECK))
