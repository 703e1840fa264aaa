"""Runs of a plan that other versions of the user's own code have made: which count as done, and what is said of it.

A run's id holds the digests of the user's modules (`own_code`). A run that differs in them alone is the same
*experiment* by another version. Runs that record no digests are by an unknown version; they count as done. Others do
not, unless the user has declared that the change of a module does not matter. Pure.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from itopctl.config.identity import experiment_id, run_id
from itopctl.config.run_config import UNKNOWN_VERSION, RunConfig, versions_of
from itopctl.errors import UserError, unknown
from itopctl.plan.runs import PlannedSweep

Versions = Mapping[str, str]
"""Module → digest, or `UNKNOWN_VERSION`."""

_COUNTS = ("done", "running", "pending")
"""States in which a run by a version that counts stands for the planned one; the first goes before the others."""

_TOLD = (*_COUNTS, "failed", "lost", "queued")


@dataclass(frozen=True)
class Made:
    """A run that is known, by some version of the code."""

    run_id: str
    state: str
    versions: Versions


@dataclass
class KnownVersions:
    """Runs that are known, by what they are apart from the version of the code.

    Args:
        runs: id, state and config (plain data) of runs that record digests.
        states: run id → state of all others.
    """

    runs: Iterable[tuple[str, str, Mapping[str, Any]]] = ()
    states: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._made: dict[str, list[Made]] = {}
        for id_, state, stored in self.runs:
            try:
                config = RunConfig.model_validate(stored)
            except ValueError:  # of another version of itopctl, or damaged
                continue
            made = Made(id_, state, versions_of(stored))
            self._made.setdefault(experiment_id(config), []).append(made)

    def of(self, config: RunConfig) -> Iterator[Made]:
        """Runs by other versions of the code that are the same experiment, those by unknown code last."""
        experiment, own = experiment_id(config), run_id(config)
        yield from (made for made in self._made.get(experiment, ()) if made.run_id != own)
        if experiment in self.states:
            versions = dict.fromkeys(versions_of(vars(config)), UNKNOWN_VERSION)
            yield Made(experiment, self.states[experiment], versions)


def settled(
    sweep: PlannedSweep, states: Mapping[str, str], known: KnownVersions, accepted: Mapping[str, Collection[str]],
    accept: Collection[str] = (),
) -> PlannedSweep:  # fmt: skip
    """A sweep in which runs by versions of the code that count stand for the planned ones, with notes on all of it.

    Args:
        sweep: as its spec expands, with the code as it is now.
        states: run id → state of the runs that are known.
        known: the same by experiment.
        accepted: module → versions that were declared to be the same before.
        accept: modules whose earlier versions are declared to be the same now.
    """
    runs = sweep.expansion.runs
    others = {id_: list(known.of(config)) for id_, config in runs.items() if config.own_code}
    alike = {module: set(versions) for module, versions in accepted.items()}
    for id_, made in others.items():
        now = versions_of(vars(runs[id_]))
        for module in now.keys() & set(accept):
            done = {one.versions.get(module, UNKNOWN_VERSION) for one in made if one.state == "done"}
            if done - {now[module]}:
                alike.setdefault(module, set()).update(done, [now[module]])
    found: dict[str, RunConfig] = {}
    told: Counter[str] = Counter()
    for id_, config in runs.items():
        made = others.get(id_, [])
        chosen = None if states.get(id_) in _COUNTS else _standing_for(config, made, alike)
        if chosen is not None:
            config = config.model_copy(update={"own_code": _recorded(chosen.versions)})
            told[_why_it_counts(chosen)] += 1
        elif states.get(id_) not in _COUNTS and (why_not := _why_not(config, made)):
            told[why_not] += 1
        found[chosen.run_id if chosen is not None else id_] = config
    notes = [f"{sweep.spec.name}: {count:,} {what}" for what, count in told.items()]
    return replace(
        sweep,
        expansion=replace(sweep.expansion, runs=found),
        accepted={module: tuple(sorted(versions)) for module, versions in sorted(alike.items())},
        notes=(*sweep.notes, *notes),
    )


def check_accepted(sweeps: Sequence[PlannedSweep], accept: Iterable[str]) -> None:
    """Raise UserError for a module that no run of some sweeps names as code of the user's own."""
    named = {m for sweep in sweeps for config in sweep.expansion.runs.values() for m in config.own_code or ()}
    for module in accept:
        if module not in named:
            raise UserError(
                f"--accept-code: {unknown('module of your own', module, sorted(named))}"
                if named else f"--accept-code {module}: no run of these specs names a module of your own."
            )  # fmt: skip


