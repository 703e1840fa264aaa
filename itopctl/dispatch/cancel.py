"""Calling runs off, wherever they are: marks for processes to find, and jobs of ours ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from itopctl.dispatch.scheduler import Cluster, Scheduler
from itopctl.store.files import write_whole
from itopctl.store.locks import is_held, without_the_lock
from itopctl.store.rundir import Results, RunDirectory
from itopctl.store.submissions import Submission, live_submissions


@dataclass(frozen=True)
class Cancellation:
    """What calling some runs off comes to.

    Attributes:
        runs: those that are not finished and at some job or process; they get a mark, which is looked for before a
            run starts and every other second while it trains.
        jobs: jobs none of whose unfinished runs is wanted any more, by submission; they are ended.
        foreign: submissions of another cluster or user that have some of the runs; they are left alone.
        local: how many of the runs are at, or wait for, processes that no job started.
    """

    runs: tuple[str, ...]
    jobs: tuple[tuple[Submission, tuple[int, ...]], ...]
    foreign: tuple[Submission, ...]
    local: int


def plan_cancellation(results: Results, run_ids: Iterable[str], cluster: Callable[[], Cluster]) -> Cancellation:
    """Say what would be done; nothing is.

    Args:
        results: the results folder.
        run_ids: the runs that are not wanted any more.
        cluster: asked for where this is, and who, if some of them are at jobs.

    Raises:
        SchedulerError: whose jobs they are cannot be told.
    """
    wanted = {run_id for run_id in run_ids if not results.run(run_id).result.exists()}
    jobs = []
    at_jobs: set[str] = set()
    others_have: set[str] = set()
    foreign = []
    for submission in live_submissions(results):
        if not wanted.isdisjoint(submission.live_runs) and not _is_ours(submission, cluster()):
            foreign.append(submission)
            others_have |= submission.live_runs
            continue
        ended = []
        for index in submission.live_jobs:
            unfinished = [i for i in submission.request.jobs[index] if not results.run(i).result.exists()]
            at_jobs.update(wanted.intersection(unfinished))
            if unfinished and wanted.issuperset(unfinished):
                ended.append(index)
        if ended:
            jobs.append((submission, tuple(ended)))
    others = sorted(wanted - at_jobs - others_have)
    if not any(_is_at_a_process_of_ours(results.run(run_id)) for run_id in others):
        others = []  # no pool is at work that could have the rest of them in its queue
    return Cancellation(tuple(sorted({*at_jobs, *others})), tuple(jobs), tuple(foreign), len(others))


def _is_ours(submission: Submission, cluster: Cluster) -> bool:
    return (submission.request.cluster, submission.request.user) == (cluster.name, cluster.user)


def _is_at_a_process_of_ours(run: RunDirectory) -> bool:
    try:
        return is_held(run) and run.lock.stat().st_uid == os.getuid()
    except OSError:
        return False


def carry_out(results: Results, cancellation: Cancellation, scheduler: Scheduler) -> None:
    """Mark the runs, and end the jobs.

    Args:
        results: the results folder.
        cancellation: what to do.
        scheduler: where the jobs are; not asked where there are none.

    Raises:
        SchedulerError: the jobs could not be ended; the marks are there.
    """
    for run_id in cancellation.runs:
        run = results.run(run_id)
        with without_the_lock(run, run.cancel):
            write_whole(run.cancel, b"")
    if cancellation.jobs:
        scheduler.cancel(_ids(scheduler, cancellation.jobs))


def _ids(scheduler: Scheduler, jobs: Sequence[tuple[Submission, tuple[int, ...]]]) -> list[str]:
    """Ids of those jobs that are in the queue under our names: an id alone may be another's by now."""
    seen = {(job.name, job.index): job for job in scheduler.queue([submission.name for submission, _ in jobs])}
    found = []
    for submission, indices in jobs:
        for index in indices:
            job = seen.get((submission.name, index))
            if job is not None and submission.state.job_id in (None, job.array_id):
                found.append(f"{job.array_id}_{index}")
    return found
