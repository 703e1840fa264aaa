"""How figures look: type, colours that colour-blind people tell apart, and line styles and markers that do without.

Colours are those of Okabe and Ito (2008, "Color Universal Design"), which stay distinct for all common kinds of colour
blindness. A method has a hue and a line style; what varies within it (an update interval) goes from dark to light and
has a marker of its own. So everything in a legend differs in line style or marker, too, and reads in black and white.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from itopctl.report.table import Record

WIDTHS = {"column": 3.35, "page": 6.9}
"""Inches of one column of a two-column paper, and of both."""

SMALL, NORMAL = 7.0, 8.0
"""Points: tick labels and legends; axis labels and titles."""

INK, GREY = "#000000", "#777777"

HUES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of Okabe and Ito; their yellow is too pale for lines on white, their black is the dense network's."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", "p", ">", "h", "*", "d", "8")
LINES: tuple[Any, ...] = ("-", "--", "-.", (0, (5, 1.5, 1, 1.5, 1, 1.5)), (0, (2.5, 1)), (0, (7, 2.5)))

_FIXED = {"dense": (INK, "-", ""), "static": (GREY, ":", "")}  # references: one line each where there is one kind

PARAMETERS: dict[str, Any] = {
    # Words are mostly the users' own: no mathematics in them, whatever signs they have, unless a label is ours.
    "text.parse_math": False,
    "axes.formatter.useoffset": False, "axes.grid": True, "axes.labelsize": NORMAL, "axes.linewidth": 0.6,
    "axes.axisbelow": True, "axes.titlesize": NORMAL, "axes.unicode_minus": True, "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.03, "figure.constrained_layout.w_pad": 0.03, "figure.dpi": 100,
    "figure.titlesize": NORMAL, "figure.labelsize": NORMAL, "font.size": SMALL, "grid.color": "#DDDDDD",
    "grid.linewidth": 0.4, "legend.fontsize": SMALL, "legend.frameon": False, "legend.handlelength": 2.8,
    "legend.columnspacing": 1.2, "legend.borderpad": 0.2, "legend.labelspacing": 0.3, "lines.linewidth": 1.0,
    "lines.markersize": 3.5, "lines.markeredgewidth": 0.6, "mathtext.fontset": "dejavusans", "savefig.dpi": 300,
    "xtick.labelsize": SMALL, "ytick.labelsize": SMALL, "xtick.major.width": 0.6, "ytick.major.width": 0.6,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "xtick.minor.size": 1.5, "ytick.minor.size": 1.5,
    # The same bytes each time. Letters of an SVG are shapes, so that it looks the same, and nothing in it is cut,
    # whatever fonts its reader has; those of a PDF are text in a font that is embedded (TrueType, as publishers want).
    "svg.hashsalt": "itopctl", "svg.fonttype": "path", "pdf.fonttype": 42, "ps.fonttype": 42,
}  # fmt: skip

_OTHER_SCRIPTS = ("Noto Sans CJK JP", "Noto Sans CJK SC", "WenQuanYi Zen Hei", "Noto Sans", "Noto Emoji")


@dataclass(frozen=True)
class Look:
    """How a figure is wanted.

    Attributes:
        width: of `WIDTHS`.
        title: whether the study's name stands above it, where all panels are of one study.
        best_by: which accuracy the records hold.
    """

    width: str = "column"
    title: bool = True
    best_by: str = "final"

    @property
    def inches(self) -> float:
        return WIDTHS[self.width]


@dataclass(frozen=True)
class LineStyle:
    """How one kind of run is drawn; the pair of line and marker is its own."""

    color: str
    line: Any
    marker: str

    def line_options(self, lone: bool = False) -> dict[str, Any]:
        """Keywords of `Axes.plot`; of a `lone` point, which has no line that would be seen, with some marker."""
        return {
            "color": self.color, "linestyle": self.line, "marker": self.marker or ("_" if lone else None),
            "markerfacecolor": self.color, "markeredgecolor": "white" if self.marker else self.color,
            "markeredgewidth": 1.2 if lone and not self.marker else 0.4,
        }  # fmt: skip


Name = tuple[str, str]
"""Method and details: what a legend names."""


def name_of(record: Record) -> Name:
    return record["method"], record["details"]


def label_of(name: Name) -> str:
    """As the legend has it."""
    method, details = name
    return f"{method}, {details}" if details else method


def styles(names: Iterable[Name]) -> dict[Name, LineStyle]:
    """Name → how it is drawn, for all that a figure shows; the order of the names counts."""
    by_method: dict[str, list[Name]] = {}
    for name in dict.fromkeys(names):
        by_method.setdefault(name[0], []).append(name)
    for of_method in by_method.values():  # those of one study are in order; of several, ΔT 40 comes before ΔT 200
        of_method.sort(key=lambda name: _natural(name[1]))
    found: dict[Name, LineStyle] = {}
    free = {index: iter(MARKERS) for index in range(len(LINES))}
    place = itertools.count()
    for method, of_method in by_method.items():
        if method in _FIXED and len(of_method) == 1:
            found[of_method[0]] = LineStyle(*_FIXED[method])
            continue
        index = next(place) % len(LINES)
        base = _FIXED[method][0] if method in _FIXED else HUES[index]
        for color, name in zip(ramp(base, len(of_method)), of_method, strict=True):
            found[name] = LineStyle(color, *_free_pair(free, index))
    return found


def _natural(text: str) -> list[Any]:
    """Sort key by which numbers in a text count as numbers."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[-+]?\d+)?)", text)
    return [float(part) if index % 2 else part for index, part in enumerate(parts)]


