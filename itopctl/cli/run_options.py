"""Runs that are to be made, here or by SLURM, and how that ended. What `sweep` and `retry` share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.api import worklist
from itopctl.api.worklist import CLUSTERS, Work
from itopctl.errors import UserError, plural

if TYPE_CHECKING:
    from rich.console import Console

    from itopctl.api.cluster import There
    from itopctl.api.project import Project
    from itopctl.api.project_runs import Outcome
    from itopctl.api.running import Here
    from itopctl.store.database import Store


def complete_clusters(incomplete: str) -> list[str]:
    """Where runs can be made."""
    return [name for name in CLUSTERS if name.startswith(incomplete)]


ClusterOption = Annotated[
    str, typer.Option("--cluster", help="Where to run: local or slurm.", autocompletion=complete_clusters)
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm",
        metavar="KEY=VALUE",
        help="Ask SLURM for more than the spec does, such as mem=32G; repeatable.",
    ),
]
WaitOption = Annotated[bool, typer.Option("--wait", help="slurm: follow until all is over; Ctrl-C lets go.")]
FirstOption = Annotated[
    int,
    typer.Option("--first", min=0, metavar="N", help="Run N alone first, and the others only if these succeed."),
]
AfterOption = Annotated[
    list[str] | None,
    typer.Option(
        "--after",
        metavar="RUN|JOB",
        help="slurm: start when this run or job has succeeded (any:JOB: has ended); repeatable.",
    ),
]
SnapshotOption = Annotated[
    bool,
    typer.Option(
        "--snapshot/--no-snapshot", help="slurm: jobs run a copy of today's code, or whatever is there when they start."
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="local: runs at one time. Default: one a GPU, or one a core.",
        show_default=False,
    ),
]
AcceptOption = Annotated[
    list[str] | None,
    typer.Option(
        "--accept-code",
        metavar="MODULE",
        help="Count runs by earlier code of this module of your own: its change does not matter; repeatable.",
        show_default=False,
    ),
]
RunsPerGpuOption = Annotated[int, typer.Option("--runs-per-gpu", min=1, help="local: runs that share a GPU.")]


def check_place(
    project: Project, cluster: str, slurm: Sequence[str], after: Sequence[str], workers: int | None,
    runs_per_gpu: int, wait: bool,
) -> None:  # fmt: skip
    """Raise UserError for an unknown place to run, or for options of the other one."""
    worklist.check_place(project, cluster, slurm, after, workers, runs_per_gpu)
    if wait and cluster == "local":
        raise UserError("--wait means nothing with --cluster local.")


def carry_out(
    project: Project, work: Work, store: Store, console: Console, names: Sequence[str], how: Here | There,
    keep: Callable[[], None] = lambda: None,
) -> bool:  # fmt: skip
    """Run here or submit, wait if that is wanted, and say how it ended; returns whether anything went wrong."""
    from itopctl.api.running import Here
    from itopctl.cli.cluster import submit, wait_for
    from itopctl.cli.live import SweepDisplay

    if isinstance(how, Here):
        outcome = project.carry_out(work, store, lambda show: SweepDisplay(console, show), how, keep)
        return conclude(work, store, outcome, console, names)
    submit(project, work, store, console, how)
    left_alone = wait_for(project, work, store, console) if how.wait else bool(work.to_run)
    return conclude(work, store, None, console, names, submitted=left_alone)


def conclude(
    work: Work, store: Store, outcome: Outcome | None, console: Console, names: Sequence[str], submitted: bool = False
) -> bool:
    """Say how it ended; returns whether anything went wrong."""
    from itopctl.cli.tables import failures_table
    from itopctl.report.formats import rich_tables
    from itopctl.store.queries import failures, run_states

    states = [state for state, _ in run_states(store, list(work.configs)).values()]
    failed = failures(store, list(work.configs))
    done, running, pending = (states.count(state) for state in ("done", "running", "pending"))
    total = len(work.configs)
    left = total - done - running - pending - len(failed)
    if failed and not submitted:
        console.print(rich_tables([failures_table(failed)]))
    if outcome is not None and outcome.common_cause:
        cause, message = outcome.common_cause
        console.print(f"Stopped after repeated quick failures. The common cause is {cause}: {message}", markup=False)
    elsewhere = f"{running:,} " + ("running" if submitted else "being run by another command")
    parts = [f"{done:,} of {plural(total, 'run')} done", f"{len(failed):,} failed" * bool(failed)]
    parts += [elsewhere * bool(running), f"{pending:,} pending" * bool(pending), f"{left:,} not finished" * bool(left)]
    console.print(", ".join(filter(None, parts)) + ".")
    if submitted:
        console.print(f"Follow them: itopctl status {' '.join(names)} --watch")
        return False
    if left:
        interrupted = "Interrupted. " if outcome is not None and outcome.stopped == "interrupted" else ""
        console.print(f"{interrupted}Run the same command again to go on from there.")
    elif done:
        console.print(f"See the results: itopctl report {' '.join(names)} --table paper")
    return bool(failed) or left > 0
