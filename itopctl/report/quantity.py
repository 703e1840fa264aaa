"""A number as a cell shows it: its value, and the parts from which each format makes a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple


class Digits(NamedTuple):
    """A written number in parts: `-1,500.25e-05` has the whole part `1,500`, the fraction `.25`, the exponent `-05`."""

    sign: str
    whole: str
    fraction: str
    exponent: str

    @classmethod
    def of(cls, text: str) -> Digits:
        mantissa, _, exponent = text.partition("e")
        sign = mantissa[0] if mantissa[0] in "+-−" else ""
        whole, point, decimals = mantissa.removeprefix(sign).partition(".")
        return cls(sign, whole, point + decimals, exponent)


@dataclass(frozen=True)
class Quantity:
    """A number as it is shown, such as `≤ 97.31 ± 0.20 %*`.

    Attributes:
        value: the number as shown, which is rounded, in its base unit: seconds, bytes, percent where percent is shown.
            None where nothing is known.
        digits: the number as written, without its unit: `1,500.25`, `1e-05`, `−2.10`; any text where `value` is None.
        spread: its standard deviation, written the same way; empty where there is none.
        unit: with the space before it.
        mark: signs of footnotes.
        before, after: text beside it, such as `≤ ` or a confidence interval.
    """

    value: float | None
    digits: str
    spread: str = ""
    unit: str = ""
    mark: str = ""
    before: str = ""
    after: str = ""

    @classmethod
    def of(cls, number: float, form: str, unit: str = "", scale: float = 1.0, spread: float | None = None) -> Quantity:
        """A number in one of Python's formats.

        Args:
            number: in the unit; what is not finite has no value.
            form: a format specification, such as `,.2f`.
            unit: with the space before it.
            scale: the base units in the unit.
            spread: its standard deviation, written in the same format.
        """
        digits = format(number, form)
        value = scale * float(digits.replace(",", "")) if math.isfinite(number) else None
        return cls(value, digits, "" if spread is None else format(spread, form), unit)

    def marked(self, mark: str) -> Quantity:
        """With a sign of a footnote."""
        return replace(self, mark=self.mark + mark)

    def within(self, before: str = "", after: str = "") -> Quantity:
        """Between two texts."""
        return replace(self, before=before + self.before, after=self.after + after)

    @property
    def lines_up(self) -> bool:
        """Whether it can stand with its decimal point, and its `±`, below those of others."""
        return self.value is not None and not self.before and not self.after

    @property
    def bare(self) -> bool:
        """Whether its text is the value as programs read it."""
        return str(self) == self.digits and self.digits.isascii() and "," not in self.digits

    def __str__(self) -> str:
        spread = f" ± {self.spread}" if self.spread else ""
        return f"{self.before}{self.digits}{spread}{self.unit}{self.after}{self.mark}"


NOTHING = "–"
"""What stands where nothing is known."""
MISSING = Quantity(None, NOTHING)
"""A number that is not known."""
