from __future__ import annotations

import time

import pytest

from itopctl.errors import UserError
from itopctl.schema import Run, Source, fields_of
from itopctl.store import queries, tables
from itopctl.store.database import upsert
from itopctl.store.locks import locked
from itopctl.store.queries import (
    RUN_COLUMNS,
    STATES,
    check_sweeps,
    failures,
    find_run,
    run_details,
    run_states,
    select_runs,
    sweep_names,
    sweep_summaries,
)
from tests.store.builders import STARTED, Lab, config, evaluated, result, run_id

DONE, FAILED, LOST, QUEUED, SHARED, LONE = (run_id(number) for number in (0x50, 0x40, 0x30, 0x20, 0x10, 0x60))

PROMISED = [
    "run_id", "sweep", "state", "cause", "dataset", "model", "method", "growth", "drop", "allocation", "sparsity",
    "density", "update_interval", "drop_fraction", "seed", "epochs", "test_accuracy",
    "test_accuracy_at_best_validation", "validation_accuracy", "exploration_rate",
    "exploration_rate_at_best_validation", "train_flops_ratio", "inference_flops_ratio", "steps", "wall_seconds",
]  # fmt: skip


@pytest.fixture
def filled(lab: Lab) -> Lab:
    """Two sweeps with one run in common, a run of no sweep, and every state but running."""
    lab.done(DONE, seed=0)
    lab.failed(FAILED, seed=1)
    lab.begun(LOST, seed=2)[1].close()
    lab.done(SHARED, {"test_accuracy": 0.9}, seed=4)
    lab.done(LONE, seed=5)
    points = {DONE: config(seed=0), FAILED: config(seed=1), LOST: config(seed=2), QUEUED: config(seed=3)}
    lab.sweep("first", {**points, SHARED: config(seed=4)})
    lab.sweep("second", {SHARED: config(seed=4), run_id(0x70): config(seed=7)})
    lab.ingest()
    return lab


def ids(records: list[dict[str, object]]) -> list[object]:
    return [record["run_id"] for record in records]


# Summaries --------------------------------------------------------------------------------------------------


def test_the_states_of_a_sweep_add_up_to_its_total(filled: Lab) -> None:
    first, second = sweep_summaries(filled.store)
    assert first == {
        "sweep": "first", "total": 5, "queued": 1, "pending": 0, "running": 0, "done": 2, "failed": 1, "lost": 1,
        "seconds_left": None,
    }  # fmt: skip
    assert (second["sweep"], second["total"], second["done"], second["queued"]) == ("second", 2, 1, 1)
    assert all(sum(row[state] for state in STATES) == row["total"] for row in (first, second))


def test_a_summary_can_be_of_some_sweeps_only(filled: Lab) -> None:
    assert [row["sweep"] for row in sweep_summaries(filled.store, ["second"])] == ["second"]


def test_the_time_left_follows_from_the_finished_runs_and_how_far_the_running_ones_are(lab: Lab) -> None:
    """Finished runs took 8 s and 12 s. Of one run that runs, half is left; another waits: 1.5 runs of 10 s."""
    lab.done(run_id(1), {"wall_seconds": 8.0})
    lab.done(run_id(2), {"wall_seconds": 12.0})
    running, journal = lab.begun(run_id(3))
    journal.close()
    lab.sweep("one", {run_id(n): config(seed=n) for n in range(1, 5)})
    with locked(running):
        lab.ingest()
    assert sweep_summaries(lab.store)[0]["seconds_left"] == pytest.approx(15.0)


def test_the_time_left_is_shared_by_the_runs_that_run_at_once(lab: Lab) -> None:
    lab.done(run_id(1), {"wall_seconds": 10.0})
    first, journal = lab.begun(run_id(2))
    journal.close()
    second, journal = lab.begun(run_id(3))
    journal.write("evaluated", evaluated(4))
    journal.close()
    lab.sweep("one", {run_id(n): config(seed=n) for n in range(1, 5)})
    with locked(first), locked(second):
        lab.ingest()
    # Left: half of the first, nothing of the second, one that waits; two at once.
    assert sweep_summaries(lab.store)[0]["seconds_left"] == pytest.approx(7.5)


