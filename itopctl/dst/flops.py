"""FLOPs and size of a masked network, by the two published conventions, from its real masks.

`macs` counts multiply-accumulates: n output values of v weights each cost n·v. `micronet` counts as the MicroNet
challenge did, and RigL's tables with it: v multiplications and v − 1 additions, one addition for a bias and one
multiplication for a ReLU, in every layer: n·(2v + 1). In both, linear and convolution layers are all that counts
(normalisation, pooling and residual sums are left out), and a masked weight costs nothing: v is the mean over the
layer's outputs. The ratio to dense differs in the last printed digit, so tables must say which they use.

A training step costs one forward and two backward products (with respect to inputs and to weights); where growth
reads the dense gradient, the last of the three is dense (Evci et al. 2020, appendix on FLOPs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from itopctl.dst.layers import MASKABLE, dense_shape, weight_name
from itopctl.dst.records import LayerReport

Convention = Literal["macs", "micronet"]


@dataclass(frozen=True)
class LayerCost:
    """What one linear or convolution layer costs for one sample.

    Attributes:
        name: of its weight.
        weights: number of weights, N.
        channels: output channels (as many biases are counted in the size, whether the layer has them or not).
        outputs: output values n that a forward pass computes; of all its uses, where the weight is used repeatedly.
        uses: how often each weight is multiplied in a forward pass; n·v = uses·N.
    """

    name: str
    weights: int
    channels: int
    outputs: int
    uses: int

    def flops(self, density: float = 1.0, convention: Convention = "micronet") -> float:
        """FLOPs of a forward pass at this density; for `macs`, multiply-accumulates."""
        macs = self.uses * self.weights * density
        return macs if convention == "macs" else 2 * macs + self.outputs

    def size_bits(self, density: float = 1.0) -> float:
        """Bits to store the layer: 32 an active weight and a bias, and one a weight for the mask of a sparse layer."""
        mask = self.weights if density < 1.0 else 0
        return 32 * self.weights * density + mask + 32 * self.channels


def layer_costs(model: nn.Module, *example: Tensor) -> dict[str, LayerCost]:
    """What each linear and convolution layer costs, by weight name; any model, any input size.

    Args:
        model: run once in evaluation mode, without gradients; its mode is restored.
        example: what the model is called with: a batch of one sample, on the model's device.
    """
    costs: dict[str, LayerCost] = {}
    names = _weight_names(model)

    def count_projection(module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        count(module.get_submodule("out_proj"), inputs, output[0])  # used without being called

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
        axis = -1 if isinstance(module, nn.Linear) else 1
        # Every weight is used once a position: of the output, or of the input where the layer is transposed.
        used = inputs[0] if transposed else output
        name, channels = names[id(weight)], output.shape[axis]
        before = costs.get(name)
        costs[name] = LayerCost(
            name,
            math.prod(dense_shape(module)),
            channels,
            output.numel() + (before.outputs if before else 0),
            used.numel() // used.shape[axis] + (before.uses if before else 0),
        )

    modes = [(module, module.training) for module in model.modules()]
    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, MASKABLE)]
    handles += [
        m.register_forward_hook(count_projection) for m in model.modules() if isinstance(m, nn.MultiheadAttention)
    ]
    try:
        model.eval()
        with torch.no_grad():
            model(*example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return costs


def inference_flops(
    costs: Iterable[LayerCost], layers: Iterable[LayerReport], convention: Convention = "micronet"
) -> float:
    """FLOPs of a forward pass for one sample at the real masks; layers without a report count in full."""
    density = {layer.name: layer.density for layer in layers}
    return math.fsum(cost.flops(density.get(cost.name, 1.0), convention) for cost in costs)


def size_megabytes(costs: Iterable[LayerCost], layers: Iterable[LayerReport]) -> float:
    """Size of the network in units of 10⁶ bytes: 32 bits a nonzero weight and a bias, one bit a masked weight."""
    density = {layer.name: layer.density for layer in layers}
    return math.fsum(cost.size_bits(density.get(cost.name, 1.0)) for cost in costs) / 8e6


def _step_cost(inference: float, dense_gradient: bool) -> float:
    """What a training step costs, in dense forward passes."""
    return 2 * inference + 1.0 if dense_gradient else 3 * inference


def training_ratio_of_step(inference: float, dense_gradient: bool = False) -> float:
    """FLOPs of a training step relative to a dense one, where a forward pass costs `inference` of the dense one."""
    return _step_cost(inference, dense_gradient) / 3


def rigl_training_ratio(inference: float, update_interval: int) -> float:
    """The published estimate for RigL: one dense gradient beside every `update_interval` sparse steps."""
    dense = training_ratio_of_step(inference, dense_gradient=True)
    return (update_interval * inference + dense) / (update_interval + 1)


def _weight_names(model: nn.Module) -> dict[int, str]:
    """Identity of every linear or convolution weight → its first name; frozen and tied ones, too."""
    names: dict[int, str] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, MASKABLE):
            names.setdefault(id(module.get_parameter("weight")), weight_name(module_name))
    return names


class FlopsMeter:
    """Integrates the cost of a training over its real masks, step by step.

    Args:
        costs: of the layers, by weight name, from `layer_costs`. Layers without a mask count in full.
        convention: how FLOPs are counted.
    """

    def __init__(self, costs: Mapping[str, LayerCost], convention: Convention = "macs") -> None:
        self.costs = dict(costs)
        self.convention: Convention = convention
        self.training_cost = 0.0
        self.steps = 0

    def inference_ratio(self, layers: Iterable[LayerReport]) -> float:
        """Forward FLOPs at these densities, relative to dense, in (0, 1]."""
        costs = self.costs.values()
        return inference_flops(costs, layers, self.convention) / inference_flops(costs, (), self.convention)

    def add_steps(self, steps: int, inference_ratio: float, dense_gradient: bool = False) -> None:
        """Account for `steps` training steps at one sparsity pattern."""
        self.training_cost += steps * _step_cost(inference_ratio, dense_gradient)
        self.steps += steps

    def training_ratio(self, dense_steps: int) -> float:
        """FLOPs of all steps so far, relative to a dense training of `dense_steps`."""
        return self.training_cost / (3 * dense_steps)
