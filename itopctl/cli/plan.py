"""`itopctl plan`: what the runs of some specs will explore and cost, before any of them is made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itopctl.cli.common import FormatOption, JsonOption, ResultsOption, StoreOption, check_format, project_of
from itopctl.cli.run_options import AcceptOption, RunsPerGpuOption, WorkersOption


def plan(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="YAML files that describe sweeps.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of every run; repeatable."),
    ] = None,
    accept_code: AcceptOption = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="One row a run, not one for all that differ in the seed alone.")
    ] = False,
    workers: WorkersOption = None,
    runs_per_gpu: RunsPerGpuOption = 1,
    max_runs: Annotated[int, typer.Option("--max-runs", min=1, help="Refuse a spec that expands to more.")] = 10_000,
    results: ResultsOption = None,
    store: StoreOption = None,
    format_: FormatOption = "rich",
    json: JsonOption = False,
) -> None:
    """Say what the runs of some specs will explore and cost; nothing is started.

    Steps, topology updates, the exploration rate they will reach, training FLOPs against dense, memory and disk; time,
    where this machine has finished such runs before. To see a run's layers the command makes each model once, your own
    ones in a process apart; where one cannot be made, it says so with file and line, and ends with 2.
    """
    from itopctl.cli.common import print_tables, warn

    style, project = check_format(format_, json), project_of(results, store)
    foreseen = project.forecast(
        specs, set_ or [], workers=workers, runs_per_gpu=runs_per_gpu, max_runs=max_runs, accept_code=accept_code or []
    )
    beside = style != "rich"  # a table for programs stands alone; what is for people goes to standard error
    if not beside:
        typer.echo(foreseen.plan.summary)
    for line in (*foreseen.plan.notes, *foreseen.remarks):
        typer.echo(line, err=beside)
    print_tables(foreseen.tables(each_run=runs), style)
    for line in foreseen.totals:
        typer.echo(line, err=beside)
    warn(foreseen.warnings, err=beside)
    foreseen.check()
