"""Weights that somebody else wrote: noticed before the next forward pass, and masked again.

Loading a state, initialising anew, averaging: all of them write into weights and know of no mask. PyTorch counts writes
into a tensor; where the count is not what the last step left, the weight is masked. Writes through `.data` and by NumPy
are not counted; they are found at the next topology update.
"""

from __future__ import annotations

import contextlib
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from itopctl.dst.maskable import modules_of
from itopctl.dst.masked_layer import MaskedParameter
from itopctl.dst.parallel import wrappers
from itopctl.errors import UserError


class Writes:
    """Watches masked parameters for writes by others.

    Args:
        parameters: the masked ones.
        model: they are in, wrapped or not.
        check: called before a forward pass of the whole model, too.
    """

    def __init__(self, parameters: list[MaskedParameter], model: nn.Module, check: Callable[[], None]) -> None:
        self._parameters, self._check = parameters, check
        *self._wrappers, self._model = wrappers(model)
        self._all = list(range(len(parameters)))
        self._overlooked = False
        self._seen: list[tuple[int, int]] = []
        self.settle()
        self.attach()

    def attach(self) -> None:
        """Have modules tell of their forward passes; needed again in a copy."""
        for module in [*self._model.modules(), *self._wrappers]:
            _unhook(module)
        places = _places(self._model)
        users = modules_of(self._model, {home.name: home.parameter for home in self._parameters})
        used_by: dict[nn.Module, list[int]] = {}
        for number, home in enumerate(self._parameters):
            for module in {places.get(user, user): None for user in users[home.name]}:
                used_by.setdefault(module, []).append(number)
        whole = dict.fromkeys((self._model, *self._wrappers), self._all)
        for module, numbers in {**used_by, **whole}.items():
            _hook(module, self, numbers)

    def settle(self) -> None:
        """The weights are what they should be now."""
        self._seen = [_stamp(home) for home in self._parameters]

    @contextlib.contextmanager
    def overlooked(self) -> Iterator[None]:
        """A context in which writes are not masked; the weights are to be again what they were when it ends."""
        self.look(self._all)
        self._overlooked = True
        try:
            yield
        finally:
            self._overlooked = False
            self.settle()

    def look(self, numbers: list[int]) -> None:
        """Mask those of some parameters that were written since; called before a forward pass that uses them.

        Args:
            numbers: which of the parameters.

        Raises:
            UserError: the model was moved to another device.
        """
        seen, parameters = self._seen, self._parameters
        for number in numbers:
            parameter = parameters[number].parameter
            if (parameter._version, parameter.data_ptr()) != seen[number] and not self._overlooked:
                home = parameters[number]
                _check_place(home)
                with torch._C._DisableFuncTorch():  # transforms forbid writes into what they do not differentiate
                    home.mask_weight()
                seen[number] = _stamp(home)
        self._check()

    def look_at_step(self) -> None:
        """`look`, and raise UserError where a module has another parameter than the masked one."""
        if self._overlooked:
            raise UserError("no step can be made while the model has other weights (those of an average, say).")
        for home in self._parameters:
            if home.module._parameters.get(home.attribute) is not home.parameter:
                raise UserError(
                    f"{home.name} is not the parameter any more that this training masks: another was put in its "
                    "place (load_state_dict(assign=True) does so). Make the optimizer and SparseTraining after that."
                )
        self.look(self._all)


def _stamp(home: MaskedParameter) -> tuple[int, int]:
    return home.parameter._version, home.parameter.data_ptr()


def _check_place(home: MaskedParameter) -> None:
    parameter, keep = home.parameter, home.keep
    if parameter.device != keep.device or parameter.shape != keep.shape:
        raise UserError(
            f"{home.name} is on {parameter.device} with shape {list(parameter.shape)}, its mask on {keep.device} with "
            f"{list(keep.shape)}: move the model before SparseTraining is made."
        )


class _Look:
    """A forward pre-hook that ends with the training it belongs to."""

    def __init__(self, writes: Writes | None, numbers: list[int]) -> None:
        self._writes, self._numbers = None if writes is None else weakref.ref(writes), numbers

    def __call__(self, module: nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling():  # not a part of the graph: the step looks instead
            return
        writes = None if self._writes is None else self._writes()
        if writes is not None:
            writes.look(self._numbers)

    def __deepcopy__(self, memo: Any) -> _Look:
        return _Look(None, [])  # a copied model is not watched

    def __reduce__(self) -> Any:
        # In a file, a hook that gives back the arguments it is given: a pickled model needs no itopctl to be read.
        return getattr, ({}, "get")


def _hook(module: nn.Module, writes: Writes, numbers: list[int]) -> None:
    """Look at these parameters before a module's forward passes."""
    module.register_forward_pre_hook(_Look(writes, numbers))


def _unhook(module: nn.Module) -> None:
    """Remove the hooks of an earlier training, and what a pickled one left."""
    for key, hook in list(module._forward_pre_hooks.items()):
        if isinstance(hook, _Look) or _was_look(hook):
            del module._forward_pre_hooks[key]


def _was_look(hook: Callable[..., Any]) -> bool:
    """Whether a hook is what `_Look` becomes in a file."""
    return isinstance(hook, types.BuiltinMethodType) and hook.__name__ == "get" and type(hook.__self__) is dict


def _places(model: nn.Module) -> dict[nn.Module, nn.Module]:
    """Module → the module whose call shows that the first is about to be used, where that is another.

    PyTorch's attention and transformer layers use weights of modules inside without calling these, and a transformer
    layer leaves its fast path where it, or a module inside, has hooks.
    """
    places: dict[nn.Module, nn.Module] = {}

    def visit(module: nn.Module, caller: nn.Module, place: nn.Module | None) -> None:
        if place is None and isinstance(module, nn.TransformerEncoderLayer):
            place = caller
        elif place is None and isinstance(module, nn.MultiheadAttention):
            place = module
        if place is not None:
            places.setdefault(module, place)
        # Lists of modules are not called.
        caller = caller if type(module).forward is nn.Module.forward else module
        for child in module.children():
            visit(child, caller, place)

    visit(model, model, None)
    return places
