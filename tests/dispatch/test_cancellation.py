"""Calling runs off: which get a mark, which jobs are ended, and whose are left alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from itopctl.dispatch.cancellation import Cancellation, carry_out, plan_cancellation
from itopctl.dispatch.scheduler import SchedulerError
from itopctl.dispatch.slurm import Slurm
from itopctl.store.locks import locked
from itopctl.store.rundir import Results
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.test_submitter import RUNS, submit
from tests.dispatch.told import ToldScheduler, finishes, known, lab_at, nothing_changes, seen, unrecorded
from tests.store.builders import Lab, run_id

A, B, C, D = (run_id(number) for number in range(1, 5))


@pytest.fixture
def lab(tmp_path: Path, no_waiting_for_the_disk: None) -> Lab:
    return lab_at(tmp_path / "my results")


def marked(results: Results) -> set[str]:
    return {path.parent.name for path in results.runs.glob("*/cancel")}


def jobs_of(cancellation: Cancellation) -> dict[str, tuple[int, ...]]:
    return {submission.name: indices for submission, indices in cancellation.jobs}


def plan(lab: Lab, run_ids: Sequence[str]) -> Cancellation:
    return plan_cancellation(lab.results, run_ids, ToldScheduler().cluster)


# The plan ---------------------------------------------------------------------------------------------------


def test_planning_does_nothing(lab: Lab) -> None:
    lab.submitted("one-x", (A,), (B,))
    with nothing_changes(lab.results.path):
        plan(lab, [A, B])


def test_a_job_is_ended_when_none_of_its_unfinished_runs_is_wanted_any_more(lab: Lab) -> None:
    lab.submitted("one-x", (A, B), (C, D))
    assert jobs_of(plan(lab, [A, C, D])) == {"one-x": (1,)}
    assert plan(lab, [A, C, D]).runs == (A, C, D)
    finishes(lab, B)
    assert jobs_of(plan(lab, [A, C, D])) == {"one-x": (0, 1)}


def test_a_run_that_is_finished_or_at_nobodys_hands_is_passed_over(lab: Lab) -> None:
    lab.submitted("one-x", (A,))
    finishes(lab, A)
    lab.failed(B)
    assert plan(lab, [A, B, C]) == Cancellation((), (), (), 0)


def test_jobs_that_are_over_are_not_ended_again(lab: Lab) -> None:
    known(lab.submitted("one-x", (A,), (B,)), 0, phase="ended")
    assert jobs_of(plan(lab, [A, B])) == {"one-x": (1,)}
    assert plan(lab, [A, B]).runs == (B,)


def test_a_run_at_a_local_process_gets_a_mark(lab: Lab) -> None:
    run = lab.folder(A)
    with locked(run):
        cancellation = plan(lab, [A])
    assert (cancellation.runs, cancellation.jobs, cancellation.local) == ((A,), (), 1)


def test_runs_that_wait_for_a_local_process_get_one_too(lab: Lab) -> None:
    with locked(lab.folder(A)):
        cancellation = plan(lab, [A, B])
    assert (cancellation.runs, cancellation.local) == ((A, B), 2)


# Carried out ------------------------------------------------------------------------------------------------


def test_every_run_gets_a_mark_and_every_job_is_ended(lab: Lab) -> None:
    lab.submitted("one-x", (A, B), (C,), (D,))
    scheduler = ToldScheduler([seen("RUNNING"), seen("PENDING", index=1), seen("PENDING", index=2)])
    carry_out(lab.results, plan(lab, [A, B, D]), scheduler)
    assert marked(lab.results) == {A, B, D}
    assert scheduler.asked == ["queue", "cancel 77_0 77_2", "queue"]


def test_a_job_of_our_id_and_another_name_is_somebody_elses(lab: Lab) -> None:
    lab.submitted("one-x", (A,), (B,))
    scheduler = ToldScheduler([seen("RUNNING", name="another"), seen("RUNNING", array_id="78", index=1)])
    ended = carry_out(lab.results, plan(lab, [A, B]), scheduler)
    assert scheduler.asked == ["queue"]
    assert (ended.told, ended.gone, ended.certain) == ((), 0, False)
    assert ended.sentences() == [
        "2 jobs are not in SLURM's queue under the name one-x; scancel was not called for them.",
        "78_1 in SLURM's queue has the name one-x, but another id than ours; left alone.",
    ]


def test_jobs_that_nobody_recorded_the_id_of_are_ended_by_their_name(lab: Lab) -> None:
    unrecorded(lab.submitted("one-x", (A,)))
    scheduler = ToldScheduler([seen("PENDING", array_id="4711")])
    carry_out(lab.results, plan(lab, [A]), scheduler)
    assert scheduler.asked[1:] == ["cancel 4711_0", "queue"]


@pytest.mark.parametrize("whose", [{"cluster": "another"}, {"user": "somebody"}])
def test_runs_of_another_cluster_or_user_are_left_alone_and_told_of(lab: Lab, whose: dict[str, str]) -> None:
    foreign = lab.submitted("one-x", (A,), **whose)
    lab.submitted("one-y", (B,))
    scheduler = ToldScheduler([seen("RUNNING"), seen("RUNNING", name="one-y")])
    with locked(lab.folder(A)):  # its job runs
        cancellation = plan(lab, [A, B])
    carry_out(lab.results, cancellation, scheduler)
    assert [one.name for one in cancellation.foreign] == [foreign.name]
    assert marked(lab.results) == {B}
    assert scheduler.asked[1:] == ["cancel 77_0", "queue"]


def test_a_local_process_of_somebody_else_is_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    with locked(lab.folder(A)):
        monkeypatch.setattr(os, "getuid", lambda: 12345)
        assert plan(lab, [A]).runs == ()


def test_a_scheduler_that_does_not_answer_leaves_the_marks(lab: Lab) -> None:
    lab.submitted("one-x", (A,))
    with pytest.raises(SchedulerError):
        carry_out(lab.results, plan(lab, [A]), ToldScheduler(queue_fails=True))
    assert marked(lab.results) == {A}


@dataclass
class Counting(ToldScheduler):
    """Counts the jobs that are to be ended."""

    ended: list[str] = field(default_factory=list)

    def cancel(self, job_ids) -> dict[str, str]:  # type: ignore[no-untyped-def]
        self.ended.extend(job_ids)
        return super().cancel(job_ids)


def test_a_thousand_jobs_are_one_question(lab: Lab) -> None:
    ids = [f"{number:012x}" for number in range(1000)]
    lab.submitted("one-x", *((id_,) for id_ in ids))
    scheduler = Counting([seen("PENDING", index=index) for index in range(1000)])
    ended = carry_out(lab.results, plan(lab, ids), scheduler)
    assert [asked.partition(" ")[0] for asked in scheduler.asked] == ["queue", "cancel", "queue"]
    assert len(scheduler.ended) == ended.gone == 1000
    assert ended.sentences() == ["scancel was told to end 1,000 jobs (77_[0-999]) and accepted all."]


def test_only_jobs_that_the_scheduler_ended_count_as_cancelled(lab: Lab) -> None:
    lab.submitted("one-x", (A,), (B,), (C,), (D,))
    scheduler = ToldScheduler(
        [seen("RUNNING"), seen("PENDING", index=1), seen("PENDING", index=2)],
        refuses={"77_1": "SLURM: scancel: Access/permission denied"},
    )
    cancellation = plan(lab, [A, B, C, D])
    ended = carry_out(lab.results, cancellation, scheduler)
    assert ended.gone == 2
    assert cancellation.outcome(ended) == [
        "Marked 4 runs: a run that finds its mark stops, or does not start.",
        "scancel was told to end 3 jobs (77_[0-2]) and accepted 2.",
        "It did not end 77_1: SLURM: scancel: Access/permission denied.",
        "1 job is not in SLURM's queue under the name one-x; scancel was not called for it.",
        "Still there: 77_1 PENDING.",
    ]


def test_a_job_that_is_over_is_not_ended_and_not_counted(lab: Lab) -> None:
    lab.submitted("one-x", (A,), (B,), (C,))
    scheduler = ToldScheduler([seen("COMPLETED"), seen("COMPLETING", index=1), seen("RUNNING", index=2)])
    ended = carry_out(lab.results, plan(lab, [A, B, C]), scheduler)
    assert scheduler.asked[1] == "cancel 77_2"
    assert (ended.gone, ended.over, ended.certain) == (1, 2, True)
    assert ended.sentences()[1] == "2 jobs had ended already; scancel was not called for them."


def test_a_job_that_goes_on_though_scancel_said_nothing_is_told_of(lab: Lab) -> None:
    lab.submitted("one-x", (A,), (B,))

    class Deaf(ToldScheduler):
        def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
            return {}

    ended = carry_out(lab.results, plan(lab, [A, B]), Deaf([seen("RUNNING"), seen("COMPLETING", index=1)]))
    assert (ended.gone, ended.over, ended.certain) == (0, 1, False)
    assert ended.sentences()[-1] == "Still there: 77_0 RUNNING."


def test_where_the_queue_cannot_be_asked_afterwards_no_job_counts_as_cancelled(lab: Lab) -> None:
    lab.submitted("one-x", (A,))

    class Dying(ToldScheduler):
        def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
            self.queue_fails = True
            return super().cancel(job_ids)

    cancellation = plan(lab, [A])
    ended = carry_out(lab.results, cancellation, Dying([seen("RUNNING")]))
    assert (ended.gone, ended.certain) == (0, False)
    assert "What is still there is not known: the queue is down." in cancellation.outcome(ended)


def test_slurm_ends_what_is_ours_and_nothing_else(
    fake: FakeSlurm, tmp_path: Path, no_waiting_for_the_disk: None
) -> None:
    results = Results(tmp_path / "my results")
    (mine,) = submit(results, RUNS[:3])
    (other,) = submit(Results(tmp_path / "others"), RUNS[3:])
    fake.start(f"{mine.state.job_id}_0")
    carry_out(results, plan_cancellation(results, RUNS[:2], Slurm().cluster), Slurm())
    assert fake.word(f"{mine.state.job_id}_0") == "CANCELLED"
    assert fake.word(f"{mine.state.job_id}_1") == "CANCELLED"
    assert fake.word(f"{mine.state.job_id}_2") == "PENDING"
    assert {fake.word(job) for job in fake.jobs(other.state.job_id or "")} == {"PENDING"}
