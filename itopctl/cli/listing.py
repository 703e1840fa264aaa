"""`itopctl list`: the names that may stand in a spec."""

from __future__ import annotations

from typing import Annotated

import typer

from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    ResultsOption,
    StoreOption,
    check_format,
    print_tables,
)
from itopctl.errors import UserError, unknown

KINDS = ("methods", "models", "datasets", "growth", "drop", "redistributions", "schedules", "allocations", "sweeps")


def _complete_kinds(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def list_names(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS) + ".", autocompletion=_complete_kinds)],
    format_: FormatOption = "rich",
    json: JsonOption = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """List methods, models, datasets, rules (growth, drop, redistributions, schedules), allocations, or sweeps."""
    from itopctl import catalogue
    from itopctl.report.table import Cell, Column, Table

    style = check_format(format_, json)
    if kind not in KINDS:
        raise UserError(unknown("kind of list", kind, KINDS))
    if kind == "sweeps":
        from itopctl.cli.common import open_results
        from itopctl.cli.tables import sweeps_table
        from itopctl.store.queries import sweep_summaries

        _, opened = open_results(results, store)
        print_tables([sweeps_table(sweep_summaries(opened))], style)
        return
    catalogues = {
        "methods": catalogue.METHODS, "models": catalogue.MODELS, "datasets": catalogue.DATASETS,
        "growth": catalogue.GROWTHS, "drop": catalogue.DROPS, "redistributions": catalogue.REDISTRIBUTIONS,
        "schedules": catalogue.DROP_SCHEDULES, "allocations": catalogue.ALLOCATIONS,
    }  # fmt: skip
    records = [{"name": entry.name, "summary": entry.summary, "source": entry.source} for entry in catalogues[kind]]
    rows = [[Cell(value) for value in record.values()] for record in records]
    columns = [Column("name"), Column("what it is"), Column("source")]
    print_tables([Table("", columns, rows, records)], style)
