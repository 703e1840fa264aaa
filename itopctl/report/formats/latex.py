r"""Tables for a paper: LaTeX with booktabs and siunitx, which compiles as it is in an `article`.

Columns of numbers are siunitx's `S`, so that decimal points line up and the style of numbers can be changed for a whole
document by `\sisetup`. Only options that versions 2 and 3 of siunitx both know are used. A table too wide for a column
of text is set in smaller type, then goes on below with its first column; one too long goes on in another float.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from itopctl.report.formats.characters import clean
from itopctl.report.formats.latex_columns import LatexColumn
from itopctl.report.formats.latex_text import latex_escape, unknown_characters
from itopctl.report.formats.panels import in_panels
from itopctl.report.table import Table

_HEAD = r"""% needs in the preamble:
%   \usepackage{booktabs}
%   \usepackage{siunitx}
"""
# Type, room beside a column in points, and how wide a text is in it: an `article` has at least 32.8 em, of any size.
_SIZES = (
    ("", 6, 32.8, r"\footnotesize"),
    (r"\small", 5, 36.0, r"\footnotesize"),
    (r"\footnotesize", 4, 40.0, r"\scriptsize"),
    (r"\scriptsize", 2, 42.5, r"\tiny"),
)
_POINTS = {"": 10, r"\small": 9, r"\footnotesize": 8, r"\scriptsize": 7}
_LINES = {"": 44, r"\small": 48, r"\footnotesize": 55, r"\scriptsize": 64}  # of a page, in the type of the table
_FEWEST_LINES = 20  # for rows, however long the notes
_RULES = 3  # lines that the rules of a table and the room around it take
_SOURCE_WIDTH = 40  # cells of more letters do not line up in the file
_NOTE_LETTERS = 95  # in a line
_SETTINGS = (
    "separate-uncertainty = true, retain-explicit-plus = true, table-align-uncertainty = false",
    "table-align-text-post = false, group-digits = integer, group-minimum-digits = 4, group-separator = {,}",
)
# Version 3 leaves out `± 0` unless it is told not to, in a word that version 2 does not know.
_ZERO_SPREAD = r"\csname @ifpackagelater\endcsname{siunitx}{2021/05/01}{\sisetup{retain-zero-uncertainty = true}}{}"


def write_latex(tables: Sequence[Table]) -> str:
    """Each table as a float of its own with caption, label (`tab:` and the title's words), and its notes below."""
    labels: Counter[str] = Counter()
    parts = [_HEAD]
    unknown: dict[str, None] = {}
    for table in tables:
        unknown.update(dict.fromkeys(unknown_characters(" ".join(_all_text(table)))))
    if unknown:
        parts[0] += "% pdfLaTeX has no letters for: " + ", ".join(f"{c} U+{ord(c):04X}" for c in unknown) + "\n"
    for table in (table for table in tables if table.columns):
        label = re.sub(r"[^a-z0-9]+", "-", clean(table.title).lower()).strip("-") or "table"
        labels[label] += 1
        parts.append(_table(table, label if labels[label] == 1 else f"{label}-{labels[label]}"))
    return "\n".join(parts)


def _all_text(table: Table) -> Iterator[str]:
    yield from (table.title, table.best, *table.notes, *(column.header for column in table.columns))
    yield from (text for row in table.rows for cell in row for text in (cell.text, cell.second))


def _table(table: Table, label: str) -> str:
    columns = [LatexColumn(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    size, room, width, lesser = next(
        (choice for choice in _SIZES if _width(columns, *choice[:2]) <= choice[2]), _SIZES[-1]
    )
    panels = list(in_panels(columns, lambda some: _width(some, size, room), width))
    notes = [latex_escape(note, breakable=True) for note in table.all_notes("Bold: ") if note.strip()]
    room_of_rows = max(_FEWEST_LINES, _LINES[size] - sum(len(note) // _NOTE_LETTERS + 1 for note in notes))
    floats = list(_floats(panels, len(table.rows), room_of_rows))
    texts = []
    for number, pieces in enumerate(floats):
        lines = [r"\begin{table}" + ("[p]" if len(floats) > 1 else ""), r"  \centering"]
        if table.title:
            if number:
                lines.append(r"  \addtocounter{table}{-1}")
            continued = " (continued)" if number else ""
            lines.append(f"  \\caption{{{latex_escape(table.title, breakable=True)}{continued}}}")
            lines += [] if number else [f"  \\label{{tab:{label}}}"]
        lines += [f"  {size}"] if size else []
        lines += [f"  \\setlength{{\\tabcolsep}}{{{room}pt}}"] if size else []
        lines += _settings([column for panel, _ in pieces for column in panel])
        for place, (panel, rows) in enumerate(pieces):
            lines += [r"  \par\bigskip"] if place else []
            lines += _tabular(panel, rows, lesser)
        if number == len(floats) - 1 and notes:
            lines += [r"  \par\medskip", r"  \begin{minipage}{\linewidth}\footnotesize\raggedright"]
            lines.append("\n    \\par\n".join(f"    {_guarded(note)}" for note in notes))
            lines += [r"  \end{minipage}"]
        texts.append("\n".join([*lines, r"\end{table}", *([r"\clearpage"] if len(floats) > 1 else []), ""]))
    return "\n".join(texts)


def _width(columns: Sequence[LatexColumn], size: str, room: int) -> float:
    """Width of a table in em of its type."""
    return sum(column.width for column in columns) + 2 * room / _POINTS[size] * (len(columns) - 1)


_Piece = tuple[list[LatexColumn], range]


def _floats(panels: Sequence[list[LatexColumn]], rows: int, room: int) -> Iterator[list[_Piece]]:
    """So many rows, in all panels, as fit a page of so many lines: what belongs together stands together."""
    heights = [sum(max(column.height(row) for column in panel) for panel in panels) for row in range(rows)]
    heads = sum(_RULES + max(len(column.header) for column in panel) for panel in panels)
    start = 0
    while start < rows or not start:
        end, used = start, float(heads)
        while end < rows and (end == start or used + heights[end] <= room):  # one at least, however high it is
            used += heights[end]
            end += 1
        yield [(panel, range(start, end)) for panel in panels]
        if end >= rows:
            return
        start = end


def _settings(columns: Sequence[LatexColumn]) -> list[str]:
    numeric = [column for column in columns if column.numbers]
    if not numeric:
        return []
    has_best = any(column.has_best for column in numeric)
    settings = [*_SETTINGS, *(["detect-weight = true, mode = text"] if has_best else [])]
    lines = [f"  \\sisetup{{{settings[0]},", *(f"    {line}," for line in settings[1:])]
    lines[-1] = lines[-1][:-1] + "}"
    if any(column.has_zero_spread for column in numeric):
        lines.append(f"  {_ZERO_SPREAD}")
    if has_best:
        # Digits of the series `b` are as wide as those of the medium one, and those of `bx`, or of mathematics, are
        # not. The signs are mathematics all the same: as text they come from a font that is often a bitmap.
        lines += [
            r"  \protected\def\best{\fontseries{b}\selectfont}",
            r"  \protected\def\textpm{\ensuremath{\pm}}\protected\def\textminus{\ensuremath{-}}",
            r"  \protected\def\texttimes{\ensuremath{\times}}",
        ]
    return lines


def _tabular(columns: Sequence[LatexColumn], rows: range, lesser: str) -> list[str]:
    specification = " ".join(column.specification for column in columns)
    lines = [f"  \\begin{{tabular}}{{@{{}}{specification}@{{}}}}", r"    \toprule"]
    deepest = max(len(column.header) for column in columns)
    for line in range(deepest):
        lines.append(_row([column.head(line - deepest + len(column.header)) for column in columns]))
    lines.append(r"    \midrule")
    firsts = [[column.first(row) for row in rows] for column in columns]
    widths = [min(max(map(len, texts), default=0), _SOURCE_WIDTH) for texts in firsts]
    two_lines = any(column.seconds[row] for column in columns for row in rows)
    for place, row in enumerate(rows):
        if two_lines and place:
            lines.append(r"    \addlinespace")
        lines.append(_row([texts[place].ljust(width) for texts, width in zip(firsts, widths, strict=True)]))
        for line in range(max(len(column.seconds[row]) for column in columns)):
            lines.append(_row([column.second(row, line, lesser) for column in columns]))
    return [*lines, r"    \bottomrule", r"  \end{tabular}"]


def _row(cells: Sequence[str]) -> str:
    return f"    {_guarded(' & '.join(cells))} \\\\"


def _guarded(text: str) -> str:
    r"""A line that a `\\` or a rule above it does not take for its argument."""
    return "{}" + text if text.startswith(("[", "*", "(")) else text
