"""Claim 1: at a fixed sparsity, accuracy rises with the exploration rate R_s.

All methods together answer it with the most groups, but differ in more than R_s; each method alone, with the static
runs as its lower end, has few groups. Both are shown. A correlation whose groups are so few that no accuracies at all
could make its permutation test significant is not tested and does not count in Holm's correction (Tarone 1990,
Biometrics 46:515, whose bound depends on the design, not on the data).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from itopctl.report.claims.comparable import Recipe, is_dynamic, is_static, recipes_at
from itopctl.report.claims.finding import Claim, Finding, Options, counted, nothing
from itopctl.report.claims.rank_correlation import Point, RankCorrelation, groups_needed, rank_correlation
from itopctl.report.claims.verdicts import DUST, FAILS, FEWEST_SEEDS, HOLDS, OPEN, More, Verdict
from itopctl.report.groups import Group, Study, in_words, short_name
from itopctl.report.statistics import holm

SMALLEST_CORRELATION = 0.3
"""The least rank correlation that would count (Cohen's "medium"), in ρ."""

_TITLE = "accuracy rises with R_s"
_MOST_GROUPS = 1000


@dataclass(frozen=True)
class _Place:
    """Runs that are correlated: at one sparsity, of one recipe, of one method or of all."""

    sparsity: float
    recipe: Recipe
    method: str | None
    groups: list[Group]
    points: list[Point]


def exploration_claim(study: Study, options: Options) -> Claim:
    """Test the claim: per sparsity and recipe, and averaged over them."""
    places = list(_places(study, options))
    if not any(place.points for place in places):
        return nothing(1, _TITLE, "needs groups of different R_s at one sparsity", More(3, "groups", at_least=True))
    found = [rank_correlation([place.points], options.confidence, SMALLEST_CORRELATION) for place in places]
    tested = [r for r in found if _testable(r, options.level)]
    corrections = iter(
        zip(holm([r.p_value for r in tested if r]), holm([r.p_below for r in tested if r]), strict=True)
    )  # fmt: skip
    labels = _labels(places)
    rows = []
    for place, label, correlation in zip(places, labels, found, strict=True):
        p_values = next(corrections) if _testable(correlation, options.level) else None
        rows.append(
            _finding("comparison", label, correlation, p_values, options, len(tested), place.points, place.sparsity)
        )
    return Claim(1, [counted(_together(places, found, options), rows), *rows])


def _places(study: Study, options: Options) -> Iterator[_Place]:
    """All methods, then each where there are several, from the least sparsity on."""
    for sparsity, recipe, groups in recipes_at(study):
        if len(groups) < 2 or not any(group.finished for group in groups):
            continue
        yield _Place(sparsity, recipe, None, groups, _points(groups, options))
        measured = [group for group in groups if group.finished]
        methods = list(dict.fromkeys(group.kind.method for group in measured if is_dynamic(group)))
        for method in methods if len(methods) > 1 else []:
            own = [group for group in measured if group.kind.method == method or is_static(group)]
            if len(own) > 2:
                yield _Place(sparsity, recipe, method, own, _points(own, options))


def _points(groups: Sequence[Group], options: Options) -> list[Point]:
    points = []
    for group in groups:
        explored, accuracies = group.by_seed(options.explored), group.by_seed(options.accuracy)
        name = repr(group.kind)
        points += [
            Point(name, seed, explored[seed], accuracies[seed]) for seed in sorted(explored.keys() & accuracies.keys())
        ]
    return points


def _labels(places: Sequence[_Place]) -> list[str]:
    """What is correlated, in words; with what tells recipes apart, where there are several."""
    common = frozenset.intersection(*(place.recipe for place in places))
    labels = []
    for place in places:
        whose = "all methods" if place.method is None else place.method
        if place.method is not None and any(map(is_static, place.groups)):
            whose += " and static"
        own = sorted(place.recipe - common, key=repr)
        labels.append(", ".join([whose, *(f"{short_name(name)} {in_words(value)}" for name, value in own)]))
    return labels


def _together(places: Sequence[_Place], found: Sequence[RankCorrelation | None], options: Options) -> Finding:
    """The average over sparsities, of all methods; of those alone that can be tested, where there are any."""
    of_all = [(place, r) for place, r in zip(places, found, strict=True) if place.method is None]
    used = [place.points for place, r in of_all if _testable(r, options.level)] or [p.points for p, _ in of_all]
    correlation = rank_correlation(used, options.confidence, SMALLEST_CORRELATION)
    p_values = None
    if correlation is not None and _testable(correlation, options.level):
        p_values = correlation.p_value, correlation.p_below
    everything = [point for points in used for point in points]
    return _finding("claim", _TITLE, correlation, p_values, options, 1, everything, None)


def _testable(correlation: RankCorrelation | None, level: float) -> bool:
    """Whether there can be a verdict at all, whatever the accuracies."""
    return (
        correlation is not None
        and correlation.seeds >= FEWEST_SEEDS
        and 2 / math.factorial(min(correlation.groups, 20)) <= level
    )


def _finding(
    scope: str, label: str, found: RankCorrelation | None, p_values: tuple[float, float] | None, options: Options,
    family: int, points: Sequence[Point], sparsity: float | None,
) -> Finding:  # fmt: skip
    if found is None:  # nothing measured yet, or all R_s or all accuracies the same
        missing = max(1, 3 - len({point.group for point in points}))
        return Finding(scope, label, Verdict(OPEN, More(missing, "groups", at_least=True)), sparsity, n=len(points))
    return Finding(
        scope, label, _verdict(found, p_values, options.level, max(1, family)), sparsity,
        statistic="Spearman's ρ" if scope == "comparison" else "mean Spearman's ρ", estimate=found.estimate,
        low=found.low, high=found.high, n=found.runs, p_value=found.p_value if p_values else None,
        p_corrected=p_values[0] if p_values else None, details={"groups": found.groups, "seeds": found.seeds},
    )  # fmt: skip


def _verdict(found: RankCorrelation, p_values: tuple[float, float] | None, level: float, family: int) -> Verdict:
    if found.seeds < FEWEST_SEEDS:
        return Verdict(OPEN, More(FEWEST_SEEDS - found.seeds, at_least=True))
    if p_values is not None:
        corrected, below = p_values
        if corrected <= level + DUST and found.low > 0:
            return Verdict(HOLDS)
        if below <= level + DUST:
            return Verdict(FAILS)
    targets = [0.0] * (found.estimate > 0) + [SMALLEST_CORRELATION] * (found.estimate < SMALLEST_CORRELATION)
    needed = min(groups_needed(found.estimate, target, level / family, most=_MOST_GROUPS) for target in targets)
    return Verdict(OPEN, More(max(1, needed - found.groups), "groups", at_least=needed == _MOST_GROUPS))
