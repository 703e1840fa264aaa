"""`itopctl report`: tables of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from itopctl.errors import EnvironmentUnfitError, UserError, unknown

TABLES = ("paper", "runs")


def _complete_tables(incomplete: str) -> list[str]:
    return [name for name in TABLES if name.startswith(incomplete)]


def report(
    sweeps: SweepsArgument = None,
    table: Annotated[
        str,
        typer.Option(
            "--table",
            "-t",
            help="paper: methods against sparsities; runs: one row a run.",
            autocompletion=_complete_tables,
        ),
    ] = "paper",
    format_: FormatOption = "rich",
    json: JsonOption = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write to a file; its ending chooses the format unless --format does."),
    ] = None,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Make a table of results from the runs of some sweeps, or of all."""
    from itopctl.catalogue import METHODS
    from itopctl.report.paper import paper_tables
    from itopctl.report.runs import runs_table
    from itopctl.spec.config import defining_settings
    from itopctl.store.queries import check_sweeps, select_runs

    style = check_format(format_, json)
    if table not in TABLES:
        raise UserError(f"--table: {unknown('table', table, TABLES)}")
    _, opened = open_results(results, store)
    check_sweeps(opened, sweeps or [])
    if table == "runs":
        print_tables([runs_table(select_runs(opened, sweeps or []))], style, output)
        return
    columns = (
        "dataset", "model", "method", "sparsity", "seed", "state", "test_accuracy", "test_accuracy_at_best_validation",
        "exploration_rate", "train_flops_ratio", "inference_flops_ratio", "config",
    )  # fmt: skip
    runs = select_runs(opened, sweeps or [], columns=columns)
    if not runs:
        raise EnvironmentUnfitError("there are no runs to report on yet.")
    for run in runs:
        run["settings"] = defining_settings(run.pop("config"))
    print_tables(paper_tables(runs, METHODS.names()), style, output)
