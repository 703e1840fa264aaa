"""Forward and training FLOPs of a masked network, relative to dense.

Counts multiply-accumulates of linear and convolution layers, which is what the published ratios count
(normalisation, activations, pooling and residual sums are left out). A masked weight costs nothing. A training
step costs one forward and two backward products (with respect to inputs and to weights); where growth reads the
dense gradient, the last of the three is dense (Evci et al. 2020, appendix on FLOPs).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from itopctl.dst.engine import LayerReport
from itopctl.dst.layers import MASKABLE, weight_name


def forward_flops(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Dense multiply-accumulates of one forward pass for one sample, by weight name.

    Args:
        model: run once in evaluation mode, without gradients; its mode is restored.
        example: a batch of one sample, on the model's device.
    """
    counts: dict[str, int] = {}
    names = _weight_names(model)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.get_parameter("weight")
        # Every weight is used once a position: of the output, or of the input where the layer is transposed.
        used = inputs[0] if isinstance(module, nn.modules.conv._ConvTransposeNd) else output
        channels = used.shape[-1 if isinstance(module, nn.Linear) else 1]
        name = names[id(weight)]
        counts[name] = counts.get(name, 0) + weight.numel() * (used.numel() // channels)

    modes = [(module, module.training) for module in model.modules()]
    handles = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, MASKABLE)]
    try:
        model.eval()
        with torch.no_grad():
            model(example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return counts


def _weight_names(model: nn.Module) -> dict[int, str]:
    """Identity of every maskable weight → its name, the one `maskable_weights` gives it; frozen ones, too."""
    names: dict[int, str] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, MASKABLE):
            names.setdefault(id(module.get_parameter("weight")), weight_name(module_name))
    return names


class FlopsMeter:
    """Integrates the cost of a training over its real masks, step by step.

    Args:
        dense: multiply-accumulates by weight name, from `forward_flops`. Layers without a mask count in full.
    """

    def __init__(self, dense: Mapping[str, int]) -> None:
        self.dense = dict(dense)
        self.training_cost = 0.0
        self.steps = 0

    def inference_ratio(self, layers: Iterable[LayerReport]) -> float:
        """Forward FLOPs at these densities, relative to dense, in (0, 1]."""
        density = {layer.name: layer.density for layer in layers}
        return sum(flops * density.get(name, 1.0) for name, flops in self.dense.items()) / self._total

    def add_steps(self, steps: int, inference_ratio: float, dense_gradient: bool = False) -> None:
        """Account for `steps` training steps at one sparsity pattern."""
        if dense_gradient:
            cost = 2 * inference_ratio + 1.0
        else:
            cost = 3 * inference_ratio
        self.training_cost += steps * cost
        self.steps += steps

    def training_ratio(self, dense_steps: int) -> float:
        """FLOPs of all steps so far, relative to a dense training of `dense_steps`."""
        return self.training_cost / (3 * dense_steps)

    @property
    def _total(self) -> int:
        return sum(self.dense.values())
