"""`itopctl forget`: delete sweeps or runs for good."""

from __future__ import annotations

import typer

from itopctl.cli.common import NamedArgument, ResultsOption, StoreOption, YesOption, confirm, project_of


def forget(
    what: NamedArgument = None, yes: YesOption = False, results: ResultsOption = None, store: StoreOption = None
) -> None:
    """Delete sweeps with their runs, or runs: results, logs, checkpoints and networks; this cannot be undone.

    Runs that another sweep has stay. Runs that are at work must be cancelled first.
    """
    project = project_of(results, store)
    planned = project.forget(*(what or []))
    for note in planned.notes:
        typer.echo(note)
    confirm("delete", planned.described, yes)
    typer.echo(f"Deleted {project.forget(*(what or []), yes=True).described}.")
