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
    """
    headers = [
        Column("run"), Column("state"), Column("data set"), Column("model"), Column("method"),
        Column("sparsity", "right"), Column("ΔT", "right"), Column("seed", "right"), Column("accuracy %", "right"),
        Column("at best val. %", "right"), Column("R_s", "right"), Column("train FLOPs", "right"),
        Column("time", "right"),
    ]  # fmt: skip
    rows = [
        [
            Cell(run["run_id"]), state_cell(run["state"], run["cause"]), Cell(run["dataset"] or NOTHING),
            Cell(run["model"] or NOTHING), Cell(run["method"] or NOTHING),
            Cell(NOTHING if run["sparsity"] is None else sparsity(run["sparsity"])),
            Cell(number(run["update_interval"])), Cell(number(run["seed"])), Cell(percent(run["test_accuracy"])),
            Cell(percent(run["test_accuracy_at_best_validation"])), Cell(rate(run["exploration_rate"])),
            Cell(f"{rate(run['train_flops_ratio'])}×" if run["train_flops_ratio"] is not None else NOTHING),
            Cell(duration(run["wall_seconds"])),
        ]
        for run in runs
    ]  # fmt: skip
    return Table(title, headers, rows, runs)
