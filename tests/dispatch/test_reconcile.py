"""What becomes of runs by what the scheduler shows of their jobs, and by what the runs' own files say."""

from __future__ import annotations

import itertools
import socket

import pytest

from itopctl.dispatch.reconcile import GRACE_SECONDS, SETTLE_SECONDS
from itopctl.store.submissions import live_submissions
from tests.dispatch.looks import ACCOUNTS, FILES, ID, look, look_until_sure, state_of
from tests.dispatch.told import (
    JOB,
    ToldScheduler,
    begins,
    causes_in,
    finishes,
    known,
    nothing_changes,
    on_local_disk,
    seen,
)
from tests.store.builders import Lab, run_id

pytestmark = pytest.mark.usefixtures("local_disk")


# The table ---------------------------------------------------------------------------------------------------


ENDS = {  # in SLURM's word: of a run that had not begun; of one that left no last word
    "COMPLETED": (("queued", None), ("lost", "lost")),
    "FAILED": (("failed", "environment"), ("failed", "killed")),
    "TIMEOUT": (("failed", "timeout"), ("failed", "timeout")),
    "PREEMPTED": (("failed", "preempted"), ("failed", "preempted")),
    "NODE_FAIL": (("failed", "node-failure"), ("failed", "node-failure")),
    "OUT_OF_MEMORY": (("failed", "out-of-memory"), ("failed", "out-of-memory")),
    "CANCELLED": (("queued", "cancelled"), ("queued", "cancelled")),
    "CANCELLED by 0": (("queued", "cancelled"), ("queued", "cancelled")),
}


def after_end(word: str, files: str) -> tuple[str, str | None]:
    """State and cause of a run whose job is over; the run's own files have the last word."""
    not_begun, no_last_word = ENDS[word]
    return {
        "nothing": not_begun,
        "an open attempt": no_last_word,
        "an attempt that failed": ("failed", "user-error"),
        "an attempt that was preempted": ("failed", "preempted"),
        "a finished attempt": ("done", "finished"),
        "a result without a last word": ("done", "finished"),
    }[files]


@pytest.mark.parametrize(("word", "files"), list(itertools.product(ENDS, FILES)))
def test_a_job_that_is_over_ends_its_run_by_the_runs_own_word_and_else_by_the_schedulers(
    lab: Lab, word: str, files: str
) -> None:
    FILES[files](lab)
    look(lab, ToldScheduler([seen(word)]))
    assert state_of(lab) == after_end(word, files)
    assert live_submissions(lab.results) == []


@pytest.mark.parametrize(("word", "files"), list(itertools.product(ENDS, FILES)))
def test_a_job_that_the_queue_has_forgotten_ends_by_the_accounts(lab: Lab, word: str, files: str) -> None:
    FILES[files](lab)
    scheduler = ToldScheduler([], [seen(word)])
    look(lab, scheduler)
    assert state_of(lab) == after_end(word, files)
    assert scheduler.asked == ["queue", "accounts"]


WAITING = {
    "nothing": ("pending", None),
    "an attempt that failed": ("failed", "user-error"),
    "an attempt that was preempted": ("pending", None),
    "a finished attempt": ("done", "finished"),
    "a result without a last word": ("done", "finished"),
}


@pytest.mark.parametrize("word", ["PENDING", "REQUEUED", "CONFIGURING", "RUNNING", "COMPLETING", "NEVER_HEARD_OF"])
@pytest.mark.parametrize("files", WAITING)
def test_a_run_whose_job_is_not_over_waits_unless_it_ended_for_good(lab: Lab, word: str, files: str) -> None:
    FILES[files](lab)
    look_until_sure(lab, ToldScheduler([seen(word)]))
    assert state_of(lab) == WAITING[files]
    assert [one.name for one in live_submissions(lab.results)] == ["one-x"]


@pytest.mark.parametrize("word", ["RUNNING", "COMPLETING", "SUSPENDED", "NEVER_HEARD_OF"])
def test_a_run_that_its_job_is_at_is_running(lab: Lab, word: str) -> None:
    begins(lab, ID)
    with nothing_changes(lab.results.runs):
        look_until_sure(lab, ToldScheduler([seen(word)]))
    assert state_of(lab) == ("running", None)


@pytest.mark.parametrize(("accounts", "files"), list(itertools.product(ACCOUNTS, FILES)))
def test_a_job_that_ran_and_is_known_nowhere_is_lost_after_a_grace(lab: Lab, accounts: str, files: str) -> None:
    (submission,) = live_submissions(lab.results)
    known(submission, phase="running", word="RUNNING")
    FILES[files](lab)
    look_until_sure(lab, ToldScheduler(**ACCOUNTS[accounts]))
    assert (
        state_of(lab)
        == {
            "nothing": ("lost", "lost"),
            "an open attempt": ("lost", "lost"),
            "an attempt that failed": ("failed", "user-error"),
            "an attempt that was preempted": ("failed", "preempted"),
            "a finished attempt": ("done", "finished"),
            "a result without a last word": ("done", "finished"),
        }[files]
    )
    assert live_submissions(lab.results) == []


@pytest.mark.parametrize("accounts", ACCOUNTS)
def test_a_job_that_vanished_while_it_waited_was_cancelled_where_the_accounts_would_know_of_more(
    lab: Lab, accounts: str
) -> None:
    look_until_sure(lab, ToldScheduler(**ACCOUNTS[accounts]))
    assert state_of(lab) == (("queued", "cancelled") if accounts == "answer, and know nothing" else ("lost", "lost"))


