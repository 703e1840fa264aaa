"""Studies whose truth is known: how often is the verdict on them wrong, and how often is there one?

Bounds are those that a right method exceeds in less than one of a thousand such simulations; seeds are fixed.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from itopctl.report.claims import claims_tables
from itopctl.report.claims.rank_correlation import Point, rank_correlation
from itopctl.report.statistics import Difference, paired_difference, seeds_needed
from itopctl.report.table import Record
from tests.report.records import run

pytestmark = pytest.mark.slow

SEEDS = 5
SPREAD = 0.004


def at_most(studies: int, chance: float) -> int:
    return int(stats.binom.ppf(0.999, studies, chance))


def study(number: int, gain: float = 0.0, against_dense: float = 0.0, groups: int = 3) -> list[Record]:
    """Static, dynamic with several intervals, and dense, at two sparsities; a seed is good or bad for all of them."""
    chance = random.Random(number)
    of_seed = [chance.gauss(0, SPREAD) for _ in range(SEEDS)]

    def runs(method: str, sparsity: float, mean: float, rate: float, interval: int | None = None) -> list[Record]:
        return [
            run(method, sparsity, seed, accuracy=mean + of_seed[seed] + chance.gauss(0, SPREAD), exploration_rate=rate,
                settings={"update_interval": interval})
            for seed in range(SEEDS)
        ]  # fmt: skip

    dynamic = 0.9 + gain
    found = runs("dense", 0.0, dynamic - against_dense, 1.0)
    for sparsity in (0.9, 0.95):
        found += runs("static", sparsity, 0.9, 1 - sparsity)
        for place in range(groups):
            found += runs("set-itop", sparsity, dynamic, 0.9 - 0.1 * place, 10 * (place + 1))
    return found


def verdicts(studies: int, **truth: Any) -> Counter[tuple[int, str, str]]:
    """How many studies had some verdict of each sort: (claim, scope, verdict)."""
    counts: Counter[tuple[int, str, str]] = Counter()
    for number in range(studies):
        (table,) = claims_tables(study(number, **truth))
        counts.update({(r["claim"], r["scope"], r["verdict"]) for r in table.records})
    return counts


def test_where_nothing_has_an_effect_hardly_any_study_finds_one() -> None:
    """2.5 % on the side of the claim, whichever of the twelve comparisons it is."""
    counts = verdicts(100, groups=6)
    for claim in (1, 2, 5):
        for scope in ("claim", "comparison"):
            assert counts[claim, scope, "holds"] <= at_most(100, 0.025), (claim, scope)


def test_sparse_that_is_worse_than_dense_by_the_margin_hardly_ever_passes_for_its_equal() -> None:
    assert verdicts(100, against_dense=-0.005)[4, "comparison", "holds"] <= at_most(100, 0.025)


def test_a_large_effect_is_found_nearly_always_and_never_denied() -> None:
    """A gain of 2 points is 3.5 deviations of a pair's difference (√2 · 0.4 points)."""
    counts = verdicts(40, gain=0.02, against_dense=0.02)
    for claim in (2, 4):
        assert counts[claim, "claim", "holds"] >= 38
        assert counts[claim, "claim", "does not hold"] == counts[claim, "comparison", "does not hold"] == 0


def correlated(chance: np.random.Generator, groups: int, spearman: float) -> list[Point]:
    """Groups of three seeds whose R_s and level have this rank correlation in the long run."""
    pearson = 2 * math.sin(math.pi * spearman / 6)
    rates = chance.normal(size=groups)
    levels = pearson * rates + math.sqrt(1 - pearson**2) * chance.normal(size=groups)
    of_seed = chance.normal(size=3) * 0.3
    return [
        Point(f"{g:02}", s, rates[g], levels[g] + of_seed[s] + 0.2 * chance.normal())
        for g in range(groups)
        for s in range(3)
    ]


@pytest.mark.parametrize("groups", [5, 12])
def test_the_interval_of_the_rank_correlation_covers_the_truth_as_often_as_it_says(groups: int) -> None:
    """Of groups, not of runs; the level of accuracies of a group is its own."""
    for truth in (0.0, 0.3):
        chance = np.random.default_rng(1)
        found = [rank_correlation([correlated(chance, groups, truth)]) for _ in range(150)]
        known = [r for r in found if r is not None]
        assert len(known) == 150
        assert sum(not r.low <= truth <= r.high for r in known) <= at_most(150, 0.06)
        assert sum(r.p_below <= 0.05 for r in known) <= at_most(150, 0.05) or truth < 0.3
        if truth == 0.0:
            assert sum(r.p_value <= 0.05 and r.low > 0 for r in known) <= at_most(150, 0.025)


@pytest.mark.parametrize(("effect", "level"), [(1.0, 0.05), (2.0, 0.05 / 18), (4.0, 0.05)])
def test_the_number_of_seeds_that_is_asked_for_finds_the_effect_in_four_of_five_studies(
    effect: float, level: float
) -> None:
    needed = seeds_needed(effect, level)
    assert needed is not None
    chance = np.random.default_rng(0)

    def found(seeds: int) -> float:
        hits = 0
        for _ in range(2000):
            values = dict(enumerate(effect + chance.normal(size=seeds)))
            difference = paired_difference(values, dict.fromkeys(values, 0.0))
            assert isinstance(difference, Difference)
            hits += difference.p_two_sided(0.0) <= level and difference.estimate > 0
        return hits / 2000

    assert found(needed) >= 0.77 and found(needed - 1) <= 0.83
