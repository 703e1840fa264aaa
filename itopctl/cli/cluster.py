"""What the verbs share that have to do with a cluster: submitting, looking at it, waiting for it."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from itopctl.api import opening
from itopctl.api.opening import look, store_if_any
from itopctl.cli.common import tell
from itopctl.errors import UserError, plural
from itopctl.places import current_folder

if TYPE_CHECKING:
    from rich.console import Console

    from itopctl.api.project import Project
    from itopctl.api.worklist import Work
    from itopctl.dispatch.reconcile import News
    from itopctl.dispatch.submit import Order
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results
    from itopctl.store.submissions import Submission

FIRST_SECONDS, MOST_SECONDS = 2.0, 120.0
_GROWTH = 1.5


@dataclass(frozen=True)
class There:
    """How runs are submitted to SLURM, by the options of the command.

    Attributes:
        first: so many are run alone first, and the others only if these succeed; 0: all at once.
        after: runs or jobs to wait for.
        snapshot: whether jobs run a copy of today's code.
        wait: whether the command follows them until all is over.
    """

    first: int = 0
    after: Sequence[str] = ()
    snapshot: bool = True
    wait: bool = False


def say(news: News) -> None:
    """Print what a look brought that a person should know, to standard error."""
    opening.say(news, tell)


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


def until_interrupted(step: Callable[[], float | None]) -> bool:
    """Call `step` again and again, each time after the seconds it returns; until it returns None, or Ctrl-C.

    Returns:
        Whether it was interrupted.
    """
    # A flag, not KeyboardInterrupt: an exception that strikes while the database lets something go is lost.
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        while not interrupts:
            seconds = step()
            if seconds is None:
                return False
            again = time.monotonic() + seconds
            while not interrupts and time.monotonic() < again:
                time.sleep(0.1)
        return True
    finally:
        signal.signal(signal.SIGINT, before)


def orders_of(project: Project, work: Work, store: Store | None, there: There) -> list[Order]:
    """What to submit, sweep by sweep. Raises UserError for something to wait for that can never come."""
    from itopctl.dispatch.submit import Order

    success, end = awaited(there.after, project.folder, store)
    return [
        Order(sweep, runs, work.slurm[sweep], there.first, success, end) for sweep, runs in work.runs.items() if runs
    ]


def reach(project: Project, after: Sequence[str]) -> None:
    """Ask SLURM whether it is there and knows the jobs to wait for, before anything is written down.

    Raises:
        SchedulerError: it does not answer. UserError: as `awaited`.
    """
    from itopctl.dispatch.slurm import Slurm

    Slurm().cluster()
    if after:
        awaited(after, project.folder, store_if_any(project.folder, project.url))


def submit(project: Project, work: Work, store: Store, console: Console, there: There) -> list[Submission]:
    """Submit to SLURM; returns what was submitted."""
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import Slurm
    from itopctl.dispatch.snapshot import modules_of, take
    from itopctl.dispatch.submit import Submitter
    from itopctl.store.queries import attempt_counts

    folder, scheduler = project.folder, Slurm()
    cluster = scheduler.cluster()
    orders = orders_of(project, work, store, there)
    code = take(folder, current_folder(), project.data, modules_of(work.configs.values()), copy=there.snapshot)
    attempts = attempt_counts(store, work.to_run)
    submitted: list[Submission] = []

    def submitted_one(one: Submission) -> None:
        submitted.append(one)
        jobs, runs = len(one.request.jobs), len(one.request.runs)
        packed = f" for {plural(runs, 'run')}" if runs != jobs else ""
        if one.state.job_id is None:
            console.print(
                f"Submitted {plural(jobs, 'job')}{packed} as {one.name}. SLURM's queue does not show them yet: "
                "the next command looks for their id.", markup=False,
            )  # fmt: skip
            return
        console.print(f"Submitted {plural(jobs, 'job')}{packed} as {one.state.job_id} ({one.name}).", markup=False)

    submitter = Submitter(folder, project.data, scheduler, cluster, work.configs, attempts, code, submitted_one)
    asked = len(work.to_run)
    try:
        for order in orders:
            submitter.submit(order)
    except (SchedulerError, KeyboardInterrupt):
        taken = sum(len(one.request.runs) for one in submitted)
        if taken:
            console.print(f"{taken:,} of {plural(asked, 'run')} are submitted and stay so; the same command goes on.")
        raise
    taken = sum(len(one.request.runs) for one in submitted)
    if taken < asked:
        console.print(f"{plural(asked - taken, 'run')} had been taken up by another command meanwhile.")
    if code.snapshot is not None:
        console.print(
            f"They run the code as it is now: {Path(code.snapshot).relative_to(folder.path.absolute())}", markup=False
        )
    return submitted


def wait_for(project: Project, work: Work, store: Store, console: Console) -> bool:
    """Follow runs on the cluster until none of them waits or runs; returns whether the user let go of them."""
    from itopctl.store.ingest import ingest
    from itopctl.store.queries import run_states

    patience = Patience()
    told = ""

    def step() -> float | None:
        nonlocal told
        news = look(project.folder)
        say(news)
        ingest(store, project.folder)
        states = [state for state, _ in run_states(store, list(work.configs)).values()]
        counts = {state: states.count(state) for state in ("done", "running", "pending", "failed", "lost")}
        now = ", ".join(f"{count:,} {state}" for state, count in counts.items() if count)
        changed = now != told
        if changed:
            console.print(f"{time.strftime('%H:%M:%S')}  {now}", markup=False, highlight=False)
        told = now
        if not counts["running"] and not counts["pending"]:
            return None
        return patience.after(changed)

    return until_interrupted(step)


def awaited(after: Sequence[str], folder: Results, store: Store | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`--after` arguments as ids of jobs that must have succeeded, and of such that must be over.

    Raises:
        UserError: no such run, or one that nobody is at.
    """
    success: list[str] = []
    end: list[str] = []
    for argument in after:
        word, _, rest = argument.rpartition(":")
        if word not in ("", "any"):
            raise UserError(f"--after {argument}: a run, a job's id, or any:JOB expected.")
        job_id = (
            _known_job(argument, rest, not word) if _JOB.fullmatch(rest) else _job_of(argument, rest, folder, store)
        )
        if job_id is not None:
            (end if word else success).append(job_id)
    return tuple(success), tuple(end)


