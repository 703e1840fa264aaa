"""`itopctl status`: how far the sweeps are."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    ResultsOption,
    StoreOption,
    SweepsArgument,
    check_format,
    open_results,
    print_tables,
)
from itopctl.errors import UserError, unknown
from itopctl.store import STATES

if TYPE_CHECKING:
    from itopctl.report.table import Table

_WATCH_SECONDS = 2.0


def _complete_states(incomplete: str) -> list[str]:
    return [state for state in STATES if state.startswith(incomplete)]


def status(
    sweeps: SweepsArgument = None,
    runs: Annotated[bool, typer.Option("--runs", help="One line a run.")] = False,
    state: Annotated[
        list[str] | None,
        typer.Option(
            "--state",
            help="Only runs in this state (implies --runs); repeatable.",
            autocompletion=_complete_states,
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again every two seconds, until Ctrl-C.")] = False,
    format_: FormatOption = "rich",
    json: JsonOption = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Show, per sweep, how many runs are done, running, queued, failed or lost, and the time left."""
    style = check_format(format_, json)
    for name in state or []:
        if name not in STATES:
            raise UserError(f"--state: {unknown('state', name, STATES)}")
    if not watch:
        print_tables([_table(sweeps or [], runs, state or [], results, store)], style)
        return
    if style != "rich":
        raise UserError("--watch is for people; it has no other format than rich.")
    from rich.live import Live

    from itopctl.report.formats import make_console, rich_tables

    console = make_console()
    # A flag, not KeyboardInterrupt: an exception that strikes while the database lets something go is lost.
    interrupts: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    try:
        with Live(console=console, auto_refresh=False) as live:
            while not interrupts:
                live.update(rich_tables([_table(sweeps or [], runs, state or [], results, store)]), refresh=True)
                again = time.monotonic() + _WATCH_SECONDS
                while not interrupts and time.monotonic() < again:
                    time.sleep(0.1)
    finally:
        signal.signal(signal.SIGINT, before)


def _table(sweeps: list[str], runs: bool, states: list[str], results: Path | None, store: str | None) -> Table:
    from itopctl.cli.tables import sweeps_table
    from itopctl.report.runs import runs_table
    from itopctl.store.queries import check_sweeps, select_runs, sweep_summaries

    _, opened = open_results(results, store)
    try:
        check_sweeps(opened, sweeps)
        if runs or states:
            return runs_table(select_runs(opened, sweeps, states))
        return sweeps_table(sweep_summaries(opened, sweeps))
    finally:
        opened.close()