def _free_pair(free: dict[int, Iterator[str]], index: int) -> tuple[Any, str]:
    """A line style and a marker that nobody has, of that line style as long as there are any."""
    for candidate in [*range(index, len(LINES)), *range(index)]:
        marker = next(free[candidate], None)
        if marker is not None:
            return LINES[candidate], marker
    free.update({i: iter(MARKERS) for i in range(len(LINES))})  # more than 84 kinds: colours alone are left
    return _free_pair(free, index)


def ramp(color: str, count: int) -> list[str]:
    """Shades of a colour from dark to light; the colour itself where one is wanted."""
    if count == 1:
        return [color]
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    luminance = (0.299 * red + 0.587 * green + 0.114 * blue) / 255
    darkest, lightest = -0.6, max(0.0, 0.75 - luminance)
    shades = []
    for step in range(count):
        share = darkest + (lightest - darkest) * step / (count - 1)
        towards = 255 if share > 0 else 0
        mixed = (round(part + abs(share) * (towards - part)) for part in (red, green, blue))
        shades.append("#" + "".join(f"{part:02X}" for part in mixed))
    return shades


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """Matplotlib as this package wants it, whatever the user's matplotlibrc says; as it was, on leaving."""
    import matplotlib
    from matplotlib import font_manager

    there = set(font_manager.get_font_names())
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box stands in its place
        matplotlib.rcdefaults()
        families = ["DejaVu Sans", *(name for name in _OTHER_SCRIPTS if name in there)]
        parameters: Any = {**PARAMETERS, "font.family": families}
        matplotlib.rcParams.update(parameters)
        yield


def fitted(words: str, width: float, size: float) -> str:
    """Words folded to a width, at spaces and after punctuation, or inside a word that is longer than that.

    Args:
        words: on one line.
        width: in inches.
        size: of the letters, in points.
    """
    lines = [""]
    for piece in _pieces(words):
        if not lines[-1] or text_width(lines[-1] + piece.rstrip(), size) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
        while len(lines[-1]) > 1 and text_width(lines[-1].rstrip(), size) > width:
            cut = next(n for n in range(len(lines[-1]) - 1, 0, -1)
                       if n == 1 or text_width(lines[-1][:n], size) <= width)  # fmt: skip
            lines[-1:] = [lines[-1][:cut], lines[-1][cut:]]
    return "\n".join(line.strip() for line in lines)


def _pieces(words: str) -> list[str]:
    pieces = [""]
    for char in words:
        pieces[-1] += char
        if char in " ,.:/_-":
            pieces.append("")
    return [piece for piece in pieces if piece]


def text_width(words: str, size: float) -> float:
    """Inches that words take in one line."""
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.font_manager import FontProperties

    width, _, _ = RendererAgg(1, 1, 288).get_text_width_height_descent(words, FontProperties(size=size), False)
    return float(width) / 288


def shortened(name: str, most: int = 20) -> str:
    """A long name with its middle left out."""
    if len(name) <= most:
        return name
    tail = (most - 1) // 2
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"


def spaced(positions: Sequence[float], least: float) -> list[int]:
    """Indices of rising positions that are so far apart; the first is among them, and the last, if it can be."""
    kept: list[int] = []
    for index, position in enumerate(positions):
        if not kept or position - positions[kept[-1]] >= least:
            kept.append(index)
    if len(kept) > 1:
        kept[-1] = len(positions) - 1
    return kept
