"""Runs by what they are: those that differ in nothing but the seed belong together, and are averaged.

A study is all runs of one data set and model. Within it, what varies among the runs of a method (an update interval,
a learning rate) tells its groups apart and becomes part of their names. So does the version of the user's own code,
where it varies among the runs of the study, whatever their method.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itopctl.catalogue import OWN_CODE, comparable
from itopctl.errors import plural
from itopctl.report.number_text import sparsity
from itopctl.report.statistics import Summary, summarise
from itopctl.report.table import Record

_COORDINATES = frozenset({"dataset", "model", "method", "sparsity", "seed"})
SHORT_NAMES = {
    "update_interval": "ΔT",
    "optimizer.lr": "lr",
    "drop_fraction": "ζ",
    "training_multiplier": "×",
    "batch_size": "batch",
}

BEST_BY = ("final", "validation")
"""Which of the accuracies of a run counts: after the last step, or at the epoch with the best validation accuracy."""

_FIELDS = {
    "final": ("test_accuracy", "exploration_rate"),
    "validation": ("test_accuracy_at_best_validation", "exploration_rate_at_best_validation"),
}


MEASURED_WHEN = {"final": "after the last step", "validation": "at the epoch with the best validation accuracy"}
"""The same in words."""


def measured_fields(best_by: str) -> tuple[str, str]:
    """Names of the accuracy that counts, and of the exploration rate at the same step."""
    return _FIELDS[best_by]


@dataclass(frozen=True)
class Kind:
    """What a row of a table stands for: a method, and the settings that tell its groups apart.

    Attributes:
        method: its name.
        settings: (name, value) of what varies among the method's runs in the study; None where a run has no such.
    """

    method: str
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def details(self) -> str:
        """The settings in words, such as `ΔT 1500, lr 0.1`; empty where there are none."""
        said = [(name, value) for name, value in self.settings if value is not None]
        return ", ".join(f"{short_name(name)} {in_words(value)}" for name, value in said)

    def without(self, names: Collection[str]) -> Kind:
        """The same kind, these settings not named."""
        return Kind(self.method, tuple((name, value) for name, value in self.settings if name not in names))

    @property
    def label(self) -> str:
        """Method and details in one line."""
        return f"{self.method}, {self.details}" if self.details else self.method

    def order(self, methods: Sequence[str]) -> tuple[Any, ...]:
        """Sort key: dense first, then methods in the order given, then by settings."""
        place = list(methods).index(self.method) if self.method in methods else len(methods)
        return (self.method != "dense", place, self.method, tuple(value_order(value) for _, value in self.settings))


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed: of one kind, at one sparsity.

    Attributes:
        kind, sparsity: what they are.
        runs: all of them, in the order they came.
    """

    kind: Kind
    sparsity: float
    runs: tuple[Record, ...]

    @property
    def finished(self) -> list[Record]:
        """Those that have measured their accuracy after the last step."""
        return [run for run in self.runs if run["state"] == "done" and run["test_accuracy"] is not None]

    @property
    def complete(self) -> bool:
        """Whether all of them are finished."""
        return len(self.finished) == len(self.runs)

    def by_seed(self, field: str) -> dict[int, float]:
        """Seed → value, of the finished runs that have one."""
        return {run["seed"]: run[field] for run in self.finished if run.get(field) is not None}

    def summary(self, field: str) -> Summary | None:
        """Mean and spread of a field over the finished runs that have it."""
        return summarise([run[field] for run in self.finished if run.get(field) is not None])


@dataclass(frozen=True)
class Study:
    """All groups of one data set and model, those of one kind side by side."""

    dataset: str
    model: str
    groups: tuple[Group, ...]

    @property
    def title(self) -> str:
        return f"{self.model} on {self.dataset}"

    @property
    def sparsities(self) -> list[float]:
        """From none to most."""
        return sorted({group.sparsity for group in self.groups})

    @property
    def kinds(self) -> list[Kind]:
        """In the order of the groups."""
        return list(dict.fromkeys(group.kind for group in self.groups))

    def group(self, kind: Kind, sparsity: float) -> Group | None:
        """The group of a kind at a sparsity, if there are runs of it."""
        return next((g for g in self.groups if g.sparsity == sparsity and g.kind == kind), None)

    def about(self, group: Group) -> Record:
        """What a record of one of its groups begins with."""
        return {
            "dataset": self.dataset, "model": self.model, "method": group.kind.method,
            "settings": dict(group.kind.settings), "sparsity": group.sparsity,
            "density": round(1.0 - group.sparsity, 12), "seeds": len(group.runs),
            "seeds_finished": len(group.finished),
        }  # fmt: skip

    @property
    def dense(self) -> Group | None:
        """The dense runs, where they are all of one kind."""
        found = [group for group in self.groups if group.kind.method == "dense"]
        return found[0] if len(found) == 1 else None


ENDED_BADLY = {"failed": ("failed", "failed"), "lost": ("was lost", "were lost")}
"""States of runs that ended without a result → what is said of one of them, and of several."""

_MOST_NAMED = 4  # places of failed runs in a note


