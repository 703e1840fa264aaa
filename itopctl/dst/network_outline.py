"""The outline of a network that is to be trained: its layers, what they cost, and how many weights each keeps.

A value of plain numbers, made without training (`itopctl.train.model_outline`); torch is not imported.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class LayerOutline:
    """One maskable layer.

    Attributes:
        name: of its weight.
        size: number of weights.
        active: of these, how many are active at the start.
        macs: multiply-accumulates of a forward pass of one sample, were the layer dense.
    """

    name: str
    size: int
    active: int
    macs: int

    @property
    def density(self) -> float:
        """Active weights ÷ weights."""
        return self.active / self.size


@dataclass(frozen=True)
class Outline:
    """A network at the start of its training.

    Attributes:
        layers: the maskable layers, in the order of the model.
        other_macs: multiply-accumulates that no mask makes fewer, as in `LayerOutline`: of layers that cannot be
            masked, and of attention's own products.
        parameters: numbers that the optimizer trains, maskable weights among them.
        buffers: numbers that are kept with them, such as running means.
        activations: numbers that the modules of a model give for one sample.
        starved: layers to which the allocation gave less than one weight; each keeps one.
        left_dense: (name, size) of every trained parameter of two or more dimensions that is not maskable.
    """

    layers: tuple[LayerOutline, ...]
    other_macs: int
    parameters: int
    buffers: int
    activations: int
    starved: tuple[str, ...] = ()
    left_dense: tuple[tuple[str, int], ...] = ()

    @property
    def shares(self) -> dict[str, tuple[int, int]]:
        """Layer → (active weights, weights)."""
        return {layer.name: (layer.active, layer.size) for layer in self.layers}

    @property
    def maskable(self) -> int:
        """Maskable weights."""
        return sum(layer.size for layer in self.layers)

    @property
    def active(self) -> int:
        """Active weights."""
        return sum(layer.active for layer in self.layers)

    @property
    def total_density(self) -> float:
        """Active weights and all that is not maskable ÷ numbers that are trained."""
        return (self.parameters - (self.maskable - self.active)) / self.parameters

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a dense forward pass of one sample."""
        return self.other_macs + sum(layer.macs for layer in self.layers)

    @property
    def inference_ratio(self) -> float:
        """Those of the sparse network relative to them, as `FlopsMeter.inference_ratio` counts."""
        sparse = self.other_macs + math.fsum(layer.macs * layer.density for layer in self.layers)
        return sparse / self.macs if self.macs else 1.0
