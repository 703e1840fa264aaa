"""Accuracy against the update interval, with the exploration rate as colour."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.figure_data import Material, nothing
from itopctl.report.figures.panels import (
    Panel,
    accuracy_label,
    by_sparsity,
    columns_of,
    few_numbers,
    finish,
    lay_out,
    rate_label,
    share_x,
    ticks_at,
)
from itopctl.report.figures.references import draw_level, point_records
from itopctl.report.figures.style import GREY, INK, LINES, MARKERS, LineStyle, Look, Name, label_of, name_of, styles
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_DARK = "#555555"
_ASIDE = 0.25  # from one kind to the next at the same interval, as a share of the panel's margin


def records(material: Material) -> list[Record]:
    """A record for each group: accuracy and exploration rate at its interval; without one, a line to compare with.

    `details` are the settings that vary beside the interval.
    """
    details = {
        (group.kind.method, group.kind.details): group.kind.without({"update_interval"}).details
        for _, group in material.groups()
    }
    found = []
    for record in point_records(material):
        if record["update_interval"] is not None:
            record = {**record, "details": details[name_of(record)]}
        found.append(record)
    if not found:
        raise nothing("interval", material.nothing_finished())
    if all(record["update_interval"] is None for record in found):
        raise nothing("interval", "none of the finished runs has an update interval (dense and static ones have none)")
    return found


@FIGURES.add("interval", source="", records=records)
def draw(records: Sequence[Record], look: Look) -> Figure:
    """accuracy against the update interval ΔT, R_s as colour; a panel a sparsity, dense and static as lines"""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    panels = [panel for panel in by_sparsity(records) if any(r["update_interval"] for r in panel.records)]
    shown = [record for panel in panels for record in [*panel.references, *panel.records]]
    moving, levels = _styles(shown)
    names = [*map(label_of, moving), *map(label_of, levels)]
    figure, axes = lay_out(look, records, panels, names)
    most = max((record["exploration_rate_mean"] or 0.0 for record in shown if record["update_interval"]), default=1.0)
    colors = ScalarMappable(Normalize(0.0, min(1.0, math.ceil(10 * most) / 10) or 1.0), "cividis")
    for panel, axis in zip(panels, axes, strict=True):
        axis.set_xscale("log")
        axis.set_xlim(*_limits(shown))  # otherwise a single interval has no width, and matplotlib warns
        _draw_panel(axis, panel, moving, levels, colors, _edge(shown))
    few_numbers(axes, look)
    _set_intervals(axes, look, shown)
    bar = figure.colorbar(colors, ax=axes, aspect=_aspect(axes), pad=0.02, fraction=0.06)
    bar.set_label(rate_label(), parse_math=True)
    finish(figure, look, _handles(moving, levels), "update interval ΔT (steps)", accuracy_label(look.best_by))
    return figure


def _aspect(axes: Sequence[Axes]) -> int:
    """Of the colour bar: as long as the panels are high."""
    return 22 * math.ceil(len(axes) / columns_of(axes))


def _styles(shown: Sequence[Record]) -> tuple[dict[Name, LineStyle], dict[Name, LineStyle]]:
    """Of kinds with an interval, by line and marker alone: colour is the exploration rate's; and of the others."""
    moving = dict.fromkeys(name_of(record) for record in shown if record["update_interval"])
    others = [name_of(record) for record in shown if not record["update_interval"]]
    found = {
        name: LineStyle(_DARK, LINES[index % len(LINES)], MARKERS[index % len(MARKERS)])
        for index, name in enumerate(moving)
    }
    return found, {name: style for name, style in styles(others).items() if name not in found}


def _place(panel: Panel, moving: dict[Name, LineStyle], name: Name, record: Record) -> float:
    """How far a kind stands aside of its interval, where others have the same: their deviations would cover its own."""
    there = {name_of(r) for r in panel.records if r["update_interval"] == record["update_interval"]}
    sharing = [other for other in moving if other in there]
    return sharing.index(name) - (len(sharing) - 1) / 2


def _draw_panel(
    axis: Axes,
    panel: Panel,
    moving: dict[Name, LineStyle],
    levels: dict[Name, LineStyle],
    colors: ScalarMappable,
    edge: float,
) -> None:
    for name, style in levels.items():
        members = [record for record in [*panel.references, *panel.records] if name_of(record) == name]
        draw_level(axis, style, [record for record in members if not record["update_interval"]])
    import numpy as np

    for name, style in moving.items():
        members = [record for record in panel.records if name_of(record) == name and record["update_interval"]]
        members.sort(key=lambda record: record["update_interval"])
        x = [record["update_interval"] * edge ** (_ASIDE * _place(panel, moving, name, record)) for record in members]
        y = [100 * record["accuracy_mean"] for record in members]
        spread = [100 * (record["accuracy_std"] or 0.0) for record in members]
        if any(spread):
            axis.errorbar(x, y, spread, fmt="none", ecolor=_DARK, elinewidth=0.6, capsize=1.5, capthick=0.6)
        axis.plot(x, y, color=style.color, linestyle=style.line, linewidth=0.8)
        rates = [record["exploration_rate_mean"] or 0.0 for record in members]
        axis.scatter(
            x, y, c=colors.to_rgba(np.array(rates)), marker=style.marker, s=22, linewidths=0.6,
            edgecolors=INK, zorder=3,
        )  # fmt: skip


def _set_intervals(axes: Sequence[Axes], look: Look, shown: Sequence[Record]) -> None:
    values = sorted({record["update_interval"] for record in shown if record["update_interval"]})
    low, high = _limits(shown)
    for axis in axes:
        share = [math.log(value / low) / math.log(high / low) for value in values]
        ticks_at(axis, look, values, [f"{value:g}" if value < 1e6 else f"{value:.3g}" for value in values], share)
    share_x(axes)


def _limits(shown: Sequence[Record]) -> tuple[float, float]:
    """Of the x axis."""
    values = [record["update_interval"] for record in shown if record["update_interval"]]
    return min(values) / _edge(shown), max(values) * _edge(shown)


def _edge(shown: Sequence[Record]) -> float:
    """Factor of the interval from the outermost points to the edge of a panel."""
    values = [record["update_interval"] for record in shown if record["update_interval"]]
    return max(1.25, float(max(values) / min(values)) ** 0.08)


def _handles(moving: dict[Name, LineStyle], levels: dict[Name, LineStyle]) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    found = {
        label_of(name): Line2D([], [], color=style.color, linestyle=style.line, marker=style.marker, linewidth=0.8,
                               markersize=4.5, markerfacecolor=GREY, markeredgecolor=INK)
        for name, style in moving.items()
    }  # fmt: skip
    lines = {label_of(name): Line2D([], [], color=s.color, linestyle=s.line) for name, s in levels.items()}
    return found | lines
