"""Calling runs off, wherever they are: marks for processes to find, and jobs of ours ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from itopctl.dispatch.scheduler import Cluster, Scheduler, SchedulerError, SeenJob
from itopctl.dispatch.slurm_states import meaning_of
from itopctl.errors import plural
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

    def described(self, jobs: int) -> str:
        """The runs, so many jobs, and what is at other processes: `3 runs (2 jobs of the cluster)`."""
        details = [f"{plural(jobs, 'job')} of the cluster"] if jobs else []
        details += [f"{plural(self.local, 'run')} at other processes"] if jobs and self.local else []
        return plural(len(self.runs), "run") + (f" ({', '.join(details)})" if details else "")

    def outcome(self, ended: Ended) -> list[str]:
        """What was done, in sentences; jobs count as cancelled only where SLURM ended them."""
        if ended.certain:
            first = f"Cancelled {self.described(ended.gone)}. What runs stops after its present step."
        else:
            first = f"Marked {plural(len(self.runs), 'run')}: a run that finds its mark stops, or does not start."
        return [first, *ended.sentences()]


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


@dataclass(frozen=True)
class Ended:
    """What became of jobs that were to be ended.

    Attributes:
        told: ids that the scheduler was told to end.
        answers: of these, the ones that it did not accept, with its answer.
        over: how many had ended, or were about to; it was not called for them.
        absent: how many are not in its queue under our names, by submission; it was not called for them.
        others: jobs in its queue that have the name of a submission and not its id, by submission; left alone.
        left: jobs that wait or run all the same, with their state.
        error: why that could not be looked up, or None.
    """

    told: tuple[str, ...] = ()
    answers: Mapping[str, str] = field(default_factory=dict)
    over: int = 0
    absent: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, Sequence[str]] = field(default_factory=dict)
    left: Mapping[str, str] = field(default_factory=dict)
    error: str | None = None

    @property
    def gone(self) -> int:
        """How many jobs the scheduler accepted to end, and does not show as waiting or running any more."""
        return len({*self.told} - {*self.answers} - {*self.left}) if self.error is None else 0

    @property
    def certain(self) -> bool:
        """Whether none of the jobs can go on."""
        return not self.left and not self.others and self.error is None

    def sentences(self) -> list[str]:
        """What scancel was told, what it answered, and what is still there."""
        said = []
        if self.told:
            accepted = len(self.told) - len(self.answers)
            said.append(
                f"scancel was told to end {plural(len(self.told), 'job')} ({short_ids(self.told)}) and accepted "
                f"{'all' if not self.answers else f'{accepted:,}'}."
            )
        for answer in dict.fromkeys(self.answers.values()):
            refused = short_ids([job_id for job_id, why in self.answers.items() if why == answer])
            said.append(f"It did not end {refused}: {answer.rstrip('.')}.")
        if self.over:
            said.append(f"{plural(self.over, 'job')} had ended already{_not_called(self.over)}")
        for name, count in self.absent.items():
            jobs = plural(count, "job is", "jobs are")
            said.append(f"{jobs} not in SLURM's queue under the name {name}{_not_called(count)}")
        for name, ids in self.others.items():
            said.append(f"{short_ids(ids)} in SLURM's queue has the name {name}, but another id than ours; left alone.")
        if self.left:
            words = {word: [i for i, now in self.left.items() if now == word] for word in self.left.values()}
            said.append("Still there: " + ", ".join(f"{short_ids(ids)} {word}" for word, ids in words.items()) + ".")
        if self.error is not None:
            said.append(f"What is still there is not known: {self.error.rstrip('.')}.")
        return said


def carry_out(results: Results, cancellation: Cancellation, scheduler: Scheduler) -> Ended:
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
    if not cancellation.jobs:
        return Ended()
    ended = _found(scheduler, cancellation.jobs)
    if not ended.told:
        return ended
    ended = replace(ended, answers=scheduler.cancel(ended.told))
    try:
        shown = scheduler.queue([submission.name for submission, _ in cancellation.jobs])
    except SchedulerError as error:
        return replace(ended, error=str(error))
    words = {_id(job): job.word for job in shown if _goes_on(job)}
    return replace(ended, left={job_id: words[job_id] for job_id in ended.told if job_id in words})


def _found(scheduler: Scheduler, jobs: Sequence[tuple[Submission, tuple[int, ...]]]) -> Ended:
    """Those jobs that are in the queue under our names: an id alone may be another's by now."""
    seen: dict[str, list[SeenJob]] = {submission.name: [] for submission, _ in jobs}
    for job in scheduler.queue(list(seen)):
        seen[job.name].append(job)
    told: list[str] = []
    over, absent, others = 0, {}, {}
    for submission, indices in jobs:
        wanted = [job for job in seen[submission.name] if job.index in indices]
        ours = [job for job in wanted if submission.state.job_id in (None, job.array_id)]
        going_on = [job for job in ours if _goes_on(job)]
        told.extend(map(_id, sorted(going_on, key=lambda job: job.index)))
        over += len(ours) - len(going_on)
        if missing := len(set(indices) - {job.index for job in ours}):
            absent[submission.name] = missing
        if theirs := [_id(job) for job in wanted if job not in ours and _goes_on(job)]:
            others[submission.name] = theirs
    return Ended(tuple(told), over=over, absent=absent, others=others)


def _not_called(jobs: int) -> str:
    return f"; scancel was not called for {'it' if jobs == 1 else 'them'}."


def _id(job: SeenJob) -> str:
    return f"{job.array_id}_{job.index}"


def _goes_on(job: SeenJob) -> bool:
    meaning = meaning_of(job.word)
    return meaning is None or (meaning.phase != "ended" and job.word != "COMPLETING")


def short_ids(job_ids: Iterable[str]) -> str:
    """`12_0`, `12_1`, `12_2`, `12_7` as `12_[0-2,7]`."""
    arrays: dict[str, list[list[int]]] = {}
    for array, index in sorted((array, int(index)) for array, _, index in (one.partition("_") for one in job_ids)):
        ranges = arrays.setdefault(array, [])
        if ranges and ranges[-1][1] == index - 1:
            ranges[-1][1] = index
        else:
            ranges.append([index, index])
    shown = []
    for array, ranges in arrays.items():
        text = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
        shown.append(f"{array}_{text}" if text.isdigit() else f"{array}_[{text}]")
    return ", ".join(shown)
