"""The exploration rate over training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.curves import curve_records, draw_curves
from itopctl.report.figures.figure_data import Material
from itopctl.report.figures.panels import by_sparsity, rate_label, share_y
from itopctl.report.figures.style import Look
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def records(material: Material) -> list[Record]:
    """Per group and epoch: the exploration rate; each curve begins with the density, before training."""
    found: list[Record] = []
    before = {
        (study.dataset, study.model, group.kind.method, group.kind.details, group.sparsity): group
        for study, group in material.groups()
    }
    for record in curve_records(material, "exploration", ["exploration_rate"]):
        key = tuple(record[name] for name in ("dataset", "model", "method", "details", "sparsity"))
        group = before.pop(key, None)
        start = group.summary("final_density") if group is not None else None
        if start is not None and record["epoch"] > 0:
            std = 0.0 if start.n > 1 else None
            begun = {"step": 0, "epoch": 0.0, "exploration_rate_mean": start.mean, "exploration_rate_std": std}
            found.append({**record, **begun})
        found.append(record)
    return found


@FIGURES.add("exploration", source="R_s of Liu et al. 2021", records=records, curves=("exploration_rate",))
def draw(records: Sequence[Record], look: Look) -> Figure:
    """the exploration rate R_s over training, by method; a panel a sparsity"""
    panels = by_sparsity(records)
    if any(panel.references for panel in panels):  # a dense network has explored everything before it begins
        panels = [replace(panel, references=()) for panel in panels]
    figure, axes = draw_curves(records, look, panels, "exploration_rate", 1.0, rate_label(), narrow=True)
    for axis in axes:
        axis.set_ylim(0.0, min(1.02, 1.05 * axis.get_ylim()[1]))
    share_y(axes)
    return figure
