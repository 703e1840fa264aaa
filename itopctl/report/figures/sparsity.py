"""Accuracy against sparsity, with published points beside one's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.curves import handles_of
from itopctl.report.figures.figure_data import Material, nothing
from itopctl.report.figures.panels import (
    Panel,
    accuracy_label,
    by_study,
    few_numbers,
    finish,
    is_dense,
    lay_out,
    share_x,
    ticks_at,
)
from itopctl.report.figures.references import draw_level, point_records
from itopctl.report.figures.style import MARKERS, LineStyle, Look, Name, label_of, name_of, styles
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BANDS = 10


def records(material: Material) -> list[Record]:
    """A record for each group that has finished runs, and for each published point; these have a `source`."""
    own = [{**record, "source": None} for record in point_records(material)]
    if not own:
        raise nothing("sparsity", material.nothing_finished())
    if all(map(is_dense, own)):
        raise nothing("sparsity", "all of the finished runs are dense")
    return own + [
        {
            "dataset": study.dataset, "model": study.model, "method": point.method, "details": "",
            "sparsity": point.sparsity, "update_interval": None, "seeds": None, "accuracy_mean": point.accuracy,
            "accuracy_std": point.std, "exploration_rate_mean": None, "exploration_rate_std": None,
            "source": point.label,
        }
        for study in material.studies
        for point in material.published
        if point.belongs_to(study)
    ]  # fmt: skip


@FIGURES.add("sparsity", source="", records=records)
def draw(records: Sequence[Record], look: Look) -> Figure:
    """accuracy against sparsity, by method, deviation over seeds as bands; published points hollow"""
    panels = [panel for panel in by_study(records) if not all(map(is_dense, panel.records))]
    shown = [record for panel in panels for record in panel.records]
    own = styles(name_of(record) for record in shown if record["source"] is None)
    published = _published_styles(shown, own)
    handles = handles_of(own) | _hollow_handles(published)
    figure, axes = lay_out(look, records, panels, list(handles))
    for panel, axis in zip(panels, axes, strict=True):
        axis.set_xscale("log")
        axis.set_xlim(*_limits(shown))  # otherwise a single sparsity has no width, and matplotlib warns
        _draw_panel(axis, panel, own, published)
    few_numbers(axes, look)
    _set_sparsities(axes, look, shown)
    finish(figure, look, handles, "sparsity (%)", accuracy_label(look.best_by))
    return figure


def _published_styles(shown: Sequence[Record], own: dict[Name, LineStyle]) -> dict[Name, LineStyle]:
    """(Method, source) → a marker of its own, in the colour of one's own runs of that method, the first if several."""
    names = dict.fromkeys((record["method"], record["source"]) for record in shown if record["source"] is not None)
    first: dict[str, LineStyle] = {}
    for (method, _), style in own.items():
        first.setdefault(method, style)
    others = styles([*own, *((method, "") for method, _ in names if method not in first)])
    colors = {method: (first.get(method) or others[method, ""]).color for method, _ in names}
    return {
        name: LineStyle(colors[name[0]], "", MARKERS[index % len(MARKERS)])
        for index, name in enumerate(sorted(names, key=lambda name: name[0] == "dense"))
    }


def _draw_panel(
    axis: Axes, panel: Panel, own: dict[Name, LineStyle], published: dict[Name, LineStyle]
) -> None:  # fmt: skip
    mine = [record for record in panel.records if record["source"] is None]
    kinds = {name for name in map(name_of, mine) if name[0] != "dense"}
    for name, style in own.items():
        members = sorted((r for r in mine if name_of(r) == name), key=lambda record: record["sparsity"])
        if name[0] == "dense":
            draw_level(axis, style, members)
            continue
        x = [1 - record["sparsity"] for record in members]
        y = [100 * record["accuracy_mean"] for record in members]
        axis.plot(x, y, **style.line_options(lone=len(x) == 1))
        if len(x) == 1 and members[0]["accuracy_std"]:
            axis.errorbar(x, y, yerr=100 * members[0]["accuracy_std"], fmt="none", ecolor=style.color, elinewidth=0.8)
        if len(kinds) <= _MOST_BANDS and any(record["accuracy_std"] is not None for record in members):
            spread = [100 * (record["accuracy_std"] or 0.0) for record in members]
            low = [value - by for value, by in zip(y, spread, strict=True)]
            high = [value + by for value, by in zip(y, spread, strict=True)]
            axis.fill_between(x, low, high, color=style.color, alpha=0.15, linewidth=0)
    for (method, source), style in published.items():
        members = [r for r in panel.records if r["source"] == source and r["method"] == method]
        if method == "dense":
            for record in members:
                axis.axhline(100 * record["accuracy_mean"], color=style.color, **_HOLLOW_LINE)
            continue
        axis.errorbar(
            [1 - record["sparsity"] for record in members], [100 * record["accuracy_mean"] for record in members],
            [100 * (record["accuracy_std"] or 0.0) for record in members], **_hollow(style),
        )  # fmt: skip


_HOLLOW_LINE: dict[str, Any] = {"linestyle": (0, (1, 2)), "linewidth": 0.9}


def _hollow(style: LineStyle) -> dict[str, Any]:
    return {
        "linestyle": "", "marker": style.marker or "o", "color": style.color, "markerfacecolor": "none",
        "markeredgecolor": style.color, "markeredgewidth": 1.0, "markersize": 5.0, "elinewidth": 0.6, "zorder": 4,
    }  # fmt: skip


def _hollow_handles(published: dict[Name, LineStyle]) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    handles = {}
    for name, style in published.items():
        options = {key: value for key, value in _hollow(style).items() if key != "elinewidth"}
        sample = Line2D([], [], **options)
        if name[0] == "dense":
            sample = Line2D([], [], color=style.color, **_HOLLOW_LINE)
        handles[label_of(name)] = sample
    return handles


def _limits(shown: Sequence[Record]) -> tuple[float, float]:
    """Of the axis, as densities: most sparse at the right."""
    densities = [1 - record["sparsity"] for record in shown if not is_dense(record)]
    return max(densities) * 1.15, min(densities) / 1.15


def _set_sparsities(axes: Sequence[Axes], look: Look, shown: Sequence[Record]) -> None:
    """Logarithmic in the density, so that 90, 95 and 98 % stand apart; most sparse at the right."""
    values = sorted({record["sparsity"] for record in shown if not is_dense(record)})
    densities = [1 - value for value in values]
    high, low = _limits(shown)
    for axis in axes:
        axis.set_autoscalex_on(False)
        share = [math.log(high / value) / math.log(high / low) for value in densities]
        ticks_at(axis, look, densities, [f"{round(100 * value, 6):g}" for value in values], share)
    share_x(axes)
    for axis in axes:
        axis.set_xlim(high, low)
