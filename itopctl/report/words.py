"""Numbers as people read them."""

from __future__ import annotations

import math

NOTHING = "–"


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.9731 as `97.31`; the unit stands in the heading."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}"


def mean_and_spread(mean: float | None, std: float | None, digits: int = 2) -> str:
    """Two fractions as `95.00 ± 2.00`, in percent; without a deviation, the mean alone."""
    return percent(mean, digits) + (f" ± {percent(std, digits)}" if std is not None else "")


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many significant digits, without a tail of zeros; written out, never with an exponent up."""
    if value is None:
        return NOTHING
    if isinstance(value, int):
        return f"{value:,}"
    return f"{round(value):,}" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g}"


def rate(value: float | None) -> str:
    """An exploration rate or a ratio, as the paper prints it: two decimals."""
    return NOTHING if value is None else f"{value:.2f}"


def sparsity(value: float) -> str:
    """0.965 as `96.5 %`."""
    return f"{round(100 * value, 6):g} %"


def duration(seconds: float | None) -> str:
    """`0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def quantity(value: float | None, unit: str = "", digits: int = 3) -> str:
    """A large number with a prefix: 1.53e9 as `1.53 G`, with its unit behind."""
    if value is None or not math.isfinite(value):
        return NOTHING
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    place = 0
    while abs(value) >= 999.5 and place < len(prefixes) - 1:
        value, place = value / 1000, place + 1
    return f"{number(value, digits)} {prefixes[place]}{unit}".rstrip()


def size(count: int | None) -> str:
    """Bytes as `812 MB`."""
    if count is None:
        return NOTHING
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{number(value)} TB"
