"""How a density budget is shared over layers: exact integer counts of weights, and the rules behind them.

Pure arithmetic on shapes; torch is not imported. An allocation rule is a function of a layer's shape that
returns its *raw* share; all raw shares are scaled by one factor, layers that would exceed density 1 are capped
and their surplus goes to the others (RigL, Evci et al. 2020, appendix on ERK). What a rule declares beside its name
and source: `first`, the density of the first layer, and `last_at_least`, the least density of the last one.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from itopctl.catalogue import ALLOCATIONS
from itopctl.errors import UserError

Shape = Sequence[int]


class StarvedLayersWarning(UserWarning):
    """An allocation gave less than one weight to some `layers`; each keeps one."""

    def __init__(self, sparsity: float, layers: tuple[str, ...]) -> None:
        self.layers = layers
        super().__init__(f"sparsity {sparsity:g} gives less than one weight to {', '.join(layers)}; each keeps one.")


@ALLOCATIONS.add("uniform", source="Liu et al. 2021: every layer at the same density, the first included")
def uniform(shape: Shape, power: float) -> float:
    """every layer at the global density"""
    return 1.0


@ALLOCATIONS.add(
    "uniform-plus",
    source="Gale et al. 2019 (arXiv 1902.09574); Liu et al. 2022 (arXiv 2202.02643), exact budget",
    first=1.0,
    last_at_least=0.2,
)
def uniform_plus(shape: Shape, power: float) -> float:
    """the first layer dense, the last at density 0.2 or more, the others alike"""
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
    fixed: Mapping[str, float] | None = None,
    fixed_in_budget: bool = True,
    args: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Real-valued density of each layer; Σ d_l·N_l = (1 − sparsity)·N exactly, up to float round-off.

    A density that is given for a layer is first rounded to a whole number of weights, at least one.

    Args:
        shapes: weight shape of each maskable layer, in order.
        sparsity: global fraction of zero weights, in [0, 1).
        allocation: name in `ALLOCATIONS`, or `module:function`.
        power: exponent of the raw share (`erk_power_scale` in RigL); 0 makes every rule uniform.
        fixed: layers whose density is given, in (0, 1]; 1 keeps a layer dense.
        fixed_in_budget: whether fixed layers count in the budget, so that the others pay for them. Otherwise the
            others share (1 − sparsity) of their own weights (RigL's code; its published 99 % networks).
        args: settings that an allocation of the user's own declares.

    Raises:
        UserError: sparsity outside [0, 1), fixed layers alone exceed the budget (names the largest reachable
            sparsity), or they leave more than the others can hold (names the smallest).
    """
    if not 0.0 <= sparsity < 1.0:
        raise UserError(f"sparsity {sparsity} is outside [0, 1).")
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    given = dict(fixed or {})
    fixed = _with_ends(given, list(shapes), sparsity, allocation)
    if len(given) < len(sizes):  # a given density is one that a whole number of weights makes
        fixed = {name: _count_of(density, sizes[name]) / sizes[name] for name, density in fixed.items()}
    if sparsity == 0.0 and all(density == 1.0 for density in fixed.values()):
        return dict.fromkeys(shapes, 1.0)
    raw = {
        name: _raw_share(allocation, shape, power, args or {}) for name, shape in shapes.items() if name not in fixed
    }
    counted = sizes if fixed_in_budget else {name: sizes[name] for name in raw}
    budget = (1.0 - sparsity) * sum(counted.values())
    if fixed_in_budget:
        budget -= math.fsum(density * sizes[name] for name, density in fixed.items())
    if fixed_in_budget and abs(budget) > 0.5 and len(given) == len(sizes):
        made = 1.0 - math.fsum(density * sizes[name] for name, density in fixed.items()) / sum(sizes.values())
        raise UserError(
            f"sparsity {sparsity:g} cannot be reached: the density of every layer is given, and the only reachable "
            f"sparsity is {made:.12g}."
        )
    if (raw and budget <= 0) or budget < -0.5:
        kept = ", ".join(name for name, density in fixed.items() if density == 1.0)
        staying = f"{kept} stay dense" if kept else f"{', '.join(fixed)} stay as dense as asked"
        raise UserError(
            f"sparsity {sparsity:g} cannot be reached while {staying}; "
            f"{_largest_reachable(sizes, given, fixed_in_budget, allocation)}."
        )
    if fixed_in_budget and budget > sum(sizes[name] for name in raw) + 0.5:
        most = sum(density * sizes[name] for name, density in fixed.items()) + sum(sizes[name] for name in raw)
        raise UserError(
            f"sparsity {sparsity:g} cannot be reached: the densities given to {', '.join(fixed)} leave more zeros; "
            f"the smallest reachable sparsity is {math.ceil((1.0 - most / sum(sizes.values())) * 1e6) / 1e6:g}."
        )
    densities = dict(fixed)
    while raw:
        scale = budget / sum(share * sizes[name] for name, share in raw.items())
        largest = max(raw.values())
        if scale * largest <= 1.0:
            densities |= {name: scale * share for name, share in raw.items()}
            break
        for name in [name for name, share in raw.items() if share == largest]:
            densities[name] = 1.0
            budget -= sizes[name]
            del raw[name]
    return {name: densities[name] for name in shapes}


