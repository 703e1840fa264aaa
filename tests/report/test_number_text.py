from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.report.number_text import (
    duration,
    number,
    percent,
    plus_minus,
    quantity,
    rate,
    significant,
    size,
    sparsity,
)


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
    assert str(duration(seconds)) == text


def in_seconds(text: str) -> float:
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    return sum(float(count) * units[unit] for count, unit in re.findall(r"([\d.]+) (\w+)", text))


@given(st.floats(0, 1e7))
def test_a_duration_is_right_to_its_smaller_unit(seconds: float) -> None:
    smaller = 0.051 if seconds < 9.95 else 0.51 if seconds < 3600 else 60.5 if seconds < 86400 else 3600.5
    assert abs(in_seconds(str(duration(seconds))) - seconds) <= smaller


@pytest.mark.parametrize(
    ("fraction", "text"),
    [(0.9731, "97.31"), (1.0, "100.00"), (0.0, "0.00"), (0.12345, "12.35"), (0.99996, "100.00"), (None, "–")],
)
def test_an_accuracy_is_a_percentage_with_two_decimals(fraction: float | None, text: str) -> None:
    assert str(percent(fraction)) == text


def test_a_percentage_has_the_decimals_asked_for() -> None:
    assert (str(percent(0.5, 0)), str(percent(0.12345, 1))) == ("50", "12.3")


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "90 %"), (0.95, "95 %"), (0.965, "96.5 %"), (0.998, "99.8 %"), (0.0, "0 %"), (1 - 0.1, "90 %"),
     (0.1 + 0.2, "30 %"), (0.99995, "99.995 %")],
)  # fmt: skip
def test_a_sparsity_is_a_percentage_without_float_dust(value: float, text: str) -> None:
    assert str(sparsity(value)) == text


@given(st.integers(0, 9999), st.integers(0, 9999))
def test_different_sparsities_are_told_apart(first: int, second: int) -> None:
    assert (sparsity(first / 10_000) == sparsity(second / 10_000)) == (first == second)


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(None, 3, "–"), (0, 3, "0"), (7, 3, "7"), (1500, 3, "1,500"), (0.1, 3, "0.1"), (0.10727, 3, "0.107"),
     (0.004426, 4, "0.004426"), (51.0, 4, "51"), (54.5454, 4, "54.55")],
)  # fmt: skip
def test_a_number_has_its_significant_digits_and_no_tail(value: float | None, digits: int, text: str) -> None:
    assert str(number(value, digits)) == text


@pytest.mark.parametrize("value", [1341.47, 999.9, 25_000.0])
def test_a_large_number_is_written_out_not_with_an_exponent(value: float) -> None:
    text = str(number(value))
    assert "e" not in text
    assert float(text.replace(",", "")) == pytest.approx(value, rel=0.005)


@pytest.mark.parametrize(("value", "text"), [(0.314, "0.31"), (1.0, "1.00"), (0.096, "0.10"), (None, "–")])
def test_a_rate_has_two_decimals(value: float | None, text: str) -> None:
    assert str(rate(value)) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (798_367_744, "798 MB"), (1_234_000_000, "1.23 GB"),
     (5_000_000_000_000, "5 TB"), (None, "–")],
)  # fmt: skip
def test_a_size_is_told_in_the_unit_that_fits(count: int | None, text: str) -> None:
    assert str(size(count)) == text


@pytest.mark.parametrize("count", [999_600, 999_900_000, 999_999_999_999])
def test_a_size_just_below_a_unit_is_written_out(count: int) -> None:
    assert "e" not in str(size(count))


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (None, "", "–"), (float("inf"), "", "–"), (0, "J", "0 J"), (84_000.0, "", "84 k"), (1.532e9, "", "1.53 G"),
        (999.4, "J", "999 J"), (999.6, "J", "1 kJ"), (3.2e18, "", "3.2 E"), (4.5e25, "", "45,000 Z"),
    ],
)  # fmt: skip
def test_large_quantities_have_a_prefix_and_a_unit(value: float | None, unit: str, text: str) -> None:
    assert str(quantity(value, unit)) == text


@pytest.mark.parametrize(
    ("mean", "std", "digits", "text"),
    [
        (96.851, 0.853, None, "96.85 ± 0.85"), (96.851, None, None, "96.85"), (94.0, 0.0, None, "94.00 ± 0.00"),
        (96.851, 0.853, 1, "96.9 ± 0.9"), (96.851, 0.853, 2, "96.85 ± 0.85"), (60.46, 4.01, 1, "60 ± 4"),
        (60.46, 4.01, 2, "60.5 ± 4.0"), (96.85, 0.0996, 1, "96.8 ± 0.1"), (96.85, 0.0996, 2, "96.85 ± 0.10"),
        (96.85, 9.96, 2, "97 ± 10"), (1234.5, 56.7, 1, "1,230 ± 60"), (0.5, 0.00012, 1, "0.5000 ± 0.0001"),
        (96.851, None, 1, "96.85"), (94.0, 0.0, 1, "94.00 ± 0.00"),
    ],
)  # fmt: skip
def test_a_mean_is_rounded_to_the_place_of_its_deviations_digits(
    mean: float, std: float | None, digits: int | None, text: str
) -> None:
    assert str(plus_minus(mean, std, digits)) == text


@pytest.mark.parametrize(
    ("mean", "std", "digits", "text"),
    [(0.10727, None, None, "0.107"), (0.10727, 0.0123, None, "0.107 ± 0.012"), (0.10727, 0.0123, 1, "0.11 ± 0.01"),
     (1500.0, 0.0, None, "1,500")],
)  # fmt: skip
def test_a_number_without_usual_decimals_has_those_of_its_deviation(
    mean: float, std: float | None, digits: int | None, text: str
) -> None:
    assert str(plus_minus(mean, std or None, digits, decimals=None)) == text


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e6), st.integers(1, 6))
def test_a_deviation_has_the_digits_asked_for_and_both_are_right_to_its_place(
    mean: float, std: float, digits: int
) -> None:
    shown_mean, shown_std = (part.replace(",", "") for part in str(plus_minus(mean, std, digits)).split(" ± "))
    assert float(shown_std) == pytest.approx(std, rel=0.51 * 10.0 ** (1 - digits))
    place = 10.0 ** (math.floor(math.log10(float(shown_std))) - digits + 1)
    assert abs(float(shown_mean) - mean) <= 0.501 * place
    assert len(shown_mean.partition(".")[2]) == len(shown_std.partition(".")[2])


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(97.314, 3, "97.3"), (100.0, 3, "100"), (99.96, 3, "100"), (0.5, 3, "0.500"), (0.0, 2, "0.0"),
     (1234567.0, 2, "1,200,000"), (0.00123, 1, "0.001"), (None, 2, "–")],
)  # fmt: skip
def test_a_measured_number_keeps_its_zeros(value: float | None, digits: int, text: str) -> None:
    assert str(significant(value, digits)) == text
