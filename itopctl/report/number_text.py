"""Numbers as people read them."""

from __future__ import annotations

import math

from itopctl.report.quantity import MISSING, NOTHING, Quantity

__all__ = [
    "NOTHING", "duration", "mean_and_spread", "number", "percent", "plus_minus", "quantity", "rate", "significant",
    "size", "sparsity",
]  # fmt: skip


def percent(fraction: float | None, digits: int = 2) -> Quantity:
    """0.9731 as `97.31`; the unit stands in the heading."""
    return MISSING if fraction is None else Quantity.of(100 * fraction, f".{digits}f")


def mean_and_spread(mean: float | None, std: float | None, digits: int | None = None) -> Quantity:
    """Two fractions as `95.00 ± 2.00`, in percent; without a deviation, the mean alone. `digits`: as `plus_minus`."""
    return MISSING if mean is None else plus_minus(100 * mean, None if std is None else 100 * std, digits)


def plus_minus(mean: float, std: float | None, digits: int | None = None, decimals: int | None = 2) -> Quantity:
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
        return Quantity.of(round(mean, place), f",.{max(0, place)}f", spread=round(std, place))
    return number(mean) if decimals is None else Quantity.of(mean, f".{decimals}f", spread=std)


def significant(value: float | None, digits: int) -> Quantity:
    """A number with so many significant digits, zeros at its end among them; written out, without an exponent."""
    if value is None:
        return MISSING
    place = digits - 1 - int(f"{value:.{digits - 1}e}".partition("e")[2])
    return Quantity.of(round(value, place), f",.{max(0, place)}f")


def number(value: float | None, digits: int = 3, unit: str = "", scale: float = 1.0) -> Quantity:
    """A number with so many significant digits, without a tail of zeros; written out, never with an exponent up.

    `unit` and `scale` are those of `Quantity.of`.
    """
    if value is None:
        return MISSING
    if isinstance(value, int):
        return Quantity.of(value, ",", unit, scale)
    large = abs(value) >= 10**digits - 0.5
    return Quantity.of(round(value) if large else value, "," if large else f".{digits}g", unit, scale)


def rate(value: float | None, unit: str = "") -> Quantity:
    """An exploration rate or, with the unit `×`, a ratio, as the paper prints it: two decimals."""
    return MISSING if value is None else Quantity.of(value, ".2f", unit)


def sparsity(value: float) -> Quantity:
    """0.965 as `96.5 %`."""
    return Quantity.of(round(100 * value, 6), "g", " %")


def duration(seconds: float | None) -> Quantity:
    """`0.8 s`, `42 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return MISSING
    if seconds < 9.95:
        return Quantity.of(seconds, ".1f", " s")
    whole = round(seconds)
    if whole < 60:
        return Quantity.of(whole, "d", " s")
    if whole < 3600:
        return _two_units(whole, 60, " min", 1, "02d", "s")
    if whole < 86400:
        return _two_units(whole, 3600, " h", 60, "02d", "min")
    return _two_units(whole, 86400, " d", 3600, "d", "h")


def _two_units(seconds: int, large: int, unit: str, small: int, form: str, small_unit: str) -> Quantity:
    count, rest = seconds // large, seconds % large // small
    return Quantity(count * large + rest * small, str(count), unit=unit, after=f" {rest:{form}} {small_unit}")


def quantity(value: float | None, unit: str = "", digits: int = 3) -> Quantity:
    """A large number with a prefix: 1.53e9 as `1.53 G`, with its unit behind."""
    if value is None or not math.isfinite(value):
        return MISSING
    prefixes = ("", "k", "M", "G", "T", "P", "E", "Z")
    place = 0
    while abs(value) >= 999.5 and place < len(prefixes) - 1:
        value, place = value / 1000, place + 1
    return number(value, digits, f" {prefixes[place]}{unit}".rstrip(), 1000.0**place)


def size(count: int | None) -> Quantity:
    """Bytes as `812 MB`."""
    if count is None:
        return MISSING
    value, scale = float(count), 1.0
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return Quantity.of(value, ".3g", f" {unit}", scale)
        value, scale = value / 1000, scale * 1000
    return number(value, unit=" TB", scale=scale)
