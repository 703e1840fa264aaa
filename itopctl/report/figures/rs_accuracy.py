"""Accuracy against the exploration rate: every run a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from itopctl.report import number_text as words
from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.figure_data import Material, identity, nothing
from itopctl.report.figures.panels import (
    accuracy_label,
    by_study,
    few_numbers,
    finish,
    is_dense,
    lay_out,
    rate_label,
)
from itopctl.report.figures.references import draw_level, interval_of
from itopctl.report.figures.style import HUES, INK, MARKERS, LineStyle, Look, ramp
from itopctl.report.groups import measured_fields
from itopctl.report.statistics import summarise
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MANY = 1_000  # points of which a viewer of vectors grows slow: they are drawn as an image, and smaller


def records(material: Material) -> list[Record]:
    """A record for each finished run."""
    accuracy, explored = measured_fields(material.best_by)
    found = [
        {
            **identity(study, group), "update_interval": interval_of(group), "seed": run["seed"],
            "run_id": run["run_id"], "accuracy": run[accuracy], "exploration_rate": run[explored],
        }
        for study, group in material.groups()
        for run in group.finished
        if run.get(accuracy) is not None and run.get(explored) is not None
    ]  # fmt: skip
    if not found:
        raise nothing("rs-accuracy", material.nothing_finished())
    if all(map(is_dense, found)):
        raise nothing("rs-accuracy", "all of the finished runs are dense")
    return found


@FIGURES.add("rs-accuracy", source="", records=records)
def draw(records: Sequence[Record], look: Look) -> Figure:
    """accuracy against R_s, every run a point, by sparsity; the dense network as a line"""
    panels = [panel for panel in by_study(records) if not all(map(is_dense, panel.records))]
    shown = [record for panel in panels for record in panel.records]
    sparsities = sorted({record["sparsity"] for record in shown if not is_dense(record)})
    found = dict(zip(sparsities, _styles(len(sparsities)), strict=True))
    dense = LineStyle(INK, "-", "")
    handles = _handles(found, dense if any(map(is_dense, shown)) else None)
    figure, axes = lay_out(look, records, panels, list(handles))
    many = sum(not is_dense(record) for record in shown) > _MANY
    for panel, axis in zip(panels, axes, strict=True):
        level = summarise([record["accuracy"] for record in panel.records if is_dense(record)])
        if level:
            draw_level(axis, dense, [{"accuracy_mean": level.mean, "accuracy_std": level.std}])
        for value, style in found.items():
            _draw_points(axis, style, [r for r in panel.records if r["sparsity"] == value and not is_dense(r)], many)
        axis.set_xlim(left=0.0)
    few_numbers(axes, look)
    finish(figure, look, handles, rate_label(), accuracy_label(look.best_by))
    return figure


def _draw_points(axis: Axes, style: LineStyle, members: Sequence[Record], many: bool) -> None:
    x = [record["exploration_rate"] for record in members]
    y = [100 * record["accuracy"] for record in members]
    axis.scatter(
        x, y, s=5 if many else 14, marker=style.marker, color=style.color, linewidths=0.3, edgecolors="white",
        alpha=0.6 if many else 0.85, rasterized=many, zorder=3,
    )  # fmt: skip


def _styles(count: int) -> list[LineStyle]:
    """Colours of their own for a few sparsities, shades of one for many; markers of their own in any case."""
    colors = list(HUES[:count]) if count <= len(HUES) else ramp(HUES[0], count)
    return [LineStyle(color, "", MARKERS[index % len(MARKERS)]) for index, color in enumerate(colors)]


def _handles(found: dict[float, LineStyle], dense: LineStyle | None) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    handles: dict[str, Any] = {"dense": Line2D([], [], color=dense.color)} if dense else {}
    for value, style in found.items():
        handles[f"sparsity {words.sparsity(value)}"] = Line2D(
            [], [], linestyle="", marker=style.marker, color=style.color, markersize=4.5, markeredgecolor="white"
        )
    return handles
