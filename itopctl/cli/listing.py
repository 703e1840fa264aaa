"""`itopctl list`: the names that may stand in a spec, and those that runs have in results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.cli.common import (
    FormatOption,
    JsonOption,
    ResultsOption,
    StoreOption,
    check_format,
    print_tables,
    project_of,
)
from itopctl.errors import UserError, unknown

if TYPE_CHECKING:
    from itopctl.report.table import Table

KINDS = (
    "methods",
    "models",
    "datasets",
    "growth",
    "drop",
    "redistributions",
    "schedules",
    "allocations",
    "fields",
    "sweeps",
)


def _complete_kinds(incomplete: str) -> list[str]:
    return [kind for kind in KINDS if kind.startswith(incomplete)]


def list_names(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS) + ".", autocompletion=_complete_kinds)],
    format_: FormatOption = "rich",
    json: JsonOption = False,
    results: ResultsOption = None,
    store: StoreOption = None,
) -> None:
    """List methods, models, datasets, rules (growth, drop, …), allocations, sweeps, or the fields of runs."""
    from itopctl import catalogue
    from itopctl.report.table import Cell, Column, Table

    style = check_format(format_, json)
    if kind not in KINDS:
        raise UserError(unknown("kind of list", kind, KINDS))
    if kind == "sweeps":
        from itopctl.cli.tables import sweeps_table
        from itopctl.store.queries import sweep_summaries

        with project_of(results, store).opened() as opened:
            print_tables([sweeps_table(sweep_summaries(opened))], style)
        return
    if kind == "fields":
        print_tables([_fields()], style)
        return
    catalogues = {
        "methods": catalogue.METHODS, "models": catalogue.MODELS, "datasets": catalogue.DATASETS,
        "growth": catalogue.GROWTHS, "drop": catalogue.DROPS, "redistributions": catalogue.REDISTRIBUTIONS,
        "schedules": catalogue.DROP_SCHEDULES, "allocations": catalogue.ALLOCATIONS,
    }  # fmt: skip
    records: list[dict[str, Any]] = [
        {
            "name": entry.name, "summary": entry.summary, "source": entry.source,
            "settings": {name: one.record() for name, one in catalogue.settings_of(entry).items()},
        }
        for entry in catalogues[kind]
    ]  # fmt: skip
    columns = [Column("name"), Column("what it is"), Column("source")]
    rows = [[Cell(record[name]) for name in ("name", "summary", "source")] for record in records]
    if any(record["settings"] for record in records):
        columns.append(Column("settings", rank=1))
        for row, record in zip(rows, records, strict=True):
            row.append(Cell(", ".join(f"{name} {one['default']:g}" for name, one in record["settings"].items())))
    print_tables([Table("", columns, rows, records)], style)


def _fields() -> Table:
    """What lists of runs have, for --where, --columns, --rows, --cell and --sort, and in JSON and CSV."""
    from itopctl.report.fields import header
    from itopctl.report.table import Cell, Column, Table
    from itopctl.schema import Run, fields_of

    listed = [field for field in fields_of(Run).values() if field.listed]
    records = [
        {
            "name": field.name, "summary": field.meaning, "heading": header(field.name), "unit": field.unit.value,
            "better": field.better.value if field.better else None, "source": field.source.value,
        }
        for field in listed
    ]  # fmt: skip
    rows = [[Cell(str(record[name] or "")) for name in ("name", "summary", "heading", "source")] for record in records]
    columns = [Column("name"), Column("what it is"), Column("heading"), Column("from", rank=1)]
    note = "Beside these every setting of a spec is a field, by its dotted name: optimizer.lr."
    return Table("", columns, rows, records, [note])
