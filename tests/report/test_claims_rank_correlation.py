from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from itopctl.report.claims import rank_correlation as module
from itopctl.report.claims.rank_correlation import Point, RankCorrelation, groups_needed, rank_correlation


def found(strata: Sequence[Sequence[Point]], confidence: float = 0.95) -> RankCorrelation:
    correlation = rank_correlation(strata, confidence)
    assert correlation is not None
    return correlation


def rising(groups: int, seeds: int = 3, noise: float = 0.0, slope: float = 0.1, seed: int = 0) -> list[Point]:
    """Groups 0, 1, … with R_s in steps, and accuracies that rise with it."""
    chance = random.Random(seed)
    return [
        Point(f"g{group}", number, group / groups, slope * group + chance.gauss(0, noise))
        for group in range(groups)
        for number in range(seeds)
    ]


def test_spearmans_rank_correlation_is_that_of_a_textbook() -> None:
    """IQ and hours of television of ten people: Σd² = 194, ρ = 1 − 6 · 194 / (10 · 99) = −29/165."""
    iq = [106, 86, 100, 101, 99, 103, 97, 113, 112, 110]
    hours = [7, 0, 27, 50, 28, 29, 20, 12, 6, 17]
    points = [Point(str(n), 0, x, y) for n, (x, y) in enumerate(zip(iq, hours, strict=True))]
    assert found([points]).estimate == pytest.approx(-29 / 165)


VALUES = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.integers(0, 5), st.integers(0, 5)),
                  min_size=3, max_size=15)  # fmt: skip


@given(VALUES, st.lists(st.integers(0, 3), min_size=15, max_size=15))
def test_weighted_ranks_are_those_of_points_written_down_so_often(
    values: list[tuple[str, int, int, int]], weights: list[int]
) -> None:
    x = np.array([float(value[2]) for value in values])
    times = np.array(weights[: len(x)])
    if times.sum() == 0:
        return
    ranks = module._midranks(x, times[None].astype(float))[0]
    assert np.allclose(np.repeat(ranks, times), stats.rankdata(np.repeat(x, times)))


@given(VALUES)
@settings(max_examples=40)
def test_the_estimate_is_scipys_and_the_order_of_the_runs_does_not_matter(
    values: list[tuple[str, int, int, int]],
) -> None:
    points = [Point(group, seed, x, y) for group, seed, x, y in values]
    correlation = rank_correlation([points])
    if len({p.x for p in points}) == 1 or len({p.y for p in points}) == 1:
        assert correlation is None
        return
    assert correlation is not None
    expected = stats.spearmanr([p.x for p in points], [p.y for p in points]).statistic
    assert correlation.estimate == pytest.approx(expected)
    assert -1 <= correlation.low <= correlation.high <= 1 and 0 < correlation.p_value <= 1
    assert rank_correlation([points[::-1]]) == correlation


@pytest.mark.parametrize("left_out", [0, 1, 4])
def test_the_p_value_is_the_share_of_all_ways_to_hand_out_the_groups_rates(left_out: int) -> None:
    """Beside the obvious: every permutation of the groups' mean rates, ranked with the runs; groups of other sizes."""
    points = rising(5, noise=0.15, seed=3)[left_out:]
    means = {name: np.mean([p.x for p in points if p.group == name]) for name in {p.group for p in points}}
    names = sorted(means)
    y = [p.y for p in points]

    def correlation(rates: Sequence[float]) -> float:
        of_group = dict(zip(names, rates, strict=True))
        return abs(stats.spearmanr([of_group[str(p.group)] for p in points], y).statistic)

    all_ways = [correlation(rates) for rates in itertools.permutations([means[name] for name in names])]
    observed = correlation([means[name] for name in names])
    expected = sum(value >= observed - 1e-9 for value in all_ways) / len(all_ways)
    assert found([points]).p_value == pytest.approx(expected)


