"""The picture of how cost grows: a panel for each network by density, and for seconds and memory by width."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import wide
from itopctl.report.figures.panels import Panel, finish, lay_out, ticks_at
from itopctl.report.figures.style import HUES, INK, LINES, SMALL, LineStyle, Look, applied

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cost:
    """What a training step takes.

    Attributes:
        network: with its batch.
        against: what its panel has on the x axis: density or width.
        way: how it is computed.
        density: of its layers; of several widths, of the weights between the hidden layers.
        width: of the hidden layers, if it varies.
        seconds: median.
        peak_bytes: that training takes, where that was measured.
    """

    network: str
    against: str
    way: str
    density: float
    width: int | None
    seconds: float
    peak_bytes: int | None


_STYLES = {
    "dense": LineStyle(INK, "-", ""),
    "sparse": LineStyle(HUES[0], LINES[0], "o"),
    wide.THIN: LineStyle(HUES[1], LINES[1], "s"),
    wide.SPARSEST: LineStyle(HUES[2], LINES[2], "^"),
}
_LABELS = {"sparse": "sparse layers"}
_LOOK = Look("page", title=False)
_TALLER = 1.1  # inches, of both rows together


def read(path: Path) -> list[Cost]:
    """What was written as CSV before."""
    with path.open(newline="") as file:
        return [
            Cost(
                row["network"], row["against"], row["way"], float(row["density"]),
                int(row["width"]) if row["width"] else None, float(row["seconds"]),
                int(row["peak_bytes"]) if row["peak_bytes"] else None,
            )
            for row in csv.DictReader(file)
        ]  # fmt: skip


def crossing(costs: Sequence[Cost]) -> float | None:
    """At which density a network with sparse layers costs as much as dense; None if at none of those measured.

    Between two densities cost is taken to grow as a power of the density.
    """
    dense = next(cost.seconds for cost in costs if cost.way == "dense")
    sparse = sorted((cost.density, cost.seconds) for cost in costs if cost.way == "sparse")
    for (x, y), (next_x, next_y) in itertools.pairwise(sparse):
        if y < dense <= next_y:
            return float(x * (next_x / x) ** (math.log(dense / y) / math.log(next_y / y)))
    return None


def draw(costs: Sequence[Cost]) -> Figure:
    """Log-log panels: where sparse and dense lines meet, and how steep they are."""
    from matplotlib.lines import Line2D

    networks = dict.fromkeys(cost.network for cost in costs if cost.against == "density")
    by_width = [cost for cost in costs if cost.against == "width"]
    title = by_width[0].network
    panels = [Panel(name, [], row=0) for name in networks] + [Panel(title, [], row=1), Panel(title, [], row=1)]
    handles = {_LABELS.get(way, way): Line2D([], [], **style.line_options()) for way, style in _STYLES.items()}
    with applied():
        figure, axes = lay_out(_LOOK, [], panels, list(handles), under=_TALLER)
        for axis, name in zip(axes, networks, strict=False):
            _draw_by_density(axis, [cost for cost in costs if cost.network == name])
        seconds, memory = axes[-2:]
        for way in wide.WAYS:
            own = [cost for cost in by_width if cost.way == way]
            _line(seconds, way, [(cost.width or 0, cost.seconds) for cost in own])
            _line(memory, way, [(cost.width or 0, cost.peak_bytes / 2**20) for cost in own if cost.peak_bytes])
        for axis in (seconds, memory):
            axis.set_xlim(wide.WIDTHS[0] / 1.2, wide.WIDTHS[-1] * 1.2)
            _ticks(axis, wide.WIDTHS)
        for axis in axes:
            axis.set_ylabel("peak memory (MiB)" if axis is memory else "seconds of a training step")
            _numbers(axis)
        finish(figure, _LOOK, handles, "width w", "")
    return figure


def _draw_by_density(axis: Axes, costs: Sequence[Cost]) -> None:
    """The dense network's cost as a level, and where the other line meets it."""
    dense = next(cost.seconds for cost in costs if cost.way == "dense")
    sparse = [(cost.density, cost.seconds) for cost in costs if cost.way == "sparse"]
    axis.axhline(dense, **_STYLES["dense"].line_options())
    _line(axis, "sparse", sparse)
    _ticks(axis, [density for density, _ in sparse])
    axis.set_xlabel("density of every layer")
    same = crossing(costs)
    if same is not None:
        axis.axvline(same, color=INK, linewidth=0.6, linestyle=":")
        axis.annotate(
            f"{same:.2f}", (same, axis.get_ylim()[0]), (-3, 4), textcoords="offset points", ha="right", fontsize=SMALL
        )


def _ticks(axis: Axes, values: Sequence[float]) -> None:
    """At what was measured, along x."""
    low, high = (math.log(limit) for limit in axis.get_xlim())
    ticks_at(
        axis, _LOOK, values, [f"{value:,g}" if value < 1 else f"{value:,}" for value in values],
        [(math.log(value) - low) / (high - low) for value in values],
    )  # fmt: skip


def _numbers(axis: Axes) -> None:
    """Along y: powers of ten, and what lies between where there are few of them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 30 else (1.0, 2.0, 5.0)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def _line(axis: Axes, way: str, points: Sequence[tuple[float, float]]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.plot(*zip(*points, strict=True), **_STYLES[way].line_options())
