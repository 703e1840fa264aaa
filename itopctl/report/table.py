"""A table as a value: what a person reads, and beside it the records that a program reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from itopctl.report.quantity import Quantity

Record = dict[str, Any]

FORMATS = ("rich", "markdown", "latex", "csv", "json", "html")
"""What a table can be printed as (`formats`)."""


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        header: its heading.
        align: where its cells are set; those set right are never folded. Quantities in it that are of one unit, and
            have no text beside them, stand with their decimal points below each other.
        whole: whether cells set left must not be folded either.
        rank: where a terminal is too narrow for all, columns of the highest rank are left out first; 0 stays.
        key: whether it says which row it is, as the first column always does: where a table is split into parts side
            by side, each begins with these.
    """

    header: str
    align: Literal["left", "right", "center"] = "left"
    whole: bool = False
    rank: int = 0
    key: bool = False


@dataclass(frozen=True)
class Cell:
    """What stands in one place.

    Attributes:
        value: a text of one line, or a number with all that formats need to align and to sort it.
        second: a lesser line, shown under the first where there is room for it, else behind it.
        best: to be marked as the best of its column.
        style: a rich style for terminals.
    """

    value: str | Quantity
    second: str = ""
    best: bool = False
    style: str = ""

    @property
    def text(self) -> str:
        """What stands there, as text."""
        return str(self.value)


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: above it.
        columns, rows: what a person reads; every row has one cell a column.
        records: what CSV and JSON contain, whatever the rows show.
        best: what a marked cell is; empty where none is marked.
        notes: lines under it.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    records: Sequence[Record]
    notes: Sequence[str] = field(default_factory=tuple)
    best: str = ""

    def all_notes(self, best_mark: str) -> list[str]:
        """What stands under it; first what a marked cell is, behind what marks it in the format."""
        return [*([best_mark + self.best] if self.best else []), *self.notes]
