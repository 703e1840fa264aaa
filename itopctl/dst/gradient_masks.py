"""Gradients of masked parameters, zero off their masks: masked as soon as they are there, while still in the cache.

A hook on each weight masks its gradient when the backward pass has made it; the optimizer then finds it done. At steps
whose dense gradient is read it is left dense until the step, which also masks what no hook has seen: a gradient that
was set by hand, clipped or unscaled since, as the tensor's version tells. What is changed behind autograd's back
(through `.data`, by NumPy) has no version, and needs `mask_all`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from itopctl.dst.masked_layer import MaskedParameter

_hooks = WeakTensorKeyDictionary()  # weight → the hook on it: a weight obeys the last training it was given to


def obey(weight: nn.Parameter, hook: Callable[[Tensor], None]) -> None:
    """Call a hook whenever the weight's gradient has been made or added to, in place of an earlier training's."""
    if weight in _hooks:
        _hooks[weight].remove()
    trained = weight.requires_grad  # a copied weight may be frozen for the time being
    _hooks[weight] = weight.requires_grad_(True).register_post_accumulate_grad_hook(hook)
    weight.requires_grad_(trained)


class GradientMasks:
    """Masks the gradients of some parameters.

    Args:
        parameters: the masked ones.
        leave_dense: whether the gradient of the coming step is to be left dense by the backward pass.
    """

    def __init__(self, parameters: list[MaskedParameter], leave_dense: Callable[[], bool]) -> None:
        self._parameters, self._leave_dense = parameters, leave_dense
        self._masked: dict[str, tuple[Tensor | None, int]] = {}
        self.attach()

    def attach(self) -> None:
        """Have the backward pass tell of the parameters' gradients; needed again in a copy."""
        for home in self._parameters:
            obey(home.parameter, _hook(weakref.ref(self), weakref.ref(home)))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is known of the present gradients: copies of parameters have none."""
        return {**self.__dict__, "_masked": {}}

    def mask_all(self) -> None:
        """Mask every gradient, whatever was done to it."""
        for home in self._parameters:
            self._mask(home, home.parameter.grad)

    def mask_rest(self) -> None:
        """Mask every gradient that is not masked already."""
        for home in self._parameters:
            gradient = home.parameter.grad  # None where a layer had no part in the loss
            seen = self._masked.get(home.name)
            if seen is None or seen[0] is not gradient or (gradient is not None and seen[1] != gradient._version):
                self._mask(home, gradient)

    def has_seen(self, home: MaskedParameter) -> bool:
        """Whether the gradient that the parameter has now, whatever was done to it since, has been masked."""
        seen = self._masked.get(home.name)
        return seen is not None and seen[0] is home.parameter.grad

    def forget(self) -> None:
        """The step is over: the next gradients are new ones, though they may come in the same tensors."""
        self._masked.clear()

    def arrived(self, home: MaskedParameter) -> None:
        """The backward pass has made the parameter's gradient, or added to it."""
        self._masked.pop(home.name, None)
        if not self._leave_dense():
            self._mask(home, home.parameter.grad)

    def _mask(self, home: MaskedParameter, gradient: Tensor | None) -> None:
        if gradient is not None:
            home.mask_gradient(gradient)
        self._masked[home.name] = (gradient, 0 if gradient is None else gradient._version)


def _hook(masks: weakref.ref[GradientMasks], home: weakref.ref[MaskedParameter]) -> Callable[[Tensor], None]:
    """A hook that ends with the training it belongs to."""

    def arrived(weight: Tensor) -> None:
        ours, mine = masks(), home()
        if ours is not None and mine is not None:
            ours.arrived(mine)

    return arrived