def test_there_is_no_time_left_to_tell_before_anything_is_finished(lab: Lab) -> None:
    run, journal = lab.begun(run_id(1))
    journal.close()
    lab.sweep("one", {run_id(1): config()})
    with locked(run):
        lab.ingest()
    assert sweep_summaries(lab.store)[0]["seconds_left"] is None


def test_sweeps_are_known_by_name_and_a_misspelt_one_is_answered_with_the_nearest(filled: Lab) -> None:
    assert sweep_names(filled.store) == ["first", "second"]
    check_sweeps(filled.store, ["first", "second"])
    with pytest.raises(UserError, match=r"unknown sweep 'secnd'\. Did you mean 'second'\?"):
        check_sweeps(filled.store, ["first", "secnd"])


def test_asking_for_a_sweep_where_nothing_was_run_says_so(lab: Lab) -> None:
    with pytest.raises(UserError, match="no sweep 'first'; nothing was run here yet"):
        check_sweeps(lab.store, ["first"])


# Runs -------------------------------------------------------------------------------------------------------


def test_the_promised_fields_are_there_and_are_columns_of_the_store(filled: Lab) -> None:
    assert set(PROMISED) <= set(RUN_COLUMNS)
    assert set(RUN_COLUMNS) - {"sweep"} <= set(tables.runs.columns.keys())
    assert len(set(RUN_COLUMNS)) == len(RUN_COLUMNS)
    assert all(tuple(record) == RUN_COLUMNS for record in select_runs(filled.store))


def test_a_record_holds_what_config_and_result_say(filled: Lab) -> None:
    record = next(r for r in select_runs(filled.store) if r["run_id"] == DONE)
    known = fields_of(Run).values()
    settings = [f.name for f in known if f.source is Source.CONFIG and f.listed and f.name != "density"]
    assert {name: record[name] for name in settings} == {name: config(seed=0)[name] for name in settings}
    measured = [f.name for f in known if f.source is Source.RESULT and f.listed]
    assert {name: record[name] for name in measured} == {name: result()[name] for name in measured}
    assert (record["sweep"], record["state"], record["cause"], record["density"]) == ("first", "done", "finished", 0.1)


def test_runs_come_in_the_order_of_their_sweeps_and_those_of_none_last(filled: Lab) -> None:
    assert ids(select_runs(filled.store)) == [DONE, FAILED, LOST, QUEUED, SHARED, run_id(0x70), LONE]
    assert ids(select_runs(filled.store, ["first"])) == [DONE, FAILED, LOST, QUEUED, SHARED]
    assert ids(select_runs(filled.store, ["second"])) == [SHARED, run_id(0x70)]


def test_a_run_of_two_sweeps_is_one_record_that_names_both(filled: Lab) -> None:
    (record,) = [r for r in select_runs(filled.store) if r["run_id"] == SHARED]
    assert record["sweep"] == "first,second"
    (lone,) = [r for r in select_runs(filled.store) if r["run_id"] == LONE]
    assert lone["sweep"] == ""


def test_a_run_of_two_sweeps_names_both_also_where_one_was_asked_for(filled: Lab) -> None:
    (record,) = [r for r in select_runs(filled.store, ["second"]) if r["run_id"] == SHARED]
    assert record["sweep"] == "first,second"


def test_runs_are_selected_by_state(filled: Lab) -> None:
    assert ids(select_runs(filled.store, states=["failed", "lost"])) == [FAILED, LOST]
    assert ids(select_runs(filled.store, ["second"], ["done"])) == [SHARED]
    assert select_runs(filled.store, states=["running"]) == []


def test_only_the_columns_asked_for_are_given(filled: Lab) -> None:
    records = select_runs(filled.store, ["second"], columns=("seed", "config", "sweep"))
    assert [tuple(record) for record in records] == [("seed", "config", "sweep")] * 2
    assert records[0]["config"] == config(seed=4)


