"""Which weights of a model can be masked, each parameter once.

Maskable are the weights of linear and convolution layers, the projections of attention and the gates of recurrent
layers, and whatever other parameters the user names (`also_mask`). Biases, norms (batch, layer, group), embeddings
(also where a linear layer shares the weight) and PReLU slopes are not; nor are frozen weights.

A parameter that stacks several matrices is several maskable weights, one a block of its rows: the query, key and value
projections of `nn.MultiheadAttention.in_proj_weight`, the gates of an LSTM or GRU. So an allocation sees the matrices.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from itopctl.catalogue import ALLOCATIONS
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
"""Layers with a single maskable weight, called `weight`."""

RECURRENT = (nn.RNNBase, nn.RNNCellBase)

PROJECTIONS = ("q", "k", "v")
"""Blocks of `nn.MultiheadAttention.in_proj_weight`, in PyTorch's order."""

GATES: Mapping[type[nn.Module], Sequence[str]] = {
    nn.LSTM: ("i", "f", "g", "o"),
    nn.LSTMCell: ("i", "f", "g", "o"),
    nn.GRU: ("r", "z", "n"),
    nn.GRUCell: ("r", "z", "n"),
}
"""Blocks of the weights of recurrent layers, in PyTorch's order."""

NOTHING_TO_MASK = (
    "nothing to make sparse: no linear or convolution layer, no attention and no recurrent layer. Name other "
    "parameters of two or more dimensions in also_mask."
)
"""The rest of a sentence on a model."""


@dataclass(frozen=True, eq=False)
class Maskable:
    """A maskable weight: a parameter, or one of the matrices that a parameter stacks.

    Attributes:
        name: of the parameter, with `.` and the block's name behind it where the parameter stacks several.
        module, attribute: where the parameter lies: in this module, under this name.
        parameter_name: of the parameter, in the model.
        parameter: the parameter.
        rows: of the parameter that are the weight, from and to; None for all of them.
        shape: of the weight.
        kinds: what its layer is: its class and the torch class it derives from, and `depthwise` for a convolution that
            sees one channel at a time.
    """

    name: str
    module: nn.Module
    attribute: str
    parameter_name: str
    parameter: nn.Parameter
    rows: tuple[int, int] | None
    shape: tuple[int, ...]
    kinds: frozenset[str]

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    def of(self, tensor: Tensor) -> Tensor:
        """The part of a tensor of the parameter's shape that is this weight's, as a view."""
        return tensor if self.rows is None else tensor[self.rows[0] : self.rows[1]]


def maskable_weights(model: nn.Module, also_mask: Sequence[str] = ()) -> dict[str, Maskable]:
    """Name → every maskable weight, in order of definition; a tied weight under its first name.

    Args:
        model: its modules are looked at.
        also_mask: globs of names of further parameters, of two or more dimensions, to mask; embeddings can be named,
            too.

    Raises:
        UserError: a weight that cannot be masked: lazy, computed by a parametrization, complex, empty, in another
            training's sparse layer; a glob that matches no parameter of two or more dimensions.
    """
    _check_initialized(model)
    asked = _asked_for(model, also_mask)
    seen = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag))} - asked
    found: dict[str, Maskable] = {}
    for module_name, module in model.named_modules():
        where = module_name or "the model"
        if hasattr(module, "dense_shape"):
            raise UserError(f"{where} is a sparse layer of another training; make the model anew.")
        own = {attribute for attribute, parameter in module._parameters.items() if id(parameter) in asked}
        for attribute, blocks in {**dict.fromkeys(sorted(own), ("",)), **weights_of(module)}.items():
            weight = getattr(module, attribute)
            if not isinstance(weight, nn.Parameter):
                raise UserError(f"{where}: its weight is computed by a parametrization; remove it first.")
            if weight.requires_grad and id(weight) not in seen:
                seen.add(id(weight))
                name = parameter_name(module_name, attribute)
                _check_maskable(name, weight)
                for block, rows in block_rows(blocks, weight.shape[0]):
                    full = block_name(name, block)
                    shape = tuple(weight.shape if rows is None else weight[rows[0] : rows[1]].shape)
                    found[full] = Maskable(full, module, attribute, name, weight, rows, shape, _kinds(module))
    return found


def left_dense(model: nn.Module, weights: Mapping[str, Maskable]) -> dict[str, int]:
    """Name → size of every trainable parameter of two or more dimensions that is not among these weights."""
    masked = {id(weight.parameter) for weight in weights.values()}
    return {
        name: parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and parameter.dim() > 1 and id(parameter) not in masked
    }


