from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.errors import UserError
from itopctl.report.claims import claims_tables
from itopctl.report.formats import render
from itopctl.report.statistics import seeds_needed
from itopctl.report.table import Record, Table
from tests.report.records import run, unfinished

METHODS = ("static", "set", "set-itop", "rigl", "rigl-itop")
HOLDS, FAILS, OPEN = "holds", "does not hold", "not enough runs"


def table_of(runs: list[Record], **options: Any) -> Table:
    (table,) = claims_tables(runs, METHODS, **options)
    return table


def whole(table: Table, claim: int) -> Record:
    (record,) = [r for r in table.records if r["claim"] == claim and r["scope"] == "claim"]
    return record


def compared(table: Table, claim: int) -> list[Record]:
    return [r for r in table.records if r["claim"] == claim and r["scope"] == "comparison"]


def group(
    method: str, accuracies: list[float], sparsity: float = 0.9, explored: float | None = None, first_seed: int = 0,
    **settings: Any,
) -> list[Record]:  # fmt: skip
    """Runs of a group, one for each accuracy."""
    rate = {} if explored is None else {"exploration_rate": explored}
    return [
        run(method, sparsity, seed, accuracy=accuracy, settings=settings, **rate)
        for seed, accuracy in enumerate(accuracies, first_seed)
    ]


# Dynamic against static -------------------------------------------------------------------------------------


def test_a_difference_is_paired_by_seed() -> None:
    """Differences 0.02, 0.03, 0.04: mean 0.03, error 0.01 / √3; t 5.196 with 2 degrees of freedom, p 0.0351."""
    table = table_of([*group("static", [0.80, 0.90, 0.70]), *group("set-itop", [0.82, 0.93, 0.74])])
    (record,) = compared(table, 2)
    assert record["estimate"] == pytest.approx(0.03) and record["n"] == 3 and record["test"] == "paired t"
    assert (record["low"], record["high"]) == pytest.approx((0.03 - 0.024841, 0.03 + 0.024841), abs=1e-5)
    assert record["p_value"] == record["p_value_corrected"] == pytest.approx(0.0351, abs=1e-4)
    assert record["verdict"] == HOLDS == whole(table, 2)["verdict"]
    assert (record["more_runs"], record["kind"], record["against"]) == (None, "set-itop", "static")


def test_an_advantage_below_the_margin_does_not_hold_once_that_is_sure() -> None:
    small = [0.0005, -0.0004, 0.0002, -0.0001, 0.0003, -0.0003]
    static = [0.80, 0.90, 0.70, 0.85, 0.75, 0.95]
    dynamic = [a + b for a, b in zip(static, small, strict=True)]
    (record,) = compared(table_of([*group("static", static), *group("set-itop", dynamic)]), 2)
    assert record["verdict"] == FAILS and record["high"] < 0.005
    (record,) = compared(table_of([*group("static", static), *group("set-itop", dynamic)], margin=0.0001), 2)
    assert record["verdict"] == OPEN


def test_the_contrary_does_not_hold() -> None:
    (record,) = compared(table_of([*group("static", [0.9, 0.91, 0.92]), *group("set-itop", [0.7, 0.72, 0.73])]), 2)
    assert record["verdict"] == FAILS and record["high"] < 0


def test_what_cannot_be_decided_says_how_many_more_seeds_would() -> None:
    """Differences 0.02, 0.05, −0.01: mean 0.02, deviation 0.03, so 0.667 deviations: 20 pairs, 17 more."""
    (record,) = compared(table_of([*group("static", [0.8, 0.8, 0.8]), *group("set-itop", [0.82, 0.85, 0.79])]), 2)
    assert (record["verdict"], record["more_runs"], record["more_runs_of"]) == (OPEN, 17, "seeds")
    assert record["more_runs_at_least"] is False


def test_a_comparison_among_many_needs_more_seeds_since_it_has_to_stand_the_correction() -> None:
    """The same 0.667 deviations, one of four comparisons: at 5 % / 4 it takes 29 pairs, alone 20."""
    runs = [*group("static", [0.8, 0.8, 0.8]), *group("set-itop", [0.82, 0.85, 0.79])]
    more = [r for dt in (1, 2, 3) for r in group("set-itop", [0.82, 0.85, 0.79], update_interval=dt)]
    assert {r["more_runs"] for r in compared(table_of([*runs, *more]), 2)} == {seeds_needed(2 / 3, 0.05 / 4) - 3}


