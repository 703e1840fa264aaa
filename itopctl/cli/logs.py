"""`itopctl logs`: what a run has printed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.cli.common import ResultsOption, RunArgument, StoreOption, open_results
from itopctl.cli.streams import nobody_reads
from itopctl.errors import EnvironmentUnfitError

if TYPE_CHECKING:
    from itopctl.store.rundir import Results, RunDirectory
    from itopctl.store.submissions import Submission

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
    from itopctl.store.queries import find_run, run_details

    folder, opened = open_results(results, store)
    directory = folder.run(find_run(opened, run))
    if job:
        _print_job(folder, directory.run_id)
        return
    if not directory.log.exists() and not (follow and _may_begin(folder, directory)):
        waits = run_details(opened, directory.run_id)
        why = f" It waits: {waits['message']}." if waits["state"] == "pending" and waits["message"] else ""
        if not why and waits["job_id"]:
            why = " `itopctl logs --job` shows what its job printed."
        raise EnvironmentUnfitError(f"run {directory.run_id} has not started yet: there is no log.{why}")
    try:
        _print_log(folder, directory, follow)
    except KeyboardInterrupt:
        return


def _print_log(folder: Results, directory: RunDirectory, follow: bool) -> None:
    from itopctl.cli.printed import Printer
    from itopctl.store.files import pieces
    from itopctl.store.locks import is_held

    offset, looked_at, printer = 0, time.monotonic(), Printer()
    if not directory.log.exists():
        typer.echo(f"itopctl: run {directory.run_id} waits; its log follows when it begins.", err=True)
    while True:
        goes_on = follow and (is_held(directory) or _may_begin(folder, directory))
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


def _may_begin(folder: Results, directory: RunDirectory) -> bool:
    """Whether a process has the run, or some job waits to."""
    from itopctl.store.locks import is_held
    from itopctl.store.submissions import claimed_runs, live_submissions

    if directory.result.exists():
        return False
    if is_held(directory):
        return True
    if directory.run_id not in claimed_runs(live_submissions(folder)):
        return False
    return not _ended_for_good(folder, directory)


def _ended_for_good(folder: Results, directory: RunDirectory) -> bool:
    """Whether the job that has the run tried it, and does not try again."""
    from itopctl.dispatch.endings import has_given_up

    submission = _newest_submission(folder, directory.run_id)
    return submission is not None and has_given_up(directory, submission.id_of(submission.index_of(directory.run_id)))


def _newest_submission(folder: Results, run_id: str) -> Submission | None:
    from itopctl.store.submissions import directories, load

    found = [one for one in map(load, directories(folder)) if one is not None and run_id in one.request.runs]
    return max(found, key=lambda one: one.request.created_at, default=None)


def _print_job(folder: Results, run_id: str) -> None:
    from itopctl.cli.printed import Printer
    from itopctl.report.formats.characters import clean
    from itopctl.store.files import pieces

    submission = _newest_submission(folder, run_id)
    if submission is None:
        raise EnvironmentUnfitError(f"run {run_id} was never submitted to a cluster.")
    index = submission.index_of(run_id)
    outputs: list[Path] = submission.directory.outputs(index)
    if folder.run(run_id).result.exists() and not outputs:
        raise EnvironmentUnfitError(f"job {submission.id_of(index)} ended well, and what it printed was removed.")
    if not any(path.lstat().st_size for path in outputs):
        raise EnvironmentUnfitError(f"job {submission.id_of(index)} of run {run_id} has printed nothing yet.")
    for path in outputs:
        text, printer = b"", Printer()
        for number, text in enumerate(pieces(path)):
            if number == 0:
                typer.echo(f"--- {clean(str(path))}")
            printer.write(text)
        printer.end()
        if text and not text.endswith(b"\n"):
            typer.echo()
