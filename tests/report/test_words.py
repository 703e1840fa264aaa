from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.report.words import duration, number, percent, quantity, rate, size, sparsity


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"), (0.84, "0.8 s"), (9.94, "9.9 s"), (9.96, "10 s"), (42.4, "42 s"), (59.4, "59 s"),
        (59.6, "1 min 00 s"), (200, "3 min 20 s"), (3599, "59 min 59 s"), (3599.7, "1 h 00 min"), (3600, "1 h 00 min"),
        (7500, "2 h 05 min"), (86399, "23 h 59 min"), (86400, "1 d 0 h"), (273600, "3 d 4 h"), (8_640_000, "100 d 0 h"),
        (None, "–"), (float("inf"), "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_a_duration_is_told_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def in_seconds(text: str) -> float:
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"([\d.]+) (\w+)", text))


@given(st.floats(0, 1e7))
def test_a_duration_is_right_to_its_smaller_unit(seconds: float) -> None:
    smaller = 0.051 if seconds < 9.95 else 0.51 if seconds < 3600 else 60.5 if seconds < 86400 else 3600.5
    assert abs(in_seconds(duration(seconds)) - seconds) <= smaller


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.9731, "97.31"), (1.0, "100.00"), (0.0, "0.00"), (0.12345, "12.35"), (0.99996, "100.00"), (None, "–")],
)
def test_an_accuracy_is_a_percentage_with_two_decimals(fraction: float | None, text: str) -> None:
    assert percent(fraction) == text


def test_a_percentage_has_the_decimals_asked_for() -> None:
    assert (percent(0.5, 0), percent(0.12345, 1)) == ("50", "12.3")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "90 %"), (0.95, "95 %"), (0.965, "96.5 %"), (0.998, "99.8 %"), (0.0, "0 %"), (1 - 0.1, "90 %"),
     (0.1 + 0.2, "30 %"), (0.99995, "99.995 %")],
)  # fmt: skip
def test_a_sparsity_is_a_percentage_without_float_dust(value: float, text: str) -> None:
    assert sparsity(value) == text


@given(st.integers(0, 9999), st.integers(0, 9999))
def test_different_sparsities_are_told_apart(first: int, second: int) -> None:
    assert (sparsity(first / 10_000) == sparsity(second / 10_000)) == (first == second)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 3, "–"), (0, 3, "0"), (7, 3, "7"), (1500, 3, "1,500"), (0.1, 3, "0.1"), (0.10727, 3, "0.107"),
     (0.004426, 4, "0.004426"), (51.0, 4, "51"), (54.5454, 4, "54.55")],
)  # fmt: skip
def test_a_number_has_its_significant_digits_and_no_tail(value: float | None, digits: int, text: str) -> None:
    assert number(value, digits) == text


@pytest.mark.parametrize("value", [1341.47, 999.9, 25_000.0])
def test_a_large_number_is_written_out_not_with_an_exponent(value: float) -> None:
    text = number(value)
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(("value", "text"), [(0.314, "0.31"), (1.0, "1.00"), (0.096, "0.10"), (None, "–")])
def test_a_rate_has_two_decimals(value: float | None, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (798_367_744, "798 MB"), (1_234_000_000, "1.23 GB"),
     (5_000_000_000_000, "5 TB"), (None, "–")],
)  # fmt: skip
def test_a_size_is_told_in_the_unit_that_fits(count: int | None, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize("count", [999_600, 999_900_000, 999_999_999_999])
def test_a_size_just_below_a_unit_is_written_out(count: int) -> None:
    assert "e" not in size(count)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "–"), (float("inf"), "", "–"), (0, "J", "0 J"), (84_000.0, "", "84 k"), (1.532e9, "", "1.53 G"),
        (999.4, "J", "999 J"), (999.6, "J", "1 kJ"), (3.2e18, "", "3.2 E"), (4.5e25, "", "45,000 Z"),
    ],
)  # fmt: skip
def test_large_quantities_have_a_prefix_and_a_unit(value: float | None, unit: str, text: str) -> None:
    assert quantity(value, unit) == text
