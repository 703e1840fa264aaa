"""Which groups of runs may be compared for which claim: alike in everything but what the claim is about.

What may differ is what the lesser method has no use for (`ignores` in the catalogue of methods): between a dynamic and
a static network everything about topology updates, between a sparse and a dense one everything about sparsity, too.
Epochs, learning rate, allocation and all else must be the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from itopctl.catalogue import METHODS
from itopctl.report.groups import Group, Study, hashable
from itopctl.report.statistics import Difference, paired_difference, paired_differences, welch_difference

Recipe = frozenset[tuple[str, Any]]

_NO_RECIPE = frozenset({"dataset", "model", "method", "sparsity", "seed"})
_ORIGINALS = {"set-itop": "set", "rigl-itop": "rigl"}


@dataclass(frozen=True)
class Comparison:
    """Two groups of which the first is claimed to be better (or, than dense: not worse).

    Attributes:
        first, second: the groups.
        sparsity: of the sparse one.
    """

    first: Group
    second: Group
    sparsity: float

    def differing(self) -> set[str]:
        """Settings, but for the method, that are not the same in both groups."""
        mine, theirs = self.first.runs[0]["settings"], self.second.runs[0]["settings"]
        names = (mine.keys() | theirs.keys()) - {"method", "seed"}
        return {name for name in names if hashable(mine.get(name)) != hashable(theirs.get(name))}

    def paired(self, field: str) -> dict[int, float]:
        """Seed → difference of a field, of the seeds that both groups have."""
        return paired_differences(self.first.by_seed(field), self.second.by_seed(field))

    def difference(self, field: str) -> Difference | None:
        """Paired by seed where two seeds or more are common to both, else Welch's; None where neither is possible."""
        first, second = self.first.by_seed(field), self.second.by_seed(field)
        return paired_difference(first, second) or welch_difference(list(first.values()), list(second.values()))


def interval_of(group: Group) -> int | None:
    """The update interval in steps; None for groups whose topology never changes."""
    found: int | None = group.runs[0]["settings"].get("update_interval")
    return found


def is_dense(group: Group) -> bool:
    return group.sparsity == 0 and interval_of(group) is None


def is_static(group: Group) -> bool:
    return group.sparsity > 0 and interval_of(group) is None


def is_dynamic(group: Group) -> bool:
    return group.sparsity > 0 and interval_of(group) is not None


def recipe(group: Group, ignored_by: str) -> Recipe:
    """Settings of a group, without those that a method ignores.

    Args:
        group: its runs differ in the seed alone.
        ignored_by: `static` or `dense`.
    """
    ignored = frozenset(METHODS.get(ignored_by).options["ignores"])
    return _settings(group, ignored)


def dynamic_against_static(study: Study) -> list[Comparison]:
    """Every dynamic group with the static one of its sparsity and recipe."""
    static = {(g.sparsity, recipe(g, "static")): g for g in study.groups if is_static(g)}
    return [
        Comparison(group, static[key], group.sparsity)
        for group in filter(is_dynamic, study.groups)
        if (key := (group.sparsity, recipe(group, "static"))) in static
    ]


def sparse_against_dense(study: Study) -> list[Comparison]:
    """Every dynamic group with the dense one of its recipe."""
    dense = {recipe(g, "dense"): g for g in study.groups if is_dense(g)}
    return [
        Comparison(group, dense[key], group.sparsity)
        for group in filter(is_dynamic, study.groups)
        if (key := recipe(group, "dense")) in dense
    ]


def itop_against_original(study: Study) -> list[Comparison]:
    """Every ITOP group with the original method's groups, and with ITOP groups that have the original's interval.

    Only where ITOP's interval is the longer one: a shorter one is not what ITOP proposes.
    """
    alike: dict[tuple[float, Recipe], list[Group]] = {}
    for group in filter(is_dynamic, study.groups):
        alike.setdefault((group.sparsity, recipe(group, "static")), []).append(group)
    return [
        Comparison(group, other, group.sparsity)
        for groups in alike.values()
        for group in groups
        if group.kind.method in _ORIGINALS
        for other in groups
        if _interval_key(group) > _interval_key(other) and _has_original_interval(other, group)
    ]


def longer_against_shortest(study: Study) -> tuple[list[Comparison], list[Group]]:
    """Groups with the group that differs in nothing but its interval, the shortest, where that explored the most.

    Returns:
        Comparisons (longer, shortest), and the shortest groups left out since another explored as much or more.
    """
    families: dict[tuple[Any, ...], list[Group]] = {}
    for group in filter(is_dynamic, study.groups):
        if group.finished:
            key = (group.kind.method, group.sparsity, _settings(group, frozenset({"update_interval"})))
            families.setdefault(key, []).append(group)
    comparisons, left_out = [], []
    for members in families.values():
        shortest, *longer = sorted(members, key=_interval_key)
        rates = [_explored(group) for group in longer]
        if not longer:
            continue
        if _explored(shortest) > max(rates):
            comparisons += [Comparison(group, shortest, group.sparsity) for group in longer]
        else:
            left_out.append(shortest)
    return comparisons, left_out


def recipes_at(study: Study) -> Iterator[tuple[float, Recipe, list[Group]]]:
    """Sparse groups by sparsity and recipe, from the least sparsity on."""
    found: dict[tuple[float, Recipe], list[Group]] = {}
    for group in study.groups:
        if group.sparsity > 0:
            found.setdefault((group.sparsity, recipe(group, "static")), []).append(group)
    for (sparsity, what), groups in sorted(found.items(), key=lambda item: (item[0][0], sorted(map(repr, item[0][1])))):
        yield sparsity, what, groups


def _settings(group: Group, without: frozenset[str]) -> Recipe:
    return frozenset(
        (name, hashable(value))
        for name, value in group.runs[0]["settings"].items()
        if value is not None and name not in _NO_RECIPE and name.split(".")[0] not in without
    )


def _has_original_interval(other: Group, group: Group) -> bool:
    """Whether a group is the original of an ITOP group, or the same ITOP method at the original's interval."""
    original = _ORIGINALS[group.kind.method]
    wanted = _original_interval(original, other)
    if other.kind.method == original:
        return wanted is None or interval_of(other) == wanted
    without = frozenset({"update_interval"})
    alike = other.kind.method == group.kind.method and _settings(other, without) == _settings(group, without)
    return alike and interval_of(other) == wanted


def _original_interval(method: str, group: Group) -> int | None:
    """The interval of the method's preset, in steps of a group's runs; None where their steps are not known."""
    preset = METHODS.get(method).options["preset"]["update_interval"]
    if isinstance(preset, int):
        return preset
    epochs = int(preset.split()[0])
    for run in group.finished:
        settings = run["settings"]
        total = max(1, round(settings.get("epochs", 0) * (settings.get("training_multiplier") or 1)))
        if run.get("steps"):
            return round(epochs * run["steps"] / total)
    return None


def _interval_key(group: Group) -> int:
    return interval_of(group) or 0


def _explored(group: Group) -> float:
    explored = group.summary("exploration_rate")
    return explored.mean if explored else 0.0
