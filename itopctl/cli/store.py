"""`itopctl store`: check what is recorded, make the database anew, exchange finished runs with others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.api.opening import results_folder
from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    ResultsOption,
    StoreOption,
    check_format,
    complete_runs,
    complete_sweeps,
    open_results,
    print_tables,
)
from itopctl.errors import EnvironmentUnfitError, plural

if TYPE_CHECKING:
    from itopctl.report.table import Table
    from itopctl.store.archives import Imported
    from itopctl.store.maintenance import Finding

app = typer.Typer(help="Check, rebuild, export and import results.", no_args_is_help=True)


def _complete(incomplete: str) -> list[str]:
    return [*complete_sweeps(incomplete), *complete_runs(incomplete)]


@app.command("check")
def check(
    results: ResultsOption = None, store: StoreOption = None, format_: FormatOption = "rich", json: JsonOption = False
) -> None:
    """Compare the store with every run directory, both ways, and look for damage; ends with 1 if there is any.

    Notes cost nothing but room: readers pass over them.
    """
    from itopctl.store.maintenance import check as look_for_damage

    style = check_format(format_, json)
    folder, opened = open_results(results, store)
    findings = look_for_damage(opened, folder, _identity)
    problems = sum(finding.kind == "problem" for finding in findings)
    if findings or style != "rich":
        print_tables([_findings_table(findings)], style)
    if style == "rich":
        notes = len(findings) - problems
        said = [plural(problems, "problem") if problems else "no problem", plural(notes, "note") * bool(notes)]
        typer.echo(
            f"{plural(len(folder.run_ids()), 'run directory', 'run directories')}: {', '.join(filter(None, said))}."
        )
        if problems:
            typer.echo("Rows that differ from the files are put right by: itopctl store rebuild")
    raise typer.Exit(1 if problems else 0)


@app.command("rebuild")
def rebuild(results: ResultsOption = None, store: StoreOption = None) -> None:
    """Make the store anew from the run directories alone; nothing is lost, whatever became of the old one."""
    from itopctl.store.maintenance import rebuild as make_anew
    from itopctl.store.queries import select_runs
    from itopctl.store.rundir import Results

    folder = Results(results_folder(results))
    if not folder.path.is_dir():
        raise EnvironmentUnfitError(f"no results in {folder.path}: there is nothing to rebuild a store from.")
    folder.check()
    opened, aside = make_anew(folder, store)
    if aside is not None:
        typer.echo(f"The old file was no store any more; it is {aside} now.")
    states = [run["state"] for run in select_runs(opened, columns=("state",))]
    typer.echo(f"{opened.name}: {plural(len(states), 'run')}, {states.count('done'):,} done.")


@app.command("export")
def export(
    archive: Annotated[Path, typer.Argument(metavar="FILE", help="Archive to write: .tar, .tar.gz, .tgz or .tar.xz.")],
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SWEEP|RUN]...", help="Sweeps or runs; all if none.", autocompletion=_complete),
    ] = None,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """Write finished runs to one file, for others to import: configs, journals, results and logs.

    Checkpoints and networks stay here: send what `itopctl export RUN` writes.
    """
    from itopctl.store.archives import export as write_archive
    from itopctl.store.queries import named_runs, select_runs

    folder, opened = open_results(results, store)
    wanted = set(named_runs(opened, what or []))
    rows = [run for run in select_runs(opened, columns=("run_id", "state", "sweep")) if run["run_id"] in wanted]
    done = [run for run in rows if run["state"] == "done"]
    if not done:
        raise EnvironmentUnfitError("none of these runs is finished: there is nothing to export.")
    sweeps = sorted({name for run in done for name in run["sweep"].split(",") if name})
    write_archive(folder, archive, [run["run_id"] for run in done], sweeps)
    left = len(rows) - len(done)
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
    from itopctl.api.opening import make_results
    from itopctl.store.archives import import_runs
    from itopctl.store.ingest import ingest
    from itopctl.store.maintenance import forget_runs
    from itopctl.store.rundir import Results

    if not source.exists():
        from itopctl.errors import UserError

        raise UserError(f"there is no {source}.")
    folder = Results(results_folder(results))
    make_results(folder)
    imported = import_runs(folder, source, _identity)
    _, opened = open_results(results, store, writes=True)
    with opened.write() as connection:  # rows of attempts that were not finished here give way
        forget_runs(connection, imported.taken)
        ingest(opened, folder)
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


def _identity(config: Any) -> str:
    """The id of a run with this config. Raises ValueError where it is none."""
    from itopctl.spec.config import RunConfig
    from itopctl.spec.identity import run_id

    return run_id(RunConfig.model_validate(config))


def _findings_table(findings: list[Finding]) -> Table:
    from itopctl.report.table import Cell, Column, Table

    rows = [
        [Cell(one.kind, style="red" if one.kind == "problem" else ""), Cell(one.where), Cell(one.what)]
        for one in findings
    ]
    records = [{"kind": one.kind, "where": one.where, "what": one.what} for one in findings]
    return Table("", [Column("kind"), Column("where"), Column("what")], rows, records)
