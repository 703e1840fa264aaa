"""A column of a LaTeX table: how it is specified, how wide it is about, and its cells."""

from __future__ import annotations

import re
from collections.abc import Sequence

from itopctl.report.formats.characters import clean
from itopctl.report.formats.latex_text import latex_escape, unknown_characters
from itopctl.report.formats.numbers import in_line
from itopctl.report.quantity import Digits, Quantity
from itopctl.report.table import Cell, Column

_WIDEST_TEXT = 16.0  # em; longer texts are set as paragraphs of this width
_LESSER_TEXT = 7.5  # em; lesser lines may at least be so wide, whatever is above them
_SMALLER = 0.88  # type of lesser lines against that of the table
_UNITS = {"×": r"$\times$"}
# Computer Modern Roman, in em: those much narrower and wider than a digit, and what stands by its number.
_WIDTHS = dict.fromkeys("ijl.,:;'|!", 0.28) | dict.fromkeys("frtsI()[]-", 0.39) | dict.fromkeys("mM%@W±×+=<>ζΔ–", 0.85)
_DIGIT, _CAPITAL, _BY_NUMBER, _SIGN, _POINT, _PLUS_MINUS, _POWER = 0.5, 0.74, 2.7, 0.78, 0.28, 1.25, 2.0
_SURE = 1.03  # of letters that are wider than thought


class LatexColumn:
    """A column as it is set.

    Attributes:
        key: whether it says which row it is.
        header: its lines.
        seconds: the lines of the lesser text of each cell.
        numbers: those of its cells, where it is a column of numbers; else None.
        has_best, has_zero_spread: whether any cell is marked, and any number `± 0`.
        width: about, in em.
    """

    def __init__(self, column: Column, cells: Sequence[Cell]) -> None:
        self.column, self.cells, self.key = column, cells, column.key
        self.texts = [clean(cell.text).strip() for cell in cells]
        self.numbers = _numbers(cells) if column.align == "right" else None
        self.has_best = any(cell.best for cell in cells)
        spreads = [_ungrouped(number.spread) for number in self._numbers() if number and number.spread]
        self.has_zero_spread = any(not float(spread) for spread in spreads)
        body = max((_em(text) for text, n in zip(self.texts, self._numbers(), strict=True) if n is None), default=0.0)
        self._format = _Format(self.numbers) if self.numbers else None
        if self._format:
            body = max(body, self._format.width)
        self.paragraph = body > _WIDEST_TEXT and self.numbers is None
        body = min(body, _WIDEST_TEXT) if self.paragraph else body
        self.seconds = [_wrapped(clean(cell.second), max(body, _LESSER_TEXT) / _SMALLER) for cell in cells]
        body = max([body, *(_SMALLER * _em(line) for lines in self.seconds for line in lines)])
        header = clean(column.header)
        self.header = _wrapped(header, max([body, *map(_em, header.split())])) or [""]
        self.width = max([body, *map(_em, self.header)])

    def _numbers(self) -> Sequence[Quantity | None]:
        return self.numbers or [None] * len(self.cells)

    @property
    def specification(self) -> str:
        """What stands for it in the argument of `tabular`."""
        if self._format:
            return self._format.specification
        if not self.paragraph:
            return {"left": "l", "right": "r", "center": "c"}[self.column.align]
        command = {"left": "raggedright", "right": "raggedleft", "center": "centering"}[self.column.align]
        return f">{{\\{command}\\arraybackslash}}p{{{_WIDEST_TEXT:g}em}}"  # `array`, which siunitx brings

    def head(self, line: int) -> str:
        """A line of the heading; nothing above its first."""
        return self._braced(latex_escape(self.header[line])) if line >= 0 else ""

    def height(self, row: int) -> float:
        """Lines that a row takes."""
        lines = 1 + int(1.2 * _em(self.texts[row]) / _WIDEST_TEXT) * self.paragraph
        return lines + (len(self.seconds[row]) + 0.4 if self.seconds[row] else 0.0)

    def first(self, row: int) -> str:
        """A cell."""
        best, number = self.cells[row].best, self._numbers()[row]
        if number is None:
            text = latex_escape(self.texts[row], breakable=self.paragraph)
            return self._braced(f"\\textbf{{{text}}}" if best and text else text)
        return (r"\best " if best else "") + _input(number)

    def second(self, row: int, line: int, size: str) -> str:
        """A line of the lesser text of a cell, in type of a size; nothing below its last."""
        lines = self.seconds[row]
        return f"{{{size} {latex_escape(lines[line])}}}" if line < len(lines) else ""

    def _braced(self, text: str) -> str:
        """What siunitx is not to read as a number."""
        return f"{{{text}}}" if self.numbers and text else text


