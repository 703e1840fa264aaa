"""What is found on a claim, as values, and what the user may choose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from itopctl.report.claims.verdicts import FAILS, FEWEST_SEEDS, HOLDS, OPEN, More, Verdict
from itopctl.report.groups import measured_fields


@dataclass(frozen=True)
class Options:
    """What the user may choose; see `itopctl.report.claims.claims_tables`."""

    best_by: str
    margin: float
    confidence: float

    @property
    def level(self) -> float:
        """Chance of a false verdict."""
        return round(1 - self.confidence, 12)

    @property
    def accuracy(self) -> str:
        """Field of a run that counts."""
        return measured_fields(self.best_by)[0]

    @property
    def explored(self) -> str:
        """Exploration rate at the same step."""
        return measured_fields(self.best_by)[1]


@dataclass(frozen=True)
class Finding:
    """One line: a claim as a whole, a method, or one comparison.

    Attributes:
        scope: `claim`, `method` or `comparison`.
        label: what is compared, in words.
        verdict: what follows from it.
        sparsity: None where it is about several.
        kind, against: labels of the kinds compared, or None.
        statistic: its name; "" where there is none.
        estimate, low, high: of the statistic; accuracies as fractions.
        n: what is independent: pairs of seeds, or runs (claim 1); None where there is no test.
        p_value, p_corrected: see `itopctl.report.claims.verdicts.Judged`.
        remark: a word more on the verdict.
        details: further fields of the record.
    """

    scope: str
    label: str
    verdict: Verdict
    sparsity: float | None = None
    kind: str | None = None
    against: str | None = None
    statistic: str = ""
    estimate: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    p_value: float | None = None
    p_corrected: float | None = None
    remark: str = ""
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """A claim with all that was found on it; the first finding is on the claim as a whole.

    Attributes:
        number: from 1, in the paper's order.
        findings: claim, then methods, then comparisons.
        note: what was left out, or "".
    """

    number: int
    findings: list[Finding]
    note: str = ""


def nothing(number: int, title: str, needs: str, more: More | None = None) -> Claim:
    """A claim for which there are no runs to compare; by default it needs a few seeds of them.

    Args:
        number, title: of the claim.
        needs: which runs it takes, in words.
        more: how many at least.
    """
    verdict = Verdict(OPEN, more or More(FEWEST_SEEDS, at_least=True))
    return Claim(number, [Finding("claim", title, verdict, n=0, remark=needs, details=_counts([]))])


def counted(whole: Finding, rows: Sequence[Finding]) -> Finding:
    """The finding on a claim as a whole, with how many of its comparisons hold and do not hold."""
    return replace(whole, details={**whole.details, **_counts(rows)})


def _counts(rows: Sequence[Finding]) -> dict[str, int]:
    words: dict[str, Callable[[Finding], bool]] = {
        "comparisons": lambda row: True,
        "comparisons_hold": lambda row: row.verdict.word == HOLDS,
        "comparisons_fail": lambda row: row.verdict.word == FAILS,
    }
    return {name: sum(map(test, rows)) for name, test in words.items()}
