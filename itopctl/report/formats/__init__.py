"""Tables in each format: rich (a terminal), markdown, LaTeX, HTML, CSV, JSON; one module each.

Whatever the format, user text is made harmless for it (`characters`) and the numbers of a column line up (`numbers`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from itopctl.report.formats.data import write_csv, write_json
from itopctl.report.formats.html import html_fragment, write_html
from itopctl.report.formats.latex import write_latex
from itopctl.report.formats.markdown import write_markdown
from itopctl.report.formats.terminal import make_console, rich_tables
from itopctl.report.table import Table

__all__ = ["html_fragment", "make_console", "render", "rich_tables"]

_WRITERS: dict[str, Callable[[Sequence[Table]], str]] = {
    "markdown": write_markdown,
    "latex": write_latex,
    "csv": write_csv,
    "json": write_json,
    "html": write_html,
}


def render(tables: Sequence[Table], style: str) -> str:
    """Tables as text in any format but `rich`."""
    return _WRITERS[style](tables)