@pytest.mark.parametrize(("seeds", "missing"), [(1, 2), (2, 1)])
def test_one_or_two_seeds_give_no_verdict_however_large_the_difference(seeds: int, missing: int) -> None:
    table = table_of([*group("static", [0.1, 0.11][:seeds]), *group("set-itop", [0.9, 0.92][:seeds]),
                      *group("dense", [0.95, 0.96][:seeds], 0.0)])  # fmt: skip
    for record in table.records:
        assert record["verdict"] == OPEN and record["p_value"] is None
    (record,) = compared(table, 2)
    assert record["estimate"] == pytest.approx(0.8 if seeds == 1 else 0.805) and record["n"] == seeds
    assert (record["more_runs"], record["more_runs_at_least"]) == (missing, True)


@pytest.mark.parametrize("name", ["epochs", "optimizer.lr", "allocation", "batch_size", "training_multiplier"])
def test_runs_that_differ_in_training_or_allocation_are_not_compared(name: str) -> None:
    table = table_of([*group("static", [0.8] * 3, **{name: 2}), *group("set-itop", [0.82, 0.93, 0.74], **{name: 3})])
    assert not compared(table, 2)
    assert (whole(table, 2)["verdict"], whole(table, 2)["more_runs"]) == (OPEN, 3)


def test_each_learning_rate_is_compared_with_static_of_the_same() -> None:
    runs = [
        r
        for lr, gain in ((0.1, 0.02), (0.2, 0.04))
        for r in [
            *group("static", [0.80, 0.90, 0.70], **{"optimizer.lr": lr}),
            *group("set-itop", [0.80 + gain, 0.901 + gain, 0.699 + gain], **{"optimizer.lr": lr}),
        ]
    ]
    records = compared(table_of(runs), 2)
    assert [(r["kind"], r["against"]) for r in records] == [
        ("set-itop, lr 0.1", "static, lr 0.1"),
        ("set-itop, lr 0.2", "static, lr 0.2"),
    ]
    assert [r["estimate"] for r in records] == pytest.approx([0.02, 0.04])


def test_settings_of_topology_updates_may_differ() -> None:
    dynamic = group("set-itop", [0.82, 0.93, 0.74], drop_fraction=0.5, growth="random", **{"drop_schedule.name": "x"})
    assert len(compared(table_of([*group("static", [0.8, 0.9, 0.7]), *dynamic]), 2)) == 1


def test_seeds_that_are_not_shared_are_compared_by_welchs_test() -> None:
    table = table_of([*group("static", [0.8, 0.9, 0.7]), *group("set-itop", [0.82, 0.93, 0.74, 0.8], first_seed=10)])
    (record,) = compared(table, 2)
    assert (record["test"], record["n"]) == ("Welch t", 3)


def test_unfinished_runs_do_not_count() -> None:
    runs = [*group("static", [0.80, 0.90, 0.70]), *group("set-itop", [0.82, 0.93, 0.74])]
    waiting = [unfinished("set-itop", 0.9, 7), unfinished("static", 0.9, 7, "failed")]
    assert compared(table_of([*runs, *waiting]), 2) == compared(table_of(runs), 2)
    (_, none) = compared(table_of([*runs, unfinished("rigl-itop", 0.9, 0)]), 2)
    assert (none["kind"], none["estimate"], none["n"], none["more_runs"]) == ("rigl-itop", None, 0, 3)


def test_more_comparisons_make_each_of_them_harder_to_show() -> None:
    runs = [*group("static", [0.80, 0.90, 0.70]), *group("set-itop", [0.82, 0.93, 0.74])]
    more = [r for dt in (1, 2, 3) for r in group("set-itop", [0.8, 0.91, 0.69], update_interval=dt)]
    (alone,) = compared(table_of(runs), 2)
    among = next(r for r in compared(table_of([*runs, *more]), 2) if r["kind"] == "set-itop, ΔT 40")
    assert among["p_value"] == alone["p_value"] and among["p_value_corrected"] == pytest.approx(4 * alone["p_value"])
    assert (alone["verdict"], among["verdict"]) == (HOLDS, OPEN)


