"""Per layer: shape, weights, density, exploration rate and drops, averaged over the seeds of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from itopctl.errors import plural
from itopctl.report.groups import Group, Study, studies
from itopctl.report.number_text import number, rate, sparsity
from itopctl.report.quantity import Quantity
from itopctl.report.statistics import summarise
from itopctl.report.table import Cell, Column, Record, Table

Layers = Mapping[str, Sequence[Record]]
"""Run id → its layers in order, each with `name, shape, size, active, density, exploration_rate, dropped`."""


def layer_tables(runs: Sequence[Record], layers: Layers, method_order: Sequence[str] = ()) -> list[Table]:
    """One table for each group of finished runs, in the order of data sets, models, methods and sparsities.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with `run_id`.
        layers: of the finished runs.
        method_order: methods in the order their tables should have.
    """
    return [
        table
        for study in studies(runs, method_order)
        for group in study.groups
        if (table := _table(study, group, layers)) is not None
    ]


def _table(study: Study, group: Group, layers: Layers) -> Table | None:
    measured = [layers[run["run_id"]] for run in group.finished if layers.get(run["run_id"])]
    if not measured:
        return None
    columns = [
        Column("layer"), Column("shape", "right"), Column("weights", "right"), Column("active", "right", rank=1),
        Column("density", "right"), Column("R_s", "right"), Column("dropped", "right"),
        Column("drops per active weight", "right", rank=2),
    ]  # fmt: skip
    rows, records = [], []
    for position, first in enumerate(measured[0]):
        same = [of_run[position] for of_run in measured if position < len(of_run)]
        record = {
            **study.about(group), "position": position, "layer": first["name"], "shape": list(first["shape"]),
            "size": first["size"],
            **{name: _mean(same, name) for name in ("active", "density", "exploration_rate", "dropped")},
        }  # fmt: skip
        records.append(record)
        dropped, active = record["dropped"], record["active"]
        rows.append([
            Cell(first["name"]), Cell(_shape(first["shape"])), Cell(number(first["size"])),
            Cell(number(_rounded(active))), Cell(number(record["density"], 4)), Cell(rate(record["exploration_rate"])),
            Cell(number(_rounded(dropped))), Cell(number(dropped / active if dropped is not None and active else None)),
        ])  # fmt: skip
    at = f" at sparsity {sparsity(group.sparsity)}" if group.sparsity else ""
    notes = [
        f"Means over {plural(len(measured), 'seed')}; dropped: by all topology updates, a weight dropped again counts "
        "again."
    ]
    return Table(f"{study.title}: {group.kind.label}{at}", columns, rows, records, notes)


def _mean(same: Sequence[Record], name: str) -> float | None:
    summary = summarise([layer[name] for layer in same if layer[name] is not None])
    return summary.mean if summary else None


def _rounded(value: float | None) -> int | None:
    return None if value is None else round(value)


def _shape(sides: Sequence[int]) -> str | Quantity:
    """`300×784`, which has its place by the first side."""
    return Quantity.of(sides[0], "").within(after="".join(f"×{side}" for side in sides[1:])) if sides else ""
