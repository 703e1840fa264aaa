from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.report.statistics import Summary, summarise

FRACTIONS = st.floats(0, 1)


def test_nothing_has_no_summary() -> None:
    assert summarise([]) is None


def test_one_value_has_no_deviation() -> None:
    assert summarise([0.5]) == Summary(0.5, None, 1)


def test_the_deviation_is_that_of_a_sample() -> None:
    """2, 4, 4, 4, 5, 5, 7, 9: mean 5, squared distances 32, over n − 1 = 7."""
    summary = summarise([2, 4, 4, 4, 5, 5, 7, 9])
    assert summary is not None
    assert (summary.mean, summary.n) == (5.0, 8)
    assert summary.std == pytest.approx((32 / 7) ** 0.5)


@pytest.mark.parametrize(("value", "count"), [(0.1, 10), (0.4, 3), (0.9611, 3)])
def test_equal_values_are_their_mean_and_have_no_spread_at_all(value: float, count: int) -> None:
    assert summarise([value] * count) == Summary(value, 0.0, count)


@given(st.lists(FRACTIONS, min_size=2, max_size=20))
def test_mean_and_deviation_are_those_of_the_standard_library(values: list[float]) -> None:
    summary = summarise(values)
    assert summary is not None and summary.n == len(values)
    assert summary.mean == pytest.approx(statistics.fmean(values), abs=1e-12)
    assert summary.std == pytest.approx(statistics.stdev(values), abs=1e-9)


@given(st.lists(FRACTIONS, min_size=2, max_size=10), st.randoms(use_true_random=False))
def test_the_order_of_the_seeds_does_not_matter(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    before, after = summarise(values), summarise(shuffled)
    assert before is not None and after is not None
    assert (before.mean, before.n) == (after.mean, after.n)
    assert before.std == pytest.approx(after.std, abs=1e-15)
