"""`itopctl status`: how far the sweeps are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.api.cluster import Patience
from itopctl.api.opening import look, say
from itopctl.cli.cluster import until_interrupted
from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    ResultsOption,
    StoreOption,
    SweepsArgument,
    check_format,
    print_tables,
    project_of,
    tell,
)
from itopctl.cli.streams import nobody_reads
from itopctl.errors import EnvironmentUnfitError, UserError, unknown
from itopctl.store import STATES

if TYPE_CHECKING:
    from itopctl.api.project import Project
    from itopctl.dispatch.reconcile import News
    from itopctl.report.table import Table
    from itopctl.store.rundir import Results

_WATCH_SECONDS = 2.0
_FAILURES_SHOWN = 10


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
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Look again and again, until Ctrl-C.")] = False,
    format_: FormatOption = "rich",
    json: JsonOption = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Show, per sweep, how many runs are done, running, pending, queued, failed or lost, and the time left.

    Pending ones wait in a cluster's queue; queued ones have not begun, or were stopped, and the next sweep takes them.

    Where jobs are on a cluster, it is asked about them: once for all of them, and less and less often with --watch.
    """
    style = check_format(format_, json)
    for name in state or []:
        if name not in STATES:
            raise UserError(f"--state: {unknown('state', name, STATES)}")
    view = _View(project_of(results, store), sweeps or [], runs, state or [])
    if not watch:
        tables = view.tables()
        if style == "rich" and not any(table.rows for table in tables):
            typer.echo("No run is in such a state." if state else "No runs are known here yet.")
            tables = []
        print_tables(tables if style == "rich" else tables[:1], style)
        if view.news is not None:
            say(view.news, tell)
            raise typer.Exit(EnvironmentUnfitError.exit_code if view.news.error else 0)
        return
    if style != "rich":
        raise UserError("--watch is for people; it has no other format than rich.")
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from itopctl.report.formats import make_console, rich_tables

    console = make_console()
    patience = Patience(first=_WATCH_SECONDS)

    def step() -> float | None:
        if nobody_reads():
            return None
        picture = rich_tables(view.tables())
        notes = [] if view.news is None else [*view.news.notes, *filter(None, [view.news.error])]
        live.update(Group(picture, *(Text(note, style="yellow") for note in notes)), refresh=True)
        if view.looked and view.asked:
            view.next_look = time.monotonic() + patience.after(view.changed)
        return _WATCH_SECONDS

    with Live(console=console, auto_refresh=False) as live:
        until_interrupted(step)


class _View:
    """What the command shows, looked at again and again."""

    def __init__(self, project: Project, sweeps: list[str], runs: bool, states: list[str]) -> None:
        self.project, self.sweeps, self.runs, self.states = project, sweeps, runs, states
        self.news: News | None = None
        self.changed = self.looked = False
        self.next_look = 0.0

    @property
    def asked(self) -> bool:
        """Whether a scheduler has to be asked."""
        return self.news is not None and bool(self.news.live or self.news.error)

    def tables(self) -> list[Table]:
        """What was asked for; and what failed, where that is not shown by it."""
        from itopctl.cli.tables import latest_failures, sweeps_table
        from itopctl.report.runs import runs_table
        from itopctl.store.queries import (
            check_sweeps,
            ended_badly,
            select_runs,
            sweep_summaries,
            with_last_lines,
        )

        with self.project.opened(first=self._look) as opened:
            check_sweeps(opened, self.sweeps)
            if self.runs or self.states:
                return [runs_table(select_runs(opened, self.sweeps, self.states))]
            tables = [sweeps_table(sweep_summaries(opened, self.sweeps))]
            if failed := ended_badly(opened, self.sweeps, []):
                tables.append(latest_failures(with_last_lines(opened, failed[:_FAILURES_SHOWN]), len(failed)))
            return tables

    def _look(self, folder: Results) -> None:
        self.looked = time.monotonic() >= self.next_look
        if self.looked:
            self.news = look(folder)
            self.changed = self.news.changed
