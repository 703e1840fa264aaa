"""Looks at a (pretended) SLURM: what they cost, and what is made of its lags, its failures and its forgetting."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itopctl.dispatch.reconcile import reconcile
from itopctl.dispatch.slurm import Slurm
from itopctl.store.rundir import Results
from itopctl.store.submissions import live_submissions, load
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.test_submitter import RUNS, submit
from tests.dispatch.told import begins, lab_at, nothing_changes, unrecorded


@pytest.fixture
def results(tmp_path: Path, local_disk: None) -> Results:
    made = Results(tmp_path / "my results")
    made.runs.mkdir(parents=True)
    return made


def test_a_look_is_at_most_three_calls_for_a_thousand_jobs(fake: FakeSlurm, tmp_path: Path) -> None:
    lab, user = lab_at(tmp_path / "many"), Slurm().cluster().user
    for number in range(20):
        jobs = [(f"{number * 50 + index:012x}",) for index in range(50)]
        lab.submitted(f"one-{number}", *jobs, cluster="fake", user=user)
    fake.forget_calls()
    assert reconcile(lab.results, Slurm()).error is None
    assert fake.count() == {"squeue": 1, "sacct": 1, "scontrol": 1}


def test_a_job_cancelled_while_it_waited_is_seen_to_be_though_slurm_keeps_no_account_of_it(
    fake: FakeSlurm, results: Results
) -> None:
    (submission,) = submit(results, RUNS[:2])
    job = submission.id_of(0)
    Slurm().cancel([job or ""])
    reconcile(results, Slurm(), lambda: 0.0)
    reconcile(results, Slurm(), lambda: 1000.0)
    (now,) = live_submissions(results)
    assert [(one.phase, one.cause) for one in now.state.jobs] == [("ended", "cancelled"), ("pending", None)]


def test_an_array_cancelled_as_a_whole_while_it_waited_comes_to_its_end(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, RUNS[:2])
    Slurm().cancel([submission.state.job_id or ""])
    reconcile(results, Slurm(), lambda: 0.0)
    reconcile(results, Slurm(), lambda: 1000.0)
    assert [job.cause for job in load(submission.directory).state.jobs] == ["cancelled"] * 2  # type: ignore[union-attr]


def test_accounts_that_lag_or_are_half_written_keep_a_job_from_being_given_up_too_early(
    fake: FakeSlurm, results: Results
) -> None:
    (submission,) = submit(results, RUNS[:1])
    job = submission.id_of(0) or ""
    fake.start(job)
    begins(lab_at(results.path), RUNS[0], job)
    reconcile(results, Slurm(), lambda: 0.0)
    fake.lag_accounts()
    fake.end(job, "NODE_FAIL")
    fake.forget()
    reconcile(results, Slurm(), lambda: 10.0)
    assert live_submissions(results) != []
    fake.half_written(job, "FAILED")
    reconcile(results, Slurm(), lambda: 20.0)
    assert live_submissions(results) != []
    fake.lag_accounts(False)
    reconcile(results, Slurm(), lambda: 30.0)
    assert [job.cause for job in load(submission.directory).state.jobs] == ["node-failure"]  # type: ignore[union-attr]


def test_a_dead_controller_is_an_error_and_changes_nothing(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results)
    begins(lab_at(results.path), RUNS[0], f"{submission.state.job_id}_0")
    fake.break_controller()
    with nothing_changes(results.path):
        for at in (0.0, 1e4):
            news = reconcile(results, Slurm(), lambda at=at: at)
            assert "Unable to contact slurm controller" in (news.error or "")


def test_dead_accounts_leave_what_the_queue_shows(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, RUNS[:2])
    fake.end(submission.id_of(0) or "", "OUT_OF_MEMORY", "0:125")
    fake.lose(submission.id_of(1) or "")
    fake.break_accounts()
    news = reconcile(results, Slurm())
    assert news.error is None
    assert "Problem talking to the database" in news.notes[0]
    assert [job.cause for job in live_submissions(results)[0].state.jobs] == ["out-of-memory", None]


def test_without_accounting_no_accounts_are_asked(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, RUNS[:1])
    fake.without_accounting()
    fake.lose(submission.id_of(0) or "")
    fake.forget_calls()
    reconcile(results, Slurm())
    assert fake.count() == {"squeue": 1, "scontrol": 1}


def test_reasons_may_hold_commas_and_bars(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, RUNS[:1])
    reason = "ReqNodeNotAvail, UnavailableNodes:n[1-2], n4"
    fake.say(submission.id_of(0) or "", "PENDING", reason)
    reconcile(results, Slurm())
    assert live_submissions(results)[0].state.jobs[0].reason == f"job {submission.id_of(0)}: {reason}"


def test_an_unrecorded_submission_is_found_by_its_name_alone(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results)
    unrecorded(submission)
    reconcile(results, Slurm())
    assert json.loads(submission.directory.state.read_text())["job_id"] == submission.state.job_id
