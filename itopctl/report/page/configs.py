"""Configs of many runs, said as briefly as they can be: what all share once, what a kind of run shares once, the rest
for each run. Nothing is lost: the three parts together are a run's config, and, as YAML, a spec of that run alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itopctl.report.groups import hashable

_KIND = ("dataset", "model", "method")
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/+-]*(?<!:)")  # a word that YAML takes for a string as it is
_NOT_STRINGS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "none", "nan", "inf"})

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class RunKind:
    """Runs of one data set, model and method.

    Attributes:
        label: what they are.
        settings: what all of them share beyond what all runs share.
    """

    label: str
    settings: Settings


@dataclass(frozen=True)
class Configs:
    """The configs of some runs.

    Attributes:
        shared: settings that are the same in every run.
        kinds: kinds of runs, in the order of the runs.
        own: per run, the place of its kind, and the settings that are in neither.
    """

    shared: Settings
    kinds: Sequence[RunKind]
    own: Sequence[tuple[int, Settings]]

    def settings(self, run: int) -> dict[str, Any]:
        """The whole config of a run, by its place."""
        kind, own = self.own[run]
        return {**self.shared, **self.kinds[kind].settings, **own}


def compact(configs: Sequence[Settings]) -> Configs:
    """Flat configs without repetition; see `Configs.settings` for the way back.

    What is null says that a setting means nothing for a run, and is left out.
    """
    configs = [{name: value for name, value in config.items() if value is not None} for config in configs]
    shared = _same_in_all(configs) if len(configs) > 1 else {}
    members: dict[tuple[Any, ...], list[Settings]] = {}
    for settings in configs:
        members.setdefault(_kind_of(settings), []).append(settings)
    kinds: list[RunKind] = []
    places: dict[tuple[Any, ...], int] = {}
    for kind, of_kind in members.items():
        same = _same_in_all(of_kind) if len(of_kind) > 1 else {}
        places[kind] = len(kinds)
        dataset, model, method = (str(part) for part in kind)
        label = f"{method}, {model} on {dataset}"
        kinds.append(RunKind(label, {name: value for name, value in same.items() if name not in shared}))
    own = []
    for settings in configs:
        place = places[_kind_of(settings)]
        said = shared.keys() | kinds[place].settings.keys()
        own.append((place, {name: value for name, value in settings.items() if name not in said}))
    return Configs(shared, kinds, own)


def _kind_of(settings: Settings) -> tuple[Any, ...]:
    return tuple(hashable(settings.get(name)) for name in _KIND)


def _same_in_all(configs: Sequence[Settings]) -> dict[str, Any]:
    first, *others = configs
    same = {name: (value, _exactly(value)) for name, value in first.items()}
    for settings in others:
        same = {
            name: (value, text)
            for name, (value, text) in same.items()
            if name in settings and _exactly(settings[name]) == text
        }
        if not same:
            break
    return {name: value for name, (value, _) in same.items()}


def _exactly(value: Any) -> tuple[type, Any]:
    """To compare by: 1, 1.0 and true are not the same setting."""
    return type(value), (json.dumps(value, sort_keys=True) if isinstance(value, (list, dict)) else value)


def in_yaml(value: Any) -> str:
    """A setting's value as YAML on one line, as a spec would say it."""
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and value.lower() not in _NOT_STRINGS
        return value if plain else json.dumps(value, ensure_ascii=not value.isprintable())
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(in_yaml, value)) + "]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{in_yaml(str(name))}: {in_yaml(inner)}" for name, inner in value.items()) + "}"
    return json.dumps(value)
