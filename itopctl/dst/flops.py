"""FLOPs and size of a masked network, by the two published conventions, from its real masks.

`macs` counts multiply-accumulates: n output values of v weights each cost n·v. `micronet` counts as the MicroNet
challenge did, and RigL's tables with it: v multiplications and v − 1 additions, one addition for a bias and one
multiplication for a ReLU, in every layer: n·(2v + 1). Both count linear, convolution and recurrent layers and
attention: its projections, and its own products, which are dense in a sparse network, too (of `nn.MultiheadAttention`
and of `scaled_dot_product_attention`; not of products that a model writes out by itself). Normalisation, pooling,
element-wise operations and residual sums are left out. A masked weight costs nothing: v is the mean over the layer's
outputs. The ratio to dense differs in the last printed digit, so tables must say which they use.

A training step costs one forward and two backward products (with respect to inputs and to weights); where growth
reads the dense gradient, the last of the three is dense (Evci et al. 2020, appendix on FLOPs).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from itopctl.dst.maskable import MASKABLE, block_name, block_rows, parameter_name, weights_of
from itopctl.dst.reports import LayerReport

Convention = Literal["macs", "micronet"]


@dataclass(frozen=True)
class LayerCost:
    """What one layer, or one block of its weight, costs for one sample.

    Attributes:
        name: of its weight.
        weights: number of weights, N.
        channels: output channels (as many biases are counted in the size, whether the layer has them or not).
        outputs: output values n that a forward pass computes; of all its uses, where the weight is used repeatedly.
        uses: how often each weight is multiplied in a forward pass; n·v = uses·N.
        products: multiply-accumulates of attention's own, which no mask makes fewer: of queries with keys, and of
            attention weights with values. Such an entry has no weights.
    """

    name: str
    weights: int
    channels: int
    outputs: int
    uses: int
    products: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a forward pass, were the layer dense."""
        return self.uses * self.weights + self.products

    def flops(self, density: float = 1.0, convention: Convention = "micronet") -> float:
        """FLOPs of a forward pass at this density; for `macs`, multiply-accumulates."""
        macs = self.uses * self.weights * density + self.products
        return macs if convention == "macs" else 2 * macs + self.outputs

    def __add__(self, before: LayerCost | None) -> LayerCost:
        """This use of a layer and those before it."""
        if before is None:
            return self
        return replace(
            self,
            outputs=self.outputs + before.outputs,
            uses=self.uses + before.uses,
            products=self.products + before.products,
        )

    def size_bits(self, density: float = 1.0) -> float:
        """Bits to store the layer: 32 an active weight and a bias, and one a weight for the mask of a sparse layer."""
        mask = self.weights if density < 1.0 else 0
        return 32 * self.weights * density + mask + 32 * self.channels


def layer_costs(model: nn.Module, *example: Tensor) -> dict[str, LayerCost]:
    """What each layer costs, by weight name; any model, any input size. Attention's products have a name of their own.

    Args:
        model: run once in evaluation mode, without gradients; its mode is restored.
        example: what the model is called with: a batch of one sample, on the model's device.
    """
    ledger = _Ledger(model)
    modes = [(module, module.training) for module in model.modules()]
    # Hooks also make PyTorch's transformers leave their fast path, in which layers are not called.
    handles = [
        module.register_forward_hook(ledger.count, with_kwargs=True)
        for module in model.modules()
        if isinstance(module, MASKABLE) or weights_of(module)
    ]
    handles += [
        m.register_forward_pre_hook(ledger.enter) for m in model.modules() if isinstance(m, nn.MultiheadAttention)
    ]
    try:
        model.eval()
        with torch.no_grad(), ledger:
            model(*example)
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes:
            module.training = training
    return ledger.costs


