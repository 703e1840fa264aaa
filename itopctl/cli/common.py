"""What several verbs share: options, completion, opening the store, printing tables."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.api.files import ending_of, write_file
from itopctl.api.opening import results_folder
from itopctl.errors import UserError, unknown
from itopctl.report.table import FORMATS

if TYPE_CHECKING:
    from itopctl.api.project import Project
    from itopctl.report.table import Table


def tell(text: str) -> None:
    """Print a sentence on what goes on to standard error."""
    typer.echo(f"itopctl: {text}", err=True)


def warn(lines: Iterable[str], err: bool = True) -> None:
    """Print warnings, to standard error or to standard output."""
    for line in lines:
        typer.secho(f"Warning: {line}", fg="yellow", err=err)


def complete_sweeps(incomplete: str) -> list[str]:
    """Names of recorded sweeps."""
    return [p.stem for p in sorted((results_folder(None) / "sweeps").glob("*.json")) if p.stem.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Ids of runs."""
    folder = results_folder(None) / "runs"
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(incomplete)) if folder.is_dir() else []


def complete_sweeps_and_runs(incomplete: str) -> list[str]:
    """Names of sweeps, then ids of runs."""
    return [*complete_sweeps(incomplete), *complete_runs(incomplete)]


def complete_formats(incomplete: str) -> list[str]:
    """Table formats."""
    return [name for name in FORMATS if name.startswith(incomplete)]


def complete_best_by(incomplete: str) -> list[str]:
    """Which accuracy counts."""
    from itopctl.report.groups import BEST_BY

    return [name for name in BEST_BY if name.startswith(incomplete)]


ResultsOption = Annotated[
    Path | None,
    typer.Option(
        "--results",
        help="Folder of runs and store. Default: $ITOPCTL_RESULTS or ./results.",
        show_default=False,
    ),
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        help="SQLAlchemy URL of another store. Default: itop.db in the results folder.",
        show_default=False,
    ),
]
DataDirOption = Annotated[
    Path | None,
    typer.Option("--data-dir", help="Folder of data sets. Default: $ITOPCTL_DATA or ./data.", show_default=False),
]
FormatOption = Annotated[
    str,
    typer.Option("--format", "-f", help="rich, markdown, latex, csv, json or html.", autocompletion=complete_formats),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Same as --format json.")]
TrustOption = Annotated[
    bool,
    typer.Option("--trust", help="I made or trust these results: run what stands in them beside itopctl's own."),
]
SweepsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SWEEP]...", help="Names of sweeps; all if none.", autocompletion=complete_sweeps),
]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="A run's id, or its first digits.", autocompletion=complete_runs)
]

NamedArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[SWEEP|RUN]...", help="Sweeps or runs; all if none.", autocompletion=complete_sweeps_and_runs
    ),
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def confirm(verb: str, what: str, yes: bool) -> None:
    """Ask whether to go on, unless the user said so. Raises UserError where nobody can answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UserError(f"this would {verb} {what}; give --yes to do it without being asked.")
    typer.confirm(f"{verb.capitalize()} {what}?", abort=True)


def project_of(
    results: Path | Sequence[Path] | None = None, store: str | Sequence[str] | None = None, data: Path | None = None
) -> Project:
    """The results folder, store and data sets that the options of those names say; it speaks to standard error."""
    from itopctl.api.project import Project

    project = Project(results, store, data, tell=tell)
    project.spell = as_option
    return project


def check_format(style: str, json: bool) -> str:
    """The format asked for. Raises UserError for an unknown one."""
    if json:
        return "json"
    if style not in FORMATS:
        raise UserError(f"--format: {unknown('format', style, FORMATS)}")
    return style


_ENDINGS = {
    ".md": "markdown", ".txt": "markdown", "": "markdown", ".tex": "latex", ".csv": "csv", ".json": "json",
    ".html": "html",
}  # fmt: skip


def format_for(style: str, output: Path | None) -> str:
    """The format to write a file in: what was asked for, else what its ending says.

    Raises:
        UserError: its ending says nothing.
    """
    if style != "rich" or output is None:
        return style
    if (ending := ending_of(output)) not in _ENDINGS:
        raise UserError(f"-o {output}: {unknown('ending', ending, list(filter(None, _ENDINGS)))} Or name the --format.")
    return _ENDINGS[ending]


def print_tables(tables: Sequence[Table], style: str, output: Path | None = None) -> None:
    """Print tables in a format, or write them to a file in one that `format_for` gives."""
    from itopctl.report.formats import make_console, render, rich_tables

    if output is None:
        if style == "rich":
            make_console().print(rich_tables(tables))
        else:
            typer.echo(render(tables, style), nl=False)
        return
    write_file(output, render(tables, style))


def print_page(page: str, output: Path | None) -> None:
    """Print a page, or write it to a file. Raises EnvironmentUnfitError where it cannot be written."""
    if output is None:
        sys.stdout.buffer.write(page.encode())
        sys.stdout.buffer.flush()
        return
    write_file(output, page)
    typer.echo(f"{output}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser.", err=True)


def as_option(name: str, value: Any = None) -> str:
    """An argument as the command line has it: `--best-by`, `--table paper`, `--trust`."""
    option = f"--{name.replace('_', '-')}"
    return option if value is None or value is True else f"{option} {value}"
