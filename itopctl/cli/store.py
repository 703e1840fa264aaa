"""`itopctl store`: check what is recorded, make the database anew, exchange finished runs with others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    NamedArgument,
    ResultsOption,
    StoreOption,
    check_format,
    print_tables,
    project_of,
)
from itopctl.errors import plural

if TYPE_CHECKING:
    from itopctl.report.table import Table
    from itopctl.store.archives import Imported
    from itopctl.store.maintenance import Finding

app = typer.Typer(help="Check, rebuild, export and import results.", no_args_is_help=True)


@app.command("check")
def check(
    results: ResultsOption = None, store: StoreOption = None, format_: FormatOption = "rich", json: JsonOption = False
) -> None:
    """Compare the store with every run directory, both ways, and look for damage; ends with 1 if there is any.

    Notes cost nothing but room: readers pass over them.
    """
    style, project = check_format(format_, json), project_of(results, store)
    findings = project.check_store()
    problems = sum(finding.kind == "problem" for finding in findings)
    if findings or style != "rich":
        print_tables([_findings_table(findings)], style)
    if style == "rich":
        notes = len(findings) - problems
        said = [plural(problems, "problem") if problems else "no problem", plural(notes, "note") * bool(notes)]
        folders = plural(len(project.folder.run_ids()), "run directory", "run directories")
        typer.echo(f"{folders}: {', '.join(filter(None, said))}.")
        if problems:
            typer.echo("Rows that differ from the files are put right by: itopctl store rebuild")
    raise typer.Exit(1 if problems else 0)


@app.command("rebuild")
def rebuild(results: ResultsOption = None, store: StoreOption = None) -> None:
    """Make the store anew from the run directories alone; nothing is lost, whatever became of the old one."""
    from itopctl.store.queries import select_runs

    project = project_of(results, store)
    aside = project.rebuild_store()
    if aside is not None:
        typer.echo(f"The old file was no store any more; it is {aside} now.")
    with project.opened() as opened:
        states = [run["state"] for run in select_runs(opened, columns=("state",))]
        typer.echo(f"{opened.name}: {plural(len(states), 'run')}, {states.count('done'):,} done.")


@app.command("export")
def export(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write: .tar, .tar.gz, .tgz or .tar.xz.")],
    what: NamedArgument = None,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Write finished runs to one file, for others to import: configs, journals, results and logs.

    Checkpoints and networks stay here: send what `itopctl export RUN` writes.
    """
    done, sweeps, left = project_of(results, store).export_runs(archive, *(what or []))
    unfinished = f"; {plural(left, 'run')} not finished, left out" if left else ""
    typer.echo(f"{archive}: {plural(len(done), 'run')} of {plural(len(sweeps), 'sweep')}{unfinished}.")


@app.command("import")
def import_(
    source: Annotated[Path, typer.Argument(metavar="FILE|FOLDER", help="An exported archive, or a results folder.")],
    results: ResultsOption = None,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """Take in somebody else's finished runs. What is finished here stays; nothing that comes in is run.

    Checkpoints and networks are not taken in.

    Ends with 1 where runs were finished here with other results, or were not believed.
    """
    imported = project_of(results, store).import_runs(source)
    if json:
        import json as json_module

        typer.echo(json_module.dumps(vars(imported), indent=1))
    else:
        _tell(imported)
    raise typer.Exit(1 if imported.differing or imported.refused else 0)


def _tell(imported: Imported) -> None:
    parts = [f"{plural(len(imported.taken), 'run')} taken over"]
    parts += [f"{len(imported.same):,} here already"] * bool(imported.same)
    parts += [f"{len(imported.busy):,} being run here, left alone"] * bool(imported.busy)
    typer.echo(", ".join(parts) + ".")
    if imported.sweeps:
        typer.echo(f"Sweeps: {', '.join(imported.sweeps)}.")
    for run_id in imported.differing:
        typer.echo(f"{run_id} is finished here with other results; these stay.")
    for name, why in imported.refused.items():
        typer.echo(f"{name} was not taken: {why}.")


def _findings_table(findings: list[Finding]) -> Table:
    from itopctl.report.table import Cell, Column, Table

    rows = [
        [Cell(one.kind, style="red" if one.kind == "problem" else ""), Cell(one.where), Cell(one.what)]
        for one in findings
    ]
    records = [{"kind": one.kind, "where": one.where, "what": one.what} for one in findings]
    return Table("", [Column("kind"), Column("where"), Column("what")], rows, records)
