"""Tables for a terminal of any width, by rich."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.align import Align
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from itopctl.report.formats.characters import clean
from itopctl.report.formats.numbers import align
from itopctl.report.formats.panels import in_panels
from itopctl.report.table import Cell, Table

_BEST_SIGN = "★"
_LONGEST_WORD = 16  # longer ones, such as paths, are folded before a column is left out
_PLAIN_WIDTH = 10_000  # a file or a pipe has no edge to fold at


def rich_tables(tables: Sequence[Table]) -> RenderableType:
    """Tables for a terminal, each fitted to its width."""
    parts: list[RenderableType] = []
    for table in tables:
        if parts:
            parts.append(Text())
        parts.append(_Fitted(table))
    return Group(*parts)


@dataclass(frozen=True)
class _Fitted:
    """A table with as many columns as there is room for."""

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = [_RichColumn(self.table, index) for index in range(len(self.table.columns))]
        left_out = []
        while len(columns) > 1 and _least_width(columns) > options.max_width:
            last = max(columns, key=lambda column: column.rank)
            if not last.rank:
                break
            columns.remove(last)
            left_out.append(last.header)
        for panel in in_panels(columns, _least_width, options.max_width) if columns else ():
            yield _rich(self.table, panel, options.max_width)
        for note in self.table.all_notes(f"{_BEST_SIGN} "):
            yield Text(clean(note), style="dim")
        if left_out:
            yield Text(f"No room for: {', '.join(reversed(left_out))}.", style="dim")


def _least_width(columns: Sequence[_RichColumn]) -> int:
    """Width of a table of these columns, borders included."""
    return sum(column.least_width + 3 for column in columns) + 1


class _RichColumn:
    """A column as it is drawn: its cells, and the least width that shows them well."""

    def __init__(self, table: Table, index: int) -> None:
        column = table.columns[index]
        self.key = column.key
        self.header, self.align, self.rank = clean(column.header), column.align, column.rank
        cells = [row[index] for row in table.rows]
        lines = [_lines(cell) for cell in cells]
        if column.align == "right":
            values, signs = [cell.value for cell in cells], [_sign(cell) for cell in cells]
            first = align(values, [text for text, *_ in lines], signs, [""] * len(cells))
            lines = [[text, *rest] for text, (_, *rest) in zip(first, lines, strict=True)]
        else:
            lines = [[_sign(cell) + text, *rest] for cell, (text, *rest) in zip(cells, lines, strict=True)]
        self.whole = column.whole or column.align == "right"
        pieces = [piece for part in lines for line in part for piece in ([line] if self.whole else line.split())]
        cell_width = max(map(cell_len, pieces), default=0)
        needed = cell_width if self.whole else min(cell_width, _LONGEST_WORD)
        self.least_width = max(needed, *map(cell_len, self.header.split() or [""]))
        self.natural_width = max(cell_len(self.header), *(cell_len(line) for part in lines for line in part), 0)
        width = cell_width if column.align == "right" else 0
        self.cells = [_drawn(cell, part, width) for cell, part in zip(cells, lines, strict=True)]


def _sign(cell: Cell) -> str:
    return f"{_BEST_SIGN} " if cell.best else ""


def _lines(cell: Cell) -> list[str]:
    """First the text, which may have lines of its own, then the lesser line."""
    return [*clean(cell.text, lines=True).split("\n"), *([clean(cell.second)] if cell.second else [])]


def _drawn(cell: Cell, lines: Sequence[str], width: int) -> RenderableType:
    """A cell; its lines filled up to a width on their left, where there is one.

    Rich would set flush right by itself, but takes away the room left for decimals first.
    """
    filled = [" " * (width - cell_len(line)) + line for line in lines]
    lesser = filled.pop() if cell.second else None
    text = Text("\n".join(filled), style="bold green" if cell.best else cell.style)
    if lesser is not None:
        text.append(f"\n{lesser}", style="not bold dim default")
    if not width:
        return text
    text.justify, text.overflow = "left", "fold"
    return Align.right(text)


def make_console() -> Console:
    """A console that folds at a terminal's edge, and writes plain unfolded text elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    return console


def _rich(table: Table, columns: Sequence[_RichColumn], room: int) -> RichTable:
    title = Text(clean(table.title)) if table.title else None
    drawn = RichTable(title=title, title_justify="left", title_style="bold", header_style="bold", padding=(0, 1))
    for column, width in zip(columns, _widths(columns, room), strict=True):
        drawn.add_column(Text(column.header), justify=column.align, width=width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        drawn.add_row(*row)
    return drawn


def _widths(columns: Sequence[_RichColumn], room: int) -> list[int | None]:
    """How wide each column is to be; None where rich may choose, since all have the room that they want, or too little.

    Rich would take room from the widest column first, whatever its least width. Here what is left over goes to those
    that need the least more.
    """
    left = room - _least_width(columns)
    wanted = [column.natural_width - column.least_width for column in columns]
    if not 0 <= left < sum(wanted):
        return [None] * len(columns)
    widths: list[int | None] = [column.least_width for column in columns]
    order = sorted(range(len(columns)), key=wanted.__getitem__)
    for place, index in enumerate(order):
        more = min(wanted[index], left // (len(order) - place))
        widths[index] = columns[index].least_width + more
        left -= more
    return widths
