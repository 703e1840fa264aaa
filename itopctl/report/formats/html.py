"""Tables as HTML: one small document, or one table as a part of a bigger page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from itopctl.report.formats.characters import clean
from itopctl.report.formats.numbers import align
from itopctl.report.quantity import Quantity
from itopctl.report.table import Cell, Column, Table

_FIGURE_SPACE, _PUNCTUATION_SPACE = "\u2007", "\u2008"
_STYLES = frozenset({"green", "red", "cyan", "yellow", "dim", "italic", "bold"})

STYLE = """
table.itopctl { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.itopctl caption { text-align: left; font-weight: bold; padding: 0 0 .4em; }
.itopctl th, .itopctl td { padding: .25em .7em; text-align: left; vertical-align: top; }
.itopctl thead th { border-top: .12em solid; border-bottom: .07em solid; vertical-align: bottom; }
.itopctl tbody tr:last-child td { border-bottom: .12em solid; }
.itopctl .right { text-align: right; white-space: nowrap; }
.itopctl .center { text-align: center; }
.itopctl .whole { white-space: nowrap; }
.itopctl td small { opacity: .75; }
.itopctl .green { color: #1a7f37; } .itopctl .red { color: #cf222e; } .itopctl .cyan { color: #0b7285; }
.itopctl .yellow { color: #8a6100; } .itopctl .dim { opacity: .7; } .itopctl .italic { font-style: italic; }
.itopctl .bold { font-weight: bold; }
.itopctl-notes { font-size: .85em; margin: .5em 0 2em; max-width: 60em; }
.itopctl-notes p { margin: .15em 0; overflow-wrap: anywhere; }
.itopctl-scroll { overflow-x: auto; }
@media (prefers-color-scheme: dark) {
  .itopctl .green { color: #57ab5a; } .itopctl .red { color: #f47067; } .itopctl .cyan { color: #39c5cf; }
  .itopctl .yellow { color: #daaa3f; }
}
"""
"""What the classes of `html_fragment` look like."""


def write_html(tables: Sequence[Table]) -> str:
    """A complete document, which needs nothing but itself."""
    titles = [clean(table.title, shapers=True) for table in tables if table.title]
    body = "\n".join(html_fragment(table) for table in tables)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(', '.join(dict.fromkeys(titles)) or 'itopctl')}</title>\n<style>\n"
        ":root { color-scheme: light dark; font-family: system-ui, sans-serif; }\nbody { margin: 1.5em; }"
        f"{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def html_fragment(table: Table) -> str:
    """A table and its notes, to be put into a page that has `STYLE`.

    A cell that is a number has it, in its base unit (`Quantity.value`), in `data-value`.
    """
    lines = ['<div class="itopctl-scroll">', '<table class="itopctl">']
    lines += [f"<caption>{_text(table.title)}</caption>"] if table.title else []
    heads = "".join(f'<th scope="col"{_class(_place(column))}>{_text(column.header)}</th>' for column in table.columns)
    lines += ["<thead>", f"<tr>{heads}</tr>", "</thead>", "<tbody>"]
    columns = [_cells(column, [row[i] for row in table.rows]) for i, column in enumerate(table.columns)]
    lines += [f"<tr>{''.join(row)}</tr>" for row in zip(*columns, strict=True)]
    lines += ["</tbody>", "</table>", "</div>"]
    notes = [f"<p>{_text(note)}</p>" for note in table.all_notes("Bold: ")]
    lines += ['<div class="itopctl-notes">', *notes, "</div>"] if notes else []
    return "\n".join(lines) + "\n"


def _cells(column: Column, cells: Sequence[Cell]) -> list[str]:
    texts = [clean(cell.text, lines=True, shapers=True).strip() for cell in cells]
    marks = [
        ("<strong>", "</strong>") if cell.best and text else ("", "") for cell, text in zip(cells, texts, strict=True)
    ]
    before, after = [mark[0] for mark in marks], [mark[1] for mark in marks]
    if column.align == "right":
        none, values = [""] * len(texts), [cell.value for cell in cells]
        shown = align(values, texts, none, none, _escaped, _FIGURE_SPACE, _PUNCTUATION_SPACE)
        # On the left nothing has to be filled up.
        shown = [text.lstrip(_FIGURE_SPACE) for text in shown]
    else:
        shown = [_escaped(text) for text in texts]
    return [
        f"<td{_class(f'{_place(column)} {_look(cell)}')}{_value(column, cell)}>{b}{inner}{a}{_second(cell)}</td>"
        for cell, inner, b, a in zip(cells, shown, before, after, strict=True)
    ]


def _second(cell: Cell) -> str:
    return f"<br><small>{_text(cell.second)}</small>" if cell.second else ""


def _value(column: Column, cell: Cell) -> str:
    value = cell.value.value if column.align == "right" and isinstance(cell.value, Quantity) else None
    return "" if value is None else f' data-value="{value:.12g}"'


def _text(text: str) -> str:
    return escape(clean(text, shapers=True))


def _escaped(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def _place(column: Column) -> str:
    return f"{'' if column.align == 'left' else column.align} {'whole' if column.whole else ''}"


def _look(cell: Cell) -> str:
    return " ".join(word for word in cell.style.split() if word in _STYLES)


def _class(names: str) -> str:
    joined = " ".join(names.split())
    return f' class="{joined}"' if joined else ""