def _known_job(argument: str, job_id: str, to_succeed: bool) -> str:
    from itopctl.dispatch.slurm import Slurm
    from itopctl.dispatch.slurm_states import meaning_of

    words = Slurm().words_of(job_id)
    if not words:
        raise UserError(f"--after {argument}: the cluster knows no job {job_id}.")
    over = [word for word in words if (meaning := meaning_of(word)) is not None and meaning.phase == "ended"]
    failed = [word for word in over if word != "COMPLETED"]
    if to_succeed and failed:
        raise UserError(
            f"--after {argument}: job {job_id} is {failed[0]} and cannot succeed any more; any:{job_id} asks less."
        )
    return job_id


_JOB = re.compile(r"\d{1,11}(_\d+)?")


def _job_of(argument: str, run: str, folder: Results, store: Store | None) -> str | None:
    """The job that a run is at, or waits for; None where the run is done already."""
    from itopctl.store.queries import find_run, run_details

    if store is None:
        raise UserError(f"--after {argument}: there is no run yet.")
    details = run_details(store, find_run(store, run))
    if details["state"] == "done":
        return None
    if details["state"] in ("pending", "running") and details["job_id"] and details["job_phase"] != "ended":
        return str(details["job_id"])
    raise UserError(f"--after {argument}: run {details['run_id']} is {details['state']}; no job is at it.")


def print_scripts(project: Project, work: Work, there: There) -> None:
    """Print the batch scripts that would be submitted."""
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import DEFAULT_LARGEST_ARRAY, Slurm
    from itopctl.dispatch.snapshot import modules_of, take
    from itopctl.dispatch.submit import array_script, arrays_of
    from itopctl.store.submissions import live_submissions

    try:
        largest = Slurm().cluster().largest_array
    except SchedulerError as error:
        largest = DEFAULT_LARGEST_ARRAY
        typer.echo(f"itopctl: {error}\nArrays are split as SLURM does by default, at {largest:,} jobs.", err=True)
    folder, modules = project.folder, modules_of(work.configs.values())
    code = take(folder, current_folder(), project.data, modules, copy=there.snapshot, dry=True)
    live = live_submissions(folder)
    for order in orders_of(project, work, store_if_any(folder, project.url), there):
        for array in arrays_of(order, largest, live):
            runs = sum(map(len, array.jobs))
            what = f"{plural(len(array.jobs), 'job')} for {plural(runs, 'run')} of {order.sweep}"
            typer.echo(f"\n# {what}, as sbatch gets it:\n")
            typer.echo(array_script(folder, array, order.options, code, {}))
