"""One row a run: what it is, how far it is, and what it measured."""

from __future__ import annotations

from collections.abc import Sequence

from itopctl.report.fields import Fields, header, is_right, shown
from itopctl.report.groups import BEST_BY, MEASURED_WHEN, hashable, in_words, measured_fields, short_name, studies
from itopctl.report.number_text import NOTHING, duration, number
from itopctl.report.table import Cell, Column, Record, Table

_STATE_STYLES = {"done": "green", "running": "cyan", "failed": "red", "lost": "red"}


def state_cell(state: str, cause: str | None = None) -> Cell:
    """A state, with its cause where that says more."""
    text = f"{state}: {cause}" if cause and cause not in ("finished", state) else state
    return Cell(text, style=_STATE_STYLES.get(state, ""))


def runs_table(
    runs: Sequence[Record],
    title: str = "",
    columns: Sequence[str] = (),
    best_by: str = "final",
    digits: int | None = None,
    origins: bool = False,
) -> Table:
    """A table of runs; its records are the runs as they come, or what `columns` names of them.

    Args:
        runs: records of the store (`itopctl.store.queries.RUN_COLUMNS`); those of `columns` may be in their `settings`.
        title: by default the model and data set, where all runs have the same.
        columns: names of fields to show; none: what a run is, how far it is, and what it measured.
        best_by: which accuracy comes first, and at which step the exploration rate is (`groups.BEST_BY`).
        digits: significant digits of what was measured; None: as many as each usually has.
        origins: whether the field `results` is shown: where a run comes from.
    """
    if columns:
        return _chosen(runs, title, columns, digits)
    kinds = {(run["model"], run["dataset"]) for run in runs}
    one_kind = len(kinds) == 1 and runs[0]["model"] is not None
    if one_kind and not title:
        title = "{} on {}".format(*kinds.pop())
    accuracy, explored = measured_fields(best_by)
    varying = _varying(runs)
    other = next(measured_fields(name)[0] for name in BEST_BY if name != best_by)
    spared = 3 + len(varying)  # what tells runs apart is left out after what was measured beside accuracy and R_s
    headers = [
        Column("run", whole=True), Column("state"), *([Column("results", rank=2)] if origins else []),
        *([] if one_kind else [Column("data set", rank=2), Column("model", rank=2)]),
        Column("method"), Column("sparsity", "right"), Column("ΔT", "right"),
        *(Column(short_name(name), rank=3 + place) for place, name in enumerate(varying)),
        Column("seed", "right", rank=1),
        Column(header(accuracy), "right"), Column(header(other), "right", rank=spared + 1), Column("R_s", "right"),
        Column("train FLOPs", "right", rank=spared + 2), Column("time", "right", rank=spared),
    ]  # fmt: skip
    rows = [
        [
            Cell(run["run_id"]), state_cell(run["state"], run["cause"]),
            *([Cell(run["results"])] if origins else []),
            *([] if one_kind else [Cell(run["dataset"] or NOTHING), Cell(run["model"] or NOTHING)]),
            Cell(run["method"] or NOTHING), *(Cell(shown(name, run[name])) for name in ("sparsity", "update_interval")),
            *(Cell(_setting(run, name)) for name in varying),
            Cell(number(run["seed"])),
            *(Cell(shown(name, run[name], digits)) for name in (accuracy, other, explored, "train_flops_ratio")),
            Cell(duration(run["wall_seconds"])),
        ]
        for run in runs
    ]  # fmt: skip
    notes = [f"Test accuracy and R_s {MEASURED_WHEN[best_by]}."] if best_by != "final" else []
    return Table(title, headers, rows, [_record(run) for run in runs], notes)


def _chosen(runs: Sequence[Record], title: str, names: Sequence[str], digits: int | None) -> Table:
    """The fields asked for, of every run."""
    fields = Fields(tuple(names))
    columns = [
        Column(header(name), "right" if is_right(name, runs, fields) else "left", whole=name == "run_id", rank=rank)
        for rank, name in enumerate(names)
    ]
    records = [{name: fields.value(run, name) for name in names} for run in runs]
    rows = [
        [state_cell(value) if name == "state" else Cell(shown(name, value, digits)) for name, value in record.items()]
        for record in records
    ]
    return Table(title, columns, rows, records)


def _varying(runs: Sequence[Record]) -> list[str]:
    """Settings that are not the same in all runs of a method, data set and model, those with columns aside."""
    known = [run for run in runs if "settings" in run]
    kinds = (kind for study in studies(known) for kind in study.kinds)
    return list(dict.fromkeys(name for kind in kinds for name, _ in kind.settings if name != "update_interval"))


def _setting(run: Record, name: str) -> str:
    value = hashable(run.get("settings", {}).get(name))
    return NOTHING if value is None else in_words(value)


def _record(run: Record) -> Record:
    """The run as it is, its settings last."""
    settings = {"settings": run["settings"]} if "settings" in run else {}
    return {name: value for name, value in run.items() if name != "settings"} | settings
