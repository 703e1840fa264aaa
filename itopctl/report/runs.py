"""One row a run: what it is, how far it is, and what it measured."""

from __future__ import annotations

from collections.abc import Sequence

from itopctl.report.table import Cell, Column, Record, Table
from itopctl.report.words import NOTHING, duration, number, percent, rate, sparsity

_STATE_STYLES = {"done": "green", "running": "cyan", "failed": "red", "lost": "red"}


def state_cell(state: str, cause: str | None = None) -> Cell:
    """A state, with its cause where that says more."""
    text = f"{state}: {cause}" if cause and cause not in ("finished", state) else state
    return Cell(text, style=_STATE_STYLES.get(state, ""))


def runs_table(runs: Sequence[Record], title: str = "") -> Table:
    """A table of runs; its records are the runs as they come.

    Args:
        runs: records of the store (`itopctl.store.queries.RUN_COLUMNS`).
        title: by default the model and data set, where all runs have the same.
    """
    kinds = {(run["model"], run["dataset"]) for run in runs}
    one_kind = len(kinds) == 1 and runs[0]["model"] is not None
    if one_kind and not title:
        title = "{} on {}".format(*kinds.pop())
    headers = [
        Column("run", whole=True), Column("state"),
        *([] if one_kind else [Column("data set", rank=2), Column("model", rank=2)]),
        Column("method"), Column("sparsity", "right"), Column("ΔT", "right"), Column("seed", "right", rank=1),
        Column("test %", "right"), Column("test % at best validation", "right", rank=4), Column("R_s", "right"),
        Column("train FLOPs", "right", rank=5), Column("time", "right", rank=3),
    ]  # fmt: skip
    rows = [
        [
            Cell(run["run_id"]), state_cell(run["state"], run["cause"]),
            *([] if one_kind else [Cell(run["dataset"] or NOTHING), Cell(run["model"] or NOTHING)]),
            Cell(run["method"] or NOTHING), Cell(NOTHING if run["sparsity"] is None else sparsity(run["sparsity"])),
            Cell(number(run["update_interval"])), Cell(number(run["seed"])), Cell(percent(run["test_accuracy"])),
            Cell(percent(run["test_accuracy_at_best_validation"])), Cell(rate(run["exploration_rate"])),
            Cell(NOTHING if run["train_flops_ratio"] is None else f"{number(run['train_flops_ratio'], 2)}×"),
            Cell(duration(run["wall_seconds"])),
        ]
        for run in runs
    ]  # fmt: skip
    return Table(title, headers, rows, runs)