def superseded(sweep: PlannedSweep, configs: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Which of some runs, as recorded, are the same experiment as a planned run by another version of the code."""
    if not configs:
        return set()
    planned = {experiment_id(config) for config in sweep.expansion.runs.values() if config.own_code}
    found = set()
    for id_, stored in configs.items() if planned else ():
        with contextlib.suppress(ValueError):  # of another version of itopctl, or damaged
            if experiment_id(RunConfig.model_validate(stored)) in planned:
                found.add(id_)
    return found - sweep.expansion.runs.keys()


def _standing_for(config: RunConfig, made: Sequence[Made], alike: Mapping[str, Collection[str]]) -> Made | None:
    """The run by another version that counts as this one, if there is one."""
    now = versions_of(vars(config))
    counting = [one for one in made if _is_unknown(one) or not _differing(now, one.versions, alike)]
    places = {state: place for place, state in enumerate(_COUNTS)}
    found = [one for one in counting if one.state in places and _is_its_id(one, config)]
    return min(found, key=lambda one: places[one.state], default=None)


def _differing(now: Versions, then: Versions, alike: Mapping[str, Collection[str]]) -> list[str]:
    """Modules whose versions are not the same, and were not declared to be."""
    pairs = {m: {now.get(m, UNKNOWN_VERSION), then.get(m, UNKNOWN_VERSION)} for m in sorted({*now, *then})}
    return [m for m, versions in pairs.items() if len(versions) > 1 and not versions <= {*alike.get(m, ())}]


def _is_unknown(made: Made) -> bool:
    return set(made.versions.values()) == {UNKNOWN_VERSION}


def _recorded(versions: Versions) -> dict[str, str] | None:
    return {module: digest for module, digest in versions.items() if digest != UNKNOWN_VERSION} or None


def _is_its_id(made: Made, config: RunConfig) -> bool:
    """Whether a run has the id that follows from its versions: what a store says may be wrong."""
    return run_id(config.model_copy(update={"own_code": _recorded(made.versions)})) == made.run_id


# What is said, after the number of runs ---------------------------------------------------------------------


def _why_it_counts(made: Made) -> str:
    if _is_unknown(made):
        return f"{made.state} by unknown code of `{'`, `'.join(made.versions)}`: no digest was recorded then"
    return f"{made.state} by an earlier {_named(made.versions)}, declared to be the same (--accept-code)"


def _why_not(config: RunConfig, made: Sequence[Made]) -> str | None:
    """Of the runs by versions that do not count, the one that came farthest."""
    then = min((one for one in made if one.state in _TOLD), key=lambda one: _TOLD.index(one.state), default=None)
    if then is None:
        return None
    modules = _differing(versions_of(vars(config)), then.versions, {})
    earlier = f"by an earlier {_named({m: then.versions.get(m, UNKNOWN_VERSION) for m in modules})}"
    if then.state == "done":
        options = " ".join(f"--accept-code {module}" for module in modules)
        return f"done {earlier}, to be made anew with the code as it is now; {options} counts them as done"
    if then.state in _COUNTS:
        return f"{then.state} {earlier}, to be made anew with the code as it is now"
    return f"unfinished {earlier}, to be begun anew with the code as it is now: none is resumed by other code"


def _named(versions: Versions) -> str:
    """`my_models` (3f2a9c1b77de)."""
    return ", ".join(f"`{module}` ({version})" for module, version in versions.items())
