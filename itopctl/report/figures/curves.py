"""What the figures over training share: a curve for each kind of run, averaged over seeds, in a panel a sparsity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from itopctl.report.figures.figure_data import Material, identity, nothing
from itopctl.report.figures.panels import Panel, few_numbers, finish, lay_out, share_x
from itopctl.report.figures.style import LineStyle, Look, Name, label_of, name_of, styles
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_BANDS = 8  # curves in a panel; bands of more would be a grey fog
_MARKS = 6  # on a curve


def curve_records(material: Material, figure: str, columns: Sequence[str]) -> list[Record]:
    """A record for each group and epoch: mean and deviation of columns over its finished runs.

    Raises:
        EnvironmentUnfitError: no finished run has measured the first of the columns.
    """
    records = []
    for (study, group), points in zip(material.groups(), material.curves, strict=True):
        seeds = len(group.finished)
        for point in points:
            if point[f"{columns[0]}_mean"] is None:
                continue
            kept = {f"{name}_{part}": point[f"{name}_{part}"] for name in columns for part in ("mean", "std")}
            records.append(
                {**identity(study, group), "seeds": seeds, "step": point["step"], "epoch": point["epoch"], **kept}
            )
    if not records:
        finished = any(group.finished for _, group in material.groups())
        raise nothing(figure, "the finished runs have no history" if finished else material.nothing_finished())
    return records


def draw_curves(
    records: Sequence[Record],
    look: Look,
    panels: Sequence[Panel],
    field: str,
    scale: float,
    y_label: str,
    narrow: bool,
) -> tuple[Figure, list[Axes]]:
    """Panels with a curve for each kind of run, its deviation as a band where there are few, and the legend.

    Args:
        records: as `curve_records` makes them.
        look: how the figure is wanted.
        panels: of these records.
        field: what is drawn, without `_mean`.
        scale: by which it is multiplied.
        y_label: of the axis of it.
        narrow: as `lay_out` has it.
    """
    drawn = [record for panel in panels for record in [*panel.references, *panel.records]]
    found = styles(_in_order(records, drawn))
    figure, axes = lay_out(look, records, panels, [label_of(name) for name in found], narrow)
    for panel, axis in zip(panels, axes, strict=True):
        curves = _curves([*panel.references, *panel.records])
        for index, (name, points) in enumerate(curves.items()):
            draw_curve(axis, found[name], points, field, scale, (index, len(curves)))
        axis.margins(x=0.02)
    few_numbers(axes, look)
    share_x(axes)
    finish(figure, look, handles_of(found), "epoch", y_label)
    return figure, axes


def draw_curve(
    axis: Axes, style: LineStyle, points: Sequence[Record], field: str, scale: float, place: tuple[int, int]
) -> None:
    """One curve; `place` is its number, of how many, so that its markers stand apart from those of others."""
    index, count = place
    x = [point["epoch"] for point in points]
    y = [scale * point[f"{field}_mean"] for point in points]
    every = max(1, round(len(points) / _MARKS))
    axis.plot(x, y, **style.line_options(lone=len(x) == 1), markevery=(index * every // max(1, count), every))
    if count <= _MOST_BANDS and all(point[f"{field}_std"] is not None for point in points):
        spread = [scale * point[f"{field}_std"] for point in points]
        low = [value - by for value, by in zip(y, spread, strict=True)]
        high = [value + by for value, by in zip(y, spread, strict=True)]
        axis.fill_between(x, low, high, color=style.color, alpha=0.15, linewidth=0)


def handles_of(found: Mapping[Name, LineStyle]) -> dict[str, Any]:
    """Label → sample, for a legend."""
    from matplotlib.lines import Line2D

    return {label_of(name): Line2D([], [], **style.line_options()) for name, style in found.items()}


def _in_order(records: Sequence[Record], drawn: Sequence[Record]) -> list[Name]:
    """Names of what is drawn, in the order of all records."""
    there = {name_of(record) for record in drawn}
    return [name for name in dict.fromkeys(map(name_of, records)) if name in there]


def _curves(records: Sequence[Record]) -> dict[Name, list[Record]]:
    found: dict[Name, list[Record]] = {}
    for record in records:
        found.setdefault(name_of(record), []).append(record)
    return {name: sorted(points, key=lambda point: point["epoch"]) for name, points in found.items()}
