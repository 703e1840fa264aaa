"""Spearman's rank correlation over runs that are not independent of each other.

Runs of one group (same settings, different seed) share their exploration rate, and runs of one seed share initial
weights and batch order: 21 runs in 7 groups are not 21 independent points. So

- the interval is a bootstrap that draws groups and seeds anew, independently of each other, and takes a run as often
  as its group times its seed was drawn (the pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1:386);
- the p value is a permutation test in which whole groups exchange their exploration rates: with few groups no number
  of seeds makes it small.

Several strata (sparsities) are averaged; a group keeps its place in all of them at every draw and permutation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[np.float64]
_RESAMPLES = 1999
_PERMUTATIONS = 4999
_ALL_PERMUTATIONS_UP_TO = 7  # groups: 7! = 5040
_SEED = 20210218
_BLOCK = 2_000_000  # numbers in an intermediate array


@dataclass(frozen=True)
class Point:
    """One run: the group and seed it belongs to, its exploration rate (x) and accuracy (y)."""

    group: Hashable
    seed: int
    x: float
    y: float


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's ρ, averaged over strata.

    Attributes:
        estimate: ρ in [−1, 1].
        low, high: percentile interval of the bootstrap.
        p_value: of the permutation of groups, two-sided.
        p_below: bootstrap p value (two-sided) against "ρ is at least `smallest`".
        runs, groups, seeds: how many different ones took part.
    """

    estimate: float
    low: float
    high: float
    p_value: float
    p_below: float
    runs: int
    groups: int
    seeds: int


def rank_correlation(
    strata: Sequence[Sequence[Point]], confidence: float = 0.95, smallest: float = 0.3
) -> RankCorrelation | None:
    """Correlate x and y within each stratum, and average.

    Args:
        strata: the runs of each; groups are known across strata by their names.
        confidence: of the interval.
        smallest: the least correlation that would count, for `p_below`.

    Returns:
        None where no stratum has different x and different y.
    """
    ordered = [sorted(points, key=lambda p: (repr(p.group), p.seed, p.x, p.y)) for points in strata if varied(points)]
    if not ordered:
        return None
    names = sorted({p.group for points in ordered for p in points}, key=repr)
    seeds = sorted({p.seed for points in ordered for p in points})
    parts = [_Stratum(points, names, seeds) for points in ordered]
    estimate = float(np.mean([part.correlations(np.ones((1, len(part.x))))[0] for part in parts]))
    drawn = _bootstrap(parts, len(names), len(seeds))
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    below = min(1.0, 2 * (1 + int(np.sum(drawn >= smallest))) / (len(drawn) + 1))
    p_value = _permutation_p(parts, len(names))
    runs = sum(len(part.x) for part in parts)
    return RankCorrelation(estimate, float(low), float(high), p_value, below, runs, len(names), len(seeds))


def varied(points: Sequence[Point]) -> bool:
    """Whether x and y both vary: else they have no correlation."""
    return len({p.x for p in points}) > 1 and len({p.y for p in points}) > 1


class _Stratum:
    """The runs at one sparsity as arrays."""

    def __init__(self, points: Sequence[Point], names: Sequence[Hashable], seeds: Sequence[int]) -> None:
        self.x = np.array([p.x for p in points])
        self.y = np.array([p.y for p in points])
        self.group = np.array([names.index(p.group) for p in points])
        self.seed = np.array([seeds.index(p.seed) for p in points])
        self.present, places = np.unique(self.group, return_inverse=True)
        ranks = _midranks(self.y, np.ones((1, len(self.y))))[0]
        ranks -= ranks.mean()
        self._sizes = np.bincount(places).astype(float)
        self._means = np.bincount(places, self.x) / self._sizes  # of x, by group
        self._sums = np.bincount(places, ranks)  # of the ranks of y, by group
        self._scale = float(ranks @ ranks)

    def correlations(self, weights: _Array) -> _Array:
        """Spearman's ρ of each row of weights (rows, runs): how often a run counts; 0 where it is not defined."""
        return _weighted_pearson(_midranks(self.x, weights), _midranks(self.y, weights), weights)

    def permuted(self, orders: npt.NDArray[np.intp]) -> _Array:
        """ρ between y and the groups' mean x, after groups have changed places, for each order of all groups.

        All runs of a group then have the same x, so sums over groups do.
        """
        places = np.argsort(orders[:, self.present], axis=1)
        if (self._sizes == self._sizes[0]).all():  # then ranks go with the means, wherever these go
            mid = self._mean_ranks(self._means[None])[0][places]
        else:
            mid = self._mean_ranks(self._means[places])
        scale = np.sqrt((mid**2 @ self._sizes) * self._scale)
        return np.divide(mid @ self._sums, scale, out=np.zeros(len(mid)), where=scale > 1e-9)

    def _mean_ranks(self, means: _Array) -> _Array:
        """Ranks of the runs of each group, less their mean, where all runs of a group have its mean (rows, groups)."""
        less = means[:, None, :] < means[:, :, None]
        same = means[:, None, :] == means[:, :, None]
        ranks: _Array = less @ self._sizes + (same @ self._sizes + 1) / 2 - (len(self.y) + 1) / 2
        return ranks


