"""A table in each format: rich (a terminal), markdown, LaTeX, CSV, JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from itopctl.report.table import Cell, Column, Record, Table

FORMATS = ("rich", "markdown", "latex", "csv", "json")

_PLAIN_WIDTH = 10_000  # a file or a pipe has no edge to fold at


def render(tables: Sequence[Table], style: str) -> str:
    """Tables as text in any format but `rich`."""
    writers: dict[str, Callable[[Sequence[Table]], str]] = {
        "markdown": _markdown, "latex": _latex, "csv": _csv, "json": _json,
    }  # fmt: skip
    return writers[style](tables)


def rich_tables(tables: Sequence[Table]) -> RenderableType:
    """Tables for a terminal."""
    parts: list[RenderableType] = []
    for table in tables:
        if parts:
            parts.append(Text())
        parts.append(_rich(table))
        parts.extend(Text(note, style="dim") for note in table.notes)
    return Group(*parts)


def make_console(stderr: bool = False) -> Console:
    """A console that folds at a terminal's edge, and writes plain unfolded text elsewhere."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=_PLAIN_WIDTH)
    return console


def _rich(table: Table) -> RichTable:
    drawn = RichTable(
        title=table.title or None,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        padding=(0, 1),
    )
    for column in table.columns:
        drawn.add_column(column.header, justify=column.align, no_wrap=column.align == "right")
    for row in table.rows:
        drawn.add_row(*(_rich_cell(cell) for cell in row))
    return drawn


def _rich_cell(cell: Cell) -> Text:
    text = Text(cell.text, style="bold green" if cell.best else cell.style)
    if cell.second:
        text.append(f"\n{cell.second}", style="not bold dim default")
    return text


def _markdown(tables: Sequence[Table]) -> str:
    return "\n".join(_markdown_table(table) for table in tables)


def _markdown_table(table: Table) -> str:
    def shown(cell: Cell) -> str:
        text = _one_line(cell).replace("|", "\\|")
        return f"**{text}**" if cell.best else text

    header = [column.header.replace("|", "\\|") for column in table.columns]
    body = [[shown(cell) for cell in row] for row in table.rows]
    widths = [max(3, *(cell_len(row[i]) for row in [header, *body])) for i in range(len(header))]
    lines = [f"**{table.title}**", ""] if table.title else []
    lines.append(_markdown_row(header, widths, table.columns))
    rules = {"left": ":" + "-", "right": "-:", "center": ":-:"}
    lines.append(
        "| "
        + " | ".join(_rule(rules[column.align], width) for column, width in zip(table.columns, widths, strict=True))
        + " |"
    )
    lines += [_markdown_row(row, widths, table.columns) for row in body]
    if table.notes:
        lines += ["", *(f"{note}  " for note in table.notes)]
    return "\n".join(lines) + "\n"


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
    parts = text.split("R_s")
    return "$R_s$".join("".join(_LATEX_SPECIAL.get(char, char) for char in part) for part in parts)


def _latex(tables: Sequence[Table]) -> str:
    return "\n".join(_latex_table(table) for table in tables)


def _latex_table(table: Table) -> str:
    letters = {"left": "l", "right": "r", "center": "c"}
    lines = [
        "% needs \\usepackage{booktabs}",
        "\\begin{table}",
        "  \\centering",
        f"  \\caption{{{latex_escape(' '.join([table.title + '.', *table.notes]))}}}",
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
