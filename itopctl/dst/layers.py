"""Which weights of a model can be masked: those of linear and convolution layers, each parameter once.

Biases, norms (batch, layer, group), embeddings and PReLU slopes are not; nor are frozen weights.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from torch import nn

from itopctl.errors import UserError

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
    seen: set[int] = set()
    for module_name, module in model.named_modules():
        if not isinstance(module, MASKABLE):
            continue
        weight = module.weight
        if not isinstance(weight, nn.Parameter):
            raise UserError(
                f"{module_name or 'the model'}: its weight is computed by a parametrization; remove it first."
            )
        if weight.requires_grad and id(weight) not in seen:
            seen.add(id(weight))
            found[weight_name(module_name)] = weight
    return found


def weight_name(module_name: str) -> str:
    """Name of a layer's weight; the model itself may be the layer."""
    return f"{module_name}.weight" if module_name else "weight"


def matching(names: list[str], patterns: tuple[str, ...]) -> set[str]:
    """Layer names that match any of the globs. Raises UserError for a glob that matches none."""
    chosen: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.weight")}
        if not matches:
            raise UserError(f"keep_dense {pattern!r} matches no layer. Layers: {', '.join(names)}.")
        chosen |= matches
    return chosen
