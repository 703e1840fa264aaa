"""`itopctl report`: tables of results."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from itopctl.api.files import check_folder
from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    SweepsArgument,
    check_format,
    complete_best_by,
    format_for,
    print_page,
    print_tables,
    project_of,
    tell,
)
from itopctl.report.kinds import TABLES

_CHOSEN, _SHOWN = "Which runs", "What is shown"  # panels of the help


def _complete_tables(incomplete: str) -> list[str]:
    return [name for name in TABLES if name.startswith(incomplete)]


def _complete_fields(incomplete: str) -> list[str]:
    """The last name of a list of fields; `-` before it stays."""
    from itopctl.api.report_request import every_name

    before, comma, last = incomplete.rpartition(",")
    sign = "-" * last.startswith("-")
    names = ["accuracy", "R_s", *every_name()]
    return [f"{before}{comma}{sign}{name}" for name in names if name.startswith(last[len(sign) :])]


def report(
    sweeps: SweepsArgument = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            "-t",
            help="; ".join(f"{name}: {kind.summary}" for name, kind in TABLES.items())
            + ". Default: paper, or pivot with --rows or --cell.",
            autocompletion=_complete_tables,
            show_default=False,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            "--where",
            "-w",
            metavar="CONDITION",
            help="Only these runs: 'sparsity>=90% and method in (set-itop, rigl-itop)'. =, !=, <, <=, >, >=, in, ~ (as "
            "in model ~ resnet*), is none, and, or, not. Several: all of them.",
            autocompletion=_complete_fields,
            rich_help_panel=_CHOSEN,
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="pivot: a row for each value of these: fields (state, seed, test_accuracy, …) or settings "
            "(optimizer.lr, …). Default: method and what varies.",
            autocompletion=_complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="pivot: a column for each value of these. Default: sparsity; with --rows, one for each field of "
            "--cell. In runs: the fields shown.",
            autocompletion=_complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="pivot: fields whose means stand in a cell; n: number of runs. Default: accuracy,R_s,n.",
            autocompletion=_complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Order of rows: by these fields, -NAME from the largest down; rows of several runs by their mean.",
            autocompletion=_complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="A table for each value of these; none: a single one. Default: dataset,model.",
            autocompletion=_complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    best_by: Annotated[
        str | None,
        typer.Option(
            metavar="final|validation",
            help="The accuracy that counts, with the R_s at the same step: after the last step, or at the epoch with "
            "the best validation accuracy. Default: final.",
            autocompletion=complete_best_by,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    digits: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Significant digits: of a standard deviation, with its mean rounded to the same place; in runs, of "
            "what was measured. Default: two decimals.",
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            metavar="POINTS",
            help="claims: accuracies that differ by less count as equal. Default: 0.5.",
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    confidence: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="claims: of intervals and verdicts. Default: 0.95.", rich_help_panel=_SHOWN),
    ] = None,
    format_: FormatOption = "rich",
    json: JsonOption = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write to a file; its ending chooses the format unless --format does. HTML is a page with everything, "
            "unless a --table is named.",
        ),
    ] = None,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results",
            help="Folder of runs and store; several: the runs of all. Default: $ITOPCTL_RESULTS or ./results.",
            show_default=False,
            rich_help_panel=_CHOSEN,
        ),
    ] = None,
    store: Annotated[
        list[str] | None,
        typer.Option(
            "--store",
            help="SQLAlchemy URL of another store; several: the runs of all. Default: itop.db in the results folder.",
            show_default=False,
            rich_help_panel=_CHOSEN,
        ),
    ] = None,
) -> None:
    """Make a table of results from the runs of some sweeps, or of all."""
    from itopctl.api.report_request import Asked, names_of
    from itopctl.api.reporting import makes_page, page_of, report_of

    style = format_for(check_format(format_, json), output)
    check_folder(output)
    asked = Asked(
        table=table, where=where or (), rows=names_of(rows), columns=names_of(columns), cell=names_of(cell),
        sort=names_of(sort), group_by=names_of(group_by), best_by=best_by, digits=digits, margin=margin,
        confidence=confidence,
    )  # fmt: skip
    project = project_of(results, store)
    if style == "html" and makes_page(project, asked):
        command = shlex.join(["itopctl", *sys.argv[1:]])
        print_page(page_of(project, sweeps or [], asked, command), output)
        return
    made = report_of(project, sweeps or [], asked)
    if style in ("csv", "json"):
        for note in made.remarks:
            tell(note)
    print_tables(made.tables, style, output)
