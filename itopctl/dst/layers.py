"""Which weights of a model can be masked: those of linear and convolution layers, each parameter once.

Biases, norms (batch, layer, group), embeddings (also where a linear layer shares the weight) and PReLU slopes are
not; nor are frozen weights.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from itopctl.dst.allocation import allocate
from itopctl.dst.rules import Rules
from itopctl.errors import UserError, meant

MASKABLE = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)


def maskable_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name → weight of every maskable layer, in order of definition; a tied weight under its first name."""
    found: dict[str, nn.Parameter] = {}
    seen = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))}
    for module_name, module in model.named_modules():
        if not isinstance(module, MASKABLE):
            continue
        weight = module.weight
        if hasattr(module, "dense_shape"):
            raise UserError(f"{module_name or 'the model'} is a sparse layer of another training; make the model anew.")
        if not isinstance(weight, nn.Parameter):
            raise UserError(
                f"{module_name or 'the model'}: its weight is computed by a parametrization; remove it first."
            )
        if weight.requires_grad and id(weight) not in seen:
            seen.add(id(weight))
            found[weight_name(module_name)] = weight
    return found


def modules_of(model: nn.Module, weights: Mapping[str, nn.Parameter]) -> dict[str, list[nn.Module]]:
    """Name of each of these weights → every module that has it, under whatever name."""
    names = {id(weight): name for name, weight in weights.items()}
    users: dict[str, list[nn.Module]] = {name: [] for name in weights}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in names:
                users[names[id(parameter)]].append(module)
    return users


@contextlib.contextmanager
def calls_told(modules: Iterable[nn.Module], tell: Callable[[nn.Module, Tensor], None]) -> Iterator[None]:
    """Tell of every call of these modules, which have no `forward` of their own: which it is, and its input.

    By other means than hooks: in the presence of those PyTorch's transformers leave their fast path.
    """

    def telling(module: nn.Module, forward: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
        def told(input: Tensor) -> Any:
            tell(module, input)
            return forward(input)

        return told

    watched = list(modules)
    try:
        for module in watched:
            module.forward = telling(module, module.forward)
        yield
    finally:
        for module in watched:
            module.__dict__.pop("forward", None)


def dense_shape(module: nn.Module) -> tuple[int, ...]:
    """Shape of a layer's weight, zeros included, also where the layer keeps only its nonzeros."""
    shape: tuple[int, ...] = getattr(module, "dense_shape", None) or tuple(module.get_parameter("weight").shape)
    return shape


def weight_name(module_name: str) -> str:
    """Name of a layer's weight; the model itself may be the layer."""
    return f"{module_name}.weight" if module_name else "weight"


def kinds_of(model: nn.Module) -> dict[str, set[str]]:
    """Name of every maskable weight → what its layer is: its class and the torch class it derives from, and
    `depthwise` for a convolution that sees one channel at a time."""
    kinds: dict[str, set[str]] = {}
    for module_name, module in model.named_modules():
        if isinstance(module, MASKABLE):
            words = {kind.__name__ for kind in type(module).__mro__ if issubclass(kind, MASKABLE)}
            if not isinstance(module, nn.Linear) and module.groups == module.in_channels > 1:
                words.add("depthwise")
            kinds[weight_name(module_name)] = words
    return kinds


def matching(names: Iterable[str], pattern: str, kinds: Mapping[str, set[str]], setting: str) -> set[str]:
    """Layer names that match a glob, or are of a type (`type:Conv2d`, `type:depthwise`).

    Raises:
        UserError: it matches none; says which setting it stands in.
    """
    names = list(names)
    if pattern.startswith("type:"):
        matches = {name for name in names if pattern.removeprefix("type:") in kinds.get(name, ())}
        there = sorted({f"type:{kind}" for name in names for kind in kinds.get(name, ())})
    else:
        matches = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.weight")}
        there = names
    if not matches:
        raise UserError(f"{setting} {pattern!r} matches no layer.{meant(pattern, there)} Layers: {', '.join(there)}.")
    return matches


def active_counts(
    shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, set[str]], rules: Rules, sparsity: float
) -> dict[str, int]:
    """How many weights of each maskable layer are active at the start of a training.

    Args:
        shapes: name → shape of every maskable weight, in the model's order.
        kinds: of the same, from `kinds_of`.
        rules: their allocation; without one every layer is dense.
        sparsity: global fraction of zero weights, in [0, 1).

    Raises:
        UserError: a pattern matches no layer or two contradict each other; the sparsity cannot be reached.
    """
    if rules.allocation is None:
        return {name: math.prod(shape) for name, shape in shapes.items()}
    fixed: dict[str, float] = {}
    wanted = [("layer_density", *entry) for entry in rules.layer_density]
    for setting, pattern, density in [*wanted, *(("keep_dense", pattern, 1.0) for pattern in rules.keep_dense)]:
        for name in matching(shapes, pattern, kinds, setting):
            if fixed.setdefault(name, density) != density:
                raise UserError(f"{setting} {pattern!r}: {name} has two densities, {fixed[name]} and {density}.")
    return allocate(shapes, sparsity, rules.allocation, rules.allocation_power, fixed, rules.dense_in_budget)
