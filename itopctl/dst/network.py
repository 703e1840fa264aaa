"""What can be read of a network in sparse training: its layers, masks, densities and exploration rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.explored_set import unpack_bits
from itopctl.dst.layer import Layer
from itopctl.dst.maskable import Maskable
from itopctl.dst.reports import LayerReport
from itopctl.dst.scope import Scope
from itopctl.dst.topology import Topology
from itopctl.errors import UserError, unknown


class SparseNetwork:
    """A network whose weights are masked, as `itopctl.dst.SparseTraining` trains it."""

    _scope: Scope
    _weights: Mapping[str, Maskable]
    _shapes: Mapping[str, tuple[int, ...]]
    _layers: list[Layer]
    _topology: Topology

    @property
    def maskable(self) -> int:
        """N: maskable weights, masked or not."""
        return sum(map(math.prod, self._shapes.values()))

    @property
    def trainable(self) -> int:
        """Numbers that are trained in all: maskable weights, and what cannot be masked, such as biases."""
        return self._scope.trainable

    @property
    def left_dense(self) -> dict[str, int]:
        """Name → size of every trained parameter of two or more dimensions that is not maskable (embeddings, say)."""
        return dict(self._scope.left_dense)

    @property
    def total_density(self) -> float:
        """Active weights and all that is not maskable ÷ `trainable`."""
        return (self.trainable - (self.maskable - self.active)) / self.trainable

    @property
    def active(self) -> int:
        """Weights that are active now; exactly round((1 − sparsity)·N), where all layers share one budget."""
        return self.maskable - sum(layer.size - layer.active_count for layer in self._layers)

    @property
    def density(self) -> float:
        """D: active ÷ maskable weights."""
        return self.active / self.maskable

    @property
    def exploration_rate(self) -> float:
        """R_s: weights ever active ÷ maskable weights; 1 for dense training."""
        return self._topology.exploration_rate

    @property
    def updates_done(self) -> int:
        """Topology updates so far."""
        return self._topology.updates_done

    def layers(self) -> Iterator[LayerReport]:
        """Every maskable layer, in the model's order; a layer without a mask is fully active and explored."""
        thin = {layer.name: layer for layer in self._layers}
        for name, shape in self._shapes.items():
            layer, size = thin.get(name), math.prod(shape)
            if layer is None:
                yield LayerReport(name, shape, size, size, size)
            else:
                active, explored = layer.active_count, layer.explored.count
                yield LayerReport(name, shape, size, active, explored, layer.dropped, layer.backend)

    def mask(self, name: str) -> Tensor:
        """Bool tensor of the weight's shape, True where active."""
        for layer in self._layers:
            if layer.name == name:
                return layer.active
        weight = self._weight(name)
        return torch.ones(weight.shape, dtype=torch.bool, device=weight.parameter.device)

    def weight(self, name: str) -> Tensor:
        """The weight of a maskable layer: the parameter, or the rows of it that are the weight; of a compressed one,
        its nonzeros."""
        weight = self._weight(name)
        return weight.of(weight.parameter)

    def _weight(self, name: str) -> Maskable:
        if name not in self._weights:
            raise UserError(unknown("weight", name, self._weights))
        return self._weights[name]

    @property
    def masks(self) -> dict[str, Tensor]:
        """Name of each *parameter* that has inactive weights → bool tensor of its shape, True where active."""
        return self._joined({layer.name: layer.active for layer in self._layers})

    def masks_in(self, state: Mapping[str, Any]) -> dict[str, Tensor]:
        """As `masks`, in what `state_dict` gave a training of the same layers."""
        saved = state["layers"]
        return self._joined({
            layer.name: unpack_bits(saved[layer.name]["mask"], layer.size).view(layer.shape)
            for layer in self._layers if layer.name in saved
        })  # fmt: skip

    def _joined(self, masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The masks of weights as those of parameters."""
        joined: dict[str, Tensor] = {}
        for name, mask in masks.items():
            weight = self._weights[name]
            if weight.rows is None:
                joined[name] = mask
            else:
                whole = joined.setdefault(weight.parameter_name, mask.new_ones(weight.parameter.shape))
                weight.of(whole).copy_(mask)
        return joined

    @property
    def backends(self) -> dict[str, str]:
        """How each layer that has inactive weights is computed; can be given to another training as `compute`."""
        return {layer.name: layer.backend for layer in self._layers}

    @property
    def compressed(self) -> frozenset[str]:
        """Names of the weights that are kept as their nonzeros alone, in row-major order."""
        return frozenset(layer.name for layer in self._layers if layer.backend == "sparse")

    def trains(self, model: nn.Module) -> bool:
        """Whether this is a training of the model."""
        parameters = dict(model.named_parameters())
        return all(parameters.get(weight.parameter_name) is weight.parameter for weight in self._weights.values())
