"""Whose jobs a look at the scheduler touches, how it ends runs for the dead, and that looking again is no news."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from itopctl.dispatch.reconcile import GRACE_SECONDS, News
from itopctl.dispatch.scheduler import SeenJob
from itopctl.store.locks import process_here, this_process
from itopctl.store.submissions import live_submissions, load
from tests.dispatch.looks import ACCOUNTS, FILES, ID, LATER, look, look_until_sure, state_of
from tests.dispatch.told import (
    JOB,
    NODE,
    ToldScheduler,
    begins,
    causes_in,
    fails,
    files_of,
    finishes,
    known,
    lab_at,
    made_anew,
    nothing_changes,
    on_local_disk,
    seen,
    unrecorded,
)
from tests.store.builders import Lab, run_id

pytestmark = pytest.mark.usefixtures("local_disk")


# Whose jobs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whose", [{"cluster": "another"}, {"user": "somebody"}])
def test_jobs_of_another_cluster_or_user_are_left_alone(tmp_path: Path, whose: dict[str, str]) -> None:
    lab = lab_at(tmp_path)
    lab.submitted("one-x", (ID,), **whose)
    begins(lab, ID)
    with nothing_changes(lab.results.path):
        for at in (0.0, LATER):
            news = look(lab, ToldScheduler([seen("FAILED")]), at)
    assert news.notes == ["1 submission is of another cluster or user; left alone."]
    assert [one.name for one in news.live] == ["one-x"]


def test_a_job_of_our_name_with_another_id_is_not_ours(lab: Lab) -> None:
    with nothing_changes(lab.results.runs):
        look(lab, ToldScheduler([seen("FAILED", array_id="78")]))
    assert state_of(lab) == ("pending", None)


def test_where_nothing_is_submitted_the_scheduler_is_not_asked(tmp_path: Path) -> None:
    scheduler = ToldScheduler(queue_fails=True)
    assert look(lab_at(tmp_path), scheduler) == News()
    assert scheduler.asked == []


def test_another_job_that_has_the_run_by_now_is_not_ended(lab: Lab) -> None:
    begins(lab, ID, job="90_3")
    look(lab, ToldScheduler([seen("NODE_FAIL")]))
    assert causes_in(lab.results.run(ID)) == []
    assert state_of(lab) == ("running", None)


# Submitted, not recorded -------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["queue", "accounts"])
def test_jobs_whose_submitter_died_before_it_knew_their_id_are_adopted(lab: Lab, where: str) -> None:
    (submission,) = live_submissions(lab.results)
    unrecorded(submission)
    jobs = [seen("RUNNING", array_id="4711")]
    news = look(lab, ToldScheduler(jobs) if where == "queue" else ToldScheduler([], jobs))
    assert news.notes == ["Jobs named one-x were submitted, not recorded; adopted as 4711."]
    assert lab.row(ID)["job_id"] == "4711_0"
    assert look(lab, ToldScheduler(jobs)).notes == []


def test_jobs_that_ended_before_they_were_adopted_end_their_runs(lab: Lab) -> None:
    (submission,) = live_submissions(lab.results)
    unrecorded(submission)
    finishes(lab, ID, job="4711_0")
    look(lab, ToldScheduler([seen("COMPLETED", array_id="4711")]))
    assert state_of(lab) == ("done", "finished")
    assert live_submissions(lab.results) == []


@pytest.mark.parametrize("accounts", ACCOUNTS)
def test_what_never_reached_the_scheduler_gives_its_runs_back_after_a_grace(lab: Lab, accounts: str) -> None:
    (submission,) = live_submissions(lab.results)
    unrecorded(submission)
    look(lab, ToldScheduler(**ACCOUNTS[accounts]), 0.0)
    look(lab, ToldScheduler(**ACCOUNTS[accounts]), GRACE_SECONDS - 1)
    assert state_of(lab) == ("pending", None)
    news = look(lab, ToldScheduler(**ACCOUNTS[accounts]), GRACE_SECONDS)
    assert news.notes[-1] == "one-x never reached the scheduler; its runs are free again."
    assert state_of(lab) == ("queued", None)


def test_a_submitter_that_lives_on_this_host_may_be_about_to_submit(tmp_path: Path) -> None:
    lab = lab_at(tmp_path)
    lab.sweep("one", {ID: {}})
    unrecorded(lab.submitted("one-x", (ID,), by=process_here(os.getppid())))
    with nothing_changes(lab.results.path):
        look_until_sure(lab, ToldScheduler())
    assert state_of(lab) == ("pending", None)


def test_the_process_that_looks_is_not_about_to_submit(tmp_path: Path) -> None:
    lab = lab_at(tmp_path)
    lab.sweep("one", {ID: {}})
    unrecorded(lab.submitted("one-x", (ID,), by=this_process()))
    look_until_sure(lab, ToldScheduler())
    assert state_of(lab) == ("queued", None)


@pytest.mark.parametrize("changed", [{"start": "0"}, {"host": "another-login-node"}, {"pid": 2**22 + 1}])
def test_a_process_that_only_resembles_the_submitter_does_not_count(tmp_path: Path, changed: dict) -> None:
    lab = lab_at(tmp_path)
    lab.sweep("one", {ID: {}})
    unrecorded(lab.submitted("one-x", (ID,), by={**this_process(), **changed}))
    look_until_sure(lab, ToldScheduler())
    assert state_of(lab) == ("queued", None)


# Ends --------------------------------------------------------------------------------------------------------


def test_the_end_in_the_journal_names_the_job_its_state_and_its_exit_code(lab: Lab) -> None:
    begins(lab, ID)
    look(lab, ToldScheduler([], [seen("FAILED", exit_code="9:0")]))
    (attempt,) = lab.attempts(ID)
    assert (attempt["state"], attempt["cause"]) == ("failed", "killed")
    assert attempt["message"] == "job 77_0: FAILED, exit code 9:0"
    assert not lab.results.run(ID).lock.exists()


def test_a_requeued_job_with_an_attempt_that_left_no_word_waits_again_when_its_lock_is_gone(lab: Lab) -> None:
    begins(lab, ID, lock=False)
    look(lab, ToldScheduler([seen("PENDING")]))
    assert state_of(lab) == ("pending", None)


def test_a_requeued_job_that_waits_has_lost_what_its_earlier_start_left_open(lab: Lab) -> None:
    begins(lab, ID)
    look(lab, ToldScheduler([seen("PENDING")]))
    assert state_of(lab) == ("pending", None)
    assert causes_in(lab.results.run(ID)) == ["node-failure"]
    assert not lab.results.run(ID).lock.exists()


def test_on_a_shared_file_system_a_requeued_job_is_given_up_when_it_is_seen_to_wait_twice(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_local_disk(monkeypatch, shared=True)
    (submission,) = live_submissions(lab.results)
    known(submission, phase="running")
    begins(lab, ID)
    look(lab, ToldScheduler([seen("PENDING")]))
    assert causes_in(lab.results.run(ID)) == []
    look(lab, ToldScheduler([seen("PENDING")]))
    assert causes_in(lab.results.run(ID)) == ["node-failure"]


def test_a_job_that_starts_while_the_scheduler_is_asked_is_left_alone(lab: Lab) -> None:
    class Slow(ToldScheduler):
        def queue(self, names: Sequence[str]) -> list[SeenJob]:
            begins(lab, ID)
            return [seen("PENDING")]

    look(lab, Slow())
    assert causes_in(lab.results.run(ID)) == []
    assert state_of(lab) == ("running", None)


def test_attempts_of_a_requeued_job_count_each(lab: Lab) -> None:
    fails(lab, ID, "preempted")
    fails(lab, ID, "timeout")
    begins(lab, ID)
    look(lab, ToldScheduler([seen("NODE_FAIL")]))
    assert [attempt["cause"] for attempt in lab.attempts(ID)] == ["preempted", "timeout", "node-failure"]


@pytest.mark.parametrize("tail", ["slurmstepd: error: Detected 1 oom_kill event in StepId=77.0", "Out Of Memory"])
def test_a_kill_that_the_output_explains_by_memory_is_out_of_memory(lab: Lab, tail: str) -> None:
    begins(lab, ID)
    (submission,) = live_submissions(lab.results)
    (submission.directory.path / "77_0_0_log.err").write_text(f"many words\n{tail}\n")
    look(lab, ToldScheduler([seen("FAILED")]))
    assert state_of(lab) == ("failed", "out-of-memory")


def test_a_job_that_could_not_start_shows_the_last_that_it_complained_of(lab: Lab) -> None:
    (submission,) = live_submissions(lab.results)
    (submission.directory.path / "77_0_0_log.err").write_text("first\npython: No module named itopctl\n\n")
    look(lab, ToldScheduler([seen("FAILED", exit_code="1:0")]))
    row = lab.row(ID)
    assert (row["state"], row["cause"]) == ("failed", "environment")
    assert row["message"] == "job 77_0: FAILED, exit code 1:0; python: No module named itopctl"


def test_runs_packed_in_one_job_end_each_by_its_own_word(tmp_path: Path) -> None:
    lab = lab_at(tmp_path)
    ids = [run_id(number) for number in range(1, 5)]
    lab.sweep("one", {id_: {} for id_ in ids})
    lab.submitted("one-x", tuple(ids))
    finishes(lab, ids[0])
    fails(lab, ids[1], "user-error")
    begins(lab, ids[2])
    look(lab, ToldScheduler([seen("TIMEOUT")]))
    assert [state_of(lab, id_) for id_ in ids] == [
        ("done", "finished"),
        ("failed", "user-error"),
        ("failed", "timeout"),
        ("failed", "timeout"),
    ]


def test_jobs_of_one_array_are_told_apart(tmp_path: Path) -> None:
    lab = lab_at(tmp_path)
    ids = [run_id(number) for number in range(1, 4)]
    lab.sweep("one", {id_: {} for id_ in ids})
    lab.submitted("one-x", *((id_,) for id_ in ids))
    begins(lab, ids[1], job="77_1")
    look(lab, ToldScheduler([seen("PENDING"), seen("RUNNING", index=1), seen("OUT_OF_MEMORY", index=2)]))
    assert [state_of(lab, id_)[0] for id_ in ids] == ["pending", "running", "failed"]
    (submission,) = live_submissions(lab.results)
    assert submission.live_jobs == [0, 1]


# Again and again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "files"), list(itertools.product(["COMPLETED", "FAILED", "CANCELLED", "PENDING", "RUNNING", None], FILES))
)
def test_looking_twice_is_looking_once_and_a_database_made_anew_says_the_same(
    lab: Lab, word: str | None, files: str
) -> None:
    FILES[files](lab)
    lab.ingest()
    scheduler = ToldScheduler([seen(word)] if word else [])
    look_until_sure(lab, scheduler)
    lab.ingest()
    rows, files_before = lab.everything(), files_of(lab.results.path)
    assert made_anew(lab) == rows
    news = look(lab, scheduler, 2 * LATER)
    lab.ingest()
    assert (lab.everything(), files_of(lab.results.path)) == (rows, files_before)
    assert not news.changed


def test_a_look_is_one_question_to_the_queue_and_one_to_the_accounts_for_any_number_of_jobs(tmp_path: Path) -> None:
    lab = lab_at(tmp_path)
    for number in range(30):
        lab.submitted(f"one-{number}", *((run_id(100 * number + index),) for index in range(100)))
    scheduler = ToldScheduler([seen("PENDING", "one-3", index) for index in range(100)])
    look(lab, scheduler)
    assert scheduler.asked == ["queue", "accounts"]


def test_where_the_queue_shows_all_the_accounts_are_not_asked(lab: Lab) -> None:
    scheduler = ToldScheduler([seen("RUNNING")])
    look(lab, scheduler)
    assert scheduler.asked == ["queue"]


def test_what_is_whole_is_not_disturbed_by_a_submission_that_is_damaged(lab: Lab) -> None:
    damaged = lab.submitted("one-y", (run_id(2),))
    damaged.directory.request.write_text("{")
    look(lab, ToldScheduler([seen("TIMEOUT")]))
    assert state_of(lab) == ("failed", "timeout")
    assert load(damaged.directory) is None


def test_the_host_of_the_job_is_known_from_its_attempt(lab: Lab) -> None:
    begins(lab, ID)
    look(lab, ToldScheduler([seen("RUNNING")]))
    (attempt,) = lab.attempts(ID)
    assert (attempt["scheduler"], attempt["job_id"], attempt["host"]) == ("slurm", JOB, NODE)
