"""Claims as a table: what a person reads, and the same as records."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from itopctl.report.claims.exploration_claim import SMALLEST_CORRELATION
from itopctl.report.claims.finding import Claim, Finding, Options
from itopctl.report.claims.verdicts import FAILS, FEWEST_SEEDS, HOLDS, OPEN
from itopctl.report.groups import ENDED_BADLY, MEASURED_WHEN, Study, unfinished_in_words
from itopctl.report.number_text import NOTHING, sparsity
from itopctl.report.quantity import Quantity
from itopctl.report.statistics import Difference
from itopctl.report.table import Cell, Column, Record, Table

_STYLES = {HOLDS: "green", FAILS: "red", OPEN: "yellow"}

_NO_SPREAD = (
    "No interval: all pairs differ by the same, which says nothing of the spread; only the number of pairs counts (sign"
    " test)."
)


def claims_table(study: Study, claims: Sequence[Claim], options: Options) -> Table:
    """The table of a study."""
    columns = [
        Column("claim"), Column("sparsity", "right", key=True),
        Column(f"effect [{_percents(options.confidence)}]", "right"),
        Column("n", "right"), Column("p (corrected)", "right", rank=1), Column("verdict", whole=True),
        Column("missing", "right"),
    ]  # fmt: skip
    found = [(claim, finding) for claim in claims for finding in claim.findings]
    rows = [_row(claim, finding) for claim, finding in found]
    records = [_record(study, claim, finding, options) for claim, finding in found]
    return Table(f"{study.title}: the claims", columns, rows, records, [*_notes(claims, options), *_failures(study)])


def _row(claim: Claim, finding: Finding) -> list[Cell]:
    verdict = finding.verdict
    whole = finding.scope == "claim"
    style = "bold" if whole else ""
    return [
        Cell(f"{claim.number} {finding.label}" if whole else finding.label, _counts(finding), style=style),
        Cell("" if finding.sparsity is None or finding.statistic == "largest sparsity" else sparsity(finding.sparsity)),
        Cell(_effect(claim, finding), style=style),
        Cell("" if finding.n is None else Quantity.of(finding.n, "")),
        Cell(_p_values(finding)),
        Cell(verdict.word, "" if _heads(finding) else finding.remark, style=f"{style} {_STYLES[verdict.word]}".strip()),
        Cell(verdict.more.shown if verdict.more else ""),
    ]  # fmt: skip


def _heads(finding: Finding) -> bool:
    """Whether a line is on a claim or a method as a whole: its remark then stands under its name."""
    return finding.scope != "comparison"


def _counts(finding: Finding) -> str:
    """Under a claim as a whole: in how many of its comparisons it holds."""
    if finding.scope == "method":
        return finding.remark
    if finding.scope != "claim":
        return ""
    total, hold, fail = (finding.details[f"comparisons{part}"] for part in ("", "_hold", "_fail"))
    if not total:
        return finding.remark
    counts = f"{hold} of {total} hold, {fail} do not, {total - hold - fail} open"
    return f"{finding.remark}; {counts}" if finding.remark else counts


def _effect(claim: Claim, finding: Finding) -> str | Quantity:
    if finding.statistic == "largest sparsity":
        return NOTHING if finding.estimate is None else f"up to {sparsity(finding.estimate)}"
    if finding.estimate is None:
        return "" if finding.scope == "claim" else NOTHING
    values = [value for value in (finding.estimate, finding.low, finding.high) if value is not None]
    scaled = [value if claim.number == 1 else 100 * value for value in values]
    digits = 2 if all(abs(value) < 9.995 for value in scaled) else 1
    estimate, *ends = (_signed(value, digits) for value in scaled)
    return estimate.within(after=f" [{', '.join(map(str, ends))}]") if len(ends) == 2 else estimate


def _signed(value: float, digits: int) -> Quantity:
    rounded = round(value, digits)
    found = Quantity.of(rounded or 0.0, f"{'+' if rounded else ''}.{digits}f")
    return replace(found, digits=found.digits.replace("-", "−"))


def _p_values(finding: Finding) -> str | Quantity:
    if finding.p_value is None or finding.p_corrected is None:
        return ""
    return _p(finding.p_value).within(after=f" ({_p(finding.p_corrected)})")


def _p(value: float) -> Quantity:
    return Quantity.of(max(value, 0.001), ".3f").within("< " if value < 0.001 else "")


def _percents(fraction: float) -> str:
    return f"{round(100 * fraction, 6):g} %"


def _notes(claims: Sequence[Claim], options: Options) -> list[str]:
    margin = f"{round(100 * options.margin, 6):g} points"
    level = _percents(options.level)
    return [
        f"effect: difference of test accuracy {MEASURED_WHEN[options.best_by]} in percentage points, with its"
        f" {_percents(options.confidence)} confidence interval (of one comparison by itself): dynamic − static (2),"
        " ITOP − original (3), sparse − dense (4), longer − shortest interval (5). Claim 1: Spearman's rank correlation"
        " of R_s and accuracy, from −1 to +1.",
        "n: pairs of runs with the same seed (paired t test), or runs of the smaller side where no two seeds are shared"
        " (Welch's t test). Claim 1: runs. Compared are runs alike in all else: epochs, learning rate, allocation, ….",
        f"holds: the effect is shown to be above 0; claim 4: above −{margin}, so not worse than dense by so much.",
        f"does not hold: it is shown to be below +{margin}, the least that counts; claim 4: below −{margin}; claim 1:"
        f" below {SMALLEST_CORRELATION:g}.",
        f"not enough runs: neither is shown. Shown means: by a two-sided test at {level}, after Holm's correction for"
        " all comparisons of the claim.",
        "missing: seeds on each side (claim 1: groups of other settings, which more seeds cannot replace) until the"
        " test would decide with a chance of 80 %, were the true effect as observed: a guess. Adding seeds until a"
        " claim holds is no test of it: decide on a number, and stay with it.",
        f"Fewer than {FEWEST_SEEDS} seeds give no verdict; {FEWEST_SEEDS} pairs show, before correction, only effects"
        f" of at least {_least_shown(options):.1f} times the standard deviation of the pairs' differences.",
        "Claims as a whole: 1, 2 and 3 are the mean over their comparisons, in one test; 4 and 5 hold where they hold"
        " for some method, 4 at its lowest sparsity and up to the one given.",
        "Claim 1 takes runs of one group (those that differ in the seed alone) and runs of one seed as dependent:"
        " groups and seeds are drawn anew for its interval (bootstrap), whole groups exchange their R_s for its p"
        " (permutations). Methods differ in more than R_s: see each of them alone, too.",
        *([_NO_SPREAD] if any(map(_lacks_interval, (f for claim in claims for f in claim.findings))) else []),
        *(claim.note for claim in claims if claim.note),
    ]


def _failures(study: Study) -> list[str]:
    """A note on runs that are missing since they failed, which no more waiting will bring."""
    said = unfinished_in_words(run for group in study.groups for run in group.runs if run["state"] in ENDED_BADLY)
    return [f"Missing, since they did not succeed: {said}"] if said else []


def _lacks_interval(finding: Finding) -> bool:
    return "test" in finding.details and finding.estimate is not None and finding.low is None


def _least_shown(options: Options) -> float:
    """Standard deviations that the mean of the fewest pairs must be from 0, to be told from it."""
    interval = Difference(0.0, 1 / math.sqrt(FEWEST_SEEDS), FEWEST_SEEDS - 1, FEWEST_SEEDS, "").interval(
        options.confidence
    )
    assert interval is not None
    return interval[1]


def _record(study: Study, claim: Claim, finding: Finding, options: Options) -> Record:
    more = finding.verdict.more
    whole = claim.findings[0]
    return {
        "claim": claim.number, "claim_name": whole.label, "scope": finding.scope, "dataset": study.dataset,
        "model": study.model, "sparsity": finding.sparsity, "compared": finding.label, "kind": finding.kind,
        "against": finding.against, "statistic": finding.statistic or None, "test": finding.details.get("test"),
        "estimate": finding.estimate, "low": finding.low, "high": finding.high, "confidence": options.confidence,
        "margin": options.margin, "n": finding.n, "groups": finding.details.get("groups"),
        "p_value": finding.p_value, "p_value_corrected": finding.p_corrected,
        "equivalence_p_value": finding.details.get("equivalence_p_value"), "verdict": finding.verdict.word,
        "remark": finding.remark or None, "more_runs": more.count if more else None,
        "more_runs_of": more.of if more else None, "more_runs_at_least": more.at_least if more else None,
        "comparisons": finding.details.get("comparisons"), "comparisons_hold": finding.details.get("comparisons_hold"),
        "comparisons_fail": finding.details.get("comparisons_fail"),
    }  # fmt: skip
