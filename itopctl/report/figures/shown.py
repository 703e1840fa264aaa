"""A figure of matplotlib that shows itself. Imported where a figure is drawn: matplotlib takes long to import."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

_DOTS_PER_INCH = 144


class ShownFigure(Figure):
    """A figure that a notebook shows, also where nobody has told matplotlib that it is in one."""

    def _repr_png_(self) -> bytes:
        out = io.BytesIO()
        self.savefig(out, format="png", dpi=_DOTS_PER_INCH)
        return out.getvalue()
