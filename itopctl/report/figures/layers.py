"""Density and exploration rate of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from itopctl.report.figures.catalogue import FIGURES
from itopctl.report.figures.material import NOTHING_FINISHED, Material, identity, nothing
from itopctl.report.figures.panels import Panel, by_sparsity, columns_of, finish, lay_out
from itopctl.report.figures.style import GREY, SMALL, LineStyle, Look, Name, label_of, name_of, shortened, styles
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SAME = 5e-4  # of densities that a figure cannot tell apart
_DENSITY = "density"


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
        raise nothing("layers", "the finished runs say nothing of their layers" if finished else NOTHING_FINISHED)
    return found


@FIGURES.add("layers", source="", records=records, needs=("layers",))
def draw(records: Sequence[Record], look: Look) -> Figure:
    """density (bars) and R_s (points) of each layer, by method; a panel a sparsity"""
    panels = [replace(panel, references=()) for panel in by_sparsity(records)]
    shown = [record for panel in panels for record in panel.records]
    found = styles(map(name_of, shown))
    handles = {f"{_DENSITY} (bars)": _bar(), **_points(found)}
    figure, axes = lay_out(look, records, panels, list(handles))
    for panel, axis in zip(panels, axes, strict=True):
        _draw_panel(axis, panel, found)
        axis.set_ylim(0.0, min(1.03, 1.06 * axis.get_ylim()[1]))
    _name_layers(axes, look, panels)
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
        aside = 0.5 * (index / (len(kinds) - 1) - 0.5) if len(kinds) > 1 else 0.0
        style = found[name]
        x = [record["position"] + aside for record in members]
        axis.plot(x, [r["exploration_rate_mean"] for r in members], **_line_options(style), linewidth=0.6, zorder=3)


def _alike(one: Sequence[Record], other: Sequence[Record]) -> bool:
    return [r["position"] for r in one] == [r["position"] for r in other] and all(
        abs(a["density_mean"] - b["density_mean"]) < _SAME for a, b in zip(one, other, strict=True)
    )


def _name_layers(axes: Sequence[Axes], look: Look, panels: Sequence[Panel]) -> None:
    """Names under the lowest panel of each column; numbers, where there are more than there is room for."""
    columns = columns_of(axes)
    width = look.inches / columns - 0.5
    for index, (axis, panel) in enumerate(zip(axes, panels, strict=True)):
        names = {record["position"]: record["layer"].removesuffix(".weight") for record in panel.records}
        positions = sorted(names)
        lowest = index + columns >= len(axes)
        below = panels[index + columns].records if not lowest else []
        same = {record["position"]: record["layer"].removesuffix(".weight") for record in below} == names
        axis.set_xlim(min(positions) - 0.7, max(positions) + 0.7)
        axis.tick_params(axis="x", labelbottom=not same)
        if len(positions) * (SMALL + 1) / 72 <= width:
            upright = max(len(name) for name in names.values()) * len(positions) * 0.07 > width
            texts = [shortened(names[position]) for position in positions]
            axis.set_xticks(positions, texts, rotation=90 if upright else 0)


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
