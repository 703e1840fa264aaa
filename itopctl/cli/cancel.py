"""`itopctl cancel`: call runs off, on this machine and on the cluster."""

from __future__ import annotations

import typer

from itopctl.cli.common import NamedArgument, ResultsOption, StoreOption, YesOption, confirm, project_of
from itopctl.errors import EnvironmentUnfitError


def cancel(
    what: NamedArgument = None,
    yes: YesOption = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Stop runs that wait or run; what they have reached is kept, and the same sweep command goes on from there.

    Jobs of others, and runs that are finished, are never touched. The exit code is 3 where SLURM still has some of the
    jobs afterwards.
    """
    project = project_of(results, store)
    cancellation = project.cancellation(*(what or []))
    for submission in cancellation.foreign:
        asked = submission.request
        typer.echo(f"{submission.name} is of {asked.user} on cluster {asked.cluster}; left alone.")
    if not cancellation.runs:
        typer.echo("Nothing to cancel: none of these runs waits or runs.")
        return
    text = cancellation.described(sum(len(indices) for _, indices in cancellation.jobs))
    confirm("cancel", text, yes)
    ended = project.carry_out_cancellation(cancellation)
    typer.echo("\n".join(cancellation.outcome(ended)))
    raise typer.Exit(0 if ended.certain else EnvironmentUnfitError.exit_code)
