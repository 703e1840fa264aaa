"""The exploration rate that random growth is expected to reach, and the update interval that reaches a wanted one.

Derived, not published. An unexplored weight is inactive at every update, whatever the drop rule. At an update that
keeps K of a layer's N weights and grows k, it is one of N − K candidates, so it stays unexplored with probability
1 − k / (N − K). Growth by gradient explores less than this: it comes back to the same weights (RigL-ITOP on ResNet-50
was measured at R_s = 0.93 and 0.83, Liu et al. 2021, where random growth would reach 1.00). No growth explores more
than one that grows nothing but unexplored weights, which is a matter of counting.

Torch is not imported, and numpy only where a training is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, get_args

from itopctl.catalogue import DROPS, GROWTHS
from itopctl.dst.rules import Rules
from itopctl.dst.schedule import last_update_before, update_fractions
from itopctl.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Shares = Mapping[str, tuple[int, int]]
"""Layer → (active weights, weights)."""

Known = Literal["exact", "expected", "approximate", "upper", "bound", "unknown"]
"""How well the exploration rate of some rules is known before training.

- `exact`: by counting; no chance is involved.
- `expected`: it is the expectation over the random choices, and a network's is within a per cent or so of it.
- `approximate`: the same, though the layers' densities move, which it does not know.
- `upper`: what random growth would explore; these rules come back to the same weights, and explore less.
- `bound`: where every grown weight is a new one; nothing is known but that it is no more.
- `unknown`: how many weights an update replaces is not known.
"""
KNOWN: tuple[Known, ...] = get_args(Known)


def expected_exploration(density: float, drop_fractions: Iterable[float]) -> float:
    """Expected R of one layer under exact-k uniform random growth, after updates with the given ζ.

    Args:
        density: the layer's density d, in (0, 1].
        drop_fractions: ζ of each update, in [0, 1]; exactly ζ·d·N weights are taken to be replaced.
    """
    unexplored = 1.0 - density
    for zeta in drop_fractions:
        unexplored *= (1.0 - density) / (1.0 - density * (1.0 - zeta)) if density < 1.0 else 0.0
    return 1.0 - unexplored


def expected_total_exploration(counts: Sequence[int], sizes: Sequence[int], drop_fractions: Sequence[float]) -> float:
    """Expected R_s of a network: the size-weighted mean of `expected_exploration` over its layers.

    Args:
        counts: active weights of each maskable layer.
        sizes: weights of each.
        drop_fractions: ζ of each update.
    """
    explored = math.fsum(
        size * expected_exploration(count / size, drop_fractions) for count, size in zip(counts, sizes, strict=True)
    )
    return explored / sum(sizes)


def expected_layer_exploration(rules: Rules, shares: Shares, total_steps: int) -> dict[str, float]:
    """Expected R of every layer at the end of a training, with the integer counts that the engine replaces.

    Args:
        rules: with random growth and no redistribution, for the expectation to be exact.
        shares: layer → (active weights, weights).
        total_steps: optimizer steps of the training.
    """
    fractions = update_fractions(rules, total_steps)
    rates = {}
    for name, (active, size) in shares.items():
        grown = _counts(rules, active, fractions)
        unexplored = 1.0 - active / size
        if unexplored and len(grown):
            unexplored *= float((1.0 - grown / (size - active + grown)).prod())
        rates[name] = 1.0 - unexplored
    return rates


def most_layer_exploration(rules: Rules, shares: Shares, total_steps: int) -> dict[str, float]:
    """R of every layer at the end of a training, where every grown weight is a new one while there are any.

    Growth `random-unexplored` reaches exactly this; no growth without redistribution explores more. Arguments as in
    `expected_layer_exploration`.
    """
    replaced = replaced_weights(rules, shares, total_steps)
    return {name: min(size, active + replaced[name]) / size for name, (active, size) in shares.items()}


def replaced_weights(rules: Rules, shares: Shares, total_steps: int) -> dict[str, int]:
    """How many weights of every layer all updates of a training drop and grow, where counts follow from ζ."""
    fractions = update_fractions(rules, total_steps)
    return {name: int(_counts(rules, active, fractions).sum()) for name, (active, _) in shares.items()}


def _counts(rules: Rules, active: int, fractions: Sequence[float]) -> NDArray[np.float64]:
    """`rules.count_to_replace` of each ζ, as numbers in floating point."""
    import numpy as np

    exact = np.asarray(fractions, dtype=np.float64) * active
    whole = np.rint(exact)
    rounded = np.floor(exact) if rules.replace_rounding == "floor" else np.ceil(exact)
    return np.where(np.abs(exact - whole) <= 5e-10, whole, rounded)  # what rounding to nine digits makes whole


def weighted(rates: Mapping[str, float], shares: Shares) -> float:
    """R_s of a network: the mean over its layers by their sizes."""
    sizes = {name: size for name, (_, size) in shares.items()}
    return math.fsum(rates[name] * size for name, size in sizes.items()) / sum(sizes.values())


def how_known(drop: str, growth: str, redistribution: str = "none", import_own: bool = True) -> Known:
    """How well the exploration rate of a dynamic method is known before training.

    Args:
        drop, growth, redistribution: names of the rules.
        import_own: whether functions of the user's own are imported, to see what is declared about them. Otherwise
            nothing is taken to be known of them.
    """
    dropping, growing = (
        catalogue.options(name) if import_own or name in catalogue else None
        for catalogue, name in ((DROPS, drop), (GROWTHS, growth))
    )
    own_choice = drop not in DROPS and (dropping is None or dropping.get("chooses", False))
    if dropping is None or own_choice or dropping.get("any_number", False):
        return "unknown"
    explores = None if growing is None else growing.get("explores")
    if explores == "revisits":
        return "upper"
    if redistribution != "none" or dropping.get("scope") == "network":
        return "approximate" if explores else "unknown"
    by_growth: Mapping[str | None, Known] = {"uniformly": "expected", "unexplored": "exact"}
    return by_growth.get(explores, "bound")


def predicted_layer_exploration(
    rules: Rules, shares: Shares, total_steps: int, known: Known | None = None
) -> tuple[dict[str, float] | None, Known]:
    """What is known of the R of every layer before training, and how well; None for the rates where nothing is.

    Args:
        rules: any, dense and static ones, too.
        shares: layer → (active weights, weights).
        total_steps: optimizer steps of the training.
        known: how well it is known, where that was found out already; by default `how_known` of the rules.
    """
    settled = not update_fractions(rules, total_steps) or all(active == size for active, size in shares.values())
    if settled:
        return {name: active / size for name, (active, size) in shares.items()}, "exact"
    assert rules.drop and rules.growth
    known = known or how_known(rules.drop, rules.growth, rules.redistribution)
    if known == "unknown":
        return None, known
    new_ones = known == "bound" or _grows_unexplored(rules)
    return (most_layer_exploration if new_ones else expected_layer_exploration)(rules, shares, total_steps), known


def _grows_unexplored(rules: Rules) -> bool:
    growth = rules.growth
    return growth is not None and growth in GROWTHS and GROWTHS.get(growth).options.get("explores") == "unexplored"


def interval_for_exploration(target: float, rules: Rules, shares: Shares, total_steps: int) -> int:
    """The largest update interval ΔT, in steps, whose expected R_s is at least `target`.

    The inverse of `expected_layer_exploration`, weighted by size: rarer updates explore less, and leave each
    topology more steps to be trained.

    Args:
        target: wanted R_s, in (0, 1].
        rules: with growth `random` or `random-unexplored`; their update_interval is not looked at.
        shares: layer → (active weights, weights).
        total_steps: optimizer steps of the training.

    Raises:
        UserError: even an update at every step explores less (names what it reaches), or how much these rules
            explore is not known before training.
    """
    if not 0.0 < target <= 1.0:
        raise UserError(f"an exploration rate of {target:g} is outside (0, 1].")
    if not rules.dynamic:
        raise UserError("the topology of these rules never changes, so that no update interval explores more.")
    assert rules.drop and rules.growth and rules.drop_schedule is not None and rules.drop_fraction is not None
    if how_known(rules.drop, rules.growth, rules.redistribution) not in ("exact", "expected"):
        raise UserError(
            f"how much is explored is known for random growth without redistribution; these rules grow by "
            f"{rules.growth!r}, drop by {rules.drop!r}, redistribution {rules.redistribution!r}."
        )
    if rules.drop_schedule.name != "constant" and rules.drop_schedule.final > rules.drop_fraction:
        raise UserError("the drop fraction of these rules rises; an interval is found for one that falls, or stays.")

    def reached(interval: int) -> float:
        return explored_with_interval(interval, rules, shares, total_steps)

    wanted = target - 1e-12  # a target that is the density itself is reached without an update
    last = max(0, last_update_before(rules, total_steps) - 1)  # the last step at which an update may be due
    if reached(last + 1) >= wanted:
        return last + 1  # no update at all
    # With n updates, the shortest interval explores most, ζ falling as it does: first find n, then its longest.
    # Doubling n comes to few updates first, which are quickly counted.
    enough = 1
    while enough < last and reached(_shortest(last, enough)) < wanted:
        enough *= 2
    if enough >= last and reached(1) < wanted:
        raise UserError(
            f"an exploration rate of {target:g} is out of reach: an update at every one of {total_steps:,} steps "
            f"explores {reached(1):.4f}."
        )
    updates = _first(max(1, enough // 2), min(enough, last), lambda n: reached(_shortest(last, n)) >= wanted)
    shortest, longest = _shortest(last, updates), last // updates
    return longest - _first(0, longest - shortest, lambda less: reached(longest - less) >= wanted)


def explored_with_interval(interval: int, rules: Rules, shares: Shares, total_steps: int) -> float:
    """R_s that growth `random` is expected to reach, or `random-unexplored` reaches, at an update interval."""
    layers = most_layer_exploration if _grows_unexplored(rules) else expected_layer_exploration
    return weighted(layers(rules.with_interval(interval), shares, total_steps), shares)


def _shortest(last: int, updates: int) -> int:
    """The shortest interval with at most so many updates up to step `last`."""
    return last // (updates + 1) + 1


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first of low … high for which a condition holds that, once true, stays true; `high` if it is none before."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
