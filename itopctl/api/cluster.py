"""Runs on a cluster: submitting them, looking at how far they are, waiting for them."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from itopctl.api.opening import look, say, store_if_any
from itopctl.errors import UserError, plural
from itopctl.places import current_folder

if TYPE_CHECKING:
    from itopctl.api.worklist import Work
    from itopctl.api.workplace import Workplace
    from itopctl.dispatch.submitter import Order
    from itopctl.store.database import Store
    from itopctl.store.submissions import Submission

FIRST_SECONDS, MOST_SECONDS = 2.0, 120.0
_GROWTH = 1.5
_JOB = re.compile(r"\d{1,11}(_\d+)?")
_COUNTED = ("done", "running", "pending", "failed", "lost")


@dataclass(frozen=True)
class There:
    """How runs are submitted to SLURM.

    Attributes:
        first: so many are run alone first, and the others only if these succeed; 0: all at once.
        after: runs or jobs to wait for, as `RUN`, `JOB` or `any:JOB`.
        snapshot: whether jobs run a copy of the code as it is now; else they run the code as it is when they start.
        wait: whether to wait until all runs have ended.
    """

    first: int = 0
    after: Sequence[str] = ()
    snapshot: bool = True
    wait: bool = False


@dataclass(frozen=True)
class Submitted:
    """What was submitted to a cluster.

    Attributes:
        runs: ids of the runs that were to be submitted.
        submissions: arrays of jobs that SLURM accepted.
        snapshot: folder with the copy of the code that the jobs run; None where there is none.
    """

    runs: Sequence[str] = ()
    submissions: Sequence[Submission] = field(default=(), repr=False)
    snapshot: Path | None = None

    @property
    def job_ids(self) -> list[str]:
        """SLURM's ids of the arrays; without those that its queue does not show yet."""
        return [one.state.job_id for one in self.submissions if one.state.job_id is not None]

    @property
    def taken(self) -> int:
        """How many runs are at these jobs; fewer than `runs` where another command submitted some meanwhile."""
        return sum(len(one.request.runs) for one in self.submissions)


class Patience:
    """How long to wait before the next look: longer and longer while nothing changes; a cluster is shared.

    Args:
        first, most: seconds.
    """

    def __init__(self, first: float = FIRST_SECONDS, most: float = MOST_SECONDS) -> None:
        self.first, self.most, self.seconds = first, most, first

    def after(self, changed: bool) -> float:
        """Seconds to wait after a look that brought something new, or nothing."""
        self.seconds = self.first if changed else min(self.most, self.seconds * _GROWTH)
        return self.seconds


def reach(project: Workplace, after: Sequence[str]) -> None:
    """Ask SLURM whether it is there and knows the jobs to wait for, before anything is written down.

    Raises:
        SchedulerError: it does not answer. UserError: as `awaited`.
    """
    from itopctl.dispatch.slurm import Slurm

    Slurm().cluster()
    if after:
        awaited(after, project, store_if_any(project.folder, project.url))


def submit(
    project: Workplace, work: Work, store: Store, there: There, on_submitted: Callable[[Submission], None]
) -> Submitted:
    """Submit runs to SLURM.

    Args:
        project: whose runs they are.
        work: the runs, and what their jobs ask for.
        store: the runs' records.
        there: how.
        on_submitted: called with each array that SLURM accepted.

    Raises:
        UserError: something to wait for can never come.
        SchedulerError: SLURM refused; what it had accepted before stays submitted, and the user is told.
    """
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import Slurm
    from itopctl.dispatch.snapshot import modules_of, take
    from itopctl.dispatch.submitter import Submitter
    from itopctl.store.queries import attempt_counts

    folder, scheduler = project.folder, Slurm()
    cluster = scheduler.cluster()
    orders = _orders(project, work, store, there)
    code = take(folder, current_folder(), project.data, modules_of(work.configs.values()), copy=there.snapshot)
    submissions: list[Submission] = []

    def accepted(one: Submission) -> None:
        submissions.append(one)
        on_submitted(one)

    attempts = attempt_counts(store, work.to_run)
    submitter = Submitter(folder, project.data, scheduler, cluster, work.configs, attempts, code, accepted)
    snapshot = None if code.snapshot is None else Path(code.snapshot)
    try:
        for order in orders:
            submitter.submit(order)
    except (SchedulerError, KeyboardInterrupt):
        if taken := Submitted(work.to_run, submissions).taken:
            asked = plural(len(work.to_run), "run")
            project.tell(f"{taken:,} of {asked} are submitted and stay so; the same command goes on.")
        raise
    return Submitted(work.to_run, submissions, snapshot)