def _numbers(cells: Sequence[Cell]) -> list[Quantity | None] | None:
    """The numbers of a column that siunitx can set: with as many decimals in what comes after `±` as before it."""
    numbers = in_line([cell.value for cell in cells])
    return None if any(n and n.spread and _is_uneven(n) for n in numbers or []) else numbers


def _is_uneven(number: Quantity) -> bool:
    digits = Digits.of(number.digits)
    return bool(digits.exponent) or len(digits.fraction) != len(Digits.of(number.spread).fraction)


def _ungrouped(digits: str) -> str:
    return digits.replace(",", "")


def _input(number: Quantity) -> str:
    """A number as siunitx reads it."""
    digits, after = Digits.of(_ungrouped(number.digits)), _after(number)
    exponent = f"e{int(digits.exponent)}" if digits.exponent else ""
    spread = f" +- {_ungrouped(number.spread)}" if number.spread else ""
    sign = digits.sign.replace("−", "-")
    return f"{sign}{digits.whole}{digits.fraction}{exponent}{spread}{f'{{{after}}}' if after else ''}"


def _after(number: Quantity) -> str:
    unit = number.unit.strip()
    space = r"\," if number.unit.startswith(" ") else ""
    return space + _UNITS.get(unit, latex_escape(unit)) + latex_escape(number.mark)


class _Format:
    """Room for the numbers of a column."""

    def __init__(self, numbers: Sequence[Quantity | None]) -> None:
        known = [number for number in numbers if number is not None]
        digits = [Digits.of(_ungrouped(number.digits)) for number in known]
        spreads = [_ungrouped(number.spread) for number in known if number.spread]
        self.whole = max(len(one.whole) for one in digits)
        self.fraction = max(len(one.fraction.removeprefix(".")) for one in digits)
        self.spread = max((len(spread.replace(".", "").lstrip("0")) or 1 for spread in spreads), default=0)
        self.spread_width = max(map(len, spreads), default=0)
        self.exponent = max(
            (len(one.exponent.lstrip("+-").lstrip("0")) or 1 for one in digits if one.exponent), default=0
        )
        self.sign = any(one.sign for one in digits)
        self.negative_exponent = any(one.exponent.startswith("-") for one in digits)
        self.after, self.after_width = max(
            ((_after(number), _em(number.unit + number.mark)) for number in known), key=lambda pair: pair[1]
        )

    @property
    def specification(self) -> str:
        room = f"{'+' * self.sign}{self.whole}.{self.fraction}"
        room += f"({self.spread})" if self.spread else ""
        room += f"e{'-' * self.negative_exponent}{self.exponent}" if self.exponent else ""
        after = f", table-space-text-post = {{{self.after}}}" if self.after else ""
        return f"S[table-format = {room}{after}]"

    @property
    def width(self) -> float:
        """In em."""
        width = _DIGIT * (self.whole + self.fraction) + _POINT * (self.fraction > 0) + _SIGN * self.sign
        width += _POINT * ((self.whole - 1) // 3) * (self.whole > 3)
        width += _PLUS_MINUS + _DIGIT * self.spread_width if self.spread else 0.0
        width += _POWER + _DIGIT * self.exponent if self.exponent else 0.0
        return width + self.after_width


def _em(text: str) -> float:
    """About how wide a text is."""
    unknown = set(unknown_characters(text))
    return _SURE * sum(
        _BY_NUMBER if char in unknown else _WIDTHS.get(char, _CAPITAL if char.isupper() else _DIGIT) for char in text
    )


def _wrapped(text: str, width: float) -> list[str]:
    """A text in lines, not much wider than its column; a number stays with its sign of per cent, a name with it."""
    lines: list[str] = []
    for word in re.findall(r"[\d.]+ %|(?:R_s|ΔT|ζ|n|lr|ours) [\d.+*−-]+,?|\S+", text):
        if lines and _em(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
