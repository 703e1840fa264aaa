from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from itopctl.report.statistics import (
    Difference,
    Summary,
    average_difference,
    holm,
    paired_difference,
    paired_differences,
    seeds_needed,
    summarise,
    welch_difference,
)

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


# Differences ------------------------------------------------------------------------------------------------

SLEEP_FIRST = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SLEEP_SECOND = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))


def found(difference: Difference | None) -> Difference:
    assert difference is not None
    return difference


def test_students_own_sleep_data_give_the_published_paired_t() -> None:
    """Student 1908, Biometrika 6: mean 1.58, t 4.06 with 9 degrees of freedom; in R, p 0.002833, 0.700 to 2.460."""
    difference = found(paired_difference(SLEEP_SECOND, SLEEP_FIRST))
    assert (difference.n, difference.df, difference.test) == (10, 9, "paired t")
    assert difference.estimate == pytest.approx(1.58)
    assert difference.estimate / difference.error == pytest.approx(4.0621, abs=1e-4)
    assert difference.p_two_sided(0.0) == pytest.approx(0.002833, abs=1e-6)
    assert difference.interval(0.95) == pytest.approx((0.7001142, 2.4598858), abs=1e-6)


def test_the_sleep_data_unpaired_give_the_published_welch_t() -> None:
    """R's `t.test(extra ~ group)`: t −1.8608, df 17.776, p 0.07939, −3.3654832 to 0.2054832."""
    difference = found(welch_difference(list(SLEEP_FIRST.values()), list(SLEEP_SECOND.values())))
    assert difference.test == "Welch t" and difference.df == pytest.approx(17.776, abs=1e-3)
    assert difference.estimate / difference.error == pytest.approx(-1.8608, abs=1e-4)
    assert difference.p_two_sided(0.0) == pytest.approx(0.07939, abs=1e-5)
    assert difference.interval(0.95) == pytest.approx((-3.3654832, 0.2054832), abs=1e-6)


def test_the_interval_and_the_two_one_sided_tests_say_the_same() -> None:
    """Mean 0.2, standard error 0.1, 2 degrees of freedom: t at 97.5 % is 4.303, so ±0.4303."""
    difference = Difference(0.2, 0.1, 2, 3, "paired t")
    low, high = difference.interval(0.95) or (0.0, 0.0)
    assert (low, high) == pytest.approx((-0.2303, 0.6303), abs=1e-4)
    assert difference.p_above(low) == pytest.approx(0.025) == difference.p_below(high)


def test_only_seeds_that_both_have_are_paired() -> None:
    assert paired_differences({0: 0.9, 1: 0.8, 5: 0.1}, {5: 0.3, 0: 0.7, 9: 0.0}) == {0: 0.2, 5: -0.2}
    assert paired_difference({0: 0.9, 1: 0.8}, {1: 0.7, 2: 0.6}) is None


def test_equal_differences_are_judged_by_their_number_alone() -> None:
    """Three equal differences are no certainty: 2 · 0.5³ = 0.25; ten are 2 · 0.5¹⁰ = 0.002."""
    three = found(paired_difference(dict.fromkeys(range(3), 0.9), dict.fromkeys(range(3), 0.8)))
    assert three.error == 0 and three.p_two_sided(0.0) == 0.25 and three.interval(0.95) is None
    ten = found(paired_difference(dict.fromkeys(range(10), 0.9), dict.fromkeys(range(10), 0.8)))
    assert ten.p_two_sided(0.0) == pytest.approx(2 / 1024) and ten.interval(0.95) == (0.1, 0.1)
    assert three.needed(0.0, 0.05) == 6  # 2 · 0.5⁶ = 0.031 is the first at most 0.05
    assert found(welch_difference([0.9] * 3, [0.8] * 4)).p_above(0.0) == 0.125


def test_no_difference_at_all_is_no_evidence_either_way() -> None:
    same = found(paired_difference(dict.fromkeys(range(4), 0.9), dict.fromkeys(range(4), 0.9)))
    assert same.p_two_sided(0.0) == 1.0 and same.needed(0.0, 0.05) is None