class _Ledger(TorchFunctionMode):
    """Writes down what layers cost while a model runs, and attention that a model computes without a layer."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.costs: dict[str, LayerCost] = {}
        self._inside = 0
        self._names: dict[int, str] = {}
        self._modules: dict[nn.Module, str] = {}
        for module_name, module in model.named_modules():
            self._modules[module] = module_name
            for attribute in weights_of(module):
                self._names.setdefault(id(getattr(module, attribute)), parameter_name(module_name, attribute))

    def enter(self, module: nn.Module, inputs: Any) -> None:
        """An attention layer begins."""
        self._inside += 1

    def count(self, module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], output: Any) -> None:
        """A layer has been called."""
        if isinstance(module, nn.MultiheadAttention):
            self._inside -= 1
            self._count_attention(module, **{**dict(zip(("query", "key", "value"), inputs, strict=False)), **named})
        elif isinstance(module, MASKABLE):
            transposed = isinstance(module, nn.modules.conv._ConvTransposeNd)
            axis = -1 if isinstance(module, nn.Linear) else 1
            # Every weight is used once a position: of the output, or of the input where the layer is transposed.
            used = next(iter((*inputs, *named.values()))) if transposed else output
            outputs = output.numel() // max(1, output.shape[axis])
            self._add(module, "weight", used.numel() // max(1, used.shape[axis]), outputs)
        else:  # a recurrent layer: every weight is used at every time step of every sample
            sequence = next(iter((*inputs, *named.values())))
            sequence = sequence.data if isinstance(sequence, nn.utils.rnn.PackedSequence) else sequence
            positions = sequence.numel() // sequence.shape[-1]
            for attribute in weights_of(module):
                self._add(module, attribute, positions, positions)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is functional.scaled_dot_product_attention and not self._inside:
            given = {**dict(zip(("query", "key", "value"), args, strict=False)), **kwargs}
            query, key, value = given["query"], given["key"], given["value"]
            pairs = query.shape[:-1].numel() * key.shape[-2]
            self._add_products("scaled_dot_product_attention", pairs * (query.shape[-1] + value.shape[-1]))
        return function(*args, **kwargs)

    def _count_attention(
        self, module: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, **_: Any
    ) -> None:
        tokens = {"q": query.numel() // query.shape[-1], "k": key.numel() // key.shape[-1],
                  "v": value.numel() // value.shape[-1]}  # fmt: skip
        for attribute, blocks in weights_of(module).items():
            for block in blocks:
                positions = tokens[block or attribute[0]]
                self._add(module, attribute, positions, positions, only=block)
        self._add(module.out_proj, "weight", tokens["q"], tokens["q"])  # used without being called
        samples = 1 if query.dim() == 2 else query.shape[0 if module.batch_first else 1]
        keys = tokens["k"] // samples + (module.bias_k is not None) + module.add_zero_attn
        # Queries with keys, and weights with values: each a product over all heads together, of embed_dim columns.
        self._add_products(
            parameter_name(self._modules[module], "attention"), 2 * tokens["q"] * keys * module.embed_dim
        )

    def _add(self, module: nn.Module, attribute: str, uses: int, positions: int, only: str | None = None) -> None:
        weight = getattr(module, attribute)  # computed anew, where a parametrization makes it
        shape = getattr(module, "dense_shape", None) or tuple(weight.shape)
        parameter = self._names.get(id(weight)) or parameter_name(self._modules[module], attribute)
        for block, rows in block_rows(weights_of(module)[attribute], shape[0]):
            if only is None or block == only:
                height = shape[0] if rows is None else rows[1] - rows[0]
                channels = module.out_channels if isinstance(module, nn.modules.conv._ConvTransposeNd) else height
                name = block_name(parameter, block)
                cost = LayerCost(name, height * math.prod(shape[1:]), channels, positions * channels, uses)
                self.costs[name] = cost + self.costs.get(name)

    def _add_products(self, name: str, products: int) -> None:
        self.costs[name] = LayerCost(name, 0, 0, 0, 0, products) + self.costs.get(name)


Costs = Iterable[LayerCost] | Mapping[str, LayerCost]
"""As `layer_costs` gives them, or without their names."""


def inference_flops(
    costs: Costs,
    layers: Iterable[LayerReport],
    convention: Convention = "micronet",
) -> float:
    """FLOPs of a forward pass for one sample at the real masks; layers without a report count in full."""
    density = {layer.name: layer.density for layer in layers}
    return math.fsum(cost.flops(density.get(cost.name, 1.0), convention) for cost in _each(costs))


def size_megabytes(costs: Costs, layers: Iterable[LayerReport]) -> float:
    """Size of the network in units of 10⁶ bytes: 32 bits a nonzero weight and a bias, one bit a masked weight."""
    density = {layer.name: layer.density for layer in layers}
    return math.fsum(cost.size_bits(density.get(cost.name, 1.0)) for cost in _each(costs)) / 8e6


def _each(costs: Costs) -> Iterable[LayerCost]:
    return costs.values() if isinstance(costs, Mapping) else costs


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
        dense = inference_flops(costs, (), self.convention)  # none where no layer is of a kind that is counted
        return inference_flops(costs, layers, self.convention) / dense if dense else 1.0

    def add_steps(self, steps: int, inference_ratio: float, dense_gradient: bool = False) -> None:
        """Account for `steps` training steps at one sparsity pattern."""
        self.training_cost += steps * _step_cost(inference_ratio, dense_gradient)
        self.steps += steps

    def training_ratio(self, dense_steps: int) -> float:
        """FLOPs of all steps so far, relative to a dense training of `dense_steps`."""
        return self.training_cost / (3 * dense_steps)
