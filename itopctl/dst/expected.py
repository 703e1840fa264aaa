"""The exploration rate that random growth is expected to reach, and the update interval that reaches a wanted one.

Derived, not published. An unexplored weight is inactive at every update, whatever the drop rule. At an update that
keeps K of a layer's N weights and grows k, it is one of N − K candidates, so it stays unexplored with probability
1 − k / (N − K). Growth by gradient explores less than this: it comes back to the same weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from itopctl.dst.rules import Rules
from itopctl.dst.schedule import last_update_before, update_fractions
from itopctl.errors import UserError


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


def expected_layer_exploration(
    rules: Rules, shares: Mapping[str, tuple[int, int]], total_steps: int
) -> dict[str, float]:
    """Expected R of every layer at the end of a training, with the integer counts that the engine replaces.

    Args:
        rules: with random growth and no redistribution, for the expectation to be exact.
        shares: layer → (active weights, weights).
        total_steps: optimizer steps of the training.
    """
    fractions = update_fractions(rules, total_steps)
    rates = {}
    for name, (active, size) in shares.items():
        unexplored = 1.0 - active / size
        for zeta in fractions:
            grown = rules.count_to_replace(active, zeta)
            unexplored *= 1.0 - grown / (size - active + grown) if grown else 1.0
        rates[name] = 1.0 - unexplored
    return rates


def interval_for_exploration(
    target: float, rules: Rules, shares: Mapping[str, tuple[int, int]], total_steps: int
) -> int:
    """The largest update interval ΔT, in steps, whose expected R_s is at least `target`.

    The inverse of `expected_layer_exploration`, weighted by size: rarer updates explore less, and leave each
    topology more steps to be trained.

    Args:
        target: wanted R_s, in (0, 1].
        rules: their update_interval is not looked at.
        shares: layer → (active weights, weights).
        total_steps: optimizer steps of the training.

    Raises:
        UserError: even an update at every step explores less (names what it reaches).
    """
    if not 0.0 < target <= 1.0:
        raise UserError(f"an exploration rate of {target:g} is outside (0, 1].")
    if not rules.dynamic:
        raise UserError("the topology of these rules never changes, so that no update interval explores more.")
    if rules.growth != "random" or rules.redistribution != "none":
        raise UserError(
            f"how much is explored is known for random growth without redistribution; these rules grow by "
            f"{rules.growth!r}, redistribution {rules.redistribution!r}."
        )

    def reached(interval: int) -> float:
        rates = expected_layer_exploration(rules.with_interval(interval), shares, total_steps)
        return math.fsum(rates[name] * size for name, (_, size) in shares.items()) / sum(
            size for _, size in shares.values()
        )

    assert rules.drop_schedule is not None and rules.drop_fraction is not None
    if rules.drop_schedule.name != "constant" and rules.drop_schedule.final > rules.drop_fraction:
        raise UserError("the drop fraction of these rules rises; an interval is found for one that falls, or stays.")
    target -= 1e-12  # a target that is the density itself is reached without an update
    last = max(0, last_update_before(rules, total_steps) - 1)  # the last step at which an update may be due
    if reached(last + 1) >= target:
        return last + 1  # no update at all
    if reached(1) < target:
        raise UserError(
            f"an exploration rate of {target:g} is out of reach: an update at every one of {total_steps:,} steps "
            f"explores {reached(1):.4f}."
        )
    # With n updates, the shortest interval explores most, ζ falling as it does: first find n, then its longest.
    updates = _first(1, last, lambda n: reached(_shortest(last, n)) >= target)
    shortest, longest = _shortest(last, updates), last // updates
    return longest - _first(0, longest - shortest, lambda less: reached(longest - less) >= target)


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
