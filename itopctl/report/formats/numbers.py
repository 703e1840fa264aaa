"""How the numbers of a column line up at the decimal point."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from itopctl.report.quantity import Digits, Quantity


def in_line(values: Sequence[str | Quantity]) -> list[Quantity | None] | None:
    """The numbers of a column, where it is one of numbers of one unit; None where it is not.

    Texts, and numbers that are not known, may stand among them. `3 min 20 s`, intervals and the like, which have more
    than one decimal point to line up, or different ones, make it a column of text.
    """
    known = [value for value in values if isinstance(value, Quantity) and value.value is not None]
    if not known or len({number.unit for number in known}) > 1 or not all(number.lines_up for number in known):
        return None
    return [value if isinstance(value, Quantity) and value.value is not None else None for value in values]


def align(
    values: Sequence[str | Quantity],
    texts: Sequence[str],
    before: Sequence[str],
    after: Sequence[str],
    escape: Callable[[str], str] = str,
    figure: str = " ",
    point: str = " ",
) -> list[str]:
    """The cells of a column of numbers with what pads them to line up at the decimal points, and at `±`.

    Numbers come out equally wide, to be set flush right. Anything else comes out as it is, and so does all where the
    column is not one of numbers (`in_line`).

    Args:
        values: of the cells.
        texts: what they are shown as where they do not line up.
        before, after: what goes in front of each and behind it, such as the signs of bold.
        escape: what a format does to text.
        figure, point: what stands for a digit that is not there, and for a decimal point.
    """
    framed = [b + escape(text) + a for b, text, a in zip(before, texts, after, strict=True)]
    numbers = in_line(values)
    if numbers is None:
        return framed

    def padded(text: str, widest: str) -> str:
        return text + "".join(point if char == "." else figure for char in widest[len(text) :])

    parts = [
        _parts(number, b, escape, a) if number else ("", "", "", "")
        for number, b, a in zip(numbers, before, after, strict=True)
    ]
    longest = max((middle for _, middle, spread, _ in parts if spread), key=len, default="")
    widest_spread = max(len(spread) for _, _, spread, _ in parts)
    tails = [
        (f"{padded(middle, longest)} ± {spread.rjust(widest_spread, figure)}" if spread else middle) + end
        for _, middle, spread, end in parts
    ]
    widest, most = max(tails, key=len), max(len(head) for head, *_ in parts)
    return [
        head.rjust(most, figure) + padded(tail, widest) if number else text
        for number, (head, *_), tail, text in zip(numbers, parts, tails, framed, strict=True)
    ]


def _parts(number: Quantity, before: str, escape: Callable[[str], str], after: str) -> tuple[str, str, str, str]:
    """A number up to its decimal point, from there to `±`, from there to the next decimal point, and the rest."""
    digits = Digits.of(number.digits)
    head, middle = (
        before + digits.sign + digits.whole,
        digits.fraction + ("e" + digits.exponent) * bool(digits.exponent),
    )
    end = escape(number.unit + number.mark) + after
    if not number.spread:
        return head, middle, "", end
    spread = Digits.of(number.spread)
    return head, middle, spread.whole, spread.fraction + end
