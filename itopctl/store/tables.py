"""The database's tables: a column for each stored field of a record (`itopctl.schema`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table
from sqlalchemy.types import TypeEngine

from itopctl import schema
from itopctl.schema import Field, Source, fields_of
from itopctl.schema.field import Counts, Flag, Large, Listed, Mapped, Real, Small, Text

SCHEMA_VERSION = schema.VERSION

metadata = MetaData()

_TYPES: dict[Any, TypeEngine[Any]] = {
    Text: String(),
    Small: Integer(),
    Large: BigInteger().with_variant(Integer, "sqlite"),  # SQLite's own integers are large
    Real: Float(),
    Flag: Boolean(),
    Mapped: JSON(none_as_null=True),
    Counts: JSON(none_as_null=True),
    Listed: JSON(none_as_null=True),
}


def _table(name: str, record: type) -> Table:
    stored = {field.name: field for field in fields_of(record).values() if field.stored}
    columns = [
        Column(field.name, _TYPES[field.kind], primary_key=field.key, nullable=not field.needed, index=field.indexed)
        for field in stored.values()
    ]
    return Table(name, metadata, *columns, info={"fields": stored})


meta = _table("meta", schema.Meta)
sweeps = _table("sweeps", schema.Sweep)
sweep_runs = _table("sweep_runs", schema.Membership)
runs = _table("runs", schema.Run)
attempts = _table("attempts", schema.Attempt)
submissions = _table("submissions", schema.Submission)
evaluations = _table("evaluations", schema.Evaluation)
layers = _table("layers", schema.Layer)

Index("sweep_runs_by_position", sweep_runs.c.sweep, sweep_runs.c.position)


def fields(table: Table) -> Mapping[str, Field]:
    """Name → field of each column of a table."""
    found: Mapping[str, Field] = table.info["fields"]
    return found


def columns_from(table: Table, source: Source) -> tuple[str, ...]:
    """Names of the columns whose values come from somewhere."""
    return tuple(name for name, field in fields(table).items() if field.source is source)


def fitting(table: Table, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row as every kind of database can hold it: files may say anything, and one must not stop the others.

    What a column cannot hold becomes NULL; characters that a text cannot hold are replaced. None where a column that
    must have a value has none.
    """
    known = fields(table)
    fitted = {name: known[name].fitting(value) for name, value in row.items()}
    return None if any(value is None and known[name].needed for name, value in fitted.items()) else fitted
