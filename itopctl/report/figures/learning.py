"""Learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.curves import curve_records, draw_curves
from itopctl.report.figures.figure_data import Material
from itopctl.report.figures.panels import by_sparsity
from itopctl.report.figures.style import Look
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = ("test_accuracy", "validation_accuracy", "train_loss")


def records(material: Material) -> list[Record]:
    """Per group and epoch: test accuracy; beside it, not drawn, validation accuracy and training loss."""
    return curve_records(material, "learning", _COLUMNS)


@FIGURES.add("learning", source="", records=records, curves=_COLUMNS)
def draw(records: Sequence[Record], look: Look) -> Figure:
    """test accuracy over training, by method; a panel a sparsity, the dense network in each"""
    figure, _ = draw_curves(
        records, look, by_sparsity(records), "test_accuracy", 100.0, "test accuracy (%)", narrow=False
    )
    return figure
