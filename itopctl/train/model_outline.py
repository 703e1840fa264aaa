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

from itopctl.catalogue import DATASETS, MODELS, is_user_function
from itopctl.config.run_config import RunConfig, calls_own_code
from itopctl.dst.allocation import StarvedLayersWarning
from itopctl.dst.flops import LayerCost, layer_costs
from itopctl.dst.maskable import NOTHING_TO_MASK, active_counts, left_dense, maskable_weights
from itopctl.dst.network_outline import LayerOutline, Outline
from itopctl.dst.rules import Rules
from itopctl.errors import ItopctlError, UserError
from itopctl.train.own_code import definition_of, in_words, place_of
from itopctl.train.process_settings import check_settings

_ALLOCATION = (
    "allocation", "allocation_power", "allocation_args", "keep_dense", "layer_density", "dense_in_budget",
)  # fmt: skip


class UnmadeModelError(UserError):
    """A user's model, or a rule of the user's own, that fails where it is tried. Its `__cause__` is what was raised."""


def outline_of(config: RunConfig) -> Outline:
    """The outline of a run's network.

    Raises:
        UserError: the model cannot be made, does not take the data set's images, has nothing to make sparse, or the
            sparsity cannot be reached. Where that comes from the user's own code, its file and line stand first.
    """
    try:
        if calls_own_code(config):
            Rules.of_settings(config.model_dump())  # its rules can be imported, too
        rules = Rules.of_settings({name: getattr(config, name) for name in _ALLOCATION})
        model = _Model(config.model, tuple(config.args("model").items()), config.dataset, config.also_mask or ())
        return _outline(model, rules, config.sparsity)
    except ItopctlError:
        raise
    except (Exception, SystemExit) as error:  # of a rule of the user's own
        raise UnmadeModelError(_at(place_of(error), in_words(error))) from error


def prepare() -> None:
    """Import all that the first outline imports, so that processes which are forked from this one share it."""
    _network(_Model("lenet-300-100", (), "digits", ()))


@dataclass(frozen=True)
class _Model:
    """What a network depends on: a model with its settings, the data set, further parameters to mask."""

    name: str
    args: tuple[tuple[str, Any], ...]
    dataset: str
    also_mask: tuple[str, ...]


@functools.lru_cache(maxsize=10_000)
def _outline(model: _Model, rules: Rules, sparsity: float) -> Outline:
    network = _network(model)
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
    return Outline(
        layers, others, network.parameters, network.buffers, network.activations, starved, network.left_dense
    )


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
    left_dense: tuple[tuple[str, int], ...]


@functools.lru_cache(maxsize=64)
def _network(model: _Model) -> _Network:
    """The network made on the meta device, or for real where that fails: a model may compute with its numbers."""
    try:
        return _measured(model, "meta")
    except UserError:
        pass
    try:
        return _measured(model, "cpu")
    except UserError:
        if not torch.cuda.is_available():
            raise
    return _measured(model, "cuda")  # one that asks for a GPU


def _measured(model: _Model, device: str) -> _Network:
    dataset, options = model.dataset, DATASETS.get(model.dataset).options
    shape, classes = tuple(options["shape"]), int(options["classes"])
    with torch.device(device), torch.random.fork_rng(devices=[]):
        built, place = _made(model, shape, classes)
        try:
            if is_user_function(model.name):
                check_settings([model.name], default_device=False)
            weights = maskable_weights(built, model.also_mask)
            if not weights:
                raise UserError(f"model {model.name!r} has {NOTHING_TO_MASK}")
            with _Activations(built) as activations:
                costs = layer_costs(built, torch.zeros(1, *shape))
        except ItopctlError as error:
            raise UnmadeModelError(_at(place, str(error))) from error
        except (Exception, SystemExit) as error:
            said = f"it does not take an image of {dataset} ({'×'.join(map(str, shape))}): {in_words(error)}"
            raise UnmadeModelError(_at(place_of(error) or place, said)) from error
    complaint = _complaint(activations.output, classes)
    if complaint:
        raise UnmadeModelError(_at(place, f"it {complaint} for {dataset}."))
    return _Network(
        shapes={name: weight.shape for name, weight in weights.items()},
        kinds={name: weight.kinds for name, weight in weights.items()},
        costs=costs,
        parameters=sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad),
        buffers=sum(buffer.numel() for buffer in built.buffers())
        + sum(parameter.numel() for parameter in built.parameters() if not parameter.requires_grad),
        activations=activations.count,
        left_dense=tuple(left_dense(built, weights).items()),
    )


def _made(model: _Model, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, str]:
    """A model, and where the user defines it ("" for one of this package)."""
    function: Any = None
    try:
        function = MODELS.function(model.name)
        built = function(input_shape=shape, classes=classes, **dict(model.args))
    except ItopctlError:
        raise
    except (Exception, SystemExit) as error:
        raise UnmadeModelError(_at(place_of(error, function), in_words(error))) from error
    place = definition_of(function)
    if not isinstance(built, nn.Module):
        kind = "None" if built is None else f"a {type(built).__name__}"
        raise UnmadeModelError(_at(place, f"its function returns {kind}; a torch.nn.Module is expected."))
    return built, place


def _complaint(output: Any, classes: int) -> str:
    """What is wrong with a model's answer to one image; "" where it is logits."""
    if not isinstance(output, Tensor):
        return f"returns a {type(output).__name__} where logits [n, {classes}] are expected"
    if output.dim() != 2 or output.shape[0] != 1 or output.shape[1] < classes:
        shape = ", ".join(map(str, output.shape))
        return f"returns [{shape}] for one image, where logits [1, {classes}] are expected"
    return ""


def _at(place: str, said: str) -> str:
    return f"{place}: {said}" if place else said


class _Activations:
    """Counts the numbers that a model's innermost modules give while this is entered; keeps what the model gives."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._modules = [module for module in model.modules() if not any(module.children())]
        self._handles: list[Any] = []
        self.count = 0
        self.output: Any = None

    def __enter__(self) -> _Activations:
        self._handles = [module.register_forward_hook(self._add) for module in self._modules]
        self._handles.append(self._model.register_forward_hook(self._keep))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _add(self, module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = output if isinstance(output, (tuple, list)) else (output,)
        self.count += sum(value.numel() for value in outputs if isinstance(value, Tensor))

    def _keep(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.output = output
