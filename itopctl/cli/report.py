"""`itopctl report`: tables of results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.cli import report_options as options
from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    SweepsArgument,
    check_folder,
    check_format,
    format_for,
    print_tables,
)
from itopctl.cli.table_kinds import PAGE, TABLES, TableKind, Wish
from itopctl.errors import EnvironmentUnfitError, UserError, plural

if TYPE_CHECKING:
    from itopctl.cli.gather import Gathered
    from itopctl.report.fields import Fields
    from itopctl.report.table import Table
    from itopctl.report.where import Filter

Record = dict[str, Any]

_MOST_TABLES = 200
_CHOSEN, _SHOWN = "Which runs", "What is shown"  # panels of the help


def report(
    sweeps: SweepsArgument = None,
    table: Annotated[
        str | None,
        typer.Option(
            "--table",
            "-t",
            help="; ".join(f"{name}: {kind.summary}" for name, kind in TABLES.items())
            + ". Default: paper, or pivot with --rows or --cell.",
            autocompletion=options.complete_tables,
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
            autocompletion=options.complete_fields,
            rich_help_panel=_CHOSEN,
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="pivot: a row for each value of these: fields (state, seed, test_accuracy, …) or settings "
            "(optimizer.lr, …). Default: method and what varies.",
            autocompletion=options.complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="pivot: a column for each value of these. Default: sparsity; with --rows, one for each field of "
            "--cell. In runs: the fields shown.",
            autocompletion=options.complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    cell: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="pivot: fields whose means stand in a cell; n: number of runs. Default: accuracy,R_s,n.",
            autocompletion=options.complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Order of rows: by these fields, -NAME from the largest down; rows of several runs by their mean.",
            autocompletion=options.complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="A table for each value of these; none: a single one. Default: dataset,model.",
            autocompletion=options.complete_fields,
            rich_help_panel=_SHOWN,
        ),
    ] = None,
    best_by: Annotated[
        str | None,
        typer.Option(
            metavar="final|validation",
            help="The accuracy that counts, with the R_s at the same step: after the last step, or at the epoch with "
            "the best validation accuracy. Default: final.",
            autocompletion=options.complete_best_by,
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
    from itopctl.catalogue import METHODS
    from itopctl.cli.gather import gathered
    from itopctl.cli.page import html_page, print_page
    from itopctl.report.versions import version_notes
    from itopctl.report.where import parse

    style = format_for(check_format(format_, json), output)
    check_folder(output)
    given = {
        "--rows": rows, "--columns": columns, "--cell": cell, "--sort": sort, "--best-by": best_by, "--digits": digits,
        "--margin": margin, "--confidence": confidence,
    }  # fmt: skip
    kind = options.kind_of_table(table, given, style == "html")
    if kind is PAGE and group_by is not None:
        raise UserError("--group-by means nothing for the page; name a --table.")
    wish = Wish(
        fields=options.fields_of(best_by),
        methods=METHODS.names(),
        best_by=options.best_by(best_by),
        digits=options.within("--digits", digits, 1, 10),
        order=options.order(sort),
        rows=options.names(rows),
        columns=options.names(columns),
        cells=options.names(cell),
        margin=None if margin is None else options.within("--margin", margin, 0.01, 50.0) / 100,
        confidence=options.within("--confidence", confidence, 0.5, 0.9999),
    )
    groups = options.groups(kind, group_by, wish)
    filters = [parse(text) for text in where or []]
    asked = [*options.asked_for(wish), *groups, *(name for given in filters for name in given.fields)]
    wanted = options.wanted(kind, asked, wish.fields)
    with gathered(results or [], store or [], sweeps or [], wanted) as found:
        for warning in found.warnings:
            _say(warning)
        wish, groups = options.resolved(wish, groups, found)
        runs = _selected(found, filters, wish.fields, kind)
        if all("settings" in run for run in runs):
            found.notes += version_notes(runs)
        if kind is PAGE:
            remarks = [*found.notes, *found.warnings]
            page = html_page(runs, found.origins, sweeps or [], wish.best_by, wish.margin, wish.confidence, remarks)
            print_page(page, output)
            return
    tables = _tables(kind, runs, groups, wish)
    if style in ("csv", "json"):
        for note in found.notes:
            _say(note)
    chosen = [f"Only runs with {' and '.join(where)}: p is corrected for what is shown alone."] if where else []
    notes = [*found.notes, *found.warnings, *(chosen if table == "claims" else [])]
    print_tables(_with_notes(tables, notes), style, output)


def _say(sentence: str) -> None:
    typer.echo(f"itopctl: {sentence}", err=True)


def _selected(found: Gathered, filters: Sequence[Filter], fields: Fields, kind: TableKind) -> list[Record]:
    """The runs that meet every condition. Raises where none are left and the table needs some."""
    runs = found.runs
    for condition in filters:
        for remark in condition.check(found.runs, fields):
            _say(remark)
        runs = condition.select(runs, fields)
    if kind.may_be_empty:
        return runs
    if found.runs and not runs:
        raise UserError(f"--where: none of {plural(len(found.runs), 'run')} is such.")
    runs = [run for run in runs if all(run[name] is not None for name in ("dataset", "model", "method", "sparsity"))]
    if not runs:
        raise EnvironmentUnfitError("there are no runs to report on yet.")
    return runs


def _tables(kind: TableKind, runs: list[Record], groups: Sequence[str], wish: Wish) -> list[Table]:
    """The tables of each group of runs."""
    from itopctl.report.fields import heading, split

    if not groups:
        return kind.make(runs, wish)
    parts = split(runs, groups, wish.fields)
    if len(parts) > _MOST_TABLES:
        raise UserError(f"--group-by {','.join(groups)}: {len(parts):,} tables; at most {_MOST_TABLES} are made.")
    tables = []
    for values, members in parts:
        said = heading(values)
        for made in kind.make(members, replace(wish, apart=tuple(values))):
            title = said if said.startswith(made.title) else f"{made.title}, {said}"
            tables.append(replace(made, title=title, records=[{**values, **record} for record in made.records]))
    return tables


def _with_notes(tables: list[Table], notes: Sequence[str]) -> list[Table]:
    """The same, the last with further notes."""
    if not notes or not tables:
        return tables
    *others, last = tables
    return [*others, replace(last, notes=[*last.notes, *notes])]
