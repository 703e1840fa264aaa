"""A table in each format: rich (a terminal), markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table as RichTable
from rich.text import Text

from itopctl.report.table import Cell, Column, Record, Table

_BEST_SIGN = "★"
_LONGEST_WORD = 16  # longer ones, such as paths, are folded before a column is left out
_PLAIN_WIDTH = 10_000  # a file or a pipe has no edge to fold at


def render(tables: Sequence[Table], style: str) -> str:
    """Tables as text in any format but `rich`."""
    writers: dict[str, Callable[[Sequence[Table]], str]] = {
        "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json,
    }  # fmt: skip
    return writers[style](tables)


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
        while _least_width(columns) > options.max_width:
            last = max(columns, key=lambda column: column.rank)
            if not last.rank:
                break
            columns.remove(last)
            left_out.append(last.header)
        for panel in _panels(columns, options.max_width):
            yield _rich(self.table, panel)
        for note in _notes(self.table, f"{_BEST_SIGN} "):
            yield Text(note, style="dim")
        if left_out:
            yield Text(f"No room for: {', '.join(reversed(left_out))}.", style="dim")


def _least_width(columns: Sequence[_RichColumn]) -> int:
    """Width of a table of these columns, borders included."""
    return sum(column.least_width + 3 for column in columns) + 1


def _panels(columns: Sequence[_RichColumn], width: int) -> Iterator[list[_RichColumn]]:
    """Columns in as many tables as it takes to fit a width, each beginning with the first column."""
    first, *rest = columns
    panel = [first]
    for column in rest:
        if len(panel) > 1 and _least_width([*panel, column]) > width:
            yield panel
            panel = [first]
        panel.append(column)
    yield panel


class _RichColumn:
    """A column as it is drawn: its cells, and the least width that shows them well."""

    def __init__(self, table: Table, index: int) -> None:
        column = table.columns[index]
        self.header, self.align, self.rank = column.header, column.align, column.rank
        self.cells = [_rich_cell(row[index]) for row in table.rows]
        self.whole = column.whole or column.align == "right"
        pieces = [
            piece for cell in self.cells for piece in (cell.plain.split("\n") if self.whole else cell.plain.split())
        ]
        self.cell_width = max(map(cell_len, pieces), default=0)
        needed = self.cell_width if self.whole else min(self.cell_width, _LONGEST_WORD)
        self.least_width = max(needed, *map(cell_len, column.header.split() or [""]))


def _notes(table: Table, best_mark: str) -> list[str]:
    return [*([best_mark + table.best] if table.best else []), *table.notes]


def make_console() -> Console:
    """A console that folds at a terminal's edge, and writes plain unfolded text elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_PLAIN_WIDTH)
    return console


def _rich(table: Table, columns: Sequence[_RichColumn]) -> RichTable:
    title = Text(table.title) if table.title else None
    drawn = RichTable(title=title, title_justify="left", title_style="bold", header_style="bold", padding=(0, 1))
    for column in columns:
        width = column.cell_width if column.whole else None
        drawn.add_column(Text(column.header), justify=column.align, min_width=width, overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        drawn.add_row(*row)
    return drawn


def _rich_cell(cell: Cell) -> Text:
    text = Text(
        f"{_BEST_SIGN} {cell.text}" if cell.best else cell.text, style="bold green" if cell.best else cell.style
    )
    if cell.second:
        text.append(f"\n{cell.second}", style="not bold dim default")
    return text


def _markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown_table(table) for table in tables)


def _markdown_table(table: Table) -> str:
    def shown(cell: Cell) -> str:
        text = _markdown_text(_one_line(cell))
        return f"**{text}**" if cell.best else text

    header = [_markdown_text(column.header) for column in table.columns]
    body = [[shown(cell) for cell in row] for row in table.rows]
    widths = [max(3, *(cell_len(row[i]) for row in [header, *body])) for i in range(len(header))]
    lines = [f"**{_markdown_text(table.title)}**", ""] if table.title else []
    lines.append(_markdown_row(header, widths, table.columns))
    rules = {"left": ":" + "-", "right": "-:", "center": ":-:"}
    cells = [_rule(rules[column.align], width) for column, width in zip(table.columns, widths, strict=True)]
    lines.append("| " + " | ".join(cells) + " |")
    lines += [_markdown_row(row, widths, table.columns) for row in body]
    notes = _notes(table, "Bold: ")
    if notes:
        lines += ["", *(f"{_markdown_text(note)}  " for note in notes)]
    return "\n".join(lines) + "\n"


# An underscore inside a word is plain text in CommonMark; `R_s` stays readable as it is.
_MARKDOWN_SPECIAL = re.compile(r"([\\`*\[\]<>&|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def _markdown_text(text: str) -> str:
    """Text with every character that markdown would take for itself made harmless."""
    return _MARKDOWN_SPECIAL.sub(r"\\\1", text)


def _rule(shape: str, width: int) -> str:
    left, right = shape.startswith(":"), shape.endswith(":")
    return ":" * left + "-" * (width - left - right) + ":" * right


def _markdown_row(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    padded = []
    for text, width, column in zip(cells, widths, columns, strict=True):
        space = " " * (width - cell_len(text))
        padded.append(space + text if column.align == "right" else text + space)
    return "| " + " | ".join(padded) + " |"


_LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "Δ": r"$\Delta$", "–": "--", "ζ": r"$\zeta$",
    "×": r"$\times$", "…": r"\dots{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}",
}  # fmt: skip


def latex_escape(text: str) -> str:
    """Text with every character that LaTeX would take for itself made harmless; `R_s` is set as mathematics."""
    parts = re.split(r"\bR_s\b", text)
    return "$R_s$".join("".join(_LATEX_SPECIAL.get(char, char) for char in part) for part in parts)


def _latex(tables: Sequence[Table]) -> str:
    return "\n".join(_latex_table(table) for table in tables)


def _latex_table(table: Table) -> str:
    letters = {"left": "l", "right": "r", "center": "c"}
    caption = " ".join([table.title + "." if table.title else "", *_notes(table, "Bold: ")]).strip()
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        *([f"  \\caption{{{latex_escape(caption)}}}"] if caption else []),
        f"  \\begin{{tabular}}{{{''.join(letters[column.align] for column in table.columns)}}}",
        "    \\toprule",
        "    " + " & ".join(latex_escape(column.header) for column in table.columns) + r" \\",
        "    \\midrule",
    ]
    for row in table.rows:
        cells = []
        for cell in row:
            text = latex_escape(_one_line(cell))
            cells.append(f"\\textbf{{{text}}}" if cell.best else text)
        lines.append("    " + " & ".join(cells) + r" \\")
    return "\n".join([*lines, "    \\bottomrule", "  \\end{tabular}", "\\end{table}", ""])


def _csv(tables: Sequence[Table]) -> str:
    records = _records(tables)
    if not records:
        return ""
    out = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({name: _flat(value) for name, value in record.items()})
    return out.getvalue()


def _flat(value: object) -> object:
    return json.dumps(value) if isinstance(value, (dict, list)) else value


def _json(tables: Sequence[Table]) -> str:
    return json.dumps(_records(tables), indent=1, ensure_ascii=False) + "\n"


def _records(tables: Sequence[Table]) -> list[Record]:
    return [record for table in tables for record in table.records]


def _one_line(cell: Cell) -> str:
    return f"{cell.text}, {cell.second}" if cell.second else cell.text
