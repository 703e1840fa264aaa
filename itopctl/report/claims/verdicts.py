"""The rule by which numbers become *holds*, *does not hold* or *not enough runs*, and how many more it would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from itopctl.report.quantity import Quantity
from itopctl.report.statistics import MOST_SEEDS, Difference, holm

HOLDS, FAILS, OPEN = "holds", "does not hold", "not enough runs"

DUST = 1e-12
"""A p value that misses the level by floating point alone is at the level."""

FEWEST_SEEDS = 3
"""With one seed there is no spread, with two its estimate is worth nothing: no verdict."""


@dataclass(frozen=True)
class More:
    """What is missing for a verdict.

    Attributes:
        count: how many more.
        of: `seeds` (of each of the groups compared) or `groups` (of other settings).
        at_least: whether it may take more than that, else about so many.
    """

    count: int
    of: str = "seeds"
    at_least: bool = False

    @property
    def shown(self) -> Quantity:
        """`+5 seeds`, `≥ +2 seeds`."""
        noun = self.of if self.count != 1 else self.of.removesuffix("s")
        return Quantity.of(self.count, "+,").within("≥ " if self.at_least else "", f" {noun}")


@dataclass(frozen=True)
class Verdict:
    """A verdict, and what is missing where there is none yet."""

    word: str
    more: More | None = None


@dataclass(frozen=True)
class Judged:
    """A difference with the verdict on it.

    Attributes:
        difference: None where there were no two seeds.
        p_value, p_corrected: two-sided, against the difference at which the claim begins to hold; None where there was
            no test.
        p_fails: corrected; against a difference that would count.
        verdict: what follows.
        to_hold, to_fail: seeds after which the claim would likely hold, or not, if the difference is as observed; None
            where it points the other way, or needs too many.
    """

    difference: Difference | None
    p_value: float | None
    p_corrected: float | None
    p_fails: float | None
    verdict: Verdict
    to_hold: int | None = None
    to_fail: int | None = None


def judge(
    differences: Sequence[Difference | None], common: Sequence[int], above: float, below: float, level: float,
    waiting: int = 0,
) -> list[Judged]:  # fmt: skip
    """Judge the comparisons of one claim together, which are one family for Holm's correction.

    It holds where the difference lies significantly above `above`, does not hold where it lies significantly below
    `below`; else there are not enough runs. Both at `level`, two-sided, so that a single comparison's verdict and its
    confidence interval of 1 − level say the same.

    Args:
        differences: of the better − the lesser; None where there is none.
        common: seeds behind each, where there is no difference.
        above: the claim is true of differences above it.
        below: the least difference that would count; at least `above`.
        level: chance of any false verdict "holds" in the family (and of any false "does not hold").
        waiting: comparisons of the family that will be tested once their runs are finished: they count already, so
            that a verdict does not fade as they come.
    """
    tested = [d for d in differences if d is not None and d.n >= FEWEST_SEEDS]
    plain = [d.p_two_sided(above) for d in tested]
    fails = [min(1.0, 2 * d.p_below(below)) for d in tested]
    unknown = [1.0] * waiting
    numbers = iter(zip(plain, holm(plain + unknown), holm(fails + unknown), strict=False))
    judged = []
    for difference, seeds in zip(differences, common, strict=True):
        if difference is None or difference.n < FEWEST_SEEDS:
            missing = More(FEWEST_SEEDS - (difference.n if difference else min(seeds, 1)), at_least=True)
            judged.append(Judged(difference, None, None, None, Verdict(OPEN, missing)))
        else:
            judged.append(_judged(difference, *next(numbers), above, below, level, len(tested) + waiting))
    return judged


def _judged(
    difference: Difference, p_value: float, corrected: float, fails: float, above: float, below: float, level: float,
    family: int,
) -> Judged:  # fmt: skip
    if corrected <= level + DUST and difference.estimate > above:
        return Judged(difference, p_value, corrected, fails, Verdict(HOLDS))
    if fails <= level + DUST:
        return Judged(difference, p_value, corrected, fails, Verdict(FAILS))
    to_hold = difference.needed(above, level / family) if difference.estimate > above else None
    to_fail = difference.needed(below, level / family) if difference.estimate < below else None
    known = [count for count in (to_hold, to_fail) if count is not None]
    more = More(max(1, min(known) - difference.n)) if known else More(MOST_SEEDS - difference.n, at_least=True)
    return Judged(difference, p_value, corrected, fails, Verdict(OPEN, more), to_hold, to_fail)


def any_holds(judged: Sequence[Judged]) -> Verdict:
    """The verdict on "it holds somewhere": Holm's correction covers the choice of where."""
    if any(j.verdict.word == HOLDS for j in judged):
        return Verdict(HOLDS)
    if all(j.verdict.word == FAILS for j in judged):
        return Verdict(FAILS)
    undecided = [j for j in judged if j.verdict.word == OPEN and j.verdict.more is not None]
    hopeful = [j for j in undecided if j.to_hold is not None]
    if hopeful:
        nearest = min(hopeful, key=lambda j: _still(j, j.to_hold))
        return Verdict(OPEN, More(_still(nearest, nearest.to_hold)))
    return Verdict(OPEN, max((j.verdict.more for j in undecided if j.verdict.more), key=lambda m: m.count))


def _still(judged: Judged, needed: int | None) -> int:
    have = judged.difference.n if judged.difference else 0
    return max(1, (needed or 0) - have)