def allocate(
    shapes: Mapping[str, Shape],
    sparsity: float,
    allocation: str = "erk",
    power: float = 1.0,
    fixed: Mapping[str, float] | None = None,
    fixed_in_budget: bool = True,
    args: Mapping[str, Any] | None = None,
) -> dict[str, int]:
    """Number of active weights of each layer; their sum is exactly round((1 − sparsity)·N).

    Densities of `layer_densities`, rounded by largest remainder. Every layer gets at least one weight (with a
    warning where the rule gave it less). Without `fixed_in_budget` the sum over the layers that are not fixed is
    round((1 − sparsity) of their weights). Arguments and errors as in `layer_densities`; also UserError where
    there are more layers than weights to give.
    """
    densities = layer_densities(shapes, sparsity, allocation, power, fixed, fixed_in_budget, args)
    given = dict(fixed or {})
    fixed = _with_ends(given, list(shapes), sparsity, allocation)
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    counts = {name: _count_of(density, sizes[name]) for name, density in fixed.items()}
    free = {name: size for name, size in sizes.items() if name not in fixed}
    in_budget = sizes if fixed_in_budget else free
    target = round((1.0 - sparsity) * sum(in_budget.values())) - (sum(counts.values()) if fixed_in_budget else 0)
    surplus = target - sum(free.values())
    if not free or surplus > 0:  # given densities that leave no choice are rounded so that the total is exact
        partly = {name: sizes[name] for name, density in fixed.items() if density < 1.0}
        ideal = {name: density * sizes[name] for name, density in fixed.items()}
        counts |= _settle({name: counts[name] for name in partly}, ideal, partly, surplus)
        target -= surplus
    if target < len(free):
        others = " beside the layers whose density is given" if fixed else ""
        raise UserError(
            f"sparsity {sparsity:g} leaves {max(target, 0):,} weights{others} where {len(free):,} are needed, one a "
            f"layer; {_largest_reachable(sizes, given, fixed_in_budget, allocation)}."
        )
    ideal = {name: densities[name] * size for name, size in free.items()}
    starved = [name for name, count in ideal.items() if count < 1.0]
    if starved:
        warnings.warn(StarvedLayersWarning(sparsity, tuple(starved)), stacklevel=2)
    rounded = {name: min(free[name], max(1, math.floor(count + 1e-9))) for name, count in ideal.items()}
    counts |= _settle(rounded, ideal, free, target - sum(rounded.values()))
    return {name: counts[name] for name in shapes}


def _raw_share(allocation: str, shape: Shape, power: float, args: Mapping[str, Any]) -> float:
    share = ALLOCATIONS.function(allocation)(shape, power, **args)
    try:
        number = float(share)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UserError(
            f"allocation {allocation!r} gives a layer of shape {tuple(shape)} the share {share!r}; a finite number "
            "above 0 expected."
        )
    return number


def _with_ends(fixed: dict[str, float], names: list[str], sparsity: float, allocation: str) -> dict[str, float]:
    """The fixed densities, and those that the allocation itself gives to the first and the last layer."""
    options = ALLOCATIONS.get(allocation).options
    if len(names) < 2 or sparsity == 0.0:
        return fixed
    if "last_at_least" in options and 1.0 - sparsity < options["last_at_least"]:
        fixed = {names[-1]: options["last_at_least"], **fixed}
    if "first" in options:
        fixed = {names[0]: options["first"], **fixed}
    return fixed


def _count_of(density: float, size: int) -> int:
    return min(size, max(1, round(density * size)))


def _largest_reachable(
    sizes: Mapping[str, int], fixed: Mapping[str, float], fixed_in_budget: bool, allocation: str
) -> str:
    """In words, the sparsity at which every layer whose density is not given has one weight; rounded down.

    `fixed`: without the ends that the allocation gives a density of their own.
    """
    least = ALLOCATIONS.get(allocation).options.get("last_at_least")
    sparsest = _most_sparse(sizes, _with_ends(dict(fixed), list(sizes), _ALMOST_ALL, allocation), fixed_in_budget)
    if least is not None and sparsest <= 1.0 - least:
        # The last layer is free to be sparser where the network as a whole is no sparser than that.
        free = _with_ends(dict(fixed), list(sizes), 1.0 - least, allocation)
        sparsest = max(sparsest, min(1.0 - least, _most_sparse(sizes, free, fixed_in_budget)))
    return f"the largest reachable sparsity is {math.floor(sparsest * 1e6) / 1e6:g}"


def _most_sparse(sizes: Mapping[str, int], fixed: Mapping[str, float], fixed_in_budget: bool) -> float:
    free = [name for name in sizes if name not in fixed]
    least, total = len(free), sum(sizes[name] for name in free)
    if fixed_in_budget:
        counted = sum(_count_of(density, sizes[name]) for name, density in fixed.items())
        least = counted + len(free)
        total = sum(sizes.values())
    return max(0.0, 1.0 - least / total) if total else 0.0


_ALMOST_ALL = 1.0 - 1e-12


def _settle(counts: dict[str, int], ideal: dict[str, float], sizes: dict[str, int], difference: int) -> dict[str, int]:
    """Move `counts` one weight at a time, where they are furthest from `ideal`, until they changed by `difference`."""
    step = 1 if difference > 0 else -1
    while difference:
        movable = [name for name in counts if (counts[name] < sizes[name] if step > 0 else counts[name] > 1)]
        if not movable:
            break
        name = max(movable, key=lambda name: step * (ideal[name] - counts[name]))
        counts[name] += step
        difference -= step
    return counts
