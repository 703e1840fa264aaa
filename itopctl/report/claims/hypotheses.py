"""The five claims of In-Time Over-Parameterization (Liu et al., ICML 2021), each tested on one study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from itopctl.report.claims.comparable import (
    Comparison,
    Recipe,
    dynamic_against_static,
    itop_against_original,
    longer_against_shortest,
    recipes_at,
    sparse_against_dense,
)
from itopctl.report.claims.rank_correlation import Point, RankCorrelation, groups_needed, rank_correlation
from itopctl.report.claims.verdicts import (
    DUST,
    FAILS,
    FEWEST_SEEDS,
    HOLDS,
    OPEN,
    Judged,
    More,
    Verdict,
    any_holds,
    judge,
)
from itopctl.report.groups import Group, Kind, Study, in_words, measured_fields, short_name
from itopctl.report.statistics import Difference, average_difference, holm

SMALLEST_CORRELATION = 0.3
"""The least rank correlation that would count (Cohen's "medium"), in ρ."""

_ITOP_NAMES = "set beside set-itop, or rigl beside rigl-itop"


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


def claims(study: Study, options: Options) -> list[Claim]:
    """All claims, in order."""
    return [
        _exploration(study, options), _dynamic(study, options), _intervals(study, options), _dense(study, options),
        _too_short(study, options),
    ]  # fmt: skip


# 1: accuracy rises with R_s ---------------------------------------------------------------------------------


def _exploration(study: Study, options: Options) -> Claim:
    title = "accuracy rises with R_s"
    places = [
        (sparsity, what, _points(groups, options))
        for sparsity, what, groups in recipes_at(study)
        if len(groups) > 1 and any(group.finished for group in groups)
    ]
    if not any(points for _, _, points in places):
        return _nothing(1, title, "needs groups of different R_s at one sparsity", More(3, "groups", at_least=True))
    several = len({what for _, what, _ in places}) > 1
    common = frozenset.intersection(*(what for _, what, _ in places))
    found = [rank_correlation([points], options.confidence, SMALLEST_CORRELATION) for _, _, points in places]
    tested = [r for r in found if r is not None and _enough(r)]
    corrections = iter(zip(holm([r.p_value for r in tested]), holm([r.p_below for r in tested]), strict=True))
    rows = []
    for (sparsity, what, points), correlation in zip(places, found, strict=True):
        label = f"all methods, {_recipe_in_words(what - common)}" if several and what - common else "all methods"
        p_values = next(corrections) if correlation is not None and _enough(correlation) else None
        rows.append(_correlation("comparison", label, correlation, p_values, options, len(tested), sparsity, points))
    used = [points for (_, _, points), r in zip(places, found, strict=True) if not tested or r in tested]
    together = rank_correlation(used, options.confidence, SMALLEST_CORRELATION)
    p_together = (together.p_value, together.p_below) if together is not None and _enough(together) else None
    everything = [point for points in used for point in points]
    whole = _correlation("claim", title, together, p_together, options, 1, None, everything)
    return Claim(1, [_counted(whole, rows), *rows])


def _points(groups: Sequence[Group], options: Options) -> list[Point]:
    points = []
    for group in groups:
        explored, accuracies = group.by_seed(options.explored), group.by_seed(options.accuracy)
        name = repr(group.kind)
        points += [
            Point(name, seed, explored[seed], accuracies[seed]) for seed in sorted(explored.keys() & accuracies.keys())
        ]
    return points


def _enough(correlation: RankCorrelation) -> bool:
    """Whether there is a verdict at all: several seeds, and groups that could exchange places."""
    return correlation.seeds >= FEWEST_SEEDS and correlation.groups >= 3


def _correlation(
    scope: str, label: str, found: RankCorrelation | None, p_values: tuple[float, float] | None, options: Options,
    family: int, sparsity: float | None, points: Sequence[Point],
) -> Finding:  # fmt: skip
    if found is None:  # nothing measured yet, or all R_s or all accuracies the same
        missing = max(1, 3 - len({point.group for point in points}))
        return Finding(scope, label, Verdict(OPEN, More(missing, "groups", at_least=True)), sparsity, n=len(points))
    return Finding(
        scope, label, _verdict_on_correlation(found, p_values, options.level, family), sparsity,
        statistic="Spearman's ρ" if scope == "comparison" else "mean Spearman's ρ", estimate=found.estimate,
        low=found.low, high=found.high, n=found.runs, p_value=found.p_value if p_values else None,
        p_corrected=p_values[0] if p_values else None, details={"groups": found.groups, "seeds": found.seeds},
    )  # fmt: skip


def _verdict_on_correlation(
    found: RankCorrelation, p_values: tuple[float, float] | None, level: float, family: int
) -> Verdict:
    if p_values is None:
        seeds, groups = FEWEST_SEEDS - found.seeds, 3 - found.groups
        return Verdict(OPEN, More(seeds, at_least=True) if seeds > 0 else More(groups, "groups", at_least=True))
    corrected, below = p_values
    if corrected <= level + DUST and found.low > 0:
        return Verdict(HOLDS)
    if below <= level + DUST:
        return Verdict(FAILS)
    targets = [0.0] * (found.estimate > 0) + [SMALLEST_CORRELATION] * (found.estimate < SMALLEST_CORRELATION)
    most = 1000
    needed = min(groups_needed(found.estimate, target, level / family, most=most) for target in targets)
    return Verdict(OPEN, More(max(1, needed - found.groups), "groups", at_least=needed == most))


def _recipe_in_words(what: Recipe) -> str:
    return ", ".join(f"{short_name(name)} {in_words(value)}" for name, value in sorted(what, key=repr))


# 2 to 5: one group against another --------------------------------------------------------------------------


def _dynamic(study: Study, options: Options) -> Claim:
    title = "dynamic beats static"
    compared = dynamic_against_static(study)
    judged = _judge(compared, options, above=0.0, below=options.margin)
    if not judged:
        return _nothing(2, title, "needs static and dynamic runs that are alike otherwise")
    rows = [_row(c, j, options, c.first.kind.label) for c, j in zip(compared, judged, strict=True)]
    return Claim(2, [_counted(_average(title, compared, options), rows), *rows])


def _intervals(study: Study, options: Options) -> Claim:
    title = "ITOP's intervals beat the original ones"
    compared = itop_against_original(study)
    judged = _judge(compared, options, above=0.0, below=options.margin)
    if not judged:
        return _nothing(3, title, f"needs runs of {_ITOP_NAMES}")
    rows = [_row(c, j, options, _against(c)) for c, j in zip(compared, judged, strict=True)]
    return Claim(3, [_counted(_average(title, compared, options), rows), *rows])


def _dense(study: Study, options: Options) -> Claim:
    title = "sparse matches or beats dense"
    compared = sparse_against_dense(study)
    judged = _judge(compared, options, above=-options.margin, below=-options.margin)
    if not judged:
        return _nothing(4, title, "needs dense and dynamic runs that are alike otherwise")
    remarks = _better_or_equal([j.difference for j in judged], options)
    rows = [
        _row(c, j, options, c.first.kind.label, remark if j.verdict.word == HOLDS else "", tost)
        for c, j, (remark, tost) in zip(compared, judged, remarks, strict=True)
    ]
    reached = {kind: _reached(kind, compared, judged) for kind in dict.fromkeys(c.first.kind for c in compared)}
    methods = [
        _up_to("method", method, [kind for kind in reached if kind.method == method], reached, compared, judged)
        for method in dict.fromkeys(kind.method for kind in reached)
    ]
    whole = _up_to("claim", title, list(reached), reached, compared, judged)
    return Claim(4, [_counted(whole, rows), *methods, *rows])


def _too_short(study: Study, options: Options) -> Claim:
    title = "too short an interval hurts, though R_s is high"
    compared, left_out = longer_against_shortest(study)
    note = ""
    if left_out:
        places = ", ".join(f"{group.kind.label} at {100 * group.sparsity:g} %" for group in left_out)
        note = f"Claim 5 leaves out shortest intervals that did not explore the most: {places}."
    judged = _judge(compared, options, above=0.0, below=options.margin)
    if not judged:
        nothing = _nothing(5, title, "needs several intervals of one method, the shortest with the highest R_s")
        return Claim(5, nothing.findings, note)
    rows = [_row(c, j, options, _against(c)) for c, j in zip(compared, judged, strict=True)]
    whole = Finding("claim", title, any_holds(judged))
    return Claim(5, [_counted(whole, rows), *rows], note)


def _judge(compared: Sequence[Comparison], options: Options, above: float, below: float) -> list[Judged]:
    differences = [c.difference(options.accuracy) for c in compared]
    common = [len(c.paired(options.accuracy)) for c in compared]
    waiting = sum(
        not (c.first.complete and c.second.complete)
        for c, d in zip(compared, differences, strict=True)
        if d is None or d.n < FEWEST_SEEDS
    )
    return judge(differences, common, above, below, options.level, waiting)


def _average(title: str, compared: Sequence[Comparison], options: Options) -> Finding:
    """The claim as a whole: the average over its comparisons, tested over seeds."""
    paired = [c.paired(options.accuracy) for c in compared]
    enough = [values for values in paired if len(values) >= FEWEST_SEEDS] or paired
    difference = average_difference(enough)
    common = max((len(values) for values in paired), default=0)
    (judged,) = judge([difference], [common], 0.0, options.margin, options.level)
    return _finding("claim", title, judged, options)


def _row(
    compared: Comparison, judged: Judged, options: Options, label: str, remark: str = "", tost: float | None = None
) -> Finding:
    found = _finding("comparison", label, judged, options)
    estimate = found.estimate
    if judged.difference is None:  # one seed: what it says, without a test
        single = compared.paired(options.accuracy)
        estimate = next(iter(single.values())) if single else None
    details = {} if tost is None else {"equivalence_p_value": tost}
    return Finding(
        "comparison", label, judged.verdict, compared.sparsity, compared.first.kind.label,
        compared.second.kind.label, found.statistic, estimate, found.low, found.high,
        judged.difference.n if judged.difference else int(estimate is not None), judged.p_value, judged.p_corrected,
        remark, {**found.details, **details},
    )  # fmt: skip


def _finding(scope: str, label: str, judged: Judged, options: Options) -> Finding:
    difference = judged.difference
    if difference is None:
        return Finding(scope, label, judged.verdict, statistic="difference of accuracy", n=0)
    low, high = difference.interval(options.confidence) or (None, None)
    return Finding(
        scope, label, judged.verdict, None, None, None, "difference of accuracy", difference.estimate, low, high,
        difference.n, judged.p_value, judged.p_corrected, details={"test": difference.test},
    )  # fmt: skip


def _against(compared: Comparison) -> str:
    """`set-itop, ΔT 40 against ΔT 10`, or `… against set`."""
    first, second = compared.first.kind, compared.second.kind
    if first.method != second.method:
        return f"{first.label} against {second.label}"
    names = [name for (name, one), (_, two) in zip(first.settings, second.settings, strict=True) if one != two]
    differing = Kind(second.method, tuple(item for item in second.settings if item[0] in names))
    return f"{first.label} against {differing.details}"


def _better_or_equal(differences: Sequence[Difference | None], options: Options) -> list[tuple[str, float | None]]:
    """Whether a sparse group is shown to be better than dense, or equal to it within the margin; and the TOST's p."""
    known = [d for d in differences if d is not None and d.n >= FEWEST_SEEDS]
    better = holm([min(1.0, 2 * d.p_above(0.0)) for d in known])
    tost = [max(d.p_above(-options.margin), d.p_below(options.margin)) for d in known]
    equal = holm([min(1.0, 2 * p) for p in tost])
    numbers = iter(zip(better, equal, tost, strict=True))
    remarks: list[tuple[str, float | None]] = []
    for difference in differences:
        if difference is None or difference.n < FEWEST_SEEDS:
            remarks.append(("", None))
            continue
        p_better, p_equal, p_tost = next(numbers)
        word = "better" if p_better <= options.level else "equal" if p_equal <= options.level else "not worse"
        remarks.append((word, p_tost))
    return remarks


def _reached(kind: Kind, compared: Sequence[Comparison], judged: Sequence[Judged]) -> float | None:
    """The largest sparsity up to which it holds for a kind, at all smaller ones of the study, too."""
    reached = None
    for index in sorted(
        (i for i, c in enumerate(compared) if c.first.kind == kind), key=lambda i: compared[i].sparsity
    ):
        if judged[index].verdict.word != HOLDS:
            break
        reached = compared[index].sparsity
    return reached


def _lowest(kind: Kind, compared: Sequence[Comparison]) -> int:
    return min((i for i, c in enumerate(compared) if c.first.kind == kind), key=lambda i: compared[i].sparsity)


def _up_to(
    scope: str, label: str, kinds: Sequence[Kind], reached: dict[Kind, float | None],
    compared: Sequence[Comparison], judged: Sequence[Judged],
) -> Finding:  # fmt: skip
    """Up to which sparsity it holds for the best of some kinds."""

    def rank(kind: Kind) -> tuple[float, float]:
        """Further is better; where two go as far, the one that is more accurate there."""
        there = [
            j.difference.estimate
            for c, j in zip(compared, judged, strict=True)
            if c.first.kind == kind and c.sparsity == reached[kind] and j.difference is not None
        ]
        return reached[kind] or 0.0, max(there, default=-1.0)

    best = max(kinds, key=rank)
    highest = reached[best]
    verdict = any_holds([judged[_lowest(kind, compared)] for kind in kinds])
    remark = "" if highest is None else best.label if scope == "claim" else best.details
    return Finding(
        scope, label, verdict, highest, best.label if highest is not None else None, "dense",
        "largest sparsity", highest, remark=remark,
    )  # fmt: skip


# All of them ------------------------------------------------------------------------------------------------


def _nothing(number: int, title: str, needs: str, more: More | None = None) -> Claim:
    verdict = Verdict(OPEN, more or More(FEWEST_SEEDS, at_least=True))
    return Claim(number, [Finding("claim", title, verdict, n=0, remark=needs, details=_counts([]))])


def _counted(whole: Finding, rows: Sequence[Finding]) -> Finding:
    return replace(whole, details={**whole.details, **_counts(rows)})


def _counts(rows: Sequence[Finding]) -> dict[str, int]:
    words: dict[str, Callable[[Finding], bool]] = {
        "comparisons": lambda row: True,
        "comparisons_hold": lambda row: row.verdict.word == HOLDS,
        "comparisons_fail": lambda row: row.verdict.word == FAILS,
    }
    return {name: sum(map(test, rows)) for name, test in words.items()}
