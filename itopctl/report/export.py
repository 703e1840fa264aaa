"""An exported network as tables: what was written, and how long it takes."""

from __future__ import annotations

from collections.abc import Sequence

from itopctl.errors import plural
from itopctl.report.number_text import number, percent, size
from itopctl.report.quantity import Quantity
from itopctl.report.table import Cell, Column, Record, Table


def export_tables(record: Record) -> list[Table]:
    """Tables of an export.

    Args:
        record: `run_id`, `format`, `dense`, `path`, `bytes`, `dense_bytes`, `numbers`, `nonzeros`, `test_accuracy`,
            `recorded_test_accuracy`, `timings` (each `batch`, `file_ms`, `dense_ms`), `threads` (that these
            were measured with), `notes` (what else to say).
    """
    numbers = f"{record['nonzeros']:,} of {record['numbers']:,}"
    pairs: list[tuple[str, str | Quantity]] = [
        ("file", record["path"]),
        ("size", f"{size(record['bytes'])} (whole weights: {size(record['dense_bytes'])})"),
        ("numbers", numbers if record["nonzeros"] == record["numbers"] else f"{numbers}; the others are zero"),
        ("test accuracy % of the file", percent(record["test_accuracy"])),
        ("test accuracy % of the run", percent(record["recorded_test_accuracy"])),
    ]
    title = f"Run {record['run_id']} as {record['format']}"
    rows = [[Cell(name), Cell(value)] for name, value in pairs]
    tables = [Table(title, [Column("what"), Column("value")], rows, [record], record["notes"])]
    if record["timings"]:
        tables.append(_timings(record["timings"], record["threads"]))
    return tables


def _timings(timings: Sequence[Record], threads: int) -> Table:
    columns = [Column(name, "right") for name in ("batch", "file, ms", "dense, ms", "speed-up")]
    rows = [
        [
            Cell(Quantity.of(timing["batch"], "")), Cell(number(timing["file_ms"])), Cell(number(timing["dense_ms"])),
            Cell(Quantity.of(timing["dense_ms"] / timing["file_ms"], ".1f", "×")),
        ]
        for timing in timings
    ]  # fmt: skip
    note = f"dense: the same network with whole weights in PyTorch; both by {plural(threads, 'thread')}"
    return Table("Inference", columns, rows, list(timings), [note])
