"""`itopctl cancel`: call runs off, on this machine and on the cluster."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from itopctl.cli.common import ResultsOption, StoreOption, complete_runs, complete_sweeps, open_results
from itopctl.errors import EnvironmentUnfitError, UserError


def _complete(incomplete: str) -> list[str]:
    return [*complete_sweeps(incomplete), *complete_runs(incomplete)]


def cancel(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SWEEP|RUN]...", help="Sweeps or runs; all if none.", autocompletion=_complete),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Stop runs that wait or run; what they have reached is kept, and the same sweep command goes on from there.

    Jobs of others, and runs that are finished, are never touched. The exit code is 3 where SLURM still has some of the
    jobs afterwards.
    """
    from itopctl.api.opening import look
    from itopctl.cli.cluster import say
    from itopctl.dispatch.cancel import carry_out, plan_cancellation
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import Slurm
    from itopctl.store.ingest import ingest
    from itopctl.store.queries import named_runs
    from itopctl.store.rundir import Results

    folder, opened = open_results(results, store, first=lambda found: say(look(found)), writes=True)
    assert isinstance(folder, Results)
    runs = named_runs(opened, what or [])
    scheduler = Slurm()
    cancellation = plan_cancellation(folder, runs, scheduler.cluster)
    for submission in cancellation.foreign:
        asked = submission.request
        typer.echo(f"{submission.name} is of {asked.user} on cluster {asked.cluster}; left alone.")
    if not cancellation.runs:
        typer.echo("Nothing to cancel: none of these runs waits or runs.")
        return
    text = cancellation.described(sum(len(indices) for _, indices in cancellation.jobs))
    if not yes:
        if not sys.stdin.isatty():
            raise UserError(f"this would cancel {text}; give --yes to do it without being asked.")
        typer.confirm(f"Cancel {text}?", abort=True)
    try:
        ended = carry_out(folder, cancellation, scheduler)
    except SchedulerError as error:
        raise SchedulerError(
            f"{str(error).rstrip('.')}. The runs are marked, and stop when they find that; what waits in the cluster's "
            "queue needs another `itopctl cancel`."
        ) from error
    say(look(folder))
    ingest(opened, folder)
    typer.echo("\n".join(cancellation.outcome(ended)))
    raise typer.Exit(0 if ended.certain else EnvironmentUnfitError.exit_code)
