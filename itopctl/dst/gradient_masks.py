"""Gradients of masked layers, zero off their masks: masked as soon as they are there, while still in the cache.

A hook on each weight masks its gradient when the backward pass has made it; the optimizer then finds it done. At steps
whose dense gradient is read it is left dense until the step, which also masks what no hook has seen: a gradient that
was set by hand, clipped or unscaled since, as the tensor's version tells. What is changed behind autograd's back
(through `.data`, by NumPy) has no version, and needs `mask_all`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from itopctl.dst.masked_layer import MaskedLayer
from itopctl.dst.masking import Masker

_hooks = WeakTensorKeyDictionary()  # weight → the hook on it: a weight obeys the last training it was given to


def obey(weight: nn.Parameter, hook: Callable[[Tensor], None]) -> None:
    """Call a hook whenever the weight's gradient has been made or added to, in place of an earlier training's."""
    if weight in _hooks:
        _hooks[weight].remove()
    _hooks[weight] = weight.register_post_accumulate_grad_hook(hook)


class GradientMasks:
    """Masks the gradients of some layers.

    Args:
        layers: the masked layers.
        masker: applies a mask.
        leave_dense: whether the gradient of the coming step is to be left dense by the backward pass.
    """

    def __init__(self, layers: list[MaskedLayer], masker: Masker, leave_dense: Callable[[], bool]) -> None:
        self._layers, self._masker, self._leave_dense = layers, masker, leave_dense
        self._masked: dict[str, tuple[Tensor | None, int]] = {}
        for layer in layers:
            obey(layer.weight, _hook(weakref.ref(self), weakref.ref(layer)))

    def mask_all(self) -> None:
        """Mask every gradient, whatever was done to it."""
        for layer in self._layers:
            self._mask(layer, layer.weight.grad)

    def mask_rest(self) -> None:
        """Mask every gradient that is not masked already."""
        for layer in self._layers:
            gradient = layer.weight.grad  # None where a layer had no part in the loss
            seen = self._masked.get(layer.name)
            if seen is None or seen[0] is not gradient or (gradient is not None and seen[1] != gradient._version):
                self._mask(layer, gradient)

    def has_seen(self, layer: MaskedLayer) -> bool:
        """Whether the gradient that the layer has now, whatever was done to it since, has been masked."""
        seen = self._masked.get(layer.name)
        return seen is not None and seen[0] is layer.weight.grad

    def forget(self) -> None:
        """The step is over: the next gradients are new ones, though they may come in the same tensors."""
        self._masked.clear()

    def arrived(self, layer: MaskedLayer) -> None:
        """The backward pass has made the layer's gradient, or added to it."""
        self._masked.pop(layer.name, None)
        if not self._leave_dense():
            self._mask(layer, layer.weight.grad)

    def _mask(self, layer: MaskedLayer, gradient: Tensor | None) -> None:
        if gradient is not None:
            self._masker.mask_(gradient, layer.keep)
        self._masked[layer.name] = (gradient, 0 if gradient is None else gradient._version)


def _hook(masks: weakref.ref[GradientMasks], layer: weakref.ref[MaskedLayer]) -> Callable[[Tensor], None]:
    """A hook that ends with the training it belongs to."""

    def arrived(weight: Tensor) -> None:
        ours, mine = masks(), layer()
        if ours is not None and mine is not None:
            ours.arrived(mine)

    return arrived
