"""The application: its verbs, its global options, and the one place where errors are printed."""

from __future__ import annotations

import io
import sys
import traceback
from typing import Annotated

import typer

from itopctl import __version__
from itopctl.cli import (
    cancel,
    data,
    doctor,
    export,
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


app.command("sweep")(sweep.sweep)
app.command("plan")(plan.plan)
app.command("status")(status.status)
app.command("show")(show.show)
app.command("logs")(logs.logs)
app.command("cancel")(cancel.cancel)
app.command("retry")(retry.retry)
app.command("doctor")(doctor.doctor)
app.command("report")(report.report)
app.command("plot")(plot.plot)
app.command("export")(export.export)
app.command("list")(listing.list_names)
app.add_typer(data.app, name="data")
app.add_typer(store.app, name="store")
app.command("schema")(schema.schema)


def run() -> int:
    """Run the command line; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that cannot show ± or ΔT shows ? instead
    try:
        app(prog_name="itopctl")
    except ItopctlError as error:
        if _debug:
            traceback.print_exc()
        print(f"itopctl: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:  # a full disk behind standard output, say
        if _debug:
            traceback.print_exc()
        print(f"itopctl: {error}", file=sys.stderr)
        return EnvironmentUnfitError.exit_code
    return 0