def test_a_claim_as_a_whole_is_the_average_of_its_comparisons_by_seed() -> None:
    """Gains of 1 and 3 points at two sparsities: 2 on average; noise that cancels out in a seed does not count."""
    runs = [
        *group("static", [0.80, 0.80, 0.80], 0.9), *group("set-itop", [0.81, 0.84, 0.78], 0.9),
        *group("static", [0.70, 0.70, 0.70], 0.95), *group("set-itop", [0.73, 0.7001, 0.7599], 0.95),
    ]  # fmt: skip
    record = whole(table_of(runs), 2)
    assert (record["estimate"], record["n"], record["verdict"]) == (pytest.approx(0.02), 3, HOLDS)
    assert (record["comparisons"], record["comparisons_hold"], record["comparisons_fail"]) == (2, 0, 0)


# ITOP's intervals -------------------------------------------------------------------------------------------


def test_itops_interval_is_compared_with_the_original_method_and_its_interval() -> None:
    itop = group("rigl-itop", [0.92, 0.93, 0.94], update_interval=800)
    original = group("rigl", [0.90, 0.90, 0.90], update_interval=100, drop_fraction=0.3)
    same_rules = group("rigl-itop", [0.91, 0.91, 0.91], update_interval=100)
    shorter = group("rigl-itop", [0.5, 0.5, 0.5], update_interval=50)
    table = table_of([*itop, *original, *same_rules, *shorter])
    assert [(r["kind"], r["against"]) for r in compared(table, 3)] == [
        ("rigl-itop, ΔT 800", "rigl"), ("rigl-itop, ΔT 800", "rigl-itop, ΔT 100"),
    ]  # fmt: skip
    assert [r["estimate"] for r in compared(table, 3)] == pytest.approx([0.03, 0.02])


def test_an_interval_of_one_epoch_is_told_from_the_steps_of_the_runs() -> None:
    """4 epochs of 11 steps: SET's own interval is 11."""
    runs = [
        r
        for interval in (10, 11, 40)
        for r in group("set-itop", [0.90, 0.91, 0.92 + interval / 1000], update_interval=interval)
    ]
    table = table_of([{**r, "steps": 44} for r in runs])
    assert [(r["kind"], r["against"]) for r in compared(table, 3)] == [("set-itop, ΔT 40", "set-itop, ΔT 11")]
    assert not compared(table_of(runs), 3)


def test_without_the_original_the_table_says_what_is_needed() -> None:
    table = table_of(group("set-itop", [0.9, 0.91, 0.92]))
    assert whole(table, 3)["verdict"] == OPEN and "set beside set-itop" in whole(table, 3)["remark"]
    assert "set beside set-itop" in render([table], "markdown")


# Against dense ----------------------------------------------------------------------------------------------

DENSE = [0.950, 0.952, 0.948, 0.951, 0.949, 0.950]
NOISE = [0.0004, -0.0005, 0.0001, -0.0002, 0.0003, -0.0001]


def against_dense(*gaps: float, **options: Any) -> Table:
    """A study of one method whose accuracy at 80, 90, 95 % is so much above that of dense."""
    runs = group("dense", DENSE, 0.0)
    for sparsity, gap in zip((0.8, 0.9, 0.95), gaps, strict=False):
        runs += group("set-itop", [a + b + gap for a, b in zip(DENSE, NOISE, strict=True)], sparsity)
    return table_of(runs, **options)


@pytest.mark.parametrize(
    ("gap", "verdict", "remark"),
    [(0.01, HOLDS, "better"), (0.0, HOLDS, "equal"), (-0.003, HOLDS, "equal"), (-0.01, FAILS, None)],
)
def test_sparse_holds_against_dense_unless_it_is_worse_by_the_margin(
    gap: float, verdict: str, remark: str | None
) -> None:
    (record,) = compared(against_dense(gap), 4)
    assert (record["verdict"], record["remark"]) == (verdict, remark)


