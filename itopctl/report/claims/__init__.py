"""The paper's claims, each tested on the user's own runs: `itopctl report --table claims`.

`comparable.py` which groups may be compared · `exploration_claim.py` claim 1, with `rank_correlation.py`: Spearman over
runs that depend on each other · `hypotheses.py` claims 2 to 5 · `verdicts.py` the rule from numbers to words ·
`finding.py` what is found, as values · `page.py` what a person reads.

The tests themselves are in `itopctl.report.statistics`. Imports numpy and scipy: not for a command that has no need
of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from itopctl.errors import UserError
from itopctl.report.claims.finding import Options
from itopctl.report.claims.hypotheses import claims
from itopctl.report.claims.page import claims_table
from itopctl.report.groups import studies
from itopctl.report.table import Record, Table


def claims_tables(
    runs: Sequence[Record],
    method_order: Sequence[str] = (),
    best_by: str = "final",
    margin: float | None = None,
    confidence: float | None = None,
) -> list[Table]:
    """One table for each data set and model, in the order of the runs.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with the exploration rate at the same step as the
            accuracy (`itopctl.report.groups.measured_fields`); with `steps`, where known, to tell an interval given in
            epochs.
        method_order: methods in the order their rows should have.
        best_by: which accuracy counts, of `itopctl.report.groups.BEST_BY`.
        margin: the least difference of accuracy that counts, as a fraction in (0, 1): how much worse than dense is
            still a match, and how small an advantage is none. None: 0.005.
        confidence: of the intervals, in (0, 1), None: 0.95; verdicts are false with a chance of at most 1 − confidence.

    Raises:
        UserError: a margin or confidence out of range.
    """
    margin, confidence = 0.005 if margin is None else margin, 0.95 if confidence is None else confidence
    for name, value in (("margin", margin), ("confidence", confidence)):
        if not 0 < value < 1:
            raise UserError(f"{name} {value:g}: must be a fraction above 0 and below 1.")
    options = Options(best_by, margin, confidence)
    return [claims_table(study, claims(study, options), options) for study in studies(runs, method_order)]
