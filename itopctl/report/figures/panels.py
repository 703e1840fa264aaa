"""Panels of a figure: which there are, where they stand, their axes; and the legend, under them and never on data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from itopctl.errors import UserError
from itopctl.report import number_text as words
from itopctl.report.figures.style import SMALL, Look, fitted, spaced, text_width
from itopctl.report.table import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import SubplotSpec
    from matplotlib.legend import Legend

MOST_PANELS = 48

_LEAST_HEIGHT, _MOST_HEIGHT, _SHAPE = 1.3, 2.2, 0.72  # of a panel: inches, inches, height by width
_STACKED = 1.45  # inches of each, where several stand one above the other
_LINE = 1.35 * SMALL / 72  # inches of a line of the legend
_EDGE = 0.04  # inches around a legend
_LABEL = 0.19  # inches of the label under the panels


@dataclass(frozen=True)
class Panel:
    """Records that are drawn together.

    Attributes:
        title: above them.
        records: theirs.
        references: dense networks' of the same study, to compare with.
        row: panels of one row belong together; None: they just follow each other.
    """

    title: str
    records: Sequence[Record]
    references: Sequence[Record] = ()
    row: int | None = None


def heading(records: Sequence[Record]) -> str:
    """What all records are of, as the title of a figure; empty where they are of several studies."""
    found = {(record["dataset"], record["model"]) for record in records}
    return "{1} on {0}".format(*found.pop()) if len(found) == 1 else ""


def by_study(records: Sequence[Record]) -> list[Panel]:
    """A panel for each data set and model, in the order of the records."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        found.setdefault((record["dataset"], record["model"]), []).append(record)
    single = len(found) == 1
    return [Panel("" if single else f"{model} on {data}", members) for (data, model), members in found.items()]


def by_sparsity(records: Sequence[Record]) -> list[Panel]:
    """A panel for each sparsity of a study, from least to most; dense networks are references of each.

    A study that has nothing but dense networks has a panel of these.
    """
    panels = []
    studies = by_study(records)
    for number, study in enumerate(studies):
        row = number if len(studies) > 1 else None
        references = [record for record in study.records if is_dense(record)]
        sparsities = sorted({record["sparsity"] for record in study.records if not is_dense(record)})
        before = f"{study.title}, " if study.title else ""
        for value in sparsities:
            members = [r for r in study.records if r["sparsity"] == value and not is_dense(r)]
            panels.append(Panel(f"{before}sparsity {words.sparsity(value)}", members, references, row))
        if not sparsities:
            panels.append(Panel(f"{before}dense", references, row=row))
    return panels


def is_dense(record: Record) -> bool:
    """Whether a record is a dense network's: what sparse ones are compared with."""
    return bool(record["method"] == "dense")


def lay_out(
    look: Look,
    records: Sequence[Record],
    panels: Sequence[Panel],
    labels: Sequence[str],
    narrow: bool = False,
    under: float = 0.0,
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel's axes each, and room for a legend under them.

    Args:
        look: how it is wanted.
        records: all that are drawn, for the title.
        panels: what there is to draw.
        labels: of the legend.
        narrow: whether three panels fit side by side in a column, since they share an axis.
        under: inches that tick labels need under a panel beyond a line.

    Raises:
        UserError: there are more panels than anybody can read.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from itopctl.report.figures.shown import ShownFigure

    if len(panels) > MOST_PANELS:
        raise UserError(
            f"the figure would have {len(panels)} panels, of at most {MOST_PANELS}: name the sweeps that matter."
        )
    columns = panels_side_by_side(look, panels, narrow)
    places = _places(panels, columns)
    rows = places[-1] // columns + 1
    width = look.inches / columns
    height = min(_MOST_HEIGHT if rows == 1 else _STACKED, max(_LEAST_HEIGHT, _SHAPE * width))
    title = fitted(heading(records), look.inches - 0.2, 8.0) if look.title else ""
    titles = [fitted(panel.title, width - (0.25 if narrow else 0.55), 8.0) for panel in panels]
    above = max(text.count("\n") for text in titles) * 0.14 * rows + (0.14 * title.count("\n") + 0.2 if title else 0)
    figure = ShownFigure(figsize=(look.inches, rows * height + above + under + _LABEL + _legend_height(look, labels)))
    FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in places]
    for axis, text in zip(axes, titles, strict=False):
        if text:
            axis.set_title(text)
    if title:
        figure.suptitle(title)
    return figure, axes


def panels_side_by_side(look: Look, panels: Sequence[Panel], narrow: bool = False) -> int:
    """How many of the panels stand in a row."""
    rows = Counter(panel.row for panel in panels)
    count = max(rows.values())  # each study begins a row of its own
    if look.width == "page":
        return count if count <= 4 else 3 if count in (5, 6, 9) else 4
    if narrow:
        return count if count <= 3 else 2 if count == 4 else 3
    return 1 if count <= 3 and len(panels) <= 3 else min(count, 2)


def _places(panels: Sequence[Panel], columns: int) -> list[int]:
    """Number of each panel's place in the grid, row by row."""
    places: list[int] = []
    for panel, before in zip(panels, [None, *panels], strict=False):
        place = places[-1] + 1 if places else 0
        if before is not None and panel.row != before.row:
            place = math.ceil(place / columns) * columns
        places.append(place)
    return places


