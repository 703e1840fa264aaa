"""The five claims of In-Time Over-Parameterization (Liu et al., ICML 2021), each tested on one study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from itopctl.report.claims.comparable import (
    Comparison,
    dynamic_against_static,
    itop_against_original,
    longer_against_shortest,
    sparse_against_dense,
)
from itopctl.report.claims.exploration_claim import exploration_claim
from itopctl.report.claims.finding import Claim, Finding, Options, counted, nothing
from itopctl.report.claims.verdicts import (
    FEWEST_SEEDS,
    HOLDS,
    Judged,
    any_holds,
    judge,
)
from itopctl.report.groups import Kind, Study, short_name
from itopctl.report.statistics import Difference, average_difference, holm

_ITOP_NAMES = "set beside set-itop, or rigl beside rigl-itop"


def claims(study: Study, options: Options) -> list[Claim]:
    """All claims, in order."""
    return [
        exploration_claim(study, options), _dynamic(study, options), _intervals(study, options), _dense(study, options),
        _too_short(study, options),
    ]  # fmt: skip


# 2 to 5: one group against another --------------------------------------------------------------------------


def _dynamic(study: Study, options: Options) -> Claim:
    title = "dynamic beats static"
    compared = dynamic_against_static(study)
    judged = _judge(compared, options, above=0.0, below=options.margin)
    if not judged:
        return nothing(2, title, "needs static and dynamic runs that are alike otherwise")
    rows = [_row(c, j, options, c.first.kind.label) for c, j in zip(compared, judged, strict=True)]
    return Claim(2, [counted(_average(title, compared, options), rows), *rows])


def _intervals(study: Study, options: Options) -> Claim:
    title = "ITOP's intervals beat the original ones"
    compared = itop_against_original(study)
    judged = _judge(compared, options, above=0.0, below=options.margin)
    if not judged:
        return nothing(3, title, f"needs runs of {_ITOP_NAMES}")
    rows = [_row(c, j, options, _against(c)) for c, j in zip(compared, judged, strict=True)]
    return Claim(3, [counted(_average(title, compared, options), rows), *rows], _what_else_differs(study, compared))


def _what_else_differs(study: Study, compared: Sequence[Comparison]) -> str:
    """Methods differ in more than the interval; and not every interval of ITOP's methods is longer."""
    others = sorted({short_name(name) for c in compared for name in c.differing() if name != "update_interval"})
    note = (
        f"Claim 3 compares methods as they were published, which differ in {', '.join(others)}, too." if others else ""
    )
    taken = {c.first.kind for c in compared} | {c.second.kind for c in compared}
    methods = {c.first.kind.method for c in compared}
    left_out = [kind.label for kind in study.kinds if kind.method in methods and kind not in taken]
    if left_out:
        note += f" It leaves out intervals that are not longer than the original one: {', '.join(left_out)}."
    return note.strip()


def _dense(study: Study, options: Options) -> Claim:
    title = "sparse matches or beats dense"
    compared = sparse_against_dense(study)
    judged = _judge(compared, options, above=-options.margin, below=-options.margin)
    if not judged:
        return nothing(4, title, "needs dense and dynamic runs that are alike otherwise")
    remarks = _better_or_equal([j.difference for j in judged], options)
    rows = [
        _row(c, j, options, c.first.kind.label, remark if j.verdict.word == HOLDS else "", tost)
        for c, j, (remark, tost) in zip(compared, judged, remarks, strict=True)
    ]
    ladders = _ladders(compared, judged)
    methods = [
        _up_to("method", method, {kind: steps for kind, steps in ladders.items() if kind.method == method})
        for method in dict.fromkeys(kind.method for kind in ladders)
    ]
    return Claim(4, [counted(_up_to("claim", title, ladders), rows), *methods, *rows])


def _too_short(study: Study, options: Options) -> Claim:
    title = "too short an interval can hurt, though it explores most"
    compared, left_out = longer_against_shortest(study)
    note = ""
    if left_out:
        places = ", ".join(f"{group.kind.label} at {100 * group.sparsity:g} %" for group in left_out)
        note = f"Claim 5 leaves out shortest intervals that did not explore the most: {places}."
    judged = _judge(compared, options, above=0.0, below=options.margin)
    if not judged:
        needs = "needs several intervals of one method, the shortest with the highest R_s"
        return Claim(5, nothing(5, title, needs).findings, note)
    rows = [_row(c, j, options, _against(c)) for c, j in zip(compared, judged, strict=True)]
    whole = Finding("claim", title, any_holds(judged))
    found = [c for c, j in zip(compared, judged, strict=True) if j.verdict.word == HOLDS]
    where = [f"{_against(c)} at {100 * c.sparsity:g} %" for c in found]
    if where:
        note = " ".join(filter(None, [note, f"Claim 5 holds for {', '.join(where)}, and is shown nowhere else."]))
    return Claim(5, [counted(whole, rows), *rows], note)


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


_Ladder = list[tuple[float, Judged]]


def _ladders(compared: Sequence[Comparison], judged: Sequence[Judged]) -> dict[Kind, _Ladder]:
    """For each kind its sparsities with the verdicts there, from the least on."""
    ladders: dict[Kind, _Ladder] = {}
    for c, j in zip(compared, judged, strict=True):
        ladders.setdefault(c.first.kind, []).append((c.sparsity, j))
    return {kind: sorted(steps, key=lambda step: step[0]) for kind, steps in ladders.items()}


def _reached(steps: _Ladder) -> tuple[float, float]:
    """The largest sparsity up to which it holds, at all smaller ones of the study, too; and the difference there.

    0 where it does not hold at the least one.
    """
    reached = (0.0, 0.0)
    for sparsity, judged in steps:
        if judged.verdict.word != HOLDS or judged.difference is None:
            break
        reached = (sparsity, judged.difference.estimate)
    return reached


def _up_to(scope: str, label: str, ladders: Mapping[Kind, _Ladder]) -> Finding:
    """Up to which sparsity it holds for the best of some kinds: the most accurate of those that go furthest."""
    best = max(ladders, key=lambda kind: _reached(ladders[kind]))
    highest, _ = _reached(ladders[best])
    verdict = any_holds([steps[0][1] for steps in ladders.values()])
    if not highest:
        return Finding(scope, label, verdict, against="dense", statistic="largest sparsity")
    return Finding(
        scope, label, verdict, highest, best.label, "dense", "largest sparsity", highest,
        remark=best.label if scope == "claim" else best.details,
    )  # fmt: skip
