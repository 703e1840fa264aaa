"""Numbers read back from their text by regular expressions: the slow reference for what cells carry as values.

The package never reads a rendered text. Here it is read, to show that a value and its text say the same, and to write
the cells of tests as they look.
"""

from __future__ import annotations

import re

from itopctl.report.quantity import Quantity
from itopctl.report.table import Cell

_ALIGNED = re.compile(
    r"(?P<digits>[+\-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"(?: ± (?P<spread>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?))?"
    r"(?P<unit> ?[%×]| [A-Za-zµ]{1,3})?(?P<mark>[*†‡]*)",
    re.ASCII,
)
_UNITS = {
    "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21,
    "J": 1.0, "kJ": 1e3, "MJ": 1e6, "GJ": 1e9, "TJ": 1e12,
}  # fmt: skip
_NUMBER = r"[-−+]?\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?"
_PART = re.compile(rf"({_NUMBER})\s?([A-Za-zµ]*)")
_BEFORE = re.compile(r"[<≤≥≈ \[]*")
_DIGIT = re.compile(r"\d")


def parse(text: str) -> Quantity | None:
    """The number that a text is; None where it is not one, and nothing else."""
    found = _ALIGNED.fullmatch(text)
    if found is None:
        return None
    part = {name: value or "" for name, value in found.groupdict().items()}
    return Quantity(sort_value(text), part["digits"], part["spread"], part["unit"], part["mark"])


def sort_value(text: str) -> float | None:
    """The number that a text begins with, in base units; None where it begins with none."""
    start = _BEFORE.match(text)
    part = _PART.match(text, start.end() if start else 0)
    if part is None:
        return None
    unit = part[2]
    value = _plain(part[1]) * _UNITS.get(unit, 1.0)
    if unit in ("min", "h", "d"):  # `2 h 05 min`: the lesser unit comes after it
        rest = _PART.match(text, part.end() + 1)
        if rest and rest[2] in ("s", "min", "h"):
            value += _plain(rest[1]) * _UNITS[rest[2]]
    return value


def _plain(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def lines_up(text: str) -> bool:
    """Whether a text may stand in a column of numbers: it is one, or has no digit."""
    return parse(text) is not None or not _DIGIT.search(text)


def value_of(text: str) -> str | Quantity:
    """What a cell with this text carries."""
    found, value = parse(text), sort_value(text)
    if found is not None:
        return found
    return text if value is None else Quantity(value, "", before=text)


def cell(text: str) -> Cell:
    """A cell with this text."""
    return Cell(value_of(text))
