"""A plan is a value: what some specs ask for, by what is to be done with each run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.expand import expand
from itopctl.config.reading import read_text
from itopctl.config.sweep import parse_sweep
from itopctl.plan import Plan, PlannedSweep, make_plan
from tests.config.build import BASE, SPARSE, spec_text


def planned(base: dict[str, Any] | None = None, **sections: Any) -> PlannedSweep:
    spec = parse_sweep(read_text(spec_text(base, **sections), "spec.yaml"))
    return PlannedSweep(spec, expand(spec))


FOUR = planned(grid={"seed": 4})
IDS = tuple(FOUR.expansion.runs)


def kinds(plan: Plan) -> dict[str, tuple[str, ...]]:
    return {"new": plan.new, "failed": plan.failed, "running": plan.running, "done": plan.done}


def test_runs_that_nobody_knows_are_new() -> None:
    plan = make_plan([FOUR], {})
    assert (plan.new, plan.to_run) == (IDS, IDS)
    assert plan.counts == {"new": 4, "done": 0, "running": 0, "failed": 0, "duplicate": 0}


@pytest.mark.parametrize(
    ("state", "kind"),
    [("queued", "new"), ("running", "running"), ("done", "done"), ("failed", "failed"), ("lost", "failed")],
)
def test_the_state_of_a_run_says_what_is_to_be_done_with_it(state: str, kind: str) -> None:
    plan = make_plan([FOUR], {IDS[1]: state})
    expected = {"new": list(IDS), "failed": [], "running": [], "done": []}
    expected["new"].remove(IDS[1])
    expected[kind].append(IDS[1])
    assert {name: sorted(ids) for name, ids in kinds(plan).items()} == {
        name: sorted(ids) for name, ids in expected.items()
    }


def test_what_is_done_or_running_is_left_alone_and_what_failed_is_run_again() -> None:
    plan = make_plan([FOUR], {IDS[0]: "done", IDS[1]: "failed", IDS[2]: "running"})
    assert plan.to_run == (IDS[3], IDS[1])


def test_what_failed_before_is_run_after_what_never_ran_each_in_the_order_of_the_spec() -> None:
    plan = make_plan([FOUR], {IDS[2]: "lost", IDS[0]: "failed"})
    assert plan.to_run == (IDS[1], IDS[3], IDS[0], IDS[2])


def test_a_finished_sweep_has_nothing_to_run() -> None:
    plan = make_plan([FOUR], dict.fromkeys(IDS, "done"))
    assert (plan.to_run, plan.counts["done"]) == ((), 4)


def test_a_spec_that_gained_points_runs_only_those() -> None:
    larger = planned(grid={"seed": 6})
    plan = make_plan([larger], dict.fromkeys(IDS, "done"))
    assert [plan.configs[run_id].seed for run_id in plan.to_run] == [4, 5]


def test_states_of_runs_that_were_not_asked_for_do_not_matter() -> None:
    assert make_plan([FOUR], {"0123456789ab": "done"}) == make_plan([FOUR], {})


def test_two_specs_that_share_points_run_them_once_and_count_the_rest_as_duplicates() -> None:
    other = planned(grid={"seed": [3, 4]})
    plan = make_plan([FOUR, other], {})
    assert [plan.configs[run_id].seed for run_id in plan.to_run] == [0, 1, 2, 3, 4]
    assert plan.counts == {"new": 5, "done": 0, "running": 0, "failed": 0, "duplicate": 1}


def test_the_plan_says_what_meant_nothing_and_that_it_collapsed() -> None:
    sweep = planned(BASE, grid={"method": ["dense", "set-itop"], "sparsity": [0.5, 0.9], "update_interval": [5, 9]})
    plan = make_plan([sweep], {})
    assert plan.counts["duplicate"] == 3
    assert plan.notes == (
        "tried: sparsity, update_interval mean nothing for dense (4 of its points set them)",
        "tried: 8 points are 5 different runs",
    )


def test_the_plan_says_what_was_left_out_and_which_exclusion_matched_nothing() -> None:
    plan = make_plan([planned(grid={"seed": 4}, exclude=[{"seed": [1, 2]}, {"seed": 9}])], {})
    assert plan.notes == ("tried: 2 points left out by exclude",)
    assert plan.warnings == ("spec.yaml:14: exclude[1]: {seed: 9} matches no run.",)


def test_a_plan_without_surprises_has_no_notes() -> None:
    assert make_plan([FOUR], {}).notes == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["queued", "running", "done", "failed", "lost", None]), min_size=4, max_size=4))
def test_each_run_is_in_exactly_one_of_the_four_kinds(states: list[str | None]) -> None:
    plan = make_plan([FOUR], {run_id: state for run_id, state in zip(IDS, states, strict=True) if state})
    together = [run_id for ids in kinds(plan).values() for run_id in ids]
    assert sorted(together) == sorted(IDS)
    assert set(plan.to_run) == {*plan.new, *plan.failed}
    assert sum(plan.counts.values()) == sum(sweep.expansion.points for sweep in plan.sweeps)


def test_a_plan_is_a_value() -> None:
    plan = make_plan([planned(SPARSE)], {})
    with pytest.raises(AttributeError):
        plan.new = ()  # type: ignore[misc]
    assert plan == make_plan([planned(SPARSE)], {})
