"""How a density budget is shared over layers: exact integer counts of weights, and the rules behind them.

Pure arithmetic on shapes; torch is not imported. An allocation rule is a function of a layer's shape that
returns its *raw* share; all raw shares are scaled by one factor, layers that would exceed density 1 are capped
and their surplus goes to the others (RigL, Evci et al. 2020, appendix on ERK).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence

from itopctl.catalogue import ALLOCATIONS
from itopctl.errors import UserError

Shape = Sequence[int]


@ALLOCATIONS.add("uniform", source="Liu et al. 2021: every layer at the same density, the first included")
def uniform(shape: Shape, power: float) -> float:
    """every layer at the global density"""
    return 1.0


@ALLOCATIONS.add("er", source="Mocanu et al. 2018 (arXiv 1707.04780)")
def er(shape: Shape, power: float) -> float:
    """Erdős–Rényi: density in proportion to (n_in + n_out) / (n_in · n_out), kernel ignored"""
    n_out, n_in = shape[0], shape[1]
    return float(((n_in + n_out) / (n_in * n_out)) ** power)


@ALLOCATIONS.add("erk", source="Evci et al. 2020 (arXiv 1911.11134)")
def erk(shape: Shape, power: float) -> float:
    """Erdős–Rényi kernel: density in proportion to the sum over the product of all dimensions"""
    return float((sum(shape) / math.prod(shape)) ** power)


def layer_densities(
    shapes: Mapping[str, Shape],
    sparsity: float,
    allocation: str = "erk",
    power: float = 1.0,
    keep_dense: Collection[str] = (),
) -> dict[str, float]:
    """Real-valued density of each layer; Σ d_l·N_l = (1 − sparsity)·N exactly, up to float round-off.

    Args:
        shapes: weight shape of each maskable layer, in order.
        sparsity: global fraction of zero weights, in [0, 1).
        allocation: name in `ALLOCATIONS`.
        power: exponent of the raw share (`erk_power_scale` in RigL); 0 makes every rule uniform.
        keep_dense: layers held at density 1. They count in the budget: the others pay for them.

    Raises:
        UserError: sparsity outside [0, 1), or dense layers alone exceed the budget (names the largest
            reachable sparsity).
    """
    if not 0.0 <= sparsity < 1.0:
        raise UserError(f"sparsity {sparsity} is outside [0, 1).")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    if sparsity == 0.0:
        return dict.fromkeys(shapes, 1.0)
    rule: Callable[[Shape, float], float] = ALLOCATIONS.function(allocation)
    raw = {name: rule(shape, power) for name, shape in shapes.items() if name not in keep_dense}
    budget = (1.0 - sparsity) * total - sum(sizes[name] for name in keep_dense)
    if budget <= 0:
        raise UserError(
            f"sparsity {sparsity:g} cannot be reached while {', '.join(sorted(keep_dense))} stay dense; "
            f"{_largest_reachable(sizes, keep_dense)}."
        )
    capped: set[str] = set(keep_dense)
    scale = 0.0
    while raw:
        scale = budget / sum(share * sizes[name] for name, share in raw.items())
        largest = max(raw.values())
        if scale * largest <= 1.0:
            break
        for name in [name for name, share in raw.items() if share == largest]:
            capped.add(name)
            budget -= sizes[name]
            del raw[name]
    return {name: 1.0 if name in capped else scale * raw[name] for name in shapes}


def allocate(
    shapes: Mapping[str, Shape],
    sparsity: float,
    allocation: str = "erk",
    power: float = 1.0,
    keep_dense: Collection[str] = (),
) -> dict[str, int]:
    """Number of active weights of each layer; their sum is exactly round((1 − sparsity)·N).

    Densities of `layer_densities`, rounded by largest remainder. Every layer gets at least one weight (with a
    warning where the rule gave it less). Arguments and errors as in `layer_densities`; also UserError where
    there are more layers than weights to give.
    """
    densities = layer_densities(shapes, sparsity, allocation, power, keep_dense)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    total = sum(sizes.values())
    target = round((1.0 - sparsity) * total)
    least = sum(size if name in keep_dense else 1 for name, size in sizes.items())
    if target < least:
        raise UserError(
            f"sparsity {sparsity:g} leaves {target:,} weights where {least:,} are needed, one a layer"
            f"{' and all of the dense ones' if keep_dense else ''}; {_largest_reachable(sizes, keep_dense)}."
        )
    ideal = {name: density * sizes[name] for name, density in densities.items()}
    starved = [name for name, count in ideal.items() if count < 1.0]
    if starved:
        warnings.warn(
            f"sparsity {sparsity:g} gives less than one weight to {', '.join(starved)}; each keeps one.",
            stacklevel=2,
        )
    counts = {name: min(sizes[name], max(1, math.floor(count + 1e-9))) for name, count in ideal.items()}
    return _settle(counts, ideal, sizes, target, set(keep_dense))


def _largest_reachable(sizes: Mapping[str, int], keep_dense: Collection[str]) -> str:
    """In words, the sparsity at which every layer that need not be dense has one weight; rounded down."""
    least = sum(size if name in keep_dense else 1 for name, size in sizes.items())
    sparsity = 1.0 - least / sum(sizes.values())
    return f"the largest reachable sparsity is {math.floor(sparsity * 1e6) / 1e6:g}"


def _settle(
    counts: dict[str, int], ideal: dict[str, float], sizes: dict[str, int], target: int, fixed: set[str]
) -> dict[str, int]:
    """Move `counts` one weight at a time, where they are furthest from `ideal`, until they sum to `target`."""
    difference = target - sum(counts.values())
    step = 1 if difference > 0 else -1
    while difference:
        movable = [
            name
            for name in counts
            if name not in fixed and (counts[name] < sizes[name] if step > 0 else counts[name] > 1)
        ]
        name = max(movable, key=lambda name: step * (ideal[name] - counts[name]))
        counts[name] += step
        difference -= step
    return counts
