"""A table as a value: what a person reads, and beside it the records that a program reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Record = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """A column: its heading, and where its cells are set."""

    header: str
    align: Literal["left", "right", "center"] = "left"


@dataclass(frozen=True)
class Cell:
    """What stands in one place.

    Attributes:
        text: one line.
        second: a lesser line, shown under the first where there is room for it, else behind it.
        best: to be marked as the best of its column.
        style: a rich style for terminals.
    """

    text: str
    second: str = ""
    best: bool = False
    style: str = ""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: above it.
        columns, rows: what a person reads; every row has one cell a column.
        records: what CSV and JSON contain, whatever the rows show.
        notes: lines under it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    records: Sequence[Record]
    notes: Sequence[str] = field(default_factory=tuple)
