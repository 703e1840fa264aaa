"""Mean and spread over seeds; differences of means with their tests, and how many seeds those need.

scipy is imported where it is used: the tables that need no test do not wait for it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DUST = 1e-12  # a standard error of accuracies below it is floating point's

MOST_SEEDS = 1000
"""Where a search for the number of seeds ends."""


@dataclass(frozen=True)
class Summary:
    """Mean and sample standard deviation (n − 1) of n values; the deviation of one value is None."""

    mean: float
    std: float | None
    n: int


def summarise(values: Sequence[float]) -> Summary | None:
    """Mean, sample standard deviation and number of the values; None where there are none."""
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Summary(statistics.mean(values), spread, len(values))


def summary_fields(name: str, summary: Summary | None) -> dict[str, float | None]:
    """Mean and standard deviation as fields of a record: `name_mean` and `name_std`."""
    return {f"{name}_mean": summary.mean if summary else None, f"{name}_std": summary.std if summary else None}


@dataclass(frozen=True)
class Difference:
    """A mean difference, and what is known of its error.

    Attributes:
        estimate: the mean difference.
        error: its standard error; 0 where all differences were the same.
        df: degrees of freedom of the t distribution of (estimate − truth) / error.
        n: independent values behind it: pairs of seeds, or runs of the smaller of two groups.
        test: what it is called.
    """

    estimate: float
    error: float
    df: float
    n: int
    test: str

    def p_above(self, threshold: float) -> float:
        """One-sided p value against "the true difference is at most `threshold`".

        A spread of exactly 0 is a sign of coarse accuracies or of few seeds, not of certainty: then only the sign of
        each difference counts (sign test, 0.5ⁿ).
        """
        if self.error == 0:
            return 0.5**self.n if self.estimate > threshold else 1.0
        from scipy import special

        return float(special.stdtr(self.df, (threshold - self.estimate) / self.error))

    def p_below(self, threshold: float) -> float:
        """One-sided p value against "the true difference is at least `threshold`"."""
        return Difference(-self.estimate, self.error, self.df, self.n, self.test).p_above(-threshold)

    def p_two_sided(self, threshold: float) -> float:
        """Two-sided p value against "the true difference is `threshold`"."""
        return min(1.0, 2 * min(self.p_above(threshold), self.p_below(threshold)))

    def interval(self, confidence: float) -> tuple[float, float] | None:
        """Two-sided confidence interval; None where there was no spread, and too few seeds for the sign test."""
        if self.error == 0:
            return (self.estimate, self.estimate) if 2 * 0.5**self.n <= 1 - confidence else None
        from scipy import special

        reach = self.error * float(special.stdtrit(self.df, (1 + confidence) / 2))
        return self.estimate - reach, self.estimate + reach

    def needed(self, threshold: float, level: float, power: float = 0.8, most: int = MOST_SEEDS) -> int | None:
        """How many seeds tell a difference like the observed one from a threshold.

        Args:
            threshold: what the true difference is to be told from.
            level: of the two-sided test.
            power: chance of success.
            most: the search ends here.

        Returns:
            The least such number of seeds; None where `most` of them would not do.
        """
        effect = abs(self.estimate - threshold)
        if effect == 0:
            return None
        if self.error == 0:
            return max(2, math.ceil(math.log2(2 / level) - 1e-9))
        return seeds_needed(effect / (self.error * math.sqrt(self.n)), level, power, most)


def paired_difference(first: Mapping[int, float], second: Mapping[int, float]) -> Difference | None:
    """Student's paired t test of first − second over the seeds that both have; None for fewer than two."""
    values = paired_differences(first, second)
    summary = summarise(list(values.values()))
    if summary is None or summary.std is None:
        return None
    return Difference(summary.mean, summary.std / math.sqrt(summary.n), summary.n - 1, summary.n, "paired t")


def paired_differences(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    """Seed → first − second, of the seeds that both have, in order; without the dust of floating point."""
    return {seed: round(first[seed] - second[seed], 12) for seed in sorted(first.keys() & second.keys())}


def welch_difference(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Welch's t test of mean(first) − mean(second); None unless both have two values (Welch 1947, Biometrika 34)."""
    one, two = summarise(sorted(first)), summarise(sorted(second))
    if one is None or two is None or one.std is None or two.std is None:
        return None
    parts = [(one.std**2 / one.n, one.n - 1), (two.std**2 / two.n, two.n - 1)]
    variance, free = sum(part for part, _ in parts), min(free for _, free in parts)
    if variance < _DUST**2:
        return Difference(round(one.mean - two.mean, 12), 0.0, free, min(one.n, two.n), "Welch t")
    df = variance**2 / sum(part**2 / free for part, free in parts)
    return Difference(round(one.mean - two.mean, 12), math.sqrt(variance), df, min(one.n, two.n), "Welch t")


def average_difference(comparisons: Sequence[Mapping[int, float]]) -> Difference | None:
    """Mean over comparisons of their mean difference; the seed is what is independent.

    One seed takes part in many comparisons (with the same static run, the same initial weights), which are therefore
    not independent. Where every comparison has the same seeds this is the t test of each seed's average; else the
    cluster-robust error with seeds as clusters, and the degrees of freedom of the smallest comparison.

    Args:
        comparisons: seed → difference, of each; those with fewer than two seeds are passed over.
    """
    usable = [values for values in comparisons if len(values) > 1]
    if not usable:
        return None
    means = [math.fsum(values.values()) / len(values) for values in usable]
    pulls: dict[int, list[float]] = {}
    for values, mean in zip(usable, means, strict=True):
        for seed, value in values.items():
            pulls.setdefault(seed, []).append((value - mean) / (len(values) * len(usable)))
    seeds = len(pulls)
    variance = math.fsum(math.fsum(pull) ** 2 for pull in pulls.values()) * seeds / (seeds - 1)
    fewest = min(len(values) for values in usable)
    error = math.sqrt(variance)
    estimate = math.fsum(means) / len(means)
    return Difference(round(estimate, 12), error if error > _DUST else 0.0, fewest - 1, fewest, "paired t of averages")


def seeds_needed(effect: float, level: float, power: float = 0.8, most: int = MOST_SEEDS) -> int | None:
    """Least number of pairs at which a two-sided paired t test finds an effect; None where `most` would not do.

    Args:
        effect: mean difference in standard deviations of the difference, above 0.
        level: of the test, in (0, 1).
        power: chance to find it, in (0, 1).
        most: the search ends here.
    """
    if _power_of_t(most, effect, level) < power:
        return None
    low, high = 1, 2  # too few, enough
    while _power_of_t(high, effect, level) < power:
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power_of_t(middle, effect, level) >= power else (middle, high)
    return high


def _power_of_t(n: int, effect: float, level: float) -> float:
    """Of a two-sided one-sample t test with n values, on the side of the effect (Cohen 1988, chapter 2)."""
    from scipy import special

    df, shift = n - 1, effect * math.sqrt(n)
    critical = -float(special.stdtrit(df, level / 2))
    if shift > 30:  # there the noncentral t fails numerically; the error of the mean hardly counts against the spread
        return float(special.chdtr(df, df * (shift / critical) ** 2))
    return 1 - float(special.nctdtr(df, shift, critical))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number, in the order given (Holm 1979, Scandinavian Journal of Statistics 6).

    Those at most α after it have a chance of at most α that any of them is a false alarm, however they depend on
    each other.
    """
    count, highest = len(p_values), 0.0
    corrected = [0.0] * count
    for rank, index in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (count - rank) * p_values[index]))
        corrected[index] = highest
    return corrected
