"""From runs to arrays of jobs: packed, split at the cluster's limit, throttled together, and handed over.

What is about to be submitted is on disk, under a name that no other job has, before the scheduler hears of it: if this
process dies in between, whoever looks next adopts the jobs.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from itopctl.config.run_config import RunConfig
from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.lost_attempts import has_given_up
from itopctl.dispatch.scheduler import Cluster, Scheduler, SchedulerError
from itopctl.dispatch.script import UnnamedJobsError, script_text, submit_script
from itopctl.dispatch.slurm_states import meaning_of
from itopctl.dispatch.snapshot import Code
from itopctl.store.files import remove
from itopctl.store.journal import utc_now
from itopctl.store.locks import is_held, this_process
from itopctl.store.rundir import Results
from itopctl.store.submissions import (
    Request,
    Submission,
    SubmissionState,
    claimed_runs,
    live_submissions,
    record,
    save,
    submitting,
)

_NAME_LENGTH = 60  # of a sweep's, in a job's
_SECOND_LOOKS = (1.0, 2.0)  # seconds to wait before each, where the queue does not show what sbatch accepted
_LOST_ANSWERS = ("timed out", "did not answer", "Unable to contact", "communication", "Zero Bytes", "Connection re")
"""In the complaints of an sbatch whose question may have reached SLURM, and be answered late."""


@dataclass(frozen=True)
class Array:
    """An array of jobs to submit.

    Attributes:
        name: of its jobs.
        jobs: run ids of each.
        throttle: how many may run at one time, or None.
        after_success: names of arrays, or ids of jobs, that must have succeeded before it starts.
        after_end: names of arrays, or ids, that must be over before it starts.
    """

    name: str
    jobs: tuple[tuple[str, ...], ...]
    throttle: int | None
    after_success: tuple[str, ...] = ()
    after_end: tuple[str, ...] = ()

    def dependency(self, ids: Mapping[str, str]) -> str | None:
        """In sbatch's words; names are replaced by ids where they are known."""
        parts = []
        for kind, awaited in (("afterok", self.after_success), ("afterany", self.after_end)):
            if awaited:
                parts.append(":".join([kind, *(ids.get(one, one) for one in awaited)]))
        return ",".join(parts) or None


@dataclass(frozen=True)
class Order:
    """Runs of one sweep that are to be submitted.

    Attributes:
        sweep: its name.
        runs: their ids, in order.
        options: what each job asks for.
        first: so many runs go before the others; 0: none do.
        after_success, after_end: ids of jobs to wait for.
    """

    sweep: str
    runs: tuple[str, ...]
    options: SlurmOptions
    first: int = 0
    after_success: tuple[str, ...] = ()
    after_end: tuple[str, ...] = ()


def arrays_of(
    order: Order, largest_array: int, live: Sequence[Submission] = (),
    token: Callable[[], str] = lambda: secrets.token_hex(4),
) -> list[Array]:  # fmt: skip
    """The arrays of an order, in the order of submission.

    The jobs of a sweep that run at one time are `array_parallelism` at most, over all of its arrays, those submitted
    earlier included: arrays share what those leave free, and take turns where there are more of them; where nothing is
    left, they wait for those to end.

    Args:
        order: what to submit.
        largest_array: jobs of an array, at most (SLURM's MaxArraySize: one more than the largest index).
        live: submissions with jobs that are not over.
        token: makes names unique.
    """
    limit = order.options.array_parallelism
    before = [one for one in live if one.request.sweep == order.sweep]
    free = limit - sum(min(one.request.throttle or limit, len(one.live_jobs)) for one in before) if limit else 0
    awaited = [one.state.job_id for one in before if one.state.job_id is not None]
    arrays: list[Array] = []
    first, rest = order.runs[: order.first], order.runs[order.first :]
    firsts: tuple[str, ...] = ()
    for runs in (first, rest):
        parts = split(pack(runs, order.options.runs_per_job or 1), largest_array)
        lanes = _lanes(len(parts), limit, free)
        for number, jobs in enumerate(parts):
            lane = lanes[number % len(lanes)] if lanes else None
            arrays.append(Array(
                name=f"{order.sweep[:_NAME_LENGTH]}-{token()}", jobs=jobs,
                throttle=None if lane is None else min(lane.places, len(jobs)),
                after_success=(*order.after_success, *firsts),
                after_end=(*order.after_end, *(awaited if lane and free < 1 else ()), *(lane.last if lane else ())),
            ))  # fmt: skip
            if lane is not None:
                lane.last = (arrays[-1].name,)
        if runs is first and arrays:
            firsts = tuple(array.name for array in arrays)
            free = limit or 0 if free < 1 else free  # they are over when the others start, with what they waited for
            awaited = []
    return arrays