def unfinished_in_words(runs: Iterable[Record]) -> str:
    """What became of runs that have no result: `2 runs failed (static at 90 %); 1 run is not finished.`

    Empty where all of them are finished.
    """
    left = [run for run in runs if run["state"] != "done" or run["test_accuracy"] is None]
    parts = []
    for state, verb in ENDED_BADLY.items():
        members = [run for run in left if run["state"] == state]
        if members:
            places = list(dict.fromkeys(_place_in_words(run) for run in members))
            more = len(places) - _MOST_NAMED
            named = ", ".join(places[:_MOST_NAMED]) + (f" and {more:,} more" if more > 0 else "")
            parts.append(f"{plural(len(members), 'run')} {verb[len(members) > 1]} ({named})")
    waiting = sum(run["state"] not in ENDED_BADLY for run in left)
    if waiting:
        parts.append(f"{plural(waiting, 'run')} {'is' if waiting == 1 else 'are'} not finished")
    return f"{'; '.join(parts)}." if parts else ""


def _place_in_words(run: Record) -> str:
    return f"{run['method']} at {sparsity(run['sparsity'])}" if run["sparsity"] else str(run["method"])


def studies(runs: Iterable[Record], method_order: Sequence[str] = ()) -> list[Study]:
    """Runs by data set and model, in the order of the runs; those that do not say what they are, are left out.

    Args:
        runs: records with `dataset, model, method, sparsity, seed, state, test_accuracy` and `settings`: a flat
            mapping of everything that defines the experiment; `same_code`, where versions of the user's own code were
            declared to be the same (`itopctl.report.versions`). Others as the reader of the groups needs them.
        method_order: methods in the order their groups should have; `dense` always comes first.
    """
    found: dict[tuple[str, str], list[Record]] = {}
    for run in filter(_has_a_place, runs):
        found.setdefault((run["dataset"], run["model"]), []).append(run)
    return [Study(dataset, model, _groups(members, method_order)) for (dataset, model), members in found.items()]


def _has_a_place(run: Record) -> bool:
    return all(run[name] is not None for name in ("dataset", "model", "method", "sparsity"))


def _groups(runs: list[Record], method_order: Sequence[str]) -> tuple[Group, ...]:
    by_method: dict[str, list[tuple[Record, dict[str, Any]]]] = {}
    for run in runs:
        by_method.setdefault(run["method"], []).append((run, plain_settings(run)))
    every = [settings for of_method in by_method.values() for _, settings in of_method]
    own_code = [name for name in dict.fromkeys(itertools.chain.from_iterable(every)) if _is_version(name)]
    versions = varying([{n: settings[n] for n in own_code if n in settings} for settings in every]) if own_code else []
    members: dict[tuple[Kind, float], list[Record]] = {}
    for method, of_method in by_method.items():
        names = list(dict.fromkeys([*varying([settings for _, settings in of_method]), *versions]))
        for run, settings in of_method:
            kind = Kind(method, tuple((name, settings.get(name)) for name in names))
            members.setdefault((kind, run["sparsity"]), []).append(run)
    ordered = sorted(members, key=lambda key: (key[0].order(method_order), key[1]))
    return tuple(Group(kind, sparsity, _one_a_seed(members[kind, sparsity])) for kind, sparsity in ordered)


def _is_version(name: str) -> bool:
    return name.startswith(OWN_CODE)


def _one_a_seed(runs: Sequence[Record]) -> tuple[Record, ...]:
    """Of runs by versions of code that count as the same, one a seed: a finished one if there is any."""
    if not any("same_code" in run for run in runs):
        return tuple(runs)
    chosen: dict[Any, Record] = {}
    for run in runs:
        before = chosen.setdefault(run["seed"], run)
        if run["state"] == "done" != before["state"]:
            chosen[run["seed"]] = run
    return tuple(chosen.values())


def plain_settings(run: Record) -> dict[str, Any]:
    """What tells a run apart, hashable; versions of code that were declared to be the same are one."""
    return {name: hashable(value) for name, value in (run["settings"] | run.get("same_code", {})).items()}


def varying(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that are not the same in all, coordinates of a study aside.

    What comes with a rule is not named beside it (`comparable`).
    """
    names = dict.fromkeys(name for mapping in settings for name in mapping if name not in _COORDINATES)
    seen: dict[tuple[Any, ...], Any] = {}
    varying: dict[str, None] = {}
    for mapping in settings:
        for name in names:
            value = mapping.get(name)
            if seen.setdefault(comparable(name, mapping), value) != value:
                varying[name] = None
    return [name for name in names if name in varying]


def hashable(value: Any) -> Any:
    """Plain data with tuples in place of lists and mappings."""
    if isinstance(value, dict):
        return tuple((name, hashable(inner)) for name, inner in value.items())
    return tuple(map(hashable, value)) if isinstance(value, (list, tuple)) else value


def value_order(value: Any) -> tuple[bool, float, str]:
    """Sort key: numbers by size, then everything else by its text."""
    numeric = isinstance(value, (int, float))
    return (not numeric, float(value) if numeric else 0.0, str(value))


def short_name(name: str) -> str:
    """A setting's name as it stands in a label; of a version of the user's own code the module's."""
    if name.startswith(OWN_CODE):
        return name.removeprefix(OWN_CODE)
    return SHORT_NAMES.get(name, name.replace("_", " "))


def in_words(value: Any) -> str:
    """A setting's value as it stands in a label."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "/".join(in_words(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
