"""`itopctl forget`: delete sweeps or runs for good."""

from __future__ import annotations

from typing import Annotated

import typer

from itopctl.cli.common import (
    ResultsOption,
    StoreOption,
    YesOption,
    complete_sweeps_and_runs,
    confirm,
    project_of,
)


def forget(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="SWEEP|RUN...",
            help="Sweeps, or runs by their first digits.",
            autocompletion=complete_sweeps_and_runs,
        ),
    ],
    yes: YesOption = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Delete sweeps with their runs, or runs: results, logs, checkpoints and networks; this cannot be undone.

    Runs that another sweep has stay. Runs that are at work must be cancelled first.
    """
    project = project_of(results, store)
    planned = project.forgetting(*what)
    for note in planned.notes:
        typer.echo(note)
    confirm("delete", planned.described, yes)
    typer.echo(f"Deleted {project.carry_out_forgetting(planned).described}.")
