"""The outline of a run's network, made without training it and without memory for its weights.

The model is built on PyTorch's meta device, where tensors have shapes and no numbers; one that cannot be built there (a
user's own may compute with its weights) is built for real. Layers and densities are found by what the engine itself
uses, so that the outline is the network that the run will start from. Runs that share model, data set and allocation
share the work.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.catalogue import DATASETS, MODELS
from itopctl.dst.allocation import StarvedLayersWarning
from itopctl.dst.flops import LayerCost, layer_costs
from itopctl.dst.layers import active_counts, maskable_weights
from itopctl.dst.outline import LayerOutline, Outline
from itopctl.dst.rules import Rules
from itopctl.errors import ItopctlError, UserError
from itopctl.spec.config import RunConfig

_ALLOCATION = ("allocation", "allocation_power", "keep_dense", "layer_density", "dense_in_budget")


def outline_of(config: RunConfig) -> Outline:
    """The outline of a run's network.

    Raises:
        UserError: the model cannot be built, has nothing to make sparse, or the sparsity cannot be reached.
    """
    rules = Rules.of_settings({name: getattr(config, name) for name in _ALLOCATION})
    return _outline(config.model, config.dataset, rules, config.sparsity)


@functools.lru_cache(maxsize=10_000)
def _outline(model: str, dataset: str, rules: Rules, sparsity: float) -> Outline:
    network = _network(model, dataset)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        counts = active_counts(network.shapes, network.kinds, rules, sparsity)
    sizes = {name: int(torch.Size(shape).numel()) for name, shape in network.shapes.items()}
    layers = tuple(
        LayerOutline(name, size, counts[name], _macs(network.costs.get(name))) for name, size in sizes.items()
    )
    others = sum(_macs(cost) for name, cost in network.costs.items() if name not in sizes)
    starved = tuple(
        name for warning in caught if isinstance(warning.message, StarvedLayersWarning)
        for name in warning.message.layers
    )  # fmt: skip
    return Outline(layers, others, network.parameters, network.buffers, network.activations, starved)


def _macs(cost: LayerCost | None) -> int:
    return cost.macs if cost else 0


@dataclass(frozen=True)
class _Network:
    """What an outline needs of a model; nothing of its numbers."""

    shapes: Mapping[str, tuple[int, ...]]
    kinds: Mapping[str, frozenset[str]]
    costs: Mapping[str, LayerCost]
    parameters: int
    buffers: int
    activations: int


@functools.lru_cache(maxsize=64)
def _network(model: str, dataset: str) -> _Network:
    try:
        return _measured(model, dataset, "meta")
    except ItopctlError:
        raise
    except Exception:  # whatever a model does that needs its numbers
        pass
    try:
        return _measured(model, dataset, "cpu")
    except ItopctlError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(f"model {model!r} cannot be built for {dataset}: {type(error).__name__}: {said}") from error


def _measured(model: str, dataset: str, device: str) -> _Network:
    options = DATASETS.get(dataset).options
    with torch.device(device), torch.random.fork_rng(devices=[]):
        built: nn.Module = MODELS.function(model)(input_shape=tuple(options["shape"]), classes=options["classes"])
        weights = maskable_weights(built)
        if not weights:
            raise UserError(f"model {model!r} has no linear or convolution layer to make sparse.")
        with _Activations(built) as activations:
            costs = layer_costs(built, torch.zeros(1, *options["shape"]))
    return _Network(
        shapes={name: weight.shape for name, weight in weights.items()},
        kinds={name: weight.kinds for name, weight in weights.items()},
        costs=costs,
        parameters=sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad),
        buffers=sum(buffer.numel() for buffer in built.buffers())
        + sum(parameter.numel() for parameter in built.parameters() if not parameter.requires_grad),
        activations=activations.count,
    )


class _Activations:
    """Counts the numbers that a model's innermost modules give while this is entered."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = [module for module in model.modules() if not any(module.children())]
        self._handles: list[Any] = []
        self.count = 0

    def __enter__(self) -> _Activations:
        self._handles = [module.register_forward_hook(self._add) for module in self._modules]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _add(self, module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        self.count += sum(value.numel() for value in outputs if isinstance(value, Tensor))
