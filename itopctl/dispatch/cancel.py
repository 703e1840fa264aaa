"""Calling runs off, wherever they are: marks for processes to find, and jobs of ours ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from itopctl.dispatch.scheduler import Scheduler
from itopctl.store.rundir import Results, is_held
from itopctl.store.submissions import Submission, live_submissions


@dataclass(frozen=True)
class Cancellation:
    """What calling some runs off comes to.

    Attributes:
        runs: those that are not finished and at some job or process; they get a mark, which is looked for before a
            run starts and every other second while it trains.
        jobs: jobs none of whose unfinished runs is wanted any more, by submission; they are ended.
        local: how many of the runs are at, or wait for, processes that no job started.
    """

    runs: tuple[str, ...]
    jobs: tuple[tuple[Submission, tuple[int, ...]], ...]
    local: int


def plan_cancellation(results: Results, run_ids: Iterable[str]) -> Cancellation:
    """Say what would be done; nothing is."""
    wanted = {run_id for run_id in run_ids if not results.run(run_id).result.exists()}
    jobs = []
    at_jobs: set[str] = set()
    for submission in live_submissions(results):
        ended = []
        for index in submission.live_jobs:
            unfinished = [i for i in submission.request.jobs[index] if not results.run(i).result.exists()]
            at_jobs.update(wanted.intersection(unfinished))
            if unfinished and wanted.issuperset(unfinished):
                ended.append(index)
        if ended:
            jobs.append((submission, tuple(ended)))
    others = sorted(wanted - at_jobs)
    if not any(results.run(run_id).path.is_dir() and is_held(results.run(run_id)) for run_id in others):
        others = []  # no pool is at work that could have the rest of them in its queue
    return Cancellation(tuple(sorted({*at_jobs, *others})), tuple(jobs), len(others))


def carry_out(results: Results, cancellation: Cancellation, scheduler: Scheduler | None) -> list[Submission]:
    """Mark the runs, and end the jobs that are on this cluster and this user's.

    Args:
        results: the results folder.
        cancellation: what to do.
        scheduler: None where there is no job to end.

    Returns:
        Submissions of another cluster or user, whose jobs were left alone; they find the marks.

    Raises:
        SchedulerError: the jobs could not be ended; the marks are there.
    """
    for run_id in cancellation.runs:
        mark = results.run(run_id).cancel
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    if scheduler is None:
        return []
    cluster = scheduler.cluster()
    ours: list[tuple[Submission, tuple[int, ...]]] = []
    foreign: list[tuple[Submission, tuple[int, ...]]] = []
    for submission, indices in cancellation.jobs:
        asked = submission.request
        (ours if (asked.cluster, asked.user) == (cluster.name, cluster.user) else foreign).append((submission, indices))
    scheduler.cancel(_ids(scheduler, ours))
    return [submission for submission, _ in foreign]


def _ids(scheduler: Scheduler, jobs: Sequence[tuple[Submission, tuple[int, ...]]]) -> list[str]:
    """Ids of those jobs that are in the queue under our names: an id alone may be another's by now."""
    if not jobs:
        return []
    seen = {(job.name, job.index): job for job in scheduler.queue([submission.name for submission, _ in jobs])}
    found = []
    for submission, indices in jobs:
        for index in indices:
            job = seen.get((submission.name, index))
            if job is not None and submission.state.job_id in (None, job.array_id):
                found.append(f"{job.array_id}_{index}")
    return found