def test_the_two_one_sided_tests_by_hand() -> None:
    """Differences 1, 2, 3 thousandths, margin 5: error 0.577; t 12.12 and −5.196 with 2 df: p 0.0034 and 0.0176."""
    runs = [*group("dense", [0.9, 0.92, 0.91], 0.0), *group("set-itop", [0.901, 0.922, 0.913])]
    (record,) = compared(table_of(runs), 4)
    assert record["equivalence_p_value"] == pytest.approx(0.01755, abs=1e-4)
    assert record["p_value"] == pytest.approx(2 * 0.00337, abs=1e-4)


def test_it_holds_up_to_the_largest_sparsity_before_the_first_where_it_does_not() -> None:
    table = against_dense(0.0, -0.001, -0.02)
    assert (whole(table, 4)["estimate"], whole(table, 4)["verdict"]) == (0.9, HOLDS)
    assert whole(against_dense(0.0, -0.02, 0.01), 4)["estimate"] == 0.8
    nowhere = whole(against_dense(-0.02, 0.01, 0.01), 4)
    assert (nowhere["estimate"], nowhere["verdict"]) == (None, FAILS)


def test_a_wider_margin_lets_it_hold_further() -> None:
    assert whole(against_dense(0.0, -0.01, -0.02, margin=0.015), 4)["estimate"] == 0.9
    assert whole(against_dense(0.0, -0.01, -0.02, margin=0.03), 4)["estimate"] == 0.95


def test_each_method_says_how_far_it_goes() -> None:
    runs = group("dense", DENSE, 0.0)
    for method, gaps in (("set-itop", (0.0, -0.02)), ("rigl-itop", (0.0, 0.0))):
        for sparsity, gap in zip((0.8, 0.9), gaps, strict=True):
            runs += group(method, [a + b + gap for a, b in zip(DENSE, NOISE, strict=True)], sparsity)
    table = table_of(runs)
    said = [(r["compared"], r["estimate"]) for r in table.records if r["scope"] == "method"]
    assert said == [("set-itop", 0.8), ("rigl-itop", 0.9)]
    assert (whole(table, 4)["estimate"], whole(table, 4)["kind"]) == (0.9, "rigl-itop")


def test_static_runs_are_not_what_is_claimed_to_match_dense() -> None:
    assert not compared(table_of([*group("dense", DENSE, 0.0), *group("static", DENSE)]), 4)


# Too short an interval --------------------------------------------------------------------------------------


def intervals(*accuracies: float, rates: tuple[float, ...] = (0.9, 0.5, 0.3)) -> list[Record]:
    return [
        r
        for interval, accuracy, rate in zip((10, 40, 160), accuracies, rates, strict=False)
        for r in group("set-itop", [accuracy + n for n in NOISE], explored=rate, update_interval=interval)
    ]


def test_the_shortest_interval_is_compared_with_every_longer_one() -> None:
    table = table_of(intervals(0.90, 0.92, 0.89))
    assert [(r["kind"], r["against"], r["verdict"]) for r in compared(table, 5)] == [
        ("set-itop, ΔT 40", "set-itop, ΔT 10", OPEN), ("set-itop, ΔT 160", "set-itop, ΔT 10", OPEN),
    ]  # fmt: skip  # without any spread, six seeds are one too few for two comparisons


def test_it_holds_where_any_longer_interval_is_better() -> None:
    runs = intervals(0.90, 0.92, 0.89)
    for record in runs:
        record["test_accuracy"] += 0.001 * ((record["seed"] * record["settings"]["update_interval"]) % 7)
    table = table_of(runs)
    assert [r["verdict"] for r in compared(table, 5)] == [HOLDS, FAILS] and whole(table, 5)["verdict"] == HOLDS


def test_a_shortest_interval_that_did_not_explore_the_most_is_left_out_and_named() -> None:
    table = table_of(intervals(0.90, 0.92, 0.89, rates=(0.4, 0.5, 0.3)))
    assert not compared(table, 5) and whole(table, 5)["verdict"] == OPEN
    assert "set-itop, ΔT 10 at 90 %" in table.notes[-1]


