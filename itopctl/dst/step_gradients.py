"""The dense gradients of a step: set aside before gradients are masked, and handed to what the rules need of them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from itopctl.dst.compressed_layer import CompressedLayer
from itopctl.dst.gradient_masks import GradientMasks
from itopctl.dst.gradients import DenseGradient, DenseGradients, finite
from itopctl.dst.layer import Layer
from itopctl.dst.masked_layer import MaskedLayer


class StepGradients:
    """Where the dense gradient of each layer is, at a step that reads it.

    Args:
        layers: those that have inactive weights.
        masks: of the gradients of masked ones.
        gradients: takes the dense gradients in.
    """

    def __init__(self, layers: list[Layer], masks: GradientMasks, gradients: DenseGradients) -> None:
        self._layers, self._masks, self._gradients = layers, masks, gradients
        self._aside: dict[str, Tensor] = {}

    @torch.no_grad()
    def set_aside(self) -> None:
        """Keep the dense gradients of masked layers, which are about to be masked."""
        for layer in self._layers:
            if isinstance(layer, MaskedLayer) and not self._masks.has_seen(layer.home):
                gradient = self._of_masked(layer)
                kept = self._aside.setdefault(layer.name, gradient)
                if kept is gradient:
                    self._aside[layer.name] = gradient.clone()
                else:
                    kept.copy_(gradient)

    def take(self, step: int) -> None:
        """Hand the dense gradients of a step on.

        Raises:
            UserError: that of a sparse layer cannot be told.
        """
        for layer in self._layers:
            if isinstance(layer, CompressedLayer):
                layer.find_gradient()
        self._gradients.take(step, {layer.name: self._of(layer) for layer in self._layers})

    def finite(self, others: Iterable[Tensor | None]) -> bool:
        """Whether the dense gradients, and others, are finite."""
        gradients = [*map(self._of, self._layers), *(gradient for gradient in others if gradient is not None)]
        return all(map(finite, gradients))

    def forget(self) -> None:
        """The step is over."""
        if not self._gradients.momentum:  # else they are needed again at the next step
            self._aside.clear()
        self._masks.forget()
        for layer in self._layers:
            if isinstance(layer, CompressedLayer):
                layer.forget_gradient()

    def _of(self, layer: Layer) -> DenseGradient:
        if isinstance(layer, CompressedLayer):
            return layer.gradient
        assert isinstance(layer, MaskedLayer)
        return self._of_masked(layer)

    def _of_masked(self, layer: MaskedLayer) -> Tensor:
        if layer.name in self._aside and self._masks.has_seen(layer.home):
            return self._aside[layer.name]
        gradient = layer.gradient_of_weight
        return layer.zeros() if gradient is None else gradient
