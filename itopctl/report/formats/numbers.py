"""Numbers in cells: what they are made of, and how those of a column line up at the decimal point."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_NUMBER = re.compile(
    r"(?P<sign>[+\-−]?)(?P<whole>\d{1,3}(?:,\d{3})+|\d+)(?P<fraction>\.\d+)?(?:[eE](?P<exponent>[+-]?\d+))?"
    r"(?: ± (?P<spread_whole>\d+)(?P<spread_fraction>\.\d+)?)?"
    r"(?P<unit> ?[%×]| [A-Za-zµ]{1,3})?(?P<mark>[*†‡]*)",
    re.ASCII,
)
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True)
class Number:
    """A number as it stands in a cell: `-1,500.25 ± 0.30 %*`.

    Attributes:
        sign: `+`, `-`, `−` or nothing.
        whole, fraction: its digits; the fraction begins with its point, and is empty where there is none.
        exponent: after the `e`; empty where there is none.
        spread: whole and fraction of what comes after `±`.
        unit: with the space before it.
        mark: asterisks and daggers at the end.
    """

    sign: str
    whole: str
    fraction: str
    exponent: str
    spread: tuple[str, str] | None
    unit: str
    mark: str

    @property
    def value(self) -> float:
        """What it is, without unit and spread."""
        digits = f"{self.sign}{self.whole}{self.fraction}e{self.exponent or 0}"
        return float(digits.replace(",", "").replace("−", "-"))


def parse(text: str) -> Number | None:
    """The number that a text is; None where it is not one, and nothing else."""
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    part = {name: value or "" for name, value in found.groupdict().items()}
    spread = (part["spread_whole"], part["spread_fraction"]) if part["spread_whole"] else None
    return Number(part["sign"], part["whole"], part["fraction"], part["exponent"], spread, part["unit"], part["mark"])


def parse_column(texts: Sequence[str]) -> list[Number | None] | None:
    """The numbers of a column, where it is one of numbers of one unit; None where it is not.

    What has no digit in it (`–`, nothing) may stand among them. `3 min 20 s`, intervals and the like, which have more
    than one decimal point to line up, or different ones, make it a column of text.
    """
    numbers = [parse(text) for text in texts]
    known = [number for number in numbers if number is not None]
    if not known or len({number.unit for number in known}) > 1:
        return None
    if any(number is None and _DIGIT.search(text) for number, text in zip(numbers, texts, strict=True)):
        return None
    return numbers


def align(
    texts: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    escape: Callable[[str], str] = str,
    figure: str = " ",
    point: str = " ",
) -> list[str]:
    """The cells of a column of numbers with what pads them to line up at the decimal points, and at `±`.

    Numbers come out equally wide, to be set flush right. Anything else comes out as it is, and so does all where the
    column is not one of numbers (`parse_column`).

    Args:
        texts: the cells.
        before, after: what goes in front of each and behind it, such as the signs of bold.
        escape: what a format does to text.
        figure, point: what stands for a digit that is not there, and for a decimal point.
    """
    numbers = parse_column(texts)
    framed = [b + escape(text) + a for b, text, a in zip(before, texts, after, strict=True)]
    if numbers is None:
        return framed
    pad = _Padding(figure, point)
    heads = [before[i] + n.sign + n.whole if n else "" for i, n in enumerate(numbers)]
    tails = [_tail(n, escape(n.unit + n.mark) + after[i]) if n else ("", "", "") for i, n in enumerate(numbers)]
    middles = [tail[0] for n, tail in zip(numbers, tails, strict=True) if n and n.spread]
    spreads = [tail[1] for tail in tails]
    longest = max(middles, key=len, default="")
    joined = []
    for number, (middle, spread, end) in zip(numbers, tails, strict=True):
        if number is not None and number.spread:
            middle = pad.right(middle, longest) + " ± " + figure * (max(map(len, spreads)) - len(spread)) + spread
        joined.append(middle + end)
    widest = max(joined, key=len)
    most = max(map(len, heads))
    return [
        framed[i] if number is None else figure * (most - len(heads[i])) + heads[i] + pad.right(joined[i], widest)
        for i, number in enumerate(numbers)
    ]


def _tail(number: Number, end: str) -> tuple[str, str, str]:
    """What follows the whole part: as far as `±`, from there to the decimal point, and the rest."""
    exponent = f"e{number.exponent}" if number.exponent else ""
    if number.spread is None:
        return number.fraction + exponent, "", end
    return number.fraction + exponent, number.spread[0], number.spread[1] + end


@dataclass(frozen=True)
class _Padding:
    figure: str
    point: str

    def right(self, text: str, widest: str) -> str:
        missing = widest[len(text) :]
        return text + "".join(self.point if char == "." else self.figure for char in missing)