# Accuracy and R_s -------------------------------------------------------------------------------------------


def explored(slope: float, groups: int = 7, seeds: int = 3, noise: float = 0.002, seed: int = 0) -> list[Record]:
    chance = random.Random(seed)
    return [
        r
        for number in range(groups)
        for r in group(
            "set-itop", [0.8 + slope * number + chance.gauss(0, noise) for _ in range(seeds)],
            explored=0.9 - 0.1 * number, update_interval=10 * (number + 1),
        )
    ]  # fmt: skip


@pytest.mark.parametrize(("slope", "verdict"), [(-0.01, HOLDS), (0.01, FAILS)])
def test_accuracy_that_rises_or_falls_with_the_exploration_rate_is_seen(slope: float, verdict: str) -> None:
    table = table_of(explored(slope))
    (record,) = compared(table, 1)
    assert record["verdict"] == verdict == whole(table, 1)["verdict"]
    assert (record["n"], record["groups"], record["statistic"]) == (21, 7, "Spearman's ρ")
    assert abs(record["estimate"]) > 0.9


def test_few_groups_need_more_groups_and_not_more_seeds() -> None:
    (record,) = compared(table_of(explored(-0.01, groups=4, seeds=20)), 1)
    assert (record["verdict"], record["more_runs_of"], record["more_runs"]) == (OPEN, "groups", 1)


def test_each_of_several_methods_is_looked_at_alone_too_with_static_as_its_lower_end() -> None:
    """One method explores little and is good, the other explores much and is bad; within each, more is better."""
    runs = group("static", [0.800, 0.801, 0.799], explored=0.1)
    for method, level, rate in (("set-itop", 0.85, 0.5), ("rigl-itop", 0.95, 0.2)):
        for place in range(4):
            accuracies = [level + 0.01 * place + n for n in (0.0, 0.001, -0.001)]
            runs += group(method, accuracies, explored=rate + 0.05 * place, update_interval=100 - place)
    records = {r["compared"]: r for r in compared(table_of(runs), 1)}
    assert list(records) == ["all methods", "set-itop and static", "rigl-itop and static"]
    assert [r["verdict"] for r in records.values()] == [OPEN, HOLDS, HOLDS]
    assert records["all methods"]["estimate"] < 0.2 and records["rigl-itop and static"]["groups"] == 5


def test_a_correlation_that_could_never_be_significant_is_not_tested_and_costs_the_others_nothing() -> None:
    """Four groups: at best 2 / 4! = 0.083."""
    few = [{**r, "sparsity": 0.95, "settings": {**r["settings"], "sparsity": 0.95}} for r in explored(-0.01, groups=4)]
    many, four = compared(table_of([*explored(-0.01), *few]), 1)
    assert (four["p_value"], four["verdict"], four["estimate"] > 0.9) == (None, OPEN, True)
    assert many["p_value_corrected"] == many["p_value"] and many["verdict"] == HOLDS


def test_runs_of_different_training_are_not_correlated_together() -> None:
    longer = [{**r, "settings": {**r["settings"], "epochs": 8}} for r in explored(0.01)]
    records = compared(table_of([*explored(-0.01), *longer]), 1)
    assert [(r["compared"], r["verdict"]) for r in records] == [
        ("all methods, epochs 4", HOLDS), ("all methods, epochs 8", FAILS),
    ]  # fmt: skip


def test_the_accuracy_at_the_best_validation_goes_with_the_rate_at_that_step() -> None:
    runs = [
        {**r, "test_accuracy_at_best_validation": 1 - r["test_accuracy"],
         "exploration_rate_at_best_validation": r["exploration_rate"]}
        for r in explored(-0.01)
    ]  # fmt: skip
    assert compared(table_of(runs), 1)[0]["estimate"] > 0.9
    assert compared(table_of(runs, best_by="validation"), 1)[0]["estimate"] < -0.9


# All of it --------------------------------------------------------------------------------------------------


