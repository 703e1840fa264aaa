"""A plan's forecasts as tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from itopctl.catalogue import METHODS
from itopctl.config.run_config import RunConfig, defining_settings
from itopctl.errors import left_dense_in_words, plural
from itopctl.plan.forecast import Forecast, Impossible
from itopctl.plan.planned_run import PlannedRun
from itopctl.plan.totals import Expected, Machine, Totals
from itopctl.plan.unmade import sentences
from itopctl.plan.warnings import warnings_on_all, warnings_on_runs
from itopctl.report.groups import Group, Kind, studies
from itopctl.report.masked import changed_note
from itopctl.report.number_text import NOTHING, duration, number, rate, size, sparsity
from itopctl.report.quantity import Quantity
from itopctl.report.table import Cell, Column, Record, Table

UNKNOWN = "unknown"

_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")

_ROWS_SHOWN = 200  # of a table, to a person

_MARKS = {"approximate": "≈ ", "upper": "≤ ", "bound": "≤ "}

_NOTES = {
    "upper": "≤ for growth by gradient: R_s of random growth. Gradients come back to the same weights and explore less "
    "(RigL-ITOP on ImageNet reached 0.93 and 0.83 where this says 1.00).",
    "bound": "≤ for other growth: R_s if every weight that grows were a new one.",
    "approximate": "≈: weights move between layers, which is not foreseen.",
}

_COLUMNS = (
    Column("ΔT", "right"), Column("steps", "right", rank=4), Column("updates", "right", rank=1), Column("R_s", "right"),
    Column("train FLOPs", "right"), Column("time", "right"), Column("memory", "right", rank=3),
    Column("disk", "right", rank=2),
)  # fmt: skip


def groups_table(runs: Sequence[PlannedRun]) -> list[Table]:
    """A table for each data set and model: one row for all runs that differ in the seed alone."""
    tables = []
    for study in studies(map(_entry, runs), METHODS.names()):
        columns = [Column("method"), Column("sparsity", "right"), Column("runs"), *_COLUMNS]
        rows = [
            [
                Cell(_label(group.kind)), Cell(sparsity(group.sparsity)), Cell(_counts(members)), *_cells(members[0]),
            ]
            for group in study.groups[:_ROWS_SHOWN] if (members := _members(group))
        ]  # fmt: skip
        records = [_group_record(group) for group in study.groups]
        notes = [*_notes(runs, study.dataset, study.model), *_left_out(len(study.groups))]
        tables.append(Table(study.title, columns, rows, records, notes))
    return tables


def runs_table(runs: Sequence[PlannedRun]) -> list[Table]:
    """A table for each data set and model, with a row for each run."""
    tables = []
    for study in studies(map(_entry, runs), METHODS.names()):
        columns = [
            Column("run", whole=True), Column("state"), Column("method"), Column("sparsity", "right"),
            Column("seed", "right"), *_COLUMNS,
        ]  # fmt: skip
        entries = [(group, run) for group in study.groups for run in _members(group)]
        rows = [
            [
                Cell(run.run_id), Cell(run.state), Cell(_label(group.kind)),
                Cell(sparsity(group.sparsity)), Cell(Quantity.of(run.config.seed, "")), *_cells(run),
            ]
            for group, run in entries[:_ROWS_SHOWN]
        ]  # fmt: skip
        records = [
            {"run_id": run.run_id, "state": run.state, **_place(group), "seed": run.config.seed, **run.record(),
             "config": run.config.model_dump(mode="json")}
            for group, run in entries
        ]  # fmt: skip
        notes = [*_notes(runs, study.dataset, study.model), *_left_out(len(entries))]
        tables.append(Table(study.title, columns, rows, records, notes))
    return tables


def total_lines(runs: Sequence[PlannedRun], machine: Machine) -> list[str]:
    """What all runs that are to be made take together, in sentences."""
    totals = _totals(runs, machine)
    unmade = len(unmade_of(runs))
    without = f"{plural(unmade, 'run')} cannot be made; see below." if unmade else ""
    if not totals.runs:
        return [without or "Nothing is left to run."]
    at_once = plural(machine.at_once, "run") + " at one time"
    lines = [
        f"To run: {plural(totals.runs, 'run')}, {totals.steps:,} steps, {totals.updates:,} topology updates, "
        f"{in_powers(totals.flops)} FLOPs by dense arithmetic (masks save none, sparse layers do)."
    ]
    if totals.wall_seconds is None:
        lines.append("Time: unknown, since this machine has finished no such run.")
    else:
        unit = "GPU" if machine.device == "cuda" else "worker"
        missing = totals.runs - totals.timed
        without = f", without {plural(missing, 'run')} whose time is unknown" if missing else ""
        lines.append(
            f"Time: {duration(totals.wall_seconds)} here with {at_once} "
            f"({number(totals.device_seconds / 3600)} {unit} hours{without})."
        )
    if without:
        lines[:0] = [without]
    lines.append(f"Disk: {size(totals.disk_bytes)} at most while they run, {size(totals.kept_bytes)} in the end.")
    return lines


def in_powers(value: float) -> str:
    """`5.2·10¹⁸`."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}·10{str(int(exponent)).translate(_RAISED)}"


