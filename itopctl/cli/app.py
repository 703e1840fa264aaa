"""The application: its verbs, its global options, and the one place where errors are printed."""

from __future__ import annotations

import inspect
import io
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from itopctl import __version__
from itopctl.cli import (
    cancel,
    data,
    doctor,
    export,
    forget,
    listing,
    logs,
    plan,
    plot,
    report,
    retry,
    schema,
    show,
    status,
    store,
    sweep,
)
from itopctl.errors import EnvironmentUnfitError, ItopctlError
from itopctl.places import current_folder

app = typer.Typer(
    name="itopctl",
    help="Sparse-training sweeps, from a YAML file to a table of accuracy and exploration rate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_debug = False


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"itopctl {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    global _debug
    _debug = debug


def _paragraphs(verb: Callable[..., None]) -> str:
    """What a verb's docstring says, for terminals of any width: its lines broken between paragraphs alone."""
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in (inspect.getdoc(verb) or "").split("\n\n"))


_VERBS: dict[str, Callable[..., None] | typer.Typer] = {  # in the order in which help lists them
    "sweep": sweep.sweep, "plan": plan.plan, "status": status.status, "show": show.show, "logs": logs.logs,
    "cancel": cancel.cancel, "retry": retry.retry, "forget": forget.forget, "doctor": doctor.doctor,
    "report": report.report, "plot": plot.plot, "export": export.export, "list": listing.list_names,
    "data": data.app, "store": store.app, "schema": schema.schema,
}  # fmt: skip
for _name, _verb in _VERBS.items():
    if isinstance(_verb, typer.Typer):
        app.add_typer(_verb, name=_name)
    else:
        app.command(_name, help=_paragraphs(_verb))(_verb)


def run() -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ± or ΔT shows ? instead
    try:
        app(prog_name="itopctl")
    except ItopctlError as error:
        return _told(error, error.exit_code)
    except OSError as error:  # a full disk behind standard output, say
        return _told(error, EnvironmentUnfitError.exit_code)
    return 0


def _told(error: Exception, code: int) -> int:
    """Print an error; returns the exit code."""
    if _debug:
        traceback.print_exc()
    told = [str(error)]
    try:
        current_folder()
    except EnvironmentUnfitError as gone:
        if not isinstance(error, ItopctlError):  # the system's own words say nothing that helps
            told = []
        told += [str(gone)] * (str(gone) not in told)
    for message in told:
        print(f"itopctl: {message}", file=sys.stderr)
    return code
