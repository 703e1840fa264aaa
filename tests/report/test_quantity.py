"""Values of cells, against their text read back by regular expressions (`tests.report.written`)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.api.project import Project
from itopctl.report import number_text as words
from itopctl.report.fields import shown, shown_mean
from itopctl.report.formats.numbers import align, in_line
from itopctl.report.kinds import TABLES
from itopctl.report.quantity import MISSING, Digits, Quantity
from itopctl.report.table import Table
from itopctl.schema import Run, Unit, fields_of
from tests.cli.test_stored_folders import FOLDERS
from tests.report.test_formats import reports
from tests.report.written import lines_up, parse, sort_value

_reals = st.floats(-1e15, 1e15)
_positive = st.floats(0, 1e15)
_digits = st.none() | st.integers(1, 5)
_NUMBERS = [
    name for name, field in fields_of(Run).items() if field.unit is not Unit.NONE or field.kind.__origin__ is float
]  # fmt: skip


def quantities() -> st.SearchStrategy[Quantity]:
    """Whatever the report shows as a number."""
    plain = st.one_of(
        st.builds(words.percent, st.floats(0, 1) | st.none(), st.integers(0, 4)),
        st.builds(words.mean_and_spread, st.floats(0, 1), st.none() | st.floats(0, 1), _digits),
        st.builds(words.plus_minus, _reals, st.none() | _positive, _digits, st.none() | st.integers(0, 4)),
        st.builds(words.significant, _reals, st.integers(1, 5)),
        st.builds(words.number, _reals | st.integers(-(10**9), 10**9), st.integers(1, 5)),
        st.builds(words.rate, _reals, st.sampled_from(["", "×"])),
        st.builds(words.sparsity, st.floats(0, 1)),
        st.builds(words.duration, st.floats(0, 1e9)),
        st.builds(words.quantity, _positive, st.sampled_from(["", "J"]), st.integers(1, 5)),
        st.builds(words.size, st.integers(0, 10**15)),
        st.builds(shown_mean, st.sampled_from(_NUMBERS), _positive, st.none() | _positive, _digits),
        st.just(MISSING),
    )
    before, after = st.sampled_from(["", "≤ ", "≈ ", "< "]), st.sampled_from(["", " (2 of 3)", " [−1.25, +3.50]"])
    known = plain.filter(lambda number: number.value is not None)  # nothing stands beside what is not known
    beside = st.builds(lambda number, b, a: number.within(b, a), known, before, after)
    return st.builds(lambda number, mark: number.marked(mark), plain | beside, st.sampled_from(["", "*"]))


def assert_says_what_it_is(number: Quantity) -> None:
    text, found = str(number), sort_value(str(number))
    if number.value is None or found is None:
        assert number.value is found, text
    else:
        assert math.isclose(number.value, found, rel_tol=1e-12), text
    assert number.lines_up == (parse(text) is not None), text
    if number.lines_up:
        assert parse(text) == replace(number, value=found)


@given(quantities())
def test_the_value_of_a_number_is_what_its_text_says(number: Quantity) -> None:
    assert_says_what_it_is(number)
    if number.bare:
        assert float(str(number)) == number.value


@given(st.sampled_from(_NUMBERS), _positive, _digits)
def test_whatever_a_run_measures_its_value_is_what_its_text_says(name: str, value: float, digits: int | None) -> None:
    number = shown(name, value, digits)
    assert isinstance(number, Quantity)
    assert_says_what_it_is(number)


@pytest.mark.parametrize("make", [words.percent, words.rate, words.duration, words.quantity, words.number,
                                  words.sparsity, lambda x: words.size(round(x)), words.plus_minus])  # fmt: skip
@given(first=st.floats(0, 1e12), second=st.floats(0, 1e12))
def test_numbers_have_the_order_of_what_they_are_made_from(make, first: float, second: float) -> None:  # type: ignore[no-untyped-def]
    lower, higher = sorted((first, second))
    arguments = (None,) if make is words.plus_minus else ()
    assert make(lower, *arguments).value <= make(higher, *arguments).value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_has_no_value(value: float) -> None:
    number = Quantity.of(value, ".2f")
    assert number.value is None and not number.lines_up and str(number) == f"{value:.2f}"


@given(quantities().filter(lambda number: number.value is not None))
def test_the_parts_of_written_digits_are_the_digits(number: Quantity) -> None:
    for text in filter(None, (number.digits, number.spread)):
        digits = Digits.of(text)
        exponent = f"e{digits.exponent}" if digits.exponent else ""
        assert f"{digits.sign}{digits.whole}{digits.fraction}{exponent}" == text
        assert digits.whole.replace(",", "").isdigit()


# Lining up, against the way it is found from texts ----------------------------------------------------------------


def aligned_by_text(texts: list[str], before: list[str], after: list[str]) -> list[str]:
    """What `align` does, from the text alone: numbers cut at their decimal points, and at `±`."""
    framed = [b + text + a for b, text, a in zip(before, texts, after, strict=True)]
    numbers = [parse(text) for text in texts]
    known = [number for number in numbers if number]
    if not known or len({number.unit for number in known}) > 1 or not all(map(lines_up, texts)):
        return framed
    cut: list[tuple[str, str, str, str] | None] = []
    for number, b, a in zip(numbers, before, after, strict=True):
        if number is None:
            cut.append(None)
            continue
        mean, spread = number.digits.partition("."), number.spread.partition(".")
        exponent = mean[0].partition("e") if not mean[1] else ("", "", "")
        whole, rest = (exponent[0], exponent[1] + exponent[2]) if exponent[1] else (mean[0], mean[1] + mean[2])
        end = number.unit + number.mark + a
        cut.append((b + whole, rest, spread[0], spread[1] + spread[2] + end if number.spread else end))
    shown = [one for one in cut if one]
    middle = max((len(one[1]) for one in shown if one[2]), default=0)
    spread_width = max(len(one[2]) for one in shown)
    tails = [
        (f"{one[1]:<{middle}} ± {one[2]:>{spread_width}}" if one[2] else one[1]) + one[3] if one else "" for one in cut
    ]
    head, tail = max(len(one[0]) for one in shown), max(map(len, tails))
    return [
        f"{one[0]:>{head}}{end:<{tail}}" if one else text for one, end, text in zip(cut, tails, framed, strict=True)
    ]


@given(st.lists(st.tuples(quantities(), st.sampled_from(["", "★ "])), min_size=1, max_size=6))
def test_numbers_line_up_as_they_do_when_their_texts_are_read(cells: list[tuple[Quantity, str]]) -> None:
    numbers, before = [number for number, _ in cells], [sign for _, sign in cells]
    texts, after = list(map(str, numbers)), [""] * len(cells)
    assert align(numbers, texts, before, after) == aligned_by_text(texts, before, after)


# The tables of all stored folders ---------------------------------------------------------------------------------


def stored_tables(folder: Path) -> Iterator[Table]:
    project = Project(folder, tell=lambda sentence: None)
    for kind in TABLES:
        yield from project.report(table=kind).tables


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_the_tables_of_stored_folders_carry_is_what_they_show(folder: str, tmp_path: Path) -> None:
    shutil.copytree(FOLDERS[folder], tmp_path / "results")
    found = [*stored_tables(tmp_path / "results"), *(table for tables in reports().values() for table in tables)]
    assert len(found) > 7
    for table in found:
        for place, column in enumerate(table.columns):
            values = [row[place].value for row in table.rows]
            for value in values:
                if isinstance(value, Quantity):
                    assert_says_what_it_is(value)
                elif column.align == "right":
                    assert sort_value(value) is None, (table.title, column.header, value)
            if column.align == "right":
                texts = [str(value) for value in values]
                units = {number.unit for number in map(parse, texts) if number}
                assert bool(in_line(values)) == (len(units) == 1 and all(map(lines_up, texts)))