def weights_of(module: nn.Module) -> dict[str, Sequence[str]]:
    """Attribute → names of the blocks of every weight that a module of a known kind has; "" for a whole weight."""
    if isinstance(module, MASKABLE):
        return {"weight": ("",)}
    if isinstance(module, nn.MultiheadAttention):
        if module._qkv_same_embed_dim:
            return {"in_proj_weight": PROJECTIONS}
        return {f"{projection}_proj_weight": ("",) for projection in PROJECTIONS}
    if not isinstance(module, RECURRENT):
        return {}
    gates = next((gates for kind, gates in GATES.items() if isinstance(module, kind)), ("",))
    names = ["weight_ih", "weight_hh"]
    if isinstance(module, nn.RNNBase):
        names = [name for layer in module._all_weights for name in layer if name.startswith("weight")]
    # The projection behind an LSTM's gates (proj_size) is one matrix.
    return {name: ("",) if name.startswith("weight_hr") else gates for name in names}


def block_rows(blocks: Sequence[str], rows: int) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Each block of a parameter of so many rows, and its rows, from and to; None for a parameter that is one weight."""
    height = rows // len(blocks)
    for index, block in enumerate(blocks):
        yield block, (index * height, (index + 1) * height) if block else None


def parameter_name(module_name: str, attribute: str) -> str:
    """Name of a module's parameter in the model; the model itself may be the module."""
    return f"{module_name}.{attribute}" if module_name else attribute


def block_name(parameter: str, block: str) -> str:
    """Name of a maskable weight: of its parameter, with the block's behind it where the parameter stacks several."""
    return f"{parameter}.{block}" if block else parameter


def _asked_for(model: nn.Module, patterns: Sequence[str]) -> set[int]:
    """Identities of the parameters that globs of `also_mask` match."""
    able = {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if not isinstance(parameter, UninitializedParameter) and parameter.dim() > 1
    }
    thin = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Embedding, nn.EmbeddingBag)) and m.sparse}
    asked: set[int] = set()
    for pattern in patterns:
        matches = [name for name in able if fnmatchcase(name, pattern)]
        if not matches:
            raise UserError(
                f"also_mask {pattern!r} matches no parameter of two or more dimensions.{meant(pattern, able)} "
                f"There are: {', '.join(able) or 'none'}."
            )
        for name in matches:
            if id(able[name]) in thin:
                raise UserError(f"{name} has sparse gradients, which no mask fits: make its layer with sparse=False.")
        asked |= {id(able[name]) for name in matches}
    return asked


def _check_initialized(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter) and parameter.requires_grad:
            raise UserError(f"{name} has no shape yet, since its layer is lazy: call the model with a batch first.")


def _check_maskable(name: str, weight: nn.Parameter) -> None:
    if weight.is_inference():
        raise UserError(
            f"{name} was made in torch.inference_mode, so it cannot be trained: make the model outside of it."
        )
    if weight.is_complex():
        raise UserError(f"{name} is complex ({weight.dtype}); only real weights can be masked.")
    if weight.numel() == 0:
        raise UserError(f"{name} has no entries (its shape is {list(weight.shape)}): there is nothing to mask.")
    if type(weight.data) is not Tensor:
        raise UserError(
            f"{name} is a {type(weight.data).__name__}; only plain tensors can be masked (sharded ones, of FSDP or "
            "tensor parallelism, and quantised ones cannot)."
        )


def _kinds(module: nn.Module) -> frozenset[str]:
    """What a layer is: its class and the torch class it derives from, and `depthwise` for a convolution that sees one
    channel at a time."""
    known = (*MASKABLE, nn.MultiheadAttention, *RECURRENT)
    words = {type(module).__name__} | {kind.__name__ for kind in type(module).__mro__ if issubclass(kind, known)}
    if isinstance(module, nn.modules.conv._ConvNd) and module.groups == module.in_channels > 1:
        words.add("depthwise")
    return frozenset(words)


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


def matching(names: Iterable[str], pattern: str, kinds: Mapping[str, Collection[str]], setting: str) -> set[str]:
    """Layer names that match a glob, or are of a type (`type:Conv2d`, `type:depthwise`).

    A layer's name without `.weight` will do, and that of a parameter for all blocks of it.

    Raises:
        UserError: it matches none; says which setting it stands in.
    """
    names = list(names)
    if pattern.startswith("type:"):
        matches = {name for name in names if pattern.removeprefix("type:") in kinds.get(name, ())}
        there = sorted({f"type:{kind}" for name in names for kind in kinds.get(name, ())})
    else:
        wanted = (pattern, f"{pattern}.weight", f"{pattern}.?")
        matches = {name for name in names if any(fnmatchcase(name, glob) for glob in wanted)}
        there = names
    if not matches:
        raise UserError(f"{setting} {pattern!r} matches no layer.{meant(pattern, there)} Layers: {', '.join(there)}.")
    return matches


def active_counts(
    shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, Collection[str]], rules: Rules, sparsity: float
) -> dict[str, int]:
    """How many weights of each maskable layer are active at the start of a training.

    Args:
        shapes: name → shape of every maskable weight, in the model's order.
        kinds: of the same, as `Maskable.kinds`.
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
    args = rules.settings_for("allocation", ALLOCATIONS, rules.allocation)
    return allocate(shapes, sparsity, rules.allocation, rules.allocation_power, fixed, rules.dense_in_budget, args)
