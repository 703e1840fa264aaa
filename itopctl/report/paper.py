"""The table of a paper: methods against sparsities, mean ± standard deviation over seeds, with the exploration rate."""

from __future__ import annotations

from collections.abc import Sequence

from itopctl.report.groups import Group, Kind, Study, studies
from itopctl.report.table import Cell, Column, Record, Table
from itopctl.report.words import NOTHING, percent, rate, sparsity

UNFINISHED = "*"


def paper_tables(runs: Sequence[Record], method_order: Sequence[str] = ()) -> list[Table]:
    """One table for each data set and model, in the order of the runs.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with `exploration_rate, train_flops_ratio,
            inference_flops_ratio`.
        method_order: methods in the order their rows should have; `dense` always comes first.
    """
    return [_table(study) for study in studies(runs, method_order)]


def _table(study: Study) -> Table:
    best = {value: _best_kinds(study, value) for value in study.sparsities}
    cells, records = [], []
    for kind in study.kinds:
        line = [Cell(kind.method, kind.details)]
        for value in study.sparsities:
            group = study.group(kind, value)
            line.append(_cell(group, kind in best[value]))
            if group is not None:
                records.append(_record(study, group, kind in best[value]))
        cells.append(line)
    columns = [Column(f"sparsity {sparsity(v)}" if v else "dense", "right") for v in study.sparsities]
    notes = ["Test accuracy in % after the last step: mean ± standard deviation over n seeds;"
             " R_s: exploration rate at the same step."]  # fmt: skip
    if any(not group.complete for group in study.groups):
        notes.append(f"{UNFINISHED} not all seeds are finished.")
    mark = "best sparse method of its column." if any(best.values()) else ""
    return Table(study.title, [Column("method"), *columns], cells, records, notes, mark)


def _best_kinds(study: Study, value: float) -> list[Kind]:
    """The sparse kinds with the highest mean of a column, where at least two have all their seeds finished."""
    means = {}
    for group in study.groups:
        if group.sparsity == value and group.complete and group.kind.method != "dense":
            summary = group.summary("test_accuracy")
            if summary:
                means[group.kind] = summary.mean
    highest = max(means.values(), default=0.0)
    return [kind for kind, mean in means.items() if mean == highest] if len(means) > 1 else []


def _cell(group: Group | None, best: bool) -> Cell:
    if group is None:
        return Cell("")
    mark = "" if group.complete else UNFINISHED
    accuracy, explored = group.summary("test_accuracy"), group.summary("exploration_rate")
    if accuracy is None or explored is None:
        return Cell(NOTHING + mark)
    spread = f" ± {percent(accuracy.std)}" if accuracy.std is not None else ""
    return Cell(f"{percent(accuracy.mean)}{spread}", f"R_s {rate(explored.mean)}, n {accuracy.n}{mark}", best)


def _record(study: Study, group: Group, best: bool) -> Record:
    record: Record = {
        "dataset": study.dataset, "model": study.model, "method": group.kind.method,
        "settings": dict(group.kind.settings), "sparsity": group.sparsity, "density": round(1.0 - group.sparsity, 12),
        "seeds": len(group.runs), "seeds_finished": len(group.finished), "best": best,
    }  # fmt: skip
    for field in ("test_accuracy", "test_accuracy_at_best_validation", "exploration_rate"):
        summary = group.summary(field)
        record[f"{field}_mean"] = summary.mean if summary else None
        record[f"{field}_std"] = summary.std if summary else None
    for field in ("train_flops_ratio", "inference_flops_ratio"):
        summary = group.summary(field)
        record[field] = summary.mean if summary else None
    return record
