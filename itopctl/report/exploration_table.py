"""Accuracy and exploration rate against update interval, sparsity and growth; predicted beside measured R_s."""

from __future__ import annotations

import math
from collections.abc import Sequence

from itopctl.report.fields import Fields, Order, in_order
from itopctl.report.groups import MEASURED_WHEN, Group, Study, measured_fields, studies, unfinished_in_words
from itopctl.report.number_text import NOTHING, mean_and_spread, number, rate, sparsity
from itopctl.report.quantity import Quantity
from itopctl.report.statistics import summarise, summary_fields
from itopctl.report.table import Cell, Column, Record, Table

UPPER = "upper"
"""`prediction` of a run whose growth comes back to weights it knows: the predicted R_s is more than it can reach."""

_OWN_COLUMNS = frozenset({"update_interval", "growth"})


def exploration_tables(
    runs: Sequence[Record],
    method_order: Sequence[str] = (),
    best_by: str = "final",
    digits: int | None = None,
    order: Order = (),
) -> list[Table]:
    """One table for each data set and model, one row for each group of sparse runs, by sparsity and growth.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with `growth, update_interval, topology_updates,
            exploration_rate` and, where it is known, `predicted_exploration_rate` with its `prediction`: `expected`
            for random growth, `upper` for an upper estimate.
        method_order: methods in the order their rows should have.
        best_by: which accuracy counts (`itopctl.report.groups.BEST_BY`).
        digits: significant digits of standard deviations (`itopctl.report.number_text.plus_minus`).
        order: of the rows instead, by fields.
    """
    tables = [_table(study, best_by, digits, order) for study in studies(runs, method_order)]
    return [table for table in tables if table.rows]


def _table(study: Study, best_by: str, digits: int | None, order: Order) -> Table:
    accuracy, explored = measured_fields(best_by)
    sparse = sorted((g for g in study.groups if g.kind.method != "dense"), key=_order)
    groups = in_order(sparse, order, Fields((), best_by), lambda group: group.runs)
    detailed = any(set(dict(group.kind.settings)) - _OWN_COLUMNS for group in groups)
    columns = [
        Column("sparsity", "right"), Column("growth", key=True), Column("ΔT", "right", key=True),
        Column("method", key=True),
        *([Column("settings")] if detailed else []), Column("updates", "right", rank=2), Column("test %", "right"),
        Column("R_s", "right"), Column("predicted", "right"), Column("n", "right", rank=1),
    ]  # fmt: skip
    rows, records = [], []
    for group in groups:
        record = _record(study, group, accuracy, explored)
        records.append(record)
        rows.append([
            Cell(sparsity(group.sparsity)), Cell(record["growth"] or NOTHING), Cell(number(record["update_interval"])),
            Cell(group.kind.method), *([Cell(group.kind.without(_OWN_COLUMNS).details)] if detailed else []),
            Cell(number(record["topology_updates"])),
            Cell(mean_and_spread(record["test_accuracy_mean"], record["test_accuracy_std"], digits)),
            Cell(rate(record["exploration_rate_mean"])), Cell(_predicted(record)),
            Cell(Quantity.of(record["seeds_finished"], "").marked("*" * (not group.complete))),
        ])  # fmt: skip
    return Table(study.title, columns, rows, records, _notes(records, groups, best_by))


def _order(group: Group) -> tuple[object, ...]:
    run = group.runs[0]
    return (group.sparsity, run["growth"] or "", run["update_interval"] or 0)


def _record(study: Study, group: Group, accuracy: str, explored: str) -> Record:
    run = group.runs[0]
    record = {**study.about(group), "growth": run["growth"], "update_interval": run["update_interval"]}
    updates = group.summary("topology_updates")
    record["topology_updates"] = round(updates.mean) if updates else None
    for name, field in (("test_accuracy", accuracy), ("exploration_rate", explored)):
        record |= summary_fields(name, group.summary(field))
    predicted = [run.get("predicted_exploration_rate") for run in group.runs]
    known = summarise([value for value in predicted if value is not None])
    record["predicted_exploration_rate"] = known.mean if known else None
    record["prediction"] = run.get("prediction")
    # At the last step alone: a prediction is of the end of training.
    differences = [
        abs(run["exploration_rate"] - run["predicted_exploration_rate"])
        for run in group.finished
        if run.get("predicted_exploration_rate") is not None and run["exploration_rate"] is not None
    ]
    record["largest_difference"] = max(differences, default=None)
    return record


def _predicted(record: Record) -> Quantity:
    value = record["predicted_exploration_rate"]
    return rate(value).within("≤ " if record["prediction"] == UPPER and value is not None else "")


def _notes(records: Sequence[Record], groups: Sequence[Group], best_by: str) -> list[str]:
    when = MEASURED_WHEN[best_by]
    notes = [f"Test accuracy in % and exploration rate R_s {when}: mean ± standard deviation over n seeds."]
    exact = [
        r["largest_difference"] for r in records if r["prediction"] != UPPER and r["largest_difference"] is not None
    ]
    if exact:
        notes.append(
            "Predicted: what random growth is expected to explore by the end of training; "
            f"no run of that growth differs from it by more than {math.ceil(round(1000 * max(exact), 6)) / 1000:.3f}."
        )
    if any(r["prediction"] == UPPER for r in records):
        notes.append(
            "≤: an upper estimate, for growth that comes back to weights it knows; with few updates it may be"
            " exceeded a little."
        )
    unfinished = unfinished_in_words(run for group in groups for run in group.runs)
    if unfinished:
        notes.append(f"* {unfinished}")
    return notes