SEEDS = st.dictionaries(st.integers(0, 9), st.floats(0, 1), min_size=2, max_size=8)


@given(SEEDS, SEEDS, st.floats(-1, 1))
def test_the_opposite_difference_is_judged_oppositely(
    one: dict[int, float], two: dict[int, float], bound: float
) -> None:
    for make in (paired_difference, lambda a, b: welch_difference(list(a.values()), list(b.values()))):
        there, back = make(one, two), make(two, one)
        if there is None or back is None:
            continue
        assert there.estimate == pytest.approx(-back.estimate, abs=1e-12)
        assert there.p_above(bound) == pytest.approx(back.p_below(-bound), abs=1e-9)
        assert 0 <= there.p_two_sided(bound) <= 1


@given(st.lists(SEEDS, min_size=1, max_size=4))
def test_the_average_of_comparisons_does_not_depend_on_their_order(comparisons: list[dict[int, float]]) -> None:
    there, back = found(average_difference(comparisons)), found(average_difference(comparisons[::-1]))
    assert there.estimate == pytest.approx(back.estimate, abs=1e-12)
    assert there.error == pytest.approx(back.error, abs=1e-12) and there.df == back.df


def test_where_every_comparison_has_all_seeds_their_average_is_a_paired_t_test_of_the_seeds_averages() -> None:
    comparisons = [{0: 0.1, 1: 0.2, 2: 0.4}, {0: 0.3, 1: -0.2, 2: 0.1}, {0: 0.0, 1: 0.1, 2: 0.2}]
    averages = {seed: statistics.mean(values[seed] for values in comparisons) for seed in range(3)}
    direct = found(paired_difference(averages, dict.fromkeys(range(3), 0.0)))
    average = found(average_difference(comparisons))
    assert (average.estimate, average.error) == pytest.approx((direct.estimate, direct.error))
    assert (average.df, average.n) == (2, 3)


def test_an_average_over_one_seed_is_no_average() -> None:
    assert average_difference([{0: 0.1}, {0: 0.2}]) is None


# Correction -------------------------------------------------------------------------------------------------


def test_holm_by_hand() -> None:
    """0.01, 0.02, 0.03, 0.05: times 4, 3, 2, 1 is 0.04, 0.06, 0.06, 0.05; none below the one before it."""
    assert holm([0.03, 0.01, 0.05, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([]) == [] and holm([0.2]) == [0.2] and holm([0.9, 0.8]) == [1.0, 1.0]


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(P_VALUES)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float]) -> None:
    """The procedure as Holm wrote it: from the smallest on, while p ≤ α / (how many are left)."""
    rejected = set()
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        if p_values[index] * (len(p_values) - rank) > 0.05:
            break
        rejected.add(index)
    assert {i for i, p in enumerate(holm(p_values)) if p <= 0.05} == rejected


@given(P_VALUES)
def test_holm_lies_between_no_correction_and_bonferroni(p_values: list[float]) -> None:
    for p, corrected in zip(p_values, holm(p_values), strict=True):
        assert p <= corrected <= min(1.0, p * len(p_values))


# Power ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_the_number_of_pairs_is_that_of_the_tables(effect: float, pairs: int) -> None:
    """Of a two-sided paired t test at 5 % with a power of 80 % (G*Power 3.1; Cohen 1988, table 2.4.1)."""
    assert seeds_needed(effect, 0.05) == pairs


def test_a_huge_effect_needs_few_and_a_tiny_one_too_many() -> None:
    """However large the effect, two pairs have a t of 12.7 to beat."""
    assert seeds_needed(1000.0, 0.05) == 2
    assert seeds_needed(0.01, 0.05) is None


@given(st.floats(0.15, 50), st.floats(0.001, 0.1))
def test_more_seeds_are_needed_for_smaller_effects_and_stricter_levels(effect: float, level: float) -> None:
    needed = seeds_needed(effect, level)
    smaller, stricter = seeds_needed(effect * 0.8, level), seeds_needed(effect, level / 3)
    assert needed is not None and needed >= 2
    assert smaller is None or smaller >= needed
    assert stricter is None or stricter >= needed
