"""The table of a paper: methods against sparsities, mean ± standard deviation over seeds, with the exploration rate.

Runs are averaged only where nothing but the seed differs: what else varies among the runs of a method (an update
interval, a learning rate) becomes part of its row's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itopctl.catalogue import comparable
from itopctl.report.statistics import Summary, summarise
from itopctl.report.table import Cell, Column, Record, Table
from itopctl.report.words import NOTHING, percent, rate, sparsity

_COORDINATES = frozenset({"dataset", "model", "method", "sparsity", "seed"})
_SHORT = {
    "update_interval": "ΔT",
    "optimizer.lr": "lr",
    "drop_fraction": "ζ",
    "training_multiplier": "×",
    "batch_size": "batch",
}

UNFINISHED = "*"


@dataclass(frozen=True)
class _Entry:
    """Runs that differ in nothing but the seed."""

    runs: list[Record]

    @property
    def finished(self) -> list[Record]:
        return [run for run in self.runs if run["state"] == "done" and run["test_accuracy"] is not None]

    @property
    def complete(self) -> bool:
        return len(self.finished) == len(self.runs)

    def summary(self, field: str) -> Summary | None:
        return summarise([run[field] for run in self.finished if run[field] is not None])


_Row = tuple[str, tuple[tuple[str, Any], ...]]  # method, and the settings that tell its rows apart


def paper_tables(runs: Sequence[Record], method_order: Sequence[str] = ()) -> list[Table]:
    """One table for each data set and model, in the order of the runs.

    Args:
        runs: records with `dataset, model, method, sparsity, seed, state, test_accuracy, exploration_rate,
            train_flops_ratio, inference_flops_ratio` and `settings`: a flat mapping of everything that defines
            the experiment.
        method_order: methods in the order their rows should have; `dense` always comes first.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for run in filter(_has_a_place, runs):
        groups.setdefault((run["dataset"], run["model"]), []).append(run)
    return [_group_table(dataset, model, members, method_order) for (dataset, model), members in groups.items()]


def _has_a_place(run: Record) -> bool:
    """Whether a run says where in which table it belongs."""
    return all(run[name] is not None for name in ("dataset", "model", "method", "sparsity"))


def _group_table(dataset: str, model: str, runs: list[Record], method_order: Sequence[str]) -> Table:
    entries = _entries(runs)
    sparsities = sorted({key[1] for key in entries})
    rows = sorted({key[0] for key in entries}, key=lambda row: _row_order(row, method_order))
    best = {value: _best_rows(entries, rows, value) for value in sparsities}
    cells, records = [], []
    for row in rows:
        line = [_row_cell(row)]
        for value in sparsities:
            entry = entries.get((row, value))
            line.append(_cell(entry, row in best[value]))
            if entry is not None:
                records.append(_record(dataset, model, row, value, entry, row in best[value]))
        cells.append(line)
    headers = [Column("method"), *(Column(f"sparsity {sparsity(v)}" if v else "dense", "right") for v in sparsities)]
    notes = ["Test accuracy in % after the last step: mean ± standard deviation over n seeds;"
             " R_s: exploration rate at the same step."]  # fmt: skip
    if any(not entry.complete for entry in entries.values()):
        notes.append(f"{UNFINISHED} not all seeds are finished.")
    mark = "best sparse method of its column." if any(best.values()) else ""
    return Table(f"{model} on {dataset}", headers, cells, records, notes, mark)


def _entries(runs: list[Record]) -> dict[tuple[_Row, float], _Entry]:
    by_method: dict[str, list[Record]] = {}
    for run in runs:
        plain = {name: _hashable(value) for name, value in run["settings"].items()}
        by_method.setdefault(run["method"], []).append({**run, "settings": plain})
    varying = {method: _varying([run["settings"] for run in members]) for method, members in by_method.items()}
    entries: dict[tuple[_Row, float], _Entry] = {}
    for run in (run for members in by_method.values() for run in members):
        settings = tuple((name, run["settings"].get(name)) for name in varying[run["method"]])
        key = ((run["method"], settings), run["sparsity"])
        entries.setdefault(key, _Entry([])).runs.append(run)
    return entries


def _varying(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings that are not the same in all, coordinates of the table aside.

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


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((name, _hashable(inner)) for name, inner in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value


def _row_order(row: _Row, method_order: Sequence[str]) -> tuple[Any, ...]:
    method, settings = row
    place = list(method_order).index(method) if method in method_order else len(method_order)
    return (method != "dense", place, method, tuple(_value_order(value) for _, value in settings))


def _value_order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then everything else by its text."""
    numeric = isinstance(value, (int, float))
    return (not numeric, float(value) if numeric else 0.0, str(value))


def _row_cell(row: _Row) -> Cell:
    method, settings = row
    said = [(name, value) for name, value in settings if value is not None]
    return Cell(
        method, ", ".join(f"{_SHORT.get(name, name.replace('_', ' '))} {_value(value)}" for name, value in said)
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return "/".join(_value(item) for item in value) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _best_rows(entries: Mapping[tuple[_Row, float], _Entry], rows: Sequence[_Row], value: float) -> list[_Row]:
    """The sparse rows with the highest mean of a column, where at least two have all their seeds finished."""
    means = {}
    for row in rows:
        entry = entries.get((row, value))
        summary = entry.summary("test_accuracy") if entry and entry.complete and row[0] != "dense" else None
        if summary:
            means[row] = summary.mean
    highest = max(means.values(), default=0.0)
    return [row for row, mean in means.items() if mean == highest] if len(means) > 1 else []


def _cell(entry: _Entry | None, best: bool) -> Cell:
    if entry is None:
        return Cell("")
    mark = "" if entry.complete else UNFINISHED
    accuracy, explored = entry.summary("test_accuracy"), entry.summary("exploration_rate")
    if accuracy is None or explored is None:
        return Cell(NOTHING + mark)
    spread = f" ± {percent(accuracy.std)}" if accuracy.std is not None else ""
    return Cell(f"{percent(accuracy.mean)}{spread}", f"R_s {rate(explored.mean)}, n {accuracy.n}{mark}", best)


def _record(dataset: str, model: str, row: _Row, value: float, entry: _Entry, best: bool) -> Record:
    record: Record = {
        "dataset": dataset, "model": model, "method": row[0], "settings": dict(row[1]), "sparsity": value,
        "density": round(1.0 - value, 12), "seeds": len(entry.runs), "seeds_finished": len(entry.finished),
        "best": best,
    }  # fmt: skip
    for field in ("test_accuracy", "test_accuracy_at_best_validation", "exploration_rate"):
        summary = entry.summary(field)
        record[f"{field}_mean"] = summary.mean if summary else None
        record[f"{field}_std"] = summary.std if summary else None
    for field in ("train_flops_ratio", "inference_flops_ratio"):
        summary = entry.summary(field)
        record[field] = summary.mean if summary else None
    return record