def test_a_job_that_had_begun_is_never_taken_for_cancelled_while_it_waited(lab: Lab) -> None:
    begins(lab, ID)
    look_until_sure(lab, ToldScheduler())
    assert state_of(lab) == ("lost", "lost")


@pytest.mark.parametrize("accounts", ACCOUNTS)
def test_a_run_that_was_called_off_is_cancelled_as_soon_as_its_job_is_gone(lab: Lab, accounts: str) -> None:
    lab.folder(ID).cancel.touch()
    look(lab, ToldScheduler(**ACCOUNTS[accounts]))
    assert state_of(lab) == ("queued", "cancelled")


# Grace -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", ["pending", "running"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_job_that_is_unknown_for_less_than_the_grace_is_left_alone(lab: Lab, phase: str, begun: bool) -> None:
    (submission,) = live_submissions(lab.results)
    known(submission, phase=phase)
    if begun:
        begins(lab, ID)
    look(lab, ToldScheduler(), 1000.0)
    look(lab, ToldScheduler(), 1000.0 + GRACE_SECONDS - 1)
    assert state_of(lab) == (("running", None) if begun else ("pending", None))
    look(lab, ToldScheduler(), 1000.0 + GRACE_SECONDS)
    assert live_submissions(lab.results) == []


def test_a_job_that_is_seen_again_gets_a_new_grace(lab: Lab) -> None:
    look(lab, ToldScheduler(), 0.0)
    look(lab, ToldScheduler([seen("PENDING")]), GRACE_SECONDS / 2)
    look(lab, ToldScheduler(), GRACE_SECONDS)
    look(lab, ToldScheduler(), 2 * GRACE_SECONDS - 1)
    assert state_of(lab) == ("pending", None)


def test_clocks_of_two_hosts_are_never_compared(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    look(lab, ToldScheduler(), 0.0)
    monkeypatch.setattr(socket, "gethostname", lambda: "another-login-node")
    look(lab, ToldScheduler(), 10 * GRACE_SECONDS)
    assert state_of(lab) == ("pending", None)
    look(lab, ToldScheduler(), 11 * GRACE_SECONDS)
    assert live_submissions(lab.results) == []


def test_a_clock_that_was_set_back_only_makes_the_grace_longer(lab: Lab) -> None:
    look(lab, ToldScheduler(), 10_000.0)
    look(lab, ToldScheduler(), 0.0)
    assert state_of(lab) == ("pending", None)
    look(lab, ToldScheduler(), 10_000.0 + GRACE_SECONDS)
    assert live_submissions(lab.results) == []


def test_on_a_shared_file_system_a_job_that_is_over_gets_time_to_be_seen_to_say_so(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_local_disk(monkeypatch, shared=True)
    begins(lab, ID)
    over = ToldScheduler([seen("COMPLETED")])
    look(lab, over, 0.0)
    look(lab, over, SETTLE_SECONDS - 1)
    assert state_of(lab) == ("running", None)
    assert causes_in(lab.results.run(ID)) == []
    finishes(lab, ID)  # what was written on the node comes to be seen
    look(lab, over, SETTLE_SECONDS - 1)
    assert state_of(lab) == ("done", "finished")
    assert live_submissions(lab.results) == []


def test_on_a_shared_file_system_too_a_job_that_says_nothing_is_given_up(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_local_disk(monkeypatch, shared=True)
    begins(lab, ID)
    over = ToldScheduler([seen("NODE_FAIL")])
    look(lab, over, 0.0)
    look(lab, over, SETTLE_SECONDS)
    assert state_of(lab) == ("failed", "node-failure")


# Errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", FILES)
@pytest.mark.parametrize("phase", ["pending", "running"])
def test_an_error_of_the_scheduler_changes_no_file_however_often_it_comes(lab: Lab, files: str, phase: str) -> None:
    (submission,) = live_submissions(lab.results)
    known(submission, phase=phase)
    FILES[files](lab)
    before = state_of(lab)
    with nothing_changes(lab.results.path):
        for at in (0.0, 1e3, 1e9):
            news = look(lab, ToldScheduler(queue_fails=True), at)
            assert news.error == "the queue is down."
            assert [one.name for one in news.live] == ["one-x"]
    assert state_of(lab) == before


def test_accounts_that_cannot_be_asked_are_mentioned_and_what_the_queue_shows_counts(lab: Lab) -> None:
    lab.sweep("two", {run_id(2): {}})
    lab.submitted("one-y", (run_id(2),), created_at="2026-01-02T00:00:00.000+00:00")
    news = look(lab, ToldScheduler([seen("TIMEOUT", "one-y")], accounts_fail=True))
    assert news.error is None
    assert news.notes == ["The accounts could not be asked: the accounts are down."]
    assert state_of(lab, run_id(2)) == ("failed", "timeout")


def test_a_word_that_is_not_known_is_named_and_changes_nothing(lab: Lab) -> None:
    with nothing_changes(lab.results.path):
        news = look(lab, ToldScheduler([seen("MELTED")]), 1e9)
    assert news.notes == [f"Job {JOB} is in a state that itopctl does not know: MELTED."]
    assert not news.changed
