"""`itopctl logs`: what a run has printed."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.cli.common import ResultsOption, RunArgument, StoreOption, project_of
from itopctl.cli.streams import nobody_reads

if TYPE_CHECKING:
    from itopctl.store.rundir import Results, RunDirectory

_POLL_SECONDS = 0.3
_LOOK_SECONDS = 15.0  # between two questions to a scheduler about a run that has not begun


def logs(
    run: RunArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run ends.")] = False,
    job: Annotated[bool, typer.Option("--job", help="What its job on the cluster printed outside of runs.")] = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Print a run's log, wherever the run is."""
    from itopctl.api.logs import may_begin, not_started
    from itopctl.store.queries import find_run

    project = project_of(results, store)
    folder = project.folder
    with project.opened() as opened:
        directory = folder.run(find_run(opened, run))
        if not job and not directory.log.exists() and not (follow and may_begin(folder, directory)):
            raise not_started(opened, directory)
    if job:
        _print_job(folder, directory.run_id)
        return
    try:
        _print_log(folder, directory, follow)
    except KeyboardInterrupt:
        return


def _print_log(folder: Results, directory: RunDirectory, follow: bool) -> None:
    from itopctl.api.logs import may_begin
    from itopctl.cli.terminal_text import Printer
    from itopctl.store.files import pieces
    from itopctl.store.locks import is_held

    offset, looked_at, printer = 0, time.monotonic(), Printer()
    if not directory.log.exists():
        typer.echo(f"itopctl: run {directory.run_id} waits; its log follows when it begins.", err=True)
    while True:
        goes_on = follow and (is_held(directory) or may_begin(folder, directory))
        for text in pieces(directory.log, offset):
            offset += len(text)
            printer.write(text)
        if not goes_on or nobody_reads():
            printer.end()
            return
        if not is_held(directory) and time.monotonic() - looked_at > _LOOK_SECONDS:
            from itopctl.api.opening import look

            look(folder)
            looked_at = time.monotonic()
        time.sleep(_POLL_SECONDS)


def _print_job(folder: Results, run_id: str) -> None:
    from itopctl.api.logs import job_outputs
    from itopctl.cli.terminal_text import Printer
    from itopctl.report.formats.characters import clean
    from itopctl.store.files import pieces

    for path in job_outputs(folder, run_id):
        text, printer = b"", Printer()
        for number, text in enumerate(pieces(path)):
            if number == 0:
                typer.echo(f"--- {clean(str(path))}")
            printer.write(text)
        printer.end()
        if text and not text.endswith(b"\n"):
            typer.echo()