def warning_lines(runs: Sequence[PlannedRun], machine: Machine) -> list[str]:
    """What is likely a mistake."""
    coming = [run for run in runs if run.to_run]
    return [
        *sentences(unmade_of(runs)),
        *warnings_on_runs(
            {run.run_id: run.config for run in coming},
            {run.run_id: run.forecast for run in coming},
            {run.run_id: run.memory for run in coming},
            machine,
        ),
        *warnings_on_all(_totals(runs, machine), machine),
    ]


def unmade_of(runs: Sequence[PlannedRun]) -> list[tuple[RunConfig, Impossible]]:
    """The runs that are to be made and cannot be, each with the reason."""
    return [(run.config, run.forecast) for run in runs if run.to_run and isinstance(run.forecast, Impossible)]


def _totals(runs: Sequence[PlannedRun], machine: Machine) -> Totals:
    expected = [
        Expected(run.forecast, run.seconds) for run in runs if run.to_run and isinstance(run.forecast, Forecast)
    ]
    return Totals.of(expected, machine)


def _entry(run: PlannedRun) -> Record:
    """As `studies` takes it, the run itself beside."""
    config = run.config
    return {
        "dataset": config.dataset, "model": config.model, "method": config.method, "sparsity": config.sparsity,
        "seed": config.seed, "state": run.state, "test_accuracy": None, "planned": run,
        "settings": defining_settings(config.model_dump(mode="json")),
    }  # fmt: skip


def _left_out(rows: int) -> list[str]:
    hidden = rows - _ROWS_SHOWN
    return [f"… and {hidden:,} more; --format csv or json lists them all."] if hidden > 0 else []


def _label(kind: Kind) -> str:
    """A kind's name without its update interval, which has a column of its own."""
    return Kind(kind.method, tuple(entry for entry in kind.settings if entry[0] != "update_interval")).label


def _members(group: Group) -> list[PlannedRun]:
    return [entry["planned"] for entry in group.runs]


def _counts(runs: Sequence[PlannedRun]) -> str:
    counts = {state: sum(run.state == state for run in runs) for state in dict.fromkeys(run.state for run in runs)}
    return ", ".join(f"{count:,} {state}" for state, count in counts.items())


def _cells(run: PlannedRun) -> list[Cell]:
    forecast, interval = run.forecast, Cell(number(run.config.update_interval))
    if isinstance(forecast, Impossible):
        return [interval, *(Cell(NOTHING) for _ in _COLUMNS[1:])]
    seconds = run.seconds
    return [
        interval,
        Cell(number(forecast.steps)),
        Cell(number(forecast.updates)),
        Cell(UNKNOWN if forecast.exploration_rate is None
             else rate(forecast.exploration_rate).within(_MARKS.get(forecast.exploration_known, ""))),
        Cell(rate(forecast.train_flops_ratio).within("" if forecast.flops_exact else "≈ ")),
        Cell(UNKNOWN if seconds is None else duration(seconds)),
        Cell(size(run.memory)),
        Cell(size(forecast.disk_bytes(seconds))),
    ]  # fmt: skip


def _place(group: Group) -> Record:
    run = _members(group)[0].config
    return {
        "dataset": run.dataset, "model": run.model, "method": run.method, "sparsity": run.sparsity,
        "growth": run.growth, "update_interval": run.update_interval,
    }  # fmt: skip


def _group_record(group: Group) -> Record:
    members = _members(group)
    states = {
        state: sum(run.state == state for run in members) for state in ("new", "done", "pending", "running", "failed")
    }
    settings: dict[str, Any] = dict(group.kind.settings)
    return {**_place(group), "settings": settings, "runs": len(members), **states, **members[0].record()}


def _notes(runs: Sequence[PlannedRun], dataset: str, model: str) -> list[str]:
    forecasts = [
        run.forecast
        for run in runs
        if isinstance(run.forecast, Forecast) and (run.config.dataset, run.config.model) == (dataset, model)
    ]
    known = {forecast.exploration_known for forecast in forecasts}
    dense = dict.fromkeys(
        left_dense_in_words(forecast.left_dense, forecast.trainable)
        for forecast in forecasts if forecast.left_dense and forecast.density < 1
    )  # fmt: skip
    return [
        "Of one run: train FLOPs are relative to dense training, disk is the most while it runs.",
        *(note for kind, note in _NOTES.items() if kind in known),
        *(f"Left dense: {weights}. `also_mask` masks them, too." for weights in dense),
    ]


def changed_notes(runs: Sequence[PlannedRun], masked: Mapping[str, int]) -> list[str]:
    """A sentence on the finished runs of each model that has another number of maskable weights today.

    Args:
        runs: of a plan.
        masked: run id → maskable weights that a finished run had.
    """
    found: dict[tuple[str, str, int, int], int] = {}
    for run in runs:
        if (
            isinstance(run.forecast, Forecast)
            and masked.get(run.run_id, run.forecast.maskable) != run.forecast.maskable
        ):
            key = run.config.model, run.config.dataset, masked[run.run_id], run.forecast.maskable
            found[key] = found.get(key, 0) + 1
    return [
        changed_note(f"{plural(count, 'finished run')} of {model} on {dataset}", before, today)
        for (model, dataset, before, today), count in found.items()
    ]
