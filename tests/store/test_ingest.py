from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from itopctl.schema import Source
from itopctl.store import files, tables
from itopctl.store.files import write_json
from itopctl.store.ingest import ingest_runs
from itopctl.store.journal import JournalWriter
from itopctl.store.locks import locked
from itopctl.store.rundir import Results
from tests.store.builders import STARTED, Lab, config, evaluated, result, run_id

A, B, C, D, E = (run_id(number) for number in range(10, 15))


def evaluations(lab: Lab, id_: str) -> list[tuple[Any, ...]]:
    table = tables.evaluations
    with lab.store.read() as connection:
        query = sa.select(table.c.kind, table.c.step, table.c.attempt, table.c.test_accuracy, table.c.replaced)
        query = query.where(table.c.run_id == id_).order_by(table.c.step, table.c.kind)
        return [tuple(row) for row in connection.execute(query)]


def furnished(lab: Lab) -> None:
    """One run in every state, two sweeps that share one of them, and a run of no sweep."""
    lab.done(A, seed=0)
    lab.failed(B, seed=1)
    lab.begun(C, seed=2)[1].close()
    lab.failed(D, cause="cancelled", message="stopped", seed=3)
    lab.done(run_id(99), seed=99)
    lab.sweep("one", {id_: config(seed=seed) for seed, id_ in enumerate([A, B, C, D, E])})
    lab.sweep("two", {E: config(seed=4), A: config(seed=0)})
    lab.submitted("one-1", (E,))


# The whole --------------------------------------------------------------------------------------------------


def test_ingesting_twice_is_ingesting_once(lab: Lab) -> None:
    furnished(lab)
    lab.ingest()
    once = lab.everything()
    assert {name for name, rows in once.items() if rows} == set(once)  # every table is at work here
    lab.ingest()
    assert lab.everything() == once


def test_a_deleted_database_comes_back_with_every_row(lab: Lab) -> None:
    furnished(lab)
    lab.ingest()
    assert lab.rebuilt() == lab.everything()


def test_ingesting_bit_by_bit_gives_what_ingesting_at_the_end_gives(lab: Lab) -> None:
    """A run that fails, is tried again and succeeds, with an ingest after every step."""
    lab.sweep("one", {A: config()})
    lab.ingest()
    run = lab.folder(A)
    lab.ingest()
    for last in ("failed", "finished"):
        with locked(run):
            journal = JournalWriter(run.journal)
            lab.ingest()
            journal.write("started", STARTED)
            for epoch in range(1, 5):
                lab.ingest()
                journal.write("evaluated", evaluated(epoch))
            if last == "finished":
                write_json(run.result, result(attempt=2))
            journal.write(last, {"step": 80, "epoch": 4.0, "cause": "timeout" if last == "failed" else "finished"})
            journal.close()
        lab.ingest()
    assert lab.row(A)["state"] == "done"
    assert lab.rebuilt() == lab.everything()


