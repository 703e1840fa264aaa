"""`itopctl show`: everything about one run."""

from __future__ import annotations

from typing import Any

import typer

from itopctl.cli.common import JsonOption, ResultsOption, RunArgument, StoreOption, open_results


def show(run: RunArgument, json: JsonOption = False, results: ResultsOption = None, store: StoreOption = None) -> None:
    """Show a run's config, attempts, metrics and layers."""
    from itopctl.store.queries import find_run, run_details

    folder, opened = open_results(results, store)
    details = run_details(opened, find_run(opened, run))
    details["directory"] = str(folder.run(details["run_id"]).path)
    if json:
        import json as json_module

        typer.echo(json_module.dumps(details, indent=1, ensure_ascii=False))
        return
    from itopctl.cli.printed import for_terminal
    from itopctl.report.formats import make_console, rich_tables
    from itopctl.report.formats.characters import clean
    from itopctl.report.one_run import run_tables

    console = make_console()
    console.print(clean(_headline(details), lines=True), markup=False)
    console.print(rich_tables(run_tables(details)))
    for attempt in details["attempt_history"][-1:]:
        if attempt["log"]:
            console.print(f"\nThe end of the log when attempt {attempt['attempt']} ended:", markup=False)
            log = for_terminal(attempt["log"], colours=False) if console.is_terminal else attempt["log"]
            console.print(log, markup=False, highlight=False, soft_wrap=True)


def _headline(details: dict[str, Any]) -> str:
    why = [
        part for part in (details["cause"], details["message"]) if part and part not in ("finished", details["state"])
    ]
    state = details["state"] + (f" ({': '.join(why)})" if why else "")
    sweeps = ", ".join(details["sweeps"]) or "no sweep"
    return f"Run {details['run_id']} of {sweeps}: {state}\n{details['directory']}\n"
