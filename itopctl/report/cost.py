"""What results cost: time, FLOPs, memory and, where the device tells, energy; and the accuracy that is had for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from itopctl.report.fields import Fields, Order, in_order
from itopctl.report.groups import Group, Study, measured_fields, studies
from itopctl.report.kinds import COSTS
from itopctl.report.number_text import NOTHING, duration, mean_and_spread, number, quantity, rate, size, sparsity
from itopctl.report.statistics import summary_fields
from itopctl.report.table import Cell, Column, Record, Table

_ALIKE = ("batch_size", "precision")


def cost_tables(
    runs: Sequence[Record],
    method_order: Sequence[str] = (),
    best_by: str = "final",
    digits: int | None = None,
    order: Order = (),
) -> list[Table]:
    """One table for each data set and model, one row for each group with finished runs.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with what runs measure of their costs.
        method_order: methods in the order their rows should have; `dense` always comes first.
        best_by: which accuracy counts (`itopctl.report.groups.BEST_BY`).
        digits: significant digits of standard deviations (`itopctl.report.number_text.plus_minus`).
        order: of the rows instead, by fields.
    """
    tables = [_table(study, best_by, digits, order) for study in studies(runs, method_order)]
    return [table for table in tables if table.rows]


def _table(study: Study, best_by: str, digits: int | None, order: Order) -> Table:
    accuracy = measured_fields(best_by)[0]
    finished = [group for group in study.groups if group.finished]
    groups = in_order(finished, order, Fields((), best_by), lambda group: group.runs)
    dense = _dense_speeds(finished)
    records = [_record(study, group, accuracy, dense) for group in groups]
    energy = any(record["energy_joules"] is not None for record in records)
    columns = [
        Column("method"), Column("sparsity", "right", key=True), Column("test %", "right"), Column("time", "right"),
        Column("speed", "right"), Column("training FLOPs", "right"), Column("of dense", "right"),
        Column("inference FLOPs", "right", rank=3), Column("memory", "right", rank=1),
        *([Column("energy", "right")] if energy else []), Column("points per TFLOP", "right", rank=2),
        Column("device", rank=4),
    ]  # fmt: skip
    rows = [
        [
            Cell(group.kind.method, group.kind.details), Cell(sparsity(group.sparsity) if group.sparsity else NOTHING),
            Cell(mean_and_spread(record["test_accuracy_mean"], record["test_accuracy_std"], digits)),
            Cell(duration(record["wall_seconds"])), Cell(rate(record["speed_up"], "×")),
            Cell(quantity(record["train_flops"])), Cell(rate(record["train_flops_ratio"], "×")),
            Cell(quantity(record["inference_flops"])), Cell(size(record["peak_memory_bytes"])),
            *([Cell(quantity(record["energy_joules"], "J"))] if energy else []),
            Cell(number(record["accuracy_points_per_teraflop"])), Cell(record["device_name"] or NOTHING),
        ]
        for group, record in zip(groups, records, strict=True)
    ]  # fmt: skip
    notes = [
        "Means over the finished seeds of a row. Training FLOPs: a multiplication and an addition are two; forward and"
        " backward, from the real masks; not what masked arithmetic multiplies by zero.",
        "Speed: training steps per second as against dense runs on the same device with as many threads, both with"
        " whatever ran beside them.",
        "Time and memory depend on the device and on what else it did; memory: the process at its peak.",
        "Points per TFLOP: test accuracy in % by 10¹² FLOPs of training.",
    ]
    if energy:
        notes.append("Energy: of the whole device while the run was on it, whoever else used it.")
    return Table(study.title, columns, rows, records, notes)


def _dense_speeds(groups: Sequence[Group]) -> dict[tuple[Any, ...], list[float]]:
    """Steps per second of dense runs, by the circumstances under which others can be compared with them."""
    speeds: dict[tuple[Any, ...], list[float]] = {}
    for group in groups:
        if group.kind.method == "dense":
            for run in group.finished:
                if run["steps_per_second"]:
                    speeds.setdefault(_circumstances(run), []).append(run["steps_per_second"])
    return speeds


def _circumstances(run: Record) -> tuple[Any, ...]:
    return run["device_name"], run["threads"], *(run["settings"].get(name) for name in _ALIKE)


def _speed_up(group: Group, dense: Mapping[tuple[Any, ...], Sequence[float]]) -> float | None:
    """Steps per second relative to dense: of the runs that there is something to compare with."""
    ratios = [
        run["steps_per_second"] / fmean(dense[_circumstances(run)])
        for run in group.finished
        if run["steps_per_second"] and _circumstances(run) in dense
    ]
    return fmean(ratios) if ratios else None


def _record(study: Study, group: Group, accuracy: str, dense: Mapping[tuple[Any, ...], Sequence[float]]) -> Record:
    record: Record = {**study.about(group), **summary_fields("test_accuracy", group.summary(accuracy))}
    for name in COSTS:
        summary = group.summary(name)
        record[name] = summary.mean if summary else None
    record["speed_up"] = _speed_up(group, dense)
    devices = sorted({run["device_name"] for run in group.finished if run["device_name"]})
    record["device_name"] = ", ".join(devices) or None
    flops, points = record["train_flops"], record["test_accuracy_mean"]
    record["accuracy_points_per_teraflop"] = 100 * points / (flops / 1e12) if flops and points is not None else None
    return record