def columns_of(axes: Sequence[Axes]) -> int:
    """How many panels can stand side by side."""
    return int(_spec(axes[0]).get_gridspec().ncols)


def index_below(axes: Sequence[Axes], index: int) -> int | None:
    """Which panel stands right under another; None if none does."""
    place = _spec(axes[index]).num1 + columns_of(axes)
    return next((other for other, axis in enumerate(axes) if _spec(axis).num1 == place), None)


def _spec(axis: Axes) -> SubplotSpec:
    spec = axis.get_subplotspec()
    assert spec is not None
    return spec


def share_y(axes: Sequence[Axes]) -> None:
    """The same range in all panels, and numbers only at the left edge."""
    columns = columns_of(axes)
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        axis.tick_params(labelleft=_spec(axis).num1 % columns == 0)


def share_x(axes: Sequence[Axes]) -> None:
    """The same range in all panels, and numbers only where no other panel stands below."""
    limits = [axis.get_xlim() for axis in axes]
    for index, axis in enumerate(axes):
        axis.set_xlim(min(low for low, _ in limits), max(high for _, high in limits))
        axis.tick_params(labelbottom=index_below(axes, index) is None)


def few_numbers(axes: Sequence[Axes], look: Look) -> None:
    """As many numbers at each axis as there is room for."""
    from matplotlib.ticker import MaxNLocator

    width = look.inches / columns_of(axes)
    for axis in axes:
        if axis.get_xscale() == "linear":
            axis.xaxis.set_major_locator(MaxNLocator(nbins=max(2, int(2.6 * (width - 0.4))), steps=[1, 2, 5, 10]))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10], min_n_ticks=3))


def ticks_at(axis: Axes, look: Look, values: Sequence[float], texts: Sequence[str], positions: Sequence[float]) -> None:
    """Ticks of the x axis at values that occur, as many as there is room for.

    Args:
        axis: of the panel.
        look: how the figure is wanted.
        values: in the order of their positions.
        texts: how each is written.
        positions: of each, as a share of the axis's length.
    """
    width = look.inches / columns_of([axis]) - 0.6
    widest = max((text_width(text, SMALL) for text in texts), default=0.0) + 0.08
    kept = spaced(positions, widest / max(width, 0.3))
    axis.set_xticks([values[i] for i in kept], [texts[i] for i in kept])
    axis.set_xticks([value for i, value in enumerate(values) if i not in kept], minor=True)
    axis.set_xticklabels([], minor=True)


def finish(figure: Figure, look: Look, handles: Mapping[str, Any], x: str, y: str) -> None:
    """One label for each direction, for all panels; and under them the legend, label → sample.

    Matplotlib's layout would put the label and the legend at the same place: here they have theirs, and it has the
    rest.
    """
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    height = figure.get_figheight()
    legend = _legend_height(look, list(handles)) / height
    below = legend + _LABEL / height
    if handles:
        _add_legend(figure, look, handles)
    engine = figure.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)
    engine.set(rect=(0.0, below, 1.0, 1.0 - below))
    figure.supxlabel(x, y=legend + _EDGE / height, va="bottom", parse_math=True).set_in_layout(False)
    figure.supylabel(y, y=(1.0 - _above(figure) / height + below) / 2, parse_math=True)


def _above(figure: Figure) -> float:
    """Inches of the titles above the first row of panels."""
    title = figure.get_suptitle()
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    lines = [text.count("\n") + 1 for text in (title, *titles[:1]) if text]
    return 0.05 * len(lines) + 0.14 * sum(lines)


def accuracy_label(best_by: str) -> str:
    """Of an axis of accuracies."""
    return "test accuracy (%)" + ("\nat best validation" if best_by == "validation" else "")


def rate_label() -> str:
    """Of an axis of exploration rates."""
    return "exploration rate $R_s$"


# The legend -------------------------------------------------------------------------------------------------


def _add_legend(figure: Figure, look: Look, handles: Mapping[str, Any]) -> Legend:
    """In as many columns as fit; its labels are the user's own words."""
    folded = [_folded(look, label) for label in handles]
    return figure.legend(
        list(handles.values()), [f" {text}" if text.startswith("_") else text for text in folded],
        loc="lower center", ncols=_legend_columns(look, list(handles)),
    )  # fmt: skip


def _folded(look: Look, label: str) -> str:
    return fitted(label, look.inches - 2 * _EDGE - _HANDLE, SMALL)


_HANDLE = (2.8 + 0.8) * SMALL / 72  # inches of a sample and the gap behind it
_GAP = 1.2 * SMALL / 72


def _legend_columns(look: Look, labels: Sequence[str]) -> int:
    widest = max(text_width(line, SMALL) for label in labels for line in _folded(look, label).split("\n"))
    most = int((look.inches - 2 * _EDGE + _GAP) / (widest + _HANDLE + _GAP))
    columns = max(1, min(most, len(labels)))
    rows = math.ceil(len(labels) / columns)
    return math.ceil(len(labels) / rows)  # as few columns as give the same height: they are filled evenly


def _legend_height(look: Look, labels: Sequence[str]) -> float:
    if not labels:
        return 0.0
    rows = math.ceil(len(labels) / _legend_columns(look, labels))
    lines = max(_folded(look, label).count("\n") + 1 for label in labels)
    return rows * lines * _LINE + 2 * _EDGE
