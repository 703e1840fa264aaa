"""What the verbs share that have to do with a cluster: what was submitted, waiting until all of it has ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from itopctl.errors import plural

if TYPE_CHECKING:
    from rich.console import Console

    from itopctl.api.cluster import There
    from itopctl.api.project import Project
    from itopctl.api.worklist import Work
    from itopctl.store.database import Store
    from itopctl.store.submissions import Submission


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


def submit(project: Project, work: Work, store: Store, console: Console, there: There) -> None:
    """Submit to SLURM, and say what was submitted."""

    def progress(event: dict[str, Any]) -> None:
        one: Submission = event["submission"]
        jobs, runs = len(one.request.jobs), len(one.request.runs)
        packed = f" for {plural(runs, 'run')}" if runs != jobs else ""
        said = f"Submitted {plural(jobs, 'job')}{packed} as"
        if one.state.job_id is not None:
            console.print(f"{said} {one.state.job_id} ({one.name}).", markup=False)
            return
        later = "SLURM's queue does not show them yet: the next command looks for their id."
        console.print(f"{said} {one.name}. {later}", markup=False)

    submitted = project.hand_in(work, store, there, progress)
    if missing := len(submitted.runs) - submitted.taken:
        console.print(f"{plural(missing, 'run')} had been taken up by another command meanwhile.")
    if submitted.snapshot is not None:
        place = submitted.snapshot.relative_to(project.folder.path.absolute())
        console.print(f"They run the code as it is now: {place}", markup=False)


def wait_for(project: Project, work: Work, store: Store, console: Console) -> bool:
    """Wait until none of the runs waits or runs; returns whether the user interrupted that."""
    from itopctl.api.cluster import Looks

    looks = Looks(project, list(work.configs), store)

    def step() -> float | None:
        seconds = looks.look()
        if looks.changed:
            now = ", ".join(f"{count:,} {state}" for state, count in looks.counts.items())
            console.print(f"{time.strftime('%H:%M:%S')}  {now}", markup=False, highlight=False)
        return seconds

    return until_interrupted(step)


def print_scripts(project: Project, work: Work, there: There) -> None:
    """Print the batch scripts that would be submitted."""
    from itopctl.api.cluster import scripts

    for what, script in scripts(project, work, there):
        typer.echo(f"\n# {what}, as sbatch gets it:\n")
        typer.echo(script)