@pytest.mark.parametrize(("groups", "least"), [(3, 2 / 6), (4, 2 / 24), (5, 2 / 120)])
def test_few_groups_prove_nothing_however_many_seeds_there_are(groups: int, least: float) -> None:
    assert found([rising(groups, seeds=20)]).p_value == pytest.approx(least)


def test_many_groups_are_permuted_by_chance_always_the_same() -> None:
    """9! permutations are too many to try: 4,999 of them, and the observed one."""
    points = rising(9, noise=0.01)
    correlation = found([points])
    assert correlation.p_value == pytest.approx(1 / 5000) and correlation == found([points])


def test_in_several_strata_a_group_keeps_its_place() -> None:
    """Twice the same runs are no more evidence than once: the same groups change places in both."""
    points = rising(5, noise=0.2, seed=1)
    once, twice = found([points]), found([points, points])
    assert (once.estimate, once.p_value) == pytest.approx((twice.estimate, twice.p_value))
    assert (once.low, once.high) == pytest.approx((twice.low, twice.high))


def test_a_group_that_is_missing_in_a_stratum_is_no_obstacle() -> None:
    fewer = [point for point in rising(6, noise=0.02) if point.group not in ("g1", "g4")]
    correlation = found([rising(6, noise=0.02), fewer])
    assert correlation.estimate > 0.9 and correlation.groups == 6 and correlation.runs == 18 + 12


def test_groups_of_different_sizes_are_counted_by_their_runs() -> None:
    points = [*rising(5, seeds=2), *(Point("g0", seed, 0.0, -0.1) for seed in range(2, 9))]
    assert found([points]).estimate > 0.9 and found([points]).runs == 17


def test_where_groups_have_their_own_level_the_interval_is_wider_than_one_over_independent_runs() -> None:
    levels = [0.5, 0.1, 0.6, 0.3, 0.9, 0.4]
    points = [Point(p.group, p.seed, p.x, levels[int(str(p.group)[1:])] + p.y) for p in rising(6, 10, 0.02, slope=0)]
    x, y = np.array([p.x for p in points]), np.array([p.y for p in points])
    chance = np.random.default_rng(0)
    draws = [chance.integers(0, len(x), len(x)) for _ in range(300)]
    naive = np.quantile([stats.spearmanr(x[d], y[d]).statistic for d in draws], [0.025, 0.975])
    honest = found([points])
    assert honest.high - honest.low > 2 * (naive[1] - naive[0])


def test_a_higher_confidence_gives_a_wider_interval() -> None:
    points = rising(6, noise=0.2, seed=4)
    narrow, wide = found([points], 0.8), found([points], 0.99)
    assert wide.low <= narrow.low <= narrow.high <= wide.high


@pytest.mark.parametrize("points", [[], [Point("a", 0, 0.1, 0.5)], rising(5, slope=0.0),
                                    [Point(str(n), n, 0.5, n / 10) for n in range(5)]])  # fmt: skip
def test_where_nothing_varies_there_is_no_correlation(points: list[Point]) -> None:
    assert rank_correlation([points]) is None


def test_a_large_study_is_correlated_as_the_sum_of_its_parts() -> None:
    """Work goes in blocks: the same numbers must come out with small ones."""
    points = [rising(12, seeds=5, noise=0.3, seed=seed) for seed in range(2)]
    whole = found(points)
    before, module._BLOCK = module._BLOCK, 1000
    try:
        assert found(points) == whole
    finally:
        module._BLOCK = before


def test_the_number_of_groups_is_fishers_and_enough_for_the_permutations() -> None:
    """ρ 0.5 at 5 % with 80 %: 3 + 1.06 ((1.960 + 0.842) / 0.5493)² = 30.6."""
    assert groups_needed(0.5, 0.0, 0.05) == 31
    assert groups_needed(0.9999, 0.0, 0.05) == 5  # 2 / 4! = 0.083 is too much
    assert groups_needed(0.9999, 0.0, 0.05 / 3) == 5 and groups_needed(0.9999, 0.0, 0.05 / 4) == 6
    assert groups_needed(0.0, 0.0, 0.05) == groups_needed(0.001, 0.0, 0.05) == 1000
