"""What sorts a cell: the number that its text stands for."""

from __future__ import annotations

import functools
import re

_UNITS = {
    "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0,
    "B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
    "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "Z": 1e21,
    "J": 1.0, "kJ": 1e3, "MJ": 1e6, "Wh": 3.6e3, "kWh": 3.6e6,
}  # fmt: skip
_NUMBER = r"[-−+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PART = re.compile(rf"({_NUMBER})\s?([A-Za-zµ]*)")
_BEFORE = re.compile(r"[\s★*<>≤≥≈~=±(\[{×]*")
_EXPONENT = re.compile(r"\s?(?:×|·)\s?10\^?([-−+]?\d+|[⁻⁺]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+)")
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")


@functools.lru_cache(maxsize=65536)
def sort_value(text: str) -> float | None:
    """The number that a cell's text begins with, in base units; None where it begins with none.

    `97.59 ± 0.16` is 97.59, `1,500` is 1500, `3 min 20 s` is 200, `812 MB` is 8.12e8, `< 0.001` is 0.001.
    """
    start = _BEFORE.match(text)
    part = _PART.match(text, start.end() if start else 0)
    if part is None:
        return None
    unit = part.group(2)
    value = _plain(part.group(1)) * _UNITS.get(unit, 1.0)
    exponent = _EXPONENT.match(text, part.end()) if not unit else None
    if exponent:
        return value * 10.0 ** min(300, int(exponent.group(1).translate(_RAISED).replace("−", "-")))
    if unit in ("min", "h", "d"):  # `2 h 05 min`: the lesser unit comes after it
        rest = _PART.match(text, part.end() + 1)
        if rest and rest.group(2) in ("s", "min", "h"):
            value += _plain(rest.group(1)) * _UNITS[rest.group(2)]
    return value


def _plain(text: str) -> float:
    return float(text.replace(",", "").replace("−", "-"))


def sort_attribute(text: str) -> str:
    """What a script needs beside the text to sort by; empty where the text is that number as it stands."""
    value = sort_value(text)
    if value is None:
        return ""
    try:
        if float(text) == value and text.isascii() and "_" not in text:
            return ""
    except ValueError:
        pass
    return f"{value:.12g}"