@dataclass
class _Lane:
    """Places that arrays take one after the other."""

    places: int
    last: tuple[str, ...] = ()


def _lanes(arrays: int, limit: int | None, free: int) -> list[_Lane]:
    """The places of a sweep shared out over arrays that go side by side; none where there is no limit."""
    if limit is None or not arrays:
        return []
    places = free if free > 0 else limit
    count = min(arrays, places)
    return [_Lane(places // count + (number < places % count)) for number in range(count)]


def pack(runs: Sequence[str], runs_per_job: int) -> list[tuple[str, ...]]:
    """Runs of each job."""
    return [tuple(runs[start : start + runs_per_job]) for start in range(0, len(runs), runs_per_job)]


def split(jobs: Sequence[tuple[str, ...]], largest: int) -> list[tuple[tuple[str, ...], ...]]:
    """Jobs of each array: as few arrays as can be, of nearly equal size."""
    count = -(-len(jobs) // max(1, largest))
    sizes = [len(jobs) // count + (index < len(jobs) % count) for index in range(count)]
    starts = [sum(sizes[:index]) for index in range(count)]
    return [tuple(jobs[start : start + size]) for start, size in zip(starts, sizes, strict=True)]


def array_script(results: Results, array: Array, options: SlurmOptions, code: Code, ids: Mapping[str, str]) -> str:
    """The exact batch script of an array."""
    snapshot = Path(code.snapshot) if code.snapshot else None
    return script_text(
        results.submissions.absolute() / array.name, array.name, len(array.jobs), options, array.throttle,
        array.dependency(ids), snapshot, Path(code.workdir), imports=[Path(name) for name in code.imports],
    )  # fmt: skip


class Submitter:
    """Hands orders to a scheduler.

    Args:
        results: the results folder.
        data_dir: where data sets lie.
        scheduler, cluster: where jobs go.
        configs: run id → config.
        attempts: run id → attempts at it before.
        code: what the jobs run.
        told: called with each submission as soon as it is made.
    """

    def __init__(
        self, results: Results, data_dir: Path, scheduler: Scheduler, cluster: Cluster,
        configs: Mapping[str, RunConfig],
        attempts: Mapping[str, int], code: Code,
        told: Callable[[Submission], None] = lambda submission: None,
    ) -> None:  # fmt: skip
        self.results, self.data_dir = results, data_dir.absolute()
        self.scheduler, self.cluster = scheduler, cluster
        self.configs, self.attempts, self.code, self.told = configs, attempts, code, told

    def submit(self, order: Order) -> list[Submission]:
        """Submit what of an order is not at some job or process already.

        Raises:
            SchedulerError: the scheduler refused it; what was submitted before stays.
        """
        with submitting(self.results):
            live = live_submissions(self.results)
            runs = self.unclaimed(order.runs, live)
            if not runs:
                return []
            left = Order(order.sweep, runs, order.options, order.first, order.after_success, order.after_end)
            ids: dict[str, str] = {}
            submitted = []
            for array in arrays_of(left, self.cluster.largest_array, live):
                self._check_awaited(array, ids)
                script = array_script(self.results, array, order.options, self.code, ids)
                submission = self._hand_over(self._record(order, array), script)
                ids[array.name] = submission.state.job_id or ""
                submitted.append(submission)
                self.told(submission)
            return submitted

    def unclaimed(self, runs: Iterable[str], live: Sequence[Submission]) -> tuple[str, ...]:
        """Runs that are at no job, at no process, and not finished."""
        claimed = claimed_runs(live)
        found = []
        for run_id in runs:
            run = self.results.run(run_id)
            submission = claimed.get(run_id)
            at_a_job = submission is not None and not has_given_up(run, submission.id_of(submission.index_of(run_id)))
            if not at_a_job and not run.result.exists() and not is_held(run):
                found.append(run_id)
        return tuple(found)

    def _record(self, order: Order, array: Array) -> Submission:
        runs = [run_id for job in array.jobs for run_id in job]
        request = Request(
            name=array.name, sweep=order.sweep, scheduler="slurm", cluster=self.cluster.name, user=self.cluster.user,
            jobs=array.jobs, data_dir=str(self.data_dir), options=order.options.model_dump(exclude_none=True),
            throttle=array.throttle, attempts={i: self.attempts[i] for i in runs if self.attempts.get(i)},
            code=self.code.record(), by=this_process(), created_at=utc_now(),
        )  # fmt: skip
        for run_id in runs:
            remove(self.results.run(run_id).cancel)
        return record(self.results, request, {i: self.configs[i].model_dump(mode="json") for i in runs})

    @staticmethod
    def _check_awaited(array: Array, ids: Mapping[str, str]) -> None:
        for name in (*array.after_success, *array.after_end):
            if ids.get(name) == "":
                raise SchedulerError(
                    f"SLURM's queue does not show the jobs named {name} yet, and the other jobs are to wait for them. "
                    "Give the same command again in a few minutes."
                )

    def _hand_over(self, submission: Submission, script: str) -> Submission:
        said, error = None, None
        try:
            said = submit_script(submission.directory.path, script)
        except SchedulerError as refusal:
            error = refusal
        job_id = self._confirmed(submission, said, error)
        known = Submission(submission.directory, submission.request, SubmissionState(job_id, submission.state.jobs))
        save(known)
        return known

    def _confirmed(self, submission: Submission, said: str | None, error: SchedulerError | None) -> str | None:
        """The id of the jobs by their unique name, whatever sbatch said; None where that cannot be told yet.

        What sbatch printed may be a banner's, and where sbatch failed, SLURM may have the jobs all the same. Without
        an id the record waits for the next command, which adopts the jobs by their name.

        Args:
            submission: what was submitted.
            said: the id that sbatch gave.
            error: how sbatch failed, or None.

        Raises:
            SchedulerError: the jobs were refused, or it is not known whether they were.
        """
        refused = error is not None and not isinstance(error, UnnamedJobsError)
        try:
            seen = self.scheduler.queue([submission.name])
            for seconds in _SECOND_LOOKS:
                if seen or refused:
                    break
                time.sleep(seconds)  # a controller with much to do may show them late
                seen = self.scheduler.queue([submission.name])
        except SchedulerError as unasked:
            if error is None:
                return None
            raise _not_known(error, submission.name) from unasked
        ids = {job.array_id for job in seen}
        if said in ids:
            return said
        going_on = [job.array_id for job in seen if (now := meaning_of(job.word)) is None or now.phase != "ended"]
        if going_on:
            return going_on[0]
        if error is None:
            return None
        if not refused or any(words in str(error) for words in _LOST_ANSWERS):
            raise _not_known(error, submission.name)
        shutil.rmtree(submission.directory.path, ignore_errors=True)
        raise error


def _not_known(error: SchedulerError, name: str) -> SchedulerError:
    return SchedulerError(f"{error} Whether the jobs named {name} were accepted is not known; the next command looks.")
