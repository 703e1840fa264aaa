"""`itopctl show`: everything about one run."""

from __future__ import annotations

from typing import Any

import typer

from itopctl.cli.common import JsonOption, ResultsOption, RunArgument, StoreOption, TrustOption, project_of


def show(
    run: RunArgument, json: JsonOption = False, trust: TrustOption = False, results: ResultsOption = None,
    store: StoreOption = None,
) -> None:  # fmt: skip
    """Show a run's config, attempts, metrics and layers.

    With --trust, also whether a finished run's model of your own still has as many maskable weights.
    """
    details = project_of(results, store).details(run)
    details["maskable_today"], note = _model_today(details, trust)
    if json:
        import json as json_module

        typer.echo(json_module.dumps(details, indent=1, ensure_ascii=False))
        return
    from itopctl.cli.terminal_text import for_terminal
    from itopctl.report.formats import make_console, rich_tables
    from itopctl.report.formats.characters import clean
    from itopctl.report.run_details import run_tables

    console = make_console()
    console.print(clean(_headline(details), lines=True), markup=False)
    if note:
        console.print(f"{clean(note)}\n", markup=False)
    console.print(rich_tables(run_tables(details)))
    for attempt in details["attempt_history"][-1:]:
        if attempt["log"]:
            console.print(f"\nThe end of the log when attempt {attempt['attempt']} ended:", markup=False)
            log = for_terminal(attempt["log"], colours=False) if console.is_terminal else attempt["log"]
            console.print(log, markup=False, highlight=False, soft_wrap=True)


def _model_today(details: dict[str, Any], trust: bool) -> tuple[int | None, str]:
    """How many maskable weights the user's own model of a finished run has today, and what is to be said of it."""
    from itopctl.catalogue import is_user_function
    from itopctl.config.run_config import RunConfig
    from itopctl.errors import ItopctlError
    from itopctl.report.masked import changed_note, unknown_note

    masked = details["maskable"]
    if masked is None or not is_user_function(details["model"] or ""):
        return None, ""
    if not trust:
        return None, unknown_note(details["run_id"]) if details["total_density"] is None else ""
    from itopctl.train.model_outline import outline_of

    try:
        today = outline_of(RunConfig.model_validate(details["config"])).maskable
    except (ItopctlError, ValueError) as error:
        return None, f"The model cannot be made today: {error}"
    return today, changed_note("This run", masked, today) if today != masked else ""


def _headline(details: dict[str, Any]) -> str:
    why = [
        part for part in (details["cause"], details["message"]) if part and part not in ("finished", details["state"])
    ]
    state = details["state"] + (f" ({': '.join(why)})" if why else "")
    sweeps = ", ".join(details["sweeps"]) or "no sweep"
    return f"Run {details['run_id']} of {sweeps}: {state}\n{details['directory']}\n"
