"""From studies to a figure's records, from records to a picture, from a picture to bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.figure_data import Material
from itopctl.report.figures.style import Look, applied
from itopctl.report.formats import render
from itopctl.report.table import Record, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = ("png", "svg", "pdf")
"""Formats of a picture."""

_METADATA: dict[str, dict[str, Any]] = {  # no dates: the same bytes each time
    "png": {"Software": "itopctl"},
    "svg": {"Date": None, "Creator": "itopctl"},
    "pdf": {"CreationDate": None, "Creator": "itopctl", "Producer": "matplotlib"},
}


def figure_records(name: str, material: Material) -> list[Record]:
    """A figure's data.

    Raises:
        UserError: there is no such figure.
        EnvironmentUnfitError: there is nothing to show in it.
    """
    records: list[Record] = FIGURES.get(name).options["records"](material)
    return records


def picture(name: str, records: Sequence[Record], look: Look | None = None) -> Figure:
    """A figure drawn from its records."""
    entry = FIGURES.get(name)
    assert entry.function is not None
    with applied():
        drawn: Figure = entry.function(records, look or Look())
    return drawn


def encoded(figure: Figure, ending: str) -> bytes:
    """A picture as a file's content, the same bytes for the same picture.

    Args:
        figure: as `picture` draws it.
        ending: of `ENDINGS`.
    """
    out = io.BytesIO()
    with applied():
        figure.savefig(out, format=ending, metadata=_METADATA[ending])
    return out.getvalue()


def as_csv(records: Sequence[Record]) -> str:
    """A figure's data as a file's content."""
    return render([Table("", [], [], records)], "csv")