def test_a_journal_cut_in_the_middle_of_a_line_is_taken_up_where_it_was_left(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.write("evaluated", evaluated(3))
    journal.close()
    raw = run.journal.read_bytes()
    for cut in range(0, len(raw), 37):
        run.journal.write_bytes(raw[:cut])
        lab.ingest()
    run.journal.write_bytes(raw)
    assert lab.row(A)["damaged_lines"] == 0
    assert lab.rebuilt() == lab.everything()


@pytest.mark.parametrize("said", [False, True])
def test_a_result_whose_writer_has_not_said_so_yet_is_flushed_before_the_store_says_done(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, said: bool
) -> None:
    """Or a power cut could take the result, and leave a store that says `done` for ever."""
    run, journal = lab.begun(A)
    write_json(run.result, {"run_id": A, **result()})
    if said:
        journal.write("finished", {"step": 80, "epoch": 4, "cause": "finished"})
    journal.close()
    flushed: list[Path] = []
    monkeypatch.setattr(
        files, "watchers", [lambda change: flushed.append(change.path) if change.kind == "flush-folder" else None]
    )
    lab.ingest()
    assert flushed == ([] if said else [run.path])
    assert lab.row(A)["state"] == "done"


@pytest.mark.parametrize("longer", [False, True])
def test_a_journal_that_is_not_the_one_that_was_read_is_read_from_its_beginning(lab: Lab, longer: bool) -> None:
    run, journal = lab.begun(A)
    for epoch in range(3, 9):
        journal.write("evaluated", evaluated(epoch))
    journal.close()
    lab.ingest()
    before = run.journal.stat().st_size
    run.journal.unlink()  # a power cut took its end, say, and the run went on before anybody looked
    journal = JournalWriter(run.journal)
    journal.write("started", {**STARTED, "host": "there"})
    for epoch in range(1, 20 if longer else 3):
        journal.write("evaluated", evaluated(epoch, test_accuracy=0.5))
    journal.close()
    assert (run.journal.stat().st_size > before) == longer
    lab.ingest()
    assert [attempt["host"] for attempt in lab.attempts(A)] == ["there"]
    assert {accuracy for _, _, _, accuracy, _ in evaluations(lab, A)} == {0.5}
    assert lab.row(A)["damaged_lines"] == 0
    assert lab.rebuilt() == lab.everything()


def test_only_the_new_part_of_a_journal_is_read(lab: Lab) -> None:
    run, journal = lab.begun(A)
    lab.ingest()
    assert lab.row(A)["journal_offset"] == run.journal.stat().st_size
    raw = run.journal.read_bytes()
    assert len(raw) > 700
    run.journal.write_bytes(b"x" * 99 + b"\n" + raw[100:])  # what was read once, and is not the last, does not matter
    journal.write("evaluated", evaluated(3))
    journal.close()
    row = lab.row(A)
    assert (row["step"], row["damaged_lines"]) == (60, 0)


def test_runs_can_be_brought_up_to_date_one_at_a_time(lab: Lab) -> None:
    lab.done(A)
    lab.done(B)
    ingest_runs(lab.store, lab.results, [A])
    assert {row[0] for row in lab.everything()["runs"]} == {A}
    ingest_runs(lab.store, lab.results, [])


# States -----------------------------------------------------------------------------------------------------


def test_a_run_with_a_folder_that_nobody_began_is_queued(lab: Lab) -> None:
    lab.folder(A, sparsity=0.95)
    row = lab.row(A)
    assert (row["state"], row["attempts"], row["sparsity"], row["density"]) == ("queued", 0, 0.95, 0.05)
    assert row["config"] == config(sparsity=0.95)


def test_members_of_a_sweep_without_a_folder_are_queued_with_their_config(lab: Lab) -> None:
    lab.sweep("one", {A: config(seed=3, method="dense", sparsity=0.0, update_interval=None)})
    row = lab.row(A)
    assert (row["state"], row["seed"], row["method"], row["density"]) == ("queued", 3, "dense", 1.0)
    assert row["update_interval"] is None
    assert row["config"] == config(seed=3, method="dense", sparsity=0.0, update_interval=None)


def test_a_run_whose_lock_a_live_process_holds_is_running(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.close()
    with locked(run):
        row = lab.row(A)
    assert (row["state"], row["cause"], row["step"], row["epoch"]) == ("running", None, 40, 2.0)
    assert (row["total_steps"], row["total_epochs"], row["attempts"]) == (80, 4, 1)
    assert (row["current_test_accuracy"], row["current_exploration_rate"]) == pytest.approx((0.4, 0.12))


def test_a_run_that_another_hosts_process_has_is_running_whatever_its_pid(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.write("failed", {"step": 40, "epoch": 2.0, "cause": "killed", "message": "", "log": []})
    journal.close()
    write_json(run.lock, {"host": STARTED["host"], "pid": STARTED["pid"], "start": "1"})
    assert lab.row(A)["state"] == "failed", "it has said how it ended, and is about to let go"
    write_json(run.lock, {"host": "elsewhere", "pid": STARTED["pid"], "start": "1"})
    assert lab.row(A)["state"] == "running"


def test_a_begun_run_that_nobody_holds_is_lost(lab: Lab) -> None:
    lab.begun(A)[1].close()
    row = lab.row(A)
    assert (row["state"], row["cause"]) == ("lost", "lost")
    assert row["message"]


def test_a_running_run_whose_process_dies_is_lost(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.close()
    with locked(run):
        assert lab.row(A)["state"] == "running"
    assert lab.row(A)["state"] == "lost"


def test_a_lost_run_that_another_process_takes_up_is_running(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.close()
    assert lab.row(A)["state"] == "lost"
    with locked(run):
        row = lab.row(A)
    assert (row["state"], row["cause"], row["message"]) == ("running", None, None)


def test_the_attempt_of_a_lost_run_is_not_said_to_be_running(lab: Lab) -> None:
    lab.begun(A)[1].close()
    (attempt,) = lab.attempts(A)
    assert (attempt["state"], attempt["cause"]) == ("failed", "lost")


def test_an_attempt_that_was_lost_is_not_running_beside_the_next(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.close()
    journal = JournalWriter(run.journal)
    journal.write("started", STARTED)
    journal.close()
    with locked(run):
        assert [attempt["state"] for attempt in lab.attempts(A)] == ["failed", "running"]


def test_a_run_with_a_result_is_done_with_its_numbers_and_layers(lab: Lab) -> None:
    lab.done(A)
    row = lab.row(A)
    assert (row["state"], row["cause"], row["message"]) == ("done", "finished", None)
    measured = [f for f in tables.fields(tables.runs).values() if f.source is Source.RESULT]
    assert {field.name: row[field.name] for field in measured} == {f.name: result()[f.written] for f in measured}
    assert (row["final_density"], row["step"], row["epoch"]) == (0.1, 80, 4.0)
    assert (row["current_test_accuracy"], row["current_exploration_rate"]) == (0.95, 0.31)
    with lab.store.read() as connection:
        found = connection.execute(sa.select(tables.layers).order_by(tables.layers.c.position)).mappings().all()
    assert [dict(layer) for layer in found] == [
        {"run_id": A, "position": position, **layer} for position, layer in enumerate(result()["layers"])
    ]


def test_a_result_makes_a_run_done_even_where_the_journal_has_no_end(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.close()
    write_json(run.result, result())
    assert lab.row(A)["state"] == "done"
    assert [attempt["state"] for attempt in lab.attempts(A)] == ["done"]


def test_a_journal_that_says_finished_does_not_make_a_run_done(lab: Lab) -> None:
    _, journal = lab.begun(A)
    journal.write("finished", {"step": 80, "epoch": 4.0, "cause": "finished"})
    journal.close()
    row = lab.row(A)
    assert row["state"] == "lost" and row["test_accuracy"] is None


def test_the_last_event_is_not_missed_when_the_result_was_seen_before_it(lab: Lab) -> None:
    run, journal = lab.begun(A)
    with locked(run):
        write_json(run.result, result())
        assert lab.row(A)["state"] == "done"
        journal.write("finished", {"step": 80, "epoch": 4, "cause": "finished"})
        journal.close()
    lab.ingest()
    assert lab.rebuilt() == lab.everything()


def test_a_failed_run_has_its_cause_and_message(lab: Lab) -> None:
    lab.failed(A)
    row = lab.row(A)
    assert (row["state"], row["cause"], row["message"]) == ("failed", "out-of-memory", "too big")
    (attempt,) = lab.attempts(A)
    assert (attempt["state"], attempt["cause"], attempt["message"]) == ("failed", "out-of-memory", "too big")


def test_a_cancelled_run_is_queued_again_and_says_why(lab: Lab) -> None:
    lab.failed(A, cause="cancelled", message="stopped after step 40")
    row = lab.row(A)
    assert (row["state"], row["cause"], row["message"]) == ("queued", "cancelled", "stopped after step 40")
    assert lab.attempts(A)[0]["state"] == "cancelled"


def test_a_run_that_failed_before_it_started_has_an_attempt_all_the_same(lab: Lab) -> None:
    run = lab.folder(A)
    journal = JournalWriter(run.journal)
    journal.write("failed", {"step": 0, "epoch": 0.0, "cause": "user-error", "message": "no such model"})
    journal.close()
    assert lab.row(A)["state"] == "failed"
    assert [(a["attempt"], a["state"], a["started_at"]) for a in lab.attempts(A)] == [(1, "failed", None)]


def test_a_failed_run_that_is_tried_again_becomes_running_and_then_done(lab: Lab) -> None:
    run = lab.failed(A)
    assert lab.row(A)["state"] == "failed"
    journal = JournalWriter(run.journal)
    journal.write("started", {**STARTED, "step": 40, "epoch": 2.0})
    with locked(run):
        row = lab.row(A)
        assert (row["state"], row["cause"], row["message"], row["attempts"]) == ("running", None, None, 2)
    write_json(run.result, result(attempt=2))
    journal.write("finished", {"step": 80, "epoch": 4, "cause": "finished"})
    journal.close()
    row = lab.row(A)
    assert (row["state"], row["cause"], row["message"]) == ("done", "finished", None)
    assert [(a["state"], a["resumed_from_step"]) for a in lab.attempts(A)] == [("failed", 0), ("done", 40)]


def test_an_attempt_has_its_whereabouts_and_times(lab: Lab) -> None:
    run = lab.done(A)
    first, *_, last = (json.loads(line) for line in run.journal.read_text().splitlines())
    (attempt,) = lab.attempts(A)
    assert attempt == {
        "run_id": A, "attempt": 1, "scheduler": "local", "job_id": "7", "host": "here", "pid": 12, "state": "done",
        "started_at": first["at"], "ended_at": last["at"], "cause": "finished", "message": None,
        "resumed_from_step": 0, "git_commit": None, "git_dirty": None, "code": None,
        "submitted_code": None, "log": None,
    }  # fmt: skip


def test_an_evaluation_that_is_made_again_after_a_resume_replaces_the_first(lab: Lab) -> None:
    run = lab.failed(A)
    journal = JournalWriter(run.journal)
    journal.write("started", {**STARTED, "step": 20})
    journal.write("evaluated", evaluated(2, test_accuracy=0.77))
    journal.close()
    lab.ingest()
    assert evaluations(lab, A) == [
        ("epoch", 20, 1, 0.2, None),
        ("epoch", 40, 2, 0.77, None),
        ("update", 40, 1, 0.4, 9),
    ]


# Folders that people have had their hands in -----------------------------------------------------------------


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": 3}', "{}"])
def test_a_damaged_config_leaves_the_run_out_and_the_others_in(lab: Lab, content: str) -> None:
    lab.done(A).config.write_text(content)
    lab.done(B)
    lab.ingest()
    assert [row[0] for row in lab.everything()["runs"]] == [B]


def test_a_damaged_config_of_a_sweeps_run_is_made_up_for_by_the_sweep(lab: Lab) -> None:
    lab.done(A).config.write_text("{")
    lab.sweep("one", {A: config()})
    assert lab.row(A)["state"] == "done"


@pytest.mark.parametrize("content", ["", "{", "[]", '{"test_accuracy": 0.9'])
def test_a_damaged_result_is_no_success_and_leaves_no_run_running_for_ever(lab: Lab, content: str) -> None:
    lab.done(A).result.write_text(content)
    row = lab.row(A)
    assert row["test_accuracy"] is None
    assert row["state"] in ("failed", "lost")


@pytest.mark.parametrize("layers", [None, 3, [7], [{}]])
def test_a_result_with_odd_layers_does_not_stop_the_others(lab: Lab, layers: Any) -> None:
    lab.done(A, {"layers": layers})
    lab.done(B)
    assert lab.row(B)["state"] == "done"


@pytest.mark.parametrize("line", ['{"event": "evaluated", "attempt": 1}', '{"event": "started", "attempt": 1e400}'])
def test_an_odd_line_in_one_journal_does_not_stop_the_others(lab: Lab, line: str) -> None:
    run, journal = lab.begun(A)
    journal.close()
    with run.journal.open("a") as file:
        file.write(line + "\n")
    lab.done(B)
    assert lab.row(B)["state"] == "done"


def test_damaged_lines_of_a_journal_are_counted(lab: Lab) -> None:
    run, journal = lab.begun(A)
    with run.journal.open("a") as file:
        file.write("what is this\n")
    assert lab.row(A)["damaged_lines"] == 1
    journal.write("evaluated", evaluated(3))
    journal.close()
    assert (lab.row(A)["damaged_lines"], lab.row(A)["step"]) == (1, 60)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"runs": [{}]}'])
def test_a_damaged_manifest_does_not_stop_the_other_sweeps(lab: Lab, content: str) -> None:
    lab.sweep("good", {A: config()})
    lab.results.manifest("bad").write_text(content)
    assert lab.row(A)["state"] == "queued"


def test_a_journal_that_was_begun_anew_is_read_from_its_start(lab: Lab) -> None:
    run, journal = lab.begun(A)
    for epoch in (3, 4):
        journal.write("evaluated", evaluated(epoch))
    journal.close()
    lab.ingest()
    shutil.rmtree(run.path)
    lab.failed(A)
    assert lab.row(A)["state"] == "failed"


def test_a_finished_run_whose_folder_was_deleted_is_queued_again(own_lab: Lab) -> None:
    own_lab.sweep("one", {A: config()})
    run = own_lab.done(A)
    assert own_lab.row(A)["state"] == "done"
    shutil.rmtree(run.path)
    own_lab.ingest()
    assert own_lab.rebuilt() == own_lab.everything()


# Sweeps -----------------------------------------------------------------------------------------------------


def test_a_manifest_that_gained_and_lost_runs_replaces_the_membership(lab: Lab) -> None:
    lab.sweep("one", {A: config(seed=0), B: config(seed=1)})
    lab.ingest()
    lab.sweep("one", {C: config(seed=2), A: config(seed=0)})
    lab.ingest()
    members = [(row[1], row[2]) for row in lab.everything()["sweep_runs"]]
    assert sorted(members, key=lambda member: member[1]) == [(C, 0), (A, 1)]


def test_a_sweep_that_comes_later_does_not_set_its_finished_runs_back(lab: Lab) -> None:
    lab.done(A)
    assert lab.row(A)["state"] == "done"
    lab.sweep("one", {A: config()})
    row = lab.row(A)
    assert (row["state"], row["test_accuracy"]) == ("done", 0.95)


def test_a_results_folder_without_anything_gives_an_empty_store(lab: Lab) -> None:
    lab.results.runs.rmdir()
    lab.ingest()
    assert {name for name, rows in lab.everything().items() if rows} == {"meta"}
    assert Results(lab.results.path).run_ids() == []
