"""Numbers as people read them."""

from __future__ import annotations

import math

NOTHING = "–"


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.9731 as `97.31`; the unit stands in the heading."""
    return NOTHING if fraction is None else f"{100 * fraction:.{digits}f}"


def mean_and_spread(mean: float | None, std: float | None, digits: int | None = None) -> str:
    """Two fractions as `95.00 ± 2.00`, in percent; without a deviation, the mean alone. `digits`: as `plus_minus`."""
    return NOTHING if mean is None else plus_minus(100 * mean, None if std is None else 100 * std, digits)


def plus_minus(mean: float, std: float | None, digits: int | None = None, decimals: int | None = 2) -> str:
    """A mean and its standard deviation, as `96.85 ± 0.85`; the mean alone where there is no deviation.

    Args:
        digits: significant digits of the deviation; the mean is rounded to the same place, as siunitx's
            `round-mode = uncertainty` does: with one, `96.9 ± 0.9` and `60 ± 4`.
        decimals: digits after the point where `digits` is None, or there is no deviation, or it is 0, which has no
            significant digit. None: two significant digits of the deviation, three of a mean without one.
    """
    if std is not None and std > 0 and (digits is not None or decimals is None):
        count = digits or 2
        place = count - 1 - int(f"{std:.{count - 1}e}".partition("e")[2])  # after rounding: 0.0996 becomes 0.10
        shown = max(0, place)
        return f"{round(mean, place):,.{shown}f} ± {round(std, place):,.{shown}f}"
    if decimals is None:
        return number(mean)
    return f"{mean:.{decimals}f}" + (f" ± {std:.{decimals}f}" if std is not None else "")


def significant(value: float | None, digits: int) -> str:
    """A number with so many significant digits, zeros at its end among them; written out, without an exponent."""
    if value is None:
        return NOTHING
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])
    return f"{round(value, digits - 1 - exponent):,.{max(0, digits - 1 - exponent)}f}"


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
