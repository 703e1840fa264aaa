"""The optimizers of a training: which weights they hold, their state, and the state that a new weight would have.

A weight that grows gets the state of a weight that has just been created. That is zero for most optimizers, but not for
all: Rprop begins with a step size, Adagrad with an accumulator. So the optimizer is asked: a second one of its
class, with the same settings, makes a step on a weight of zero with a gradient of zero, and the state that it begins
with is noted. Where a class cannot be made that way, the first step of the training tells, by the state that the
optimizer gives weights off the masks.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from itopctl.errors import UserError

Path = tuple[Any, ...]
"""Keys that lead to a tensor in the state of a weight."""


class Masked(Protocol):
    """A parameter with its mask."""

    parameter: nn.Parameter
    keep: Tensor


ELEMENTWISE = frozenset(
    getattr(torch.optim, name) for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop")
)
"""Optimizers that change a weight by what they know of that weight alone: where gradient and weight are zero and the
state is that of a new weight, they stay so. Masking the gradient is all that is needed."""

_ONE_BY_ONE = {"fused": False, "foreach": False, "capturable": False, "differentiable": False}
"""Settings that say how an optimizer computes, not what."""


class Optimizers:
    """One or more optimizers that train one model.

    Args:
        given: the optimizers, each with `param_groups`, `state` and `step`.
        model: what they train.

    Raises:
        UserError: one of them is no optimizer, needs what masks cannot give (LBFGS), or holds none of the model's
            parameters.
    """

    def __init__(self, given: torch.optim.Optimizer | Iterable[torch.optim.Optimizer], model: nn.Module) -> None:
        if isinstance(given, type):
            raise UserError(f"{given.__name__} is no optimizer but a class: make one of the model's parameters.")
        single = hasattr(given, "param_groups") or not isinstance(given, Iterable)
        several: Any = [given] if single else given
        self.all: tuple[torch.optim.Optimizer, ...] = tuple(several)
        if not self.all:
            raise UserError("no optimizer was given.")
        own = {id(parameter) for parameter in model.parameters()}
        for optimizer in self.all:
            name = type(optimizer).__name__
            if not all(hasattr(optimizer, part) for part in ("param_groups", "state", "step")):
                raise UserError(f"{name} is no optimizer: it has no param_groups, state or step.")
            if sum(optimizer is other for other in self.all) > 1:
                raise UserError(f"{name} is given twice, and would make two steps at each.")
            if isinstance(optimizer, torch.optim.LBFGS):
                raise UserError(
                    "LBFGS cannot train a sparse network: it keeps differences of all weights over many steps, which "
                    "mean nothing once the topology has changed."
                )
            held = [id(parameter) for parameter in _held(optimizer)]
            if own and held and not own.intersection(held):
                raise UserError(
                    f"{name} holds none of this model's parameters: it belongs to another model, or was made before "
                    "the model's parameters were replaced."
                )
        self._keepers = tuple(_with_inner(self.all))
        self._states = [optimizer.state for optimizer in self._keepers]
        self._begun_with = [state if own.intersection(map(id, state)) else None for state in self._states]
        self._always_zero: set[tuple[Any, ...]] = set()
        self._fresh: dict[tuple[Any, ...], tuple[str, Mapping[Path, float]]] = {}
        self._unknown: dict[int, dict[Path, float]] = {}  # of optimizers, by number, that cannot be asked
        self._observed = False
        self._groups = self._count_groups()

    @property
    def single(self) -> torch.optim.Optimizer:
        """The only optimizer. Raises UserError where there are several."""
        if len(self.all) > 1:
            raise UserError(f"there are {len(self.all)} optimizers, not one.")
        return self.all[0]

    @property
    def elementwise(self) -> bool:
        """Whether all of them are known to treat every weight for itself."""
        return all(type(optimizer) in ELEMENTWISE for optimizer in self.all)

    def keep_zeros(self, least_eps: float) -> bool:
        """Whether zero weights with zero gradient stay zero: not where an optimizer divides zero by zero."""
        return self.elementwise and all(
            group.get("eps", 1.0) >= least_eps for optimizer in self.all for group in optimizer.param_groups
        )

    def have_state_of(self, parameter: nn.Parameter) -> bool:
        """Whether some optimizer has a state of a parameter."""
        return any(optimizer.state.get(parameter) for optimizer in self.all)

    def held(self) -> set[int]:
        """Identities of all parameters that some optimizer holds."""
        return {id(parameter) for optimizer in self.all for parameter in _held(optimizer)}

    def groups_changed(self) -> bool:
        """Whether parameter groups were added or removed since this was asked last."""
        before, self._groups = self._groups, self._count_groups()
        return self._groups != before

    def states_replaced(self) -> bool:
        """Whether states were loaded since this was asked last."""
        states = [optimizer.state for optimizer in self._keepers]
        if all(map(operator.is_, states, self._states)):
            return False
        self._states = states
        begun = zip(self._begun_with, states, strict=True)
        self._begun_with = [first if first is state else None for first, state in begun]
        return True

    def begun_with_state(self) -> bool:
        """Whether some optimizer has the state that it had when this was made, of weights of the model."""
        return any(
            state is not None and state is optimizer.state
            for state, optimizer in zip(self._begun_with, self._keepers, strict=True)
        )

    def parameters(self) -> Iterator[nn.Parameter]:
        """All parameters that the optimizers hold."""
        for optimizer in self.all:
            yield from _held(optimizer)

    def state_of(self, parameter: nn.Parameter) -> Iterator[tuple[Tensor, float]]:
        """Every tensor in the state of a parameter, whatever it is nested in, and the value it has for a new weight."""
        for number, optimizer in enumerate(self._keepers):
            state = optimizer.state.get(parameter)
            if state:
                fresh = self._fresh_state(number, parameter)
                for path, tensor in _tensors(state):
                    yield tensor, fresh.get(path, 0.0)

    def step(self, scaler: torch.amp.GradScaler | None, closure: Callable[[], Any] | None = None) -> None:
        """Let every optimizer make a step."""
        for optimizer in self.all:
            if scaler is not None:
                scaler.step(optimizer)
            elif closure is not None:
                optimizer.step(closure)
            else:
                optimizer.step()

    def observe(self, homes: Iterable[Masked]) -> None:
        """Learn what a new weight's state is from weights off the masks, for an optimizer that cannot be asked.

        Called after each step, before state is masked; what is found in the first is kept.

        Args:
            homes: masked parameters.
        """
        for number, optimizer in enumerate(() if self._observed else self._keepers):
            for home in homes:
                state = optimizer.state.get(home.parameter)
                if not state:
                    continue
                self._observed = True
                self._fresh_state(number, home.parameter)  # finds out whether it can be asked
                known = self._unknown.get(number, {})
                for path, tensor in _tensors(state) if number in self._unknown else ():
                    if path not in known and tensor.shape == home.parameter.shape:
                        values = tensor[home.keep == 0].unique()
                        known[path] = float(values) if values.numel() == 1 and bool(values.isfinite()) else 0.0

    def _count_groups(self) -> list[int]:
        return [len(group["params"]) for optimizer in self.all for group in optimizer.param_groups]

    def _fresh_state(self, number: int, parameter: nn.Parameter) -> Mapping[Path, float]:
        """Path → value in the state of a new weight of this parameter's group, where it is not zero."""
        if number in self._unknown:
            return self._unknown[number]
        optimizer = self._keepers[number]
        held_in = (any(parameter is one for one in group["params"]) for group in optimizer.param_groups)
        index = next((index for index, held in enumerate(held_in) if held), None)
        if index is None:
            return {}
        group = optimizer.param_groups[index]
        kind = (number, index, parameter.dim(), parameter.dtype, parameter.device)
        if kind in self._always_zero:
            return {}
        settings = {name: value for name, value in group.items() if name != "params"}
        key = repr(settings)
        if kind not in self._fresh or self._fresh[kind][0] != key:
            try:
                found = another = _state_of_new_weight(optimizer, settings, parameter)
                if not found and "lr" in settings:  # a schedule may begin with a learning rate of 0
                    another = _state_of_new_weight(optimizer, {**settings, "lr": 1.0}, parameter)
            except Exception:  # a class of the user's own may want anything
                return self._unknown.setdefault(number, {})
            if not found and not another:
                self._always_zero.add(kind)
            self._fresh[kind] = key, found
        return self._fresh[kind][1]


