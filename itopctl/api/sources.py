"""Runs as records for reports, from one or several results folders and stores.

A run that is in several counts once. Not for anything that changes results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.api.opening import Tell, open_results, results_folder
from itopctl.errors import EnvironmentUnfitError, UserError, plural, unknown

if TYPE_CHECKING:
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results

Record = dict[str, Any]
Further = Callable[["Store", Sequence[Record]], Mapping[str, Record]]
"""A store and runs of it, with their `config` where settings are wanted → id → further fields of that run."""


def _layers(store: Store, runs: Sequence[Record]) -> dict[str, Record]:
    from itopctl.store.queries import layers_of

    found = layers_of(store, [run["run_id"] for run in runs])
    return {run["run_id"]: {"layers": found.get(run["run_id"], [])} for run in runs}


def _prediction(store: Store, runs: Sequence[Record]) -> dict[str, Record]:
    """What R_s was to be expected, for runs whose layers are known; those that differ in the seed alone share it."""
    from itopctl.plan.predicted_exploration import predicted_exploration
    from itopctl.store.queries import layers_of

    layers = layers_of(store, [run["run_id"] for run in runs])
    known: dict[str, Record] = {}
    found = {}
    for run in runs:
        shares = [(layer["name"], layer["active"], layer["size"]) for layer in layers.get(run["run_id"], [])]
        key = repr(({name: value for name, value in run["config"].items() if name != "seed"}, shares))
        if key not in known:
            rate, how = predicted_exploration(run["config"], layers.get(run["run_id"], []))
            kind = _PREDICTIONS.get(how)
            known[key] = {"predicted_exploration_rate": rate if kind else None, "prediction": kind}
        found[run["run_id"]] = known[key]
    return found


FURTHER: dict[str, Further] = {"layers": _layers, "prediction": _prediction}
"""Name → what some tables need of each run beside its record and settings (`TableKind.further`)."""

_COMPARED = (
    "test_accuracy", "test_accuracy_at_best_validation", "exploration_rate", "exploration_rate_at_best_validation",
)  # fmt: skip
_PREDICTIONS = {"exact": "expected", "expected": "expected", "upper": "upper", "bound": "upper"}
"""How well R_s is known before → how a table says so; one that is approximate stands beside no measured one."""
_NAMED = 5  # ids that a sentence lists


@dataclass(frozen=True)
class Wanted:
    """What a report needs of each run.

    Attributes:
        columns: fields of its record.
        settings: whether its settings are needed, which takes the most time to read.
        further: names of `FURTHER`: more fields, which are not in the store's table of runs.
    """

    columns: tuple[str, ...]
    settings: bool = True
    further: tuple[str, ...] = ()


@dataclass(frozen=True)
class Origin:
    """A store, and the folder of the files that it is an index of, where that is known; `name` is what it is called."""

    name: str
    store: Store
    results: Results | None


@dataclass
class Gathered:
    """Runs of one or several stores.

    Attributes:
        runs: each once, with `results`: the folder or store it comes from.
        origins: the stores, in their order, open.
        several: whether there was more than one.
        notes: what belongs under the tables.
        warnings: what a person must know whatever becomes of the tables.
    """

    runs: list[Record] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    several: bool = False
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@contextlib.contextmanager
def gathered(
    results: Sequence[Path], stores: Sequence[str], sweeps: Sequence[str], wanted: Wanted, tell: Tell
) -> Iterator[Gathered]:
    """The runs of some sweeps, or of all; their stores are open until it is left.

    One folder and one store belong together, as in every other command. Of several, each folder has its own store, and
    each store is read as it is.

    Args:
        results: folders; none: the usual one, unless there are several stores.
        stores: SQLAlchemy URLs.
        sweeps: names, each of a sweep in any of them; none: all runs.

    Raises:
        UserError: no store has a sweep of that name.
        EnvironmentUnfitError: a folder or a store cannot be read.
    """
    found = Gathered(several=len(results) > 1 or len(stores) > 1)
    try:
        for origin in _opened(results, stores, found.several, tell):
            found.origins.append(origin)
        _check_sweeps(found.origins, sweeps)
        _merge(found, [_read(origin, sweeps, wanted, found.several) for origin in found.origins])
        if wanted.settings:
            add_settings(found.runs, [origin.store for origin in found.origins], sweeps)
            _note_changed_models(found)
        yield found
    finally:
        for origin in found.origins:
            origin.store.close()


def _check_sweeps(origins: Sequence[Origin], sweeps: Sequence[str]) -> None:
    from itopctl.store.queries import sweep_names

    known = {name for origin in origins for name in sweep_names(origin.store)}
    for name in sweeps:
        if name not in known:
            if not known:
                raise UserError(f"there is no sweep {name!r}; nothing was run here yet.")
            raise UserError(unknown("sweep", name, sorted(known)))


def _read(origin: Origin, sweeps: Sequence[str], wanted: Wanted, several: bool) -> list[Record]:
    """The runs of one store."""
    from itopctl.store.queries import RUN_COLUMNS, select_runs

    needed = {"run_id", "state", *wanted.columns, *(_COMPARED if several else ())}
    columns = [name for name in RUN_COLUMNS if name in needed]
    runs = select_runs(origin.store, sweeps, columns=[*columns, "config"] if wanted.settings else columns)
    further = [FURTHER[name](origin.store, runs) for name in wanted.further]
    for run in runs:
        for fields in further:
            run.update(fields.get(run["run_id"], {}))
        run["results"] = origin.name
    return runs


def _opened(results: Sequence[Path], stores: Sequence[str], several: bool, tell: Tell) -> Iterator[Origin]:
    """Each source, one after the other."""
    from itopctl.store.rundir import Results

    if not several:
        folder = Results(results_folder(results[0] if results else None))
        yield Origin(str(folder.path), open_results(folder, stores[0] if stores else None, tell), folder)
        return
    for path in dict.fromkeys(results):
        folder = Results(path)
        yield Origin(str(path), open_results(folder, None, tell), folder)
    for url in dict.fromkeys(stores):
        store = _as_it_is(url)
        yield Origin(store.name, store, None)


def _as_it_is(url: str) -> Store:
    """A store that belongs to no folder here."""
    from itopctl.store.database import Store

    file = url.partition(":///")[2].partition("?")[0]
    if url.startswith("sqlite") and file and file != ":memory:" and not Path(file).is_file():
        raise EnvironmentUnfitError(f"--store {url}: there is no such file.")
    return Store(url)


def _merge(found: Gathered, sources: Sequence[Sequence[Record]]) -> None:
    """Each run once: the first that is finished, else the first."""
    chosen: dict[str, Record] = {}
    again: set[str] = set()
    differing: dict[str, None] = {}
    for runs in sources:
        for run in runs:
            run_id = run["run_id"]
            before = chosen.setdefault(run_id, run)
            if before is run:
                continue
            again.add(run_id)
            both_done = before["state"] == run["state"] == "done"
            if both_done and any(before[name] != run[name] for name in _COMPARED):
                differing[run_id] = None
            kept = run if run["state"] == "done" != before["state"] else before
            chosen[run_id] = kept
            if "sweep" in kept:
                names = [*before["sweep"].split(","), *run["sweep"].split(",")]
                kept["sweep"] = ",".join(dict.fromkeys(filter(None, names)))
    found.runs = list(chosen.values())
    if again:
        found.notes.append(f"{plural(len(again), 'run')} found in several places, counted once.")
    if differing:
        ids = ", ".join(list(differing)[:_NAMED])
        more = f" and {len(differing) - _NAMED} more" if len(differing) > _NAMED else ""
        found.warnings.append(
            f"{plural(len(differing), 'run')} finished in several places with different results, of which the first "
            f"counts: {ids}{more}."
        )


def _note_changed_models(found: Gathered) -> None:
    """Say where the runs of a model had different numbers of maskable weights."""
    from itopctl.report.masked import mixed_notes
    from itopctl.store.queries import masked_weights

    own = [run for run in found.runs if ":" in (run.get("model") or "") and "dataset" in run]
    if own:
        masked = {run_id: size for origin in found.origins for run_id, size in masked_weights(origin.store).items()}
        found.notes += mixed_notes(own, masked)


def add_settings(runs: Sequence[Record], sources: Sequence[Store], sweeps: Sequence[str]) -> None:
    """Replace the config of runs by their settings, with what the user declared about versions of their code.

    Args:
        runs: records with `config`.
        sources: stores that know the sweeps.
        sweeps: those that are reported; none: all.
    """
    from itopctl.config.run_config import defining_settings
    from itopctl.report.versions import same_code
    from itopctl.store.provenance import accepted_code
    from itopctl.store.queries import select_runs

    accepted: dict[str, list[Mapping[str, list[str]]]] = {}
    for store in sources:
        for sweep, versions in accepted_code(store).items():
            for member in select_runs(store, [sweep], columns=("run_id",)) if sweep in sweeps or not sweeps else ():
                accepted.setdefault(member["run_id"], []).append(versions)
    for run in runs:
        run["settings"] = defining_settings(run.pop("config"))
        if same := same_code(run, accepted.get(run["run_id"], ())):
            run["same_code"] = same