def _midranks(values: _Array, weights: _Array) -> _Array:
    """Ranks (rows, runs) of the values where value i is there weights[row, i] times; ties share their mean rank."""
    order = np.argsort(values, kind="stable")
    new = np.r_[True, np.diff(values[order]) != 0]
    blocks = np.add.reduceat(weights[:, order], np.flatnonzero(new), axis=1)
    mid = np.cumsum(blocks, axis=1) - blocks / 2 + 0.5
    ranks = np.empty_like(weights)
    ranks[:, order] = mid[:, np.cumsum(new) - 1]
    return ranks


def _weighted_pearson(first: _Array, second: _Array, weights: _Array) -> _Array:
    total = np.maximum(weights.sum(axis=1, keepdims=True), 1)
    a = first - (weights * first).sum(axis=1, keepdims=True) / total
    b = second - (weights * second).sum(axis=1, keepdims=True) / total
    scale = np.sqrt((weights * a * a).sum(axis=1) * (weights * b * b).sum(axis=1))
    return np.divide((weights * a * b).sum(axis=1), scale, out=np.zeros(len(scale)), where=scale > 1e-9)


def _bootstrap(parts: Sequence[_Stratum], groups: int, seeds: int) -> _Array:
    """The averaged correlation of each resample."""
    random = np.random.RandomState(_SEED)  # its numbers are the same in every version of numpy
    of_group = random.multinomial(groups, np.full(groups, 1 / groups), _RESAMPLES).astype(float)
    of_seed = random.multinomial(seeds, np.full(seeds, 1 / seeds), _RESAMPLES).astype(float)
    total = np.zeros(_RESAMPLES)
    for part in parts:
        rows = max(1, _BLOCK // len(part.x))
        for start in range(0, _RESAMPLES, rows):
            some = slice(start, start + rows)
            total[some] += part.correlations(of_group[some][:, part.group] * of_seed[some][:, part.seed])
    return total / len(parts)


def _permutation_p(parts: Sequence[_Stratum], groups: int) -> float:
    """Share of the permutations of groups whose averaged correlation is as far from 0 as the observed one."""
    exact = groups <= _ALL_PERMUTATIONS_UP_TO
    observed = abs(_averaged(parts, np.arange(groups)[None])[0])
    count = total = 0
    widest = max(groups, *(len(part.present) ** 2 for part in parts))
    for orders in _orders(groups, max(1, _BLOCK // widest)):
        count += int(np.sum(np.abs(_averaged(parts, orders)) >= observed - 1e-9))
        total += len(orders)
    return count / total if exact else (count + 1) / (total + 1)


def _averaged(parts: Sequence[_Stratum], orders: npt.NDArray[np.intp]) -> _Array:
    correlations: _Array = np.mean([part.permuted(orders) for part in parts], axis=0)
    return correlations


def _orders(groups: int, rows: int) -> Iterator[npt.NDArray[np.intp]]:
    """All orders of so many groups, or a sample of them, some rows at a time."""
    if groups <= _ALL_PERMUTATIONS_UP_TO:
        yield _all_orders(groups)
        return
    random = np.random.RandomState(_SEED + 1)
    for start in range(0, _PERMUTATIONS, rows):
        count = min(rows, _PERMUTATIONS - start)
        yield np.argsort(random.random_sample((count, groups)), axis=1)


@functools.cache
def _all_orders(groups: int) -> npt.NDArray[np.intp]:
    return np.array(list(itertools.permutations(range(groups))), dtype=np.intp)


def groups_needed(correlation: float, threshold: float, level: float, power: float = 0.8, most: int = 1000) -> int:
    """About how many groups tell a rank correlation from a threshold; at most `most`.

    By Fisher's z with Spearman's variance 1.06 / (n − 3) (Fieller, Hartley and Pearson 1957, Biometrika 44:470), and
    never fewer than a permutation test needs to reach the level at all (2 / n! ≤ level).

    Args:
        correlation, threshold: in (−1, 1).
        level: of the two-sided test.
        power: chance of success.
        most: the highest answer.
    """
    fewest = next(n for n in itertools.count(3) if 2 / math.factorial(n) <= level)
    distance = abs(math.atanh(max(-0.999, min(0.999, correlation))) - math.atanh(threshold))
    if distance < 1e-6:
        return most
    normal = NormalDist().inv_cdf(1 - level / 2) + NormalDist().inv_cdf(power)
    return min(most, max(fewest, math.ceil(3 + 1.06 * (normal / distance) ** 2)))