def test_states_are_told_of_the_runs_asked_for_that_are_known(filled: Lab) -> None:
    assert run_states(filled.store, [DONE, FAILED, "ffffffffffff"]) == {
        DONE: ("done", "finished"),
        FAILED: ("failed", "out-of-memory"),
    }


def test_failures_are_the_failed_and_lost_ones_among_those_asked_for(filled: Lab) -> None:
    assert ids(failures(filled.store, [LOST, DONE, QUEUED])) == [LOST]
    (record,) = failures(filled.store, [FAILED])
    assert (record["cause"], record["message"], record["seed"]) == ("out-of-memory", "too big", 1)


# One run ----------------------------------------------------------------------------------------------------


def test_a_run_is_found_by_its_id_or_the_start_of_it(lab: Lab) -> None:
    lab.done("abc000000000")
    lab.done("abd000000000")
    lab.ingest()
    assert find_run(lab.store, "abc000000000") == "abc000000000"
    assert find_run(lab.store, "abd") == "abd000000000"


def test_the_start_of_several_runs_is_answered_with_them(lab: Lab) -> None:
    lab.done("abc000000000")
    lab.done("abd000000000")
    lab.done("ffffffffffff")
    lab.ingest()
    with pytest.raises(UserError) as caught:
        find_run(lab.store, "ab")
    message = str(caught.value)
    assert "'ab'" in message and "abc000000000, abd000000000" in message and "ffff" not in message


@pytest.mark.parametrize("prefix", ["abe", "%", "a_c", "abc0000000000"])
def test_an_unknown_run_is_the_users_mistake_and_says_what_lists_them(lab: Lab, prefix: str) -> None:
    lab.done("abc000000000")
    lab.ingest()
    with pytest.raises(UserError, match=r"there is no run .*itopctl status --runs"):
        find_run(lab.store, prefix)


def test_the_details_of_a_run_hold_its_history_in_order(filled: Lab) -> None:
    details = run_details(filled.store, SHARED)
    assert (details["run_id"], details["sweeps"], details["test_accuracy"]) == (SHARED, ["first", "second"], 0.9)
    assert details["config"] == config(seed=4)
    assert [(e["kind"], e["step"]) for e in details["evaluations"]] == [("epoch", 20), ("epoch", 40), ("update", 40)]
    assert [attempt["host"] for attempt in details["attempt_history"]] == [STARTED["host"]]
    assert [layer["name"] for layer in details["layers"]] == ["conv.weight", "fc.weight"]
    assert "journal_offset" not in details


@pytest.mark.parametrize("most", [500, 1])
def test_layers_are_told_in_order_of_the_runs_asked_for_that_have_any(
    lab: Lab, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_MOST_NAMED", most)
    for number in range(3):
        lab.done(run_id(number))
    lab.begun(run_id(3))
    lab.ingest()
    found = queries.layers_of(lab.store, [run_id(number) for number in (0, 2, 3)])
    assert sorted(found) == [run_id(0), run_id(2)]
    assert [(layer["name"], layer["size"], layer["active"]) for layer in found[run_id(2)]] == [
        ("conv.weight", 150, 60), ("fc.weight", 840, 39),
    ]  # fmt: skip


def test_ten_thousand_finished_runs_are_summed_up_in_a_moment(own_lab: Lab) -> None:
    empty = dict.fromkeys(column.name for column in tables.runs.columns)
    with own_lab.store.write() as connection:
        upsert(
            connection,
            tables.runs,
            (
                {**empty, "run_id": run_id(n), "state": "done", "attempts": 1, "config": config(), "epochs": 4,
                 "wall_seconds": 2.0, "journal_offset": 1, "damaged_lines": 0}
                for n in range(10_000)
            ),
        )  # fmt: skip
        members = ({"sweep": "one", "run_id": run_id(n), "position": n} for n in range(10_000))
        upsert(connection, tables.sweep_runs, members)
    start = time.perf_counter()
    (summary,) = sweep_summaries(own_lab.store)
    assert summary["total"] == summary["done"] == 10_000
    assert time.perf_counter() - start < 0.5
