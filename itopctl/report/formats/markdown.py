"""Tables as GitHub's Markdown, which lines up as plain text, too."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.cells import cell_len

from itopctl.report.formats.characters import clean
from itopctl.report.formats.numbers import align
from itopctl.report.table import Cell, Column, Table

# An underscore inside a word is plain text in CommonMark; `R_s` stays readable as it is. A dollar begins mathematics.
_SPECIAL = re.compile(r"([\\`*\[\]<>&|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")
_BLOCK = re.compile(r"^(\d*)([-+#=.)])")  # at the beginning of a line: a list, a heading
_RULES = {"left": ":-", "right": "-:", "center": ":-:"}


def write_markdown(tables: Sequence[Table]) -> str:
    """Each with its title in bold above and its notes below; the best of a column is bold."""
    return "\n".join(_table(table) for table in tables)


def _table(table: Table) -> str:
    title = _text(table.title).strip()
    lines = [f"**{title}**", ""] if title else []
    if table.columns:
        header = [_text(column.header).strip() for column in table.columns]
        columns = [_cells(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
        widths = [max(3, *map(cell_len, [head, *cells])) for head, cells in zip(header, columns, strict=True)]
        rules = [_rule(_RULES[column.align], width) for column, width in zip(table.columns, widths, strict=True)]
        lines += [_row(header, widths, table.columns), f"| {' | '.join(rules)} |"]
        lines += [_row(row, widths, table.columns) for row in zip(*columns, strict=True)]
    notes = table.all_notes("Bold: ")
    if notes:
        lines += ["", *(_BLOCK.sub(r"\1\\\2", _text(note).strip()) + "  " for note in notes)]
    return "\n".join(lines) + "\n"


def _text(text: str) -> str:
    """Text with every character that Markdown would take for itself made harmless."""
    return _SPECIAL.sub(r"\\\1", clean(text))


def _cells(column: Column, cells: Sequence[Cell]) -> list[str]:
    """The cells of a column, both lines of each in one."""
    texts = [clean(cell.text).strip() for cell in cells]
    seconds = [f", {_text(cell.second).strip()}" if cell.second else "" for cell in cells]
    before = ["**" if cell.best and text else "" for cell, text in zip(cells, texts, strict=True)]
    after = [second + mark for second, mark in zip(seconds, before, strict=True)]
    if column.align == "right":
        return align([cell.value for cell in cells], texts, before, after, escape=_text)
    return [mark + _text(text) + end for mark, text, end in zip(before, texts, after, strict=True)]


def _rule(shape: str, width: int) -> str:
    left, right = shape.startswith(":"), shape.endswith(":")
    return ":" * left + "-" * (width - left - right) + ":" * right


def _row(cells: Sequence[str], widths: Sequence[int], columns: Sequence[Column]) -> str:
    padded = []
    for text, width, column in zip(cells, widths, columns, strict=True):
        space = " " * (width - cell_len(text))
        padded.append(space + text if column.align == "right" else text + space)
    return "| " + " | ".join(padded) + " |"
