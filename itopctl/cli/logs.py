"""`itopctl logs`: what a run has printed."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from itopctl.cli.common import ResultsOption, RunArgument, StoreOption, open_results
from itopctl.errors import EnvironmentUnfitError

_POLL_SECONDS = 0.3


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Print a run's log."""
    from itopctl.store.queries import find_run
    from itopctl.store.rundir import is_held

    folder, opened = open_results(results, store)
    directory = folder.run(find_run(opened, run))
    if not directory.log.exists() and not (follow and is_held(directory)):
        raise EnvironmentUnfitError(f"run {directory.run_id} has not started yet: there is no log.")
    offset = 0
    try:
        while True:
            held = is_held(directory)
            if directory.log.exists():
                with directory.log.open("rb") as file:
                    file.seek(offset)
                    text = file.read()
                offset += len(text)
                typer.echo(text.decode(errors="replace"), nl=False)
            if not (follow and held):
                return
            time.sleep(_POLL_SECONDS)
    except KeyboardInterrupt:
        return
