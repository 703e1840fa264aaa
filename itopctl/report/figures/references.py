"""Groups as points of accuracy and exploration rate, and the horizontal lines that they are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from itopctl.report.figures.figure_data import Material, identity
from itopctl.report.figures.style import LineStyle
from itopctl.report.groups import Group, measured_fields
from itopctl.report.statistics import summary_fields
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def point_records(material: Material) -> list[Record]:
    """A record for each group that has finished runs: accuracy and exploration rate, mean and deviation over seeds."""
    accuracy, explored = measured_fields(material.best_by)
    records = []
    for study, group in material.groups():
        summary = group.summary(accuracy)
        if summary is None:
            continue
        records.append({
            **identity(study, group), "update_interval": interval_of(group), "seeds": summary.n,
            **summary_fields("accuracy", summary), **summary_fields("exploration_rate", group.summary(explored)),
        })  # fmt: skip
    return records


def interval_of(group: Group) -> float | None:
    """Steps between topology updates, where there are any."""
    value = group.runs[0]["settings"].get("update_interval")
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 else None


def draw_level(axis: Axes, style: LineStyle, records: Sequence[Record]) -> None:
    """A line across a panel at an accuracy, with its deviation as a band."""
    for record in records:
        mean, std = 100 * record["accuracy_mean"], record["accuracy_std"]
        axis.axhline(mean, color=style.color, linestyle=style.line, zorder=1.5)
        if std is not None:
            axis.axhspan(mean - 100 * std, mean + 100 * std, color=style.color, alpha=0.12, linewidth=0, zorder=1)