def study(seeds: int = 3, seed: int = 0, gain: float = 0.02) -> list[Record]:
    """Dense, static, and two methods with two intervals, at two sparsities."""
    chance = random.Random(seed)

    def some(mean: float) -> list[float]:
        return [mean + chance.gauss(0, 0.003) for _ in range(seeds)]

    runs = group("dense", some(0.96), 0.0, 1.0)
    for sparsity in (0.9, 0.95):
        runs += group("static", some(0.93), sparsity, 1 - sparsity)
        for method in ("set-itop", "rigl-itop"):
            for interval, rate in ((10, 0.8), (40, 0.4)):
                runs += group(method, some(0.93 + gain), sparsity, rate, update_interval=interval)
    return runs


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None)
def test_the_order_of_the_runs_does_not_matter(chance: random.Random) -> None:
    runs = study()
    shuffled = list(runs)
    chance.shuffle(shuffled)
    assert table_of(shuffled).records == table_of(runs).records


FEW = st.lists(
    st.builds(
        run, st.sampled_from(["dense", "static", "set", "set-itop", "rigl-itop"]), st.sampled_from([0.9, 0.95]),
        st.integers(0, 4), accuracy=st.sampled_from([0.0, 0.5, 0.9, 0.901, 1.0]),
        exploration_rate=st.sampled_from([0.1, 0.5, 1.0]),
        settings=st.fixed_dictionaries({"epochs": st.sampled_from([4, 8])}),
        state=st.sampled_from(["done", "done", "done", "failed"]),
    ), min_size=1, max_size=25,
)  # fmt: skip


@given(FEW)
@settings(max_examples=60, deadline=None)
def test_whatever_the_runs_every_claim_has_a_verdict_and_every_number_is_one(runs: list[Record]) -> None:
    table = table_of(runs)
    assert [r["claim"] for r in table.records if r["scope"] == "claim"] == [1, 2, 3, 4, 5]
    text = json.dumps(table.records, allow_nan=False)
    assert json.loads(text) == table.records
    for record in table.records:
        assert record["verdict"] in (HOLDS, FAILS, OPEN)
        assert (record["more_runs"] is None) == (record["verdict"] != OPEN)
        assert record["more_runs"] is None or record["more_runs"] > 0
        if record["p_value"] is not None:
            assert 0 <= record["p_value"] <= record["p_value_corrected"] <= 1
        if record["low"] is not None and record["claim"] > 1:
            assert record["low"] <= record["estimate"] <= record["high"]
    for style in ("markdown", "latex", "csv", "json"):
        assert render([table], style)


def test_a_run_that_says_nothing_of_its_rate_is_passed_over() -> None:
    runs = [{**r, "exploration_rate": None} for r in study()]
    table = table_of(runs)
    assert whole(table, 1)["verdict"] == OPEN and whole(table, 2)["verdict"] == HOLDS


def test_each_data_set_and_model_has_its_own_table_and_family() -> None:
    other = [{**r, "dataset": "mnist"} for r in study(gain=-0.02)]
    first, second = claims_tables([*study(), *other], METHODS)
    assert [r["verdict"] for r in (whole(first, 2), whole(second, 2))] == [HOLDS, FAILS]
    assert first.records == table_of(study()).records


@pytest.mark.parametrize("options", [{"margin": 0.0}, {"margin": 1.5}, {"confidence": 1.0}, {"confidence": -0.1}])
def test_a_margin_or_confidence_out_of_range_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(UserError, match="above 0 and below 1"):
        table_of(study(), **options)


def test_a_lower_confidence_decides_more() -> None:
    strict, loose = table_of(study(), confidence=0.99), table_of(study(), confidence=0.8)
    decided = [sum(r["verdict"] != OPEN for r in table.records) for table in (strict, loose)]
    assert decided[0] < decided[1]
    assert "99 %" in strict.columns[2].header and any("20 %" in note for note in loose.notes)


def test_comparisons_whose_runs_are_not_finished_count_already() -> None:
    runs = [*group("static", [0.80, 0.90, 0.70]), *group("set-itop", [0.82, 0.93, 0.74])]
    waiting = [unfinished("rigl-itop", 0.9, seed) for seed in range(3)]
    (alone,), (among, _) = compared(table_of(runs), 2), compared(table_of([*runs, *waiting]), 2)
    assert among["p_value_corrected"] == pytest.approx(2 * alone["p_value_corrected"])
