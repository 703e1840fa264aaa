"""Density and exploration rate of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.figure_data import Material, identity, nothing
from itopctl.report.figures.panels import Panel, by_sparsity, finish, index_below, lay_out, panels_side_by_side
from itopctl.report.figures.style import (
    GREY,
    SMALL,
    LineStyle,
    Look,
    Name,
    label_of,
    name_of,
    shortened,
    styles,
    text_width,
)
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SAME = 5e-4  # of densities that a figure cannot tell apart
_FEW = 12  # layers: of more, not every point has a marker


def records(material: Material) -> list[Record]:
    """A record for each group and layer: density and exploration rate after the last step."""
    found = [
        {
            **identity(study, group), "seeds": len(group.finished), "position": layer["position"],
            "layer": layer["name"], "size": layer["size"],
            **{f"{name}_{part}": layer[f"{name}_{part}"] for name in ("density", "exploration_rate")
               for part in ("mean", "std")},
        }
        for (study, group), layers in zip(material.groups(), material.layers, strict=True)
        for layer in layers
        if layer["density_mean"] is not None and layer["exploration_rate_mean"] is not None
    ]  # fmt: skip
    if not found:
        finished = any(group.finished for _, group in material.groups())
        said_nothing = "the finished runs say nothing of their layers"
        raise nothing("layers", said_nothing if finished else material.nothing_finished())
    return found


@FIGURES.add("layers", source="", records=records, layers=True)
def draw(records: Sequence[Record], look: Look) -> Figure:
    """density (bars) and R_s (points) of each layer, by method; a panel a sparsity"""
    panels = [replace(panel, references=()) for panel in by_sparsity(records)]
    shown = [record for panel in panels for record in panel.records]
    found = styles(map(name_of, shown))
    handles = {"density (bars)": _bar(), **_points(found)}
    names = [_names(panel) for panel in panels]
    width = look.inches / panels_side_by_side(look, panels) - 0.55
    upright = any(_are_upright(found, width) for found in names)
    under = max(text_width(text, SMALL) for found in names for text in found.values()) if upright else 0.0
    figure, axes = lay_out(look, records, panels, list(handles), under=under)
    for panel, axis in zip(panels, axes, strict=True):
        _draw_panel(axis, panel, found)
        axis.set_ylim(0.0, min(1.03, 1.06 * axis.get_ylim()[1]))
    _name_layers(axes, names, width, upright)
    finish(figure, look, handles, "layer", "density, exploration rate $R_s$")
    return figure


def _draw_panel(axis: Axes, panel: Panel, found: dict[Name, LineStyle]) -> None:
    """Bars where all kinds share their densities, as those of one allocation do; a frame of bars each where not."""
    kinds: dict[Name, list[Record]] = {}
    for record in sorted(panel.records, key=lambda record: record["position"]):
        kinds.setdefault(name_of(record), []).append(record)
    profiles: list[list[Record]] = []
    for members in kinds.values():
        if not any(_alike(members, other) for other in profiles):
            profiles.append(members)
    for profile in profiles:
        x, y = [r["position"] for r in profile], [r["density_mean"] for r in profile]
        if len(profiles) == 1:
            axis.bar(x, y, width=0.8, color="#D0D0D0", edgecolor=GREY, linewidth=0.4, zorder=2)
        else:
            axis.bar(x, y, width=0.8, color="none", edgecolor=found[name_of(profile[0])].color, linewidth=0.7, zorder=2)
    for index, (name, members) in enumerate(kinds.items()):
        few = len(members) <= _FEW
        aside = 0.5 * (index / (len(kinds) - 1) - 0.5) if few and len(kinds) > 1 else 0.0
        every = 1 if few else max(1, len(members) // 6)
        style = found[name]
        x = [record["position"] + aside for record in members]
        axis.plot(
            x,
            [r["exploration_rate_mean"] for r in members],
            **_line_options(style),
            linewidth=0.6,
            zorder=3,
            markevery=(index * every // len(kinds), every),
        )


def _alike(one: Sequence[Record], other: Sequence[Record]) -> bool:
    return [r["position"] for r in one] == [r["position"] for r in other] and all(
        abs(a["density_mean"] - b["density_mean"]) < _SAME for a, b in zip(one, other, strict=True)
    )


def _names(panel: Panel) -> dict[int, str]:
    """Position → name of each layer; a long one has its middle left out."""
    found = {record["position"]: record["layer"].removesuffix(".weight") for record in panel.records}
    return {position: shortened(found[position]) for position in sorted(found)}


def _fit(names: dict[int, str], width: float) -> bool:
    """Whether there is room for a name for each layer, upright if need be."""
    return len(names) * (SMALL + 1) / 72 <= width


def _are_upright(names: dict[int, str], width: float) -> bool:
    longest = max(text_width(name, SMALL) for name in names.values())
    return _fit(names, width) and len(names) * (longest + 0.08) > width


def _name_layers(axes: Sequence[Axes], names: Sequence[dict[int, str]], width: float, upright: bool) -> None:
    """Names under the lowest panel of each column; numbers, where there are more than there is room for."""
    for index, (axis, own) in enumerate(zip(axes, names, strict=True)):
        below = index_below(axes, index)
        axis.set_xlim(min(own) - 0.7, max(own) + 0.7)
        if _fit(own, width):
            axis.set_xticks(list(own), list(own.values()), rotation=90 if upright else 0)
        axis.tick_params(axis="x", labelbottom=below is None or own != names[below])


def _points(found: dict[Name, LineStyle]) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    return {label_of(name): Line2D([], [], **_line_options(style)) for name, style in found.items()}


def _line_options(style: LineStyle) -> dict[str, Any]:
    """A marker in any case: lines alone would say little where there are three layers."""
    if style.marker:
        return style.line_options()
    return {**style.line_options(), "marker": "_", "markersize": 5.0, "markeredgecolor": style.color}


def _bar() -> Any:
    from matplotlib.patches import Patch

    return Patch(facecolor="#D0D0D0", edgecolor=GREY, linewidth=0.4)