def scripts(project: Workplace, work: Work, there: There) -> Iterator[tuple[str, str]]:
    """The batch scripts that `submit` would hand to sbatch, each with what it is for; nothing is submitted.

    Raises:
        UserError: something to wait for can never come.
    """
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import DEFAULT_LARGEST_ARRAY, Slurm
    from itopctl.dispatch.snapshot import modules_of, take
    from itopctl.dispatch.submitter import array_script, arrays_of
    from itopctl.store.submissions import live_submissions

    try:
        largest = Slurm().cluster().largest_array
    except SchedulerError as error:
        largest = DEFAULT_LARGEST_ARRAY
        project.tell(f"{error}\nArrays are split as SLURM does by default, at {largest:,} jobs.")
    folder, modules = project.folder, modules_of(work.configs.values())
    code = take(folder, current_folder(), project.data, modules, copy=there.snapshot, dry=True)
    live = live_submissions(folder)
    for order in _orders(project, work, store_if_any(folder, project.url), there):
        for array in arrays_of(order, largest, live):
            runs = sum(map(len, array.jobs))
            what = f"{plural(len(array.jobs), 'job')} for {plural(runs, 'run')} of {order.sweep}"
            yield what, array_script(folder, array, order.options, code, {})


def _orders(project: Workplace, work: Work, store: Store | None, there: There) -> list[Order]:
    """What to submit, sweep by sweep. Raises UserError for something to wait for that can never come."""
    from itopctl.dispatch.submitter import Order

    success, end = awaited(there.after, project, store)
    return [
        Order(sweep, runs, work.slurm[sweep], there.first, success, end) for sweep, runs in work.runs.items() if runs
    ]


def awaited(
    after: Sequence[str], project: Workplace, store: Store | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:  # fmt: skip
    """What jobs wait for, as ids of jobs that must have succeeded, and of such that must be over.

    Raises:
        UserError: no such run, or one that nobody is at.
    """
    success: list[str] = []
    end: list[str] = []
    for argument in after:
        said = project.spell("after", argument)
        word, _, rest = argument.rpartition(":")
        if word not in ("", "any"):
            raise UserError(f"{said}: a run, a job's id, or any:JOB expected.")
        job_id = _known_job(said, rest, not word) if _JOB.fullmatch(rest) else _job_of(said, rest, store)
        if job_id is not None:
            (end if word else success).append(job_id)
    return tuple(success), tuple(end)


def _known_job(said: str, job_id: str, to_succeed: bool) -> str:
    from itopctl.dispatch.slurm import Slurm
    from itopctl.dispatch.slurm_states import meaning_of

    words = Slurm().words_of(job_id)
    if not words:
        raise UserError(f"{said}: the cluster knows no job {job_id}.")
    over = [word for word in words if (meaning := meaning_of(word)) is not None and meaning.phase == "ended"]
    failed = [word for word in over if word != "COMPLETED"]
    if to_succeed and failed:
        raise UserError(f"{said}: job {job_id} is {failed[0]} and cannot succeed any more; any:{job_id} asks less.")
    return job_id


def _job_of(said: str, run: str, store: Store | None) -> str | None:
    """The job that a run is at, or waits for; None where the run is done already."""
    from itopctl.store.queries import find_run, run_details

    if store is None:
        raise UserError(f"{said}: there is no run yet.")
    details = run_details(store, find_run(store, run))
    if details["state"] == "done":
        return None
    if details["state"] in ("pending", "running") and details["job_id"] and details["job_phase"] != "ended":
        return str(details["job_id"])
    raise UserError(f"{said}: run {details['run_id']} is {details['state']}; no job is at it.")


@dataclass
class Looks:
    """Looks at runs, each later than the one before by `wait` seconds, until none of them waits or runs.

    Attributes:
        project: whose runs they are.
        runs: their ids.
        store: their records, which each look brings up to date.
        counts: state → number of runs, after the last look; states without runs are left out.
        changed: whether the last look found other counts than the one before.
    """

    project: Workplace
    runs: Sequence[str]
    store: Store
    counts: dict[str, int] = field(default_factory=dict)
    changed: bool = False
    _patience: Patience = field(default_factory=Patience)

    def look(self) -> float | None:
        """Ask the cluster once; returns the seconds to wait before the next look, None where all runs have ended."""
        from itopctl.store.ingest import ingest
        from itopctl.store.queries import run_states

        say(look(self.project.folder), self.project.tell)
        ingest(self.store, self.project.folder)
        states = [state for state, _ in run_states(self.store, self.runs).values()]
        found = {state: count for state in _COUNTED if (count := states.count(state))}
        self.changed, self.counts = found != self.counts, found
        if not found.get("running") and not found.get("pending"):
            return None
        return self._patience.after(self.changed)


def wait_until_ended(looks: Looks, progress: Callable[[dict[str, int]], None]) -> None:
    """Look again and again until no run waits or runs; `progress` is called with each new number of runs by state."""
    seconds = looks.look()
    while seconds is not None:
        if looks.changed:
            progress(looks.counts)
        time.sleep(seconds)
        seconds = looks.look()