def _state_of_new_weight(
    optimizer: torch.optim.Optimizer, settings: Mapping[str, Any], parameter: nn.Parameter
) -> dict[Path, float]:
    """Path → value, where it is not zero, in the state that an optimizer of this class gives a new weight.

    Raises whatever the class raises where it cannot be made from the settings of a group.
    """
    accepted = inspect.signature(type(optimizer)).parameters
    settings = {name: value for name, value in {**settings, **_ONE_BY_ONE}.items() if name in accepted}
    weight = nn.Parameter(torch.zeros([1] * parameter.dim(), dtype=parameter.dtype, device=parameter.device))
    weight.grad = torch.zeros_like(weight)
    step: Any = type(optimizer).step
    step = step.__wrapped__ if getattr(step, "hooked", False) else step  # without the hooks on all optimizers
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        twin = type(optimizer)([weight], **settings)
        begun = twin.state[weight] = _AsBegun(twin.state[weight])
        step(twin)
    if twin.state[weight] is not begun or begun.keys() - begun.first.keys():
        raise ValueError("the optimizer keeps the state of a weight in a way that cannot be watched")
    values = {path: tensor for path, tensor in _tensors(begun.first) if tensor.shape == weight.shape}
    return {path: value for path, tensor in values.items() if (value := float(tensor)) != 0 and math.isfinite(value)}


class _AsBegun(dict[Any, Any]):
    """The state of a weight, and in `first` copies of the values that it began with."""

    def __init__(self, state: Mapping[Any, Any]) -> None:
        super().__init__(state)
        self.first = copy.deepcopy(dict(state))

    def __setitem__(self, key: Any, value: Any) -> None:
        self.first.setdefault(key, copy.deepcopy(value))
        super().__setitem__(key, value)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *others: Any, **more: Any) -> None:
        for key, value in dict(*others, **more).items():
            self[key] = value


def _with_inner(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[torch.optim.Optimizer]:
    """Optimizers, and those that they keep as attributes (as SAM and Lookahead do), each state once."""
    seen: set[int] = set()
    waiting = list(optimizers)
    while waiting:
        optimizer = waiting.pop(0)
        if id(optimizer.state) not in seen:
            seen.add(id(optimizer.state))
            yield optimizer
        attributes = getattr(optimizer, "__dict__", {}).values()
        inner = [value for value in attributes if isinstance(value, torch.optim.Optimizer)]
        waiting += [one for one in inner if id(one.state) not in seen]


def _held(optimizer: torch.optim.Optimizer) -> Iterator[nn.Parameter]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _tensors(state: Any, path: Path = ()) -> Iterator[tuple[Path, Tensor]]:
    """All tensors of a state, in whatever it nests them, and the keys that lead to them."""
    if isinstance(state, Tensor):
        yield path, state
    elif isinstance(state, (Mapping, list, tuple)):
        for key, value in state.items() if isinstance(state, Mapping) else enumerate(state):
            yield from _tensors(value, (*path, key))
