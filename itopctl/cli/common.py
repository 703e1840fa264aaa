"""What several verbs share: options, completion, opening the store, printing tables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.api.opening import results_folder
from itopctl.errors import EnvironmentUnfitError, UserError, unknown
from itopctl.report.table import FORMATS

if TYPE_CHECKING:
    from itopctl.report.table import Table
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results


def tell(text: str) -> None:
    """Print a sentence on what goes on to standard error."""
    typer.echo(f"itopctl: {text}", err=True)


def warn(lines: Iterable[str]) -> None:
    """Print warnings to standard error."""
    for line in lines:
        typer.secho(f"Warning: {line}", fg="yellow", err=True)


def refuse_untrusted(names: Iterable[str], instead: str = "", also: Iterable[str] = ()) -> None:
    """Raise UserError where a results folder has something run that is not itopctl's; for who did not say --trust.

    A function of the user's own is trusted without it where its module is the very code that made the results, found
    outside of the folder (`itopctl.spec.own_code.OwnCode.is_trusted`).

    Args:
        names: of that: code, lines for a shell, options of sbatch.
        instead: what else there is to do, as the rest of the sentence.
        also: further sentences.
    """
    if found := sorted(set(names)):
        said = f"this would run what stands in the results folder: {', '.join(found)}. If you made or trust these "
        raise UserError(" ".join([f"{said}results, add --trust{instead}.", *also]))


def complete_sweeps(incomplete: str) -> list[str]:
    """Names of recorded sweeps."""
    return [p.stem for p in sorted((results_folder(None) / "sweeps").glob("*.json")) if p.stem.startswith(incomplete)]


def complete_runs(incomplete: str) -> list[str]:
    """Ids of runs."""
    folder = results_folder(None) / "runs"
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(incomplete)) if folder.is_dir() else []


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


def open_results(
    results: Path | None, store: str | None, first: Callable[[Results], None] = lambda folder: None,
    writes: bool = False,
) -> tuple[Results, Store]:  # fmt: skip
    """The results folder and its store, as `itopctl.api.opening.open_results` opens it.

    Args:
        results, store: the options of those names.
        first: called before the store is brought up to date.
        writes: whether the command goes on to write results.
    """
    from itopctl.api import opening
    from itopctl.store.rundir import Results

    found = Results(results_folder(results))
    return found, opening.open_results(found, store, tell, first, writes)


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


def check_folder(output: Path | None) -> None:
    """Raise EnvironmentUnfitError where there is no folder for a file: told before the work and not after it."""
    if output is not None and not output.parent.is_dir():
        raise EnvironmentUnfitError(f"{output} cannot be written: there is no folder {output.parent}.")


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


def ending_of(path: Path) -> str:
    """What a file's name says of its format, as `.csv`; nothing where only a number is at its end, as in `net-0.95`."""
    return path.suffix.lower() if any(map(str.isalpha, path.suffix)) else ""


def print_tables(tables: Sequence[Table], style: str, output: Path | None = None) -> None:
    """Print tables in a format, or write them to a file in one that `format_for` gives."""
    from itopctl.report.formats import make_console, render, rich_tables

    if output is None:
        if style == "rich":
            make_console().print(rich_tables(tables))
        else:
            typer.echo(render(tables, style), nl=False)
        return
    try:
        output.write_text(render(tables, style), encoding="utf-8")
    except OSError as error:
        raise EnvironmentUnfitError(f"{output} cannot be written: {error.strerror}.") from error


def print_page(page: str, output: Path | None) -> None:
    """Print a page, or write it to a file. Raises EnvironmentUnfitError where it cannot be written."""
    if output is None:
        sys.stdout.buffer.write(page.encode())
        sys.stdout.buffer.flush()
        return
    try:
        output.write_text(page, encoding="utf-8", newline="\n")
    except OSError as error:
        raise EnvironmentUnfitError(f"{output} cannot be written: {error.strerror}.") from error
    typer.echo(f"{output}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser.", err=True)


def as_option(name: str, value: Any = None) -> str:
    """An argument as the command line has it: `--best-by`, `--table paper`."""
    option = f"--{name.replace('_', '-')}"
    return option if value is None else f"{option} {value}"
