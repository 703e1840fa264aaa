"""Whether an SQLite file holds what this package writes: the file may be damaged, or somebody else's.

Rows that are read everywhere are looked at whenever a store is opened, by SQLite itself, in one pass; all rows by
`itopctl store check`.
"""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.errors import EnvironmentUnfitError
from itopctl.schema.field import Listed
from itopctl.store import STATES, tables

_EVERYWHERE = (tables.sweeps, tables.sweep_runs, tables.runs)


class DamagedStoreError(EnvironmentUnfitError):
    """A database is none, is damaged, or holds what this package does not write."""

    def __init__(self, name: str, what: str) -> None:
        hint = " If it is the itop.db of a results folder: `itopctl store rebuild` makes it anew from the folders."
        super().__init__(f"the store {name} cannot be used: {what}.{'' if '://' in name else hint}")


COMPANIONS = ("-wal", "-shm", "-journal")
"""What SQLite adds to a database's name for the files that it keeps beside it."""


def check_files(database: Path, name: str) -> None:
    """Raise DamagedStoreError where no regular file lies where SQLite has one: it would wait for a pipe for ever."""
    for suffix in ("", *COMPANIONS):
        path = database.with_name(database.name + suffix)
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not stat.S_ISREG(path.lstat().st_mode):
                raise DamagedStoreError(name, f"{path.name} is no regular file")


def check_schema(connection: Connection, name: str) -> None:
    """Raise DamagedStoreError where the schema holds what may act by itself: views, triggers, virtual tables."""
    rows = connection.exec_driver_sql("SELECT type, name, coalesce(sql, '') FROM sqlite_schema")
    for kind, what, sql in rows:
        if kind not in ("table", "index"):
            raise DamagedStoreError(name, f"it has a {kind} {what!r}, which itopctl does not make")
        if str(what) in tables.metadata.tables and not str(sql).upper().startswith("CREATE TABLE"):
            raise DamagedStoreError(name, f"its table {what!r} is none")


def check_rows(connection: Connection, name: str, wanted: Sequence[sa.Table] = _EVERYWHERE) -> None:
    """Raise DamagedStoreError where a value is of no kind that its column can hold.

    Args:
        connection: to an SQLite database.
        name: of the store.
        wanted: tables to look at.
    """
    for table in wanted:
        wrong = " OR ".join(f"NOT ({_holds(column)})" for column in table.columns)
        if connection.exec_driver_sql(f"SELECT EXISTS (SELECT 1 FROM {table.name} WHERE {wrong})").scalar_one():
            raise DamagedStoreError(name, f"its table {table.name!r} holds what itopctl does not write")


def _holds(column: sa.Column[object]) -> str:
    """In SQL: whether a column's value is of its kind."""
    kind, name = column.type, f'"{column.name}"'
    if isinstance(kind, sa.JSON):
        form = "array" if tables.fields(column.table)[column.name].kind is Listed else "object"
        sound = f"CASE WHEN typeof({name}) = 'text' AND json_valid({name}) THEN json_type({name}) = '{form}' ELSE 0 END"
    elif isinstance(kind, sa.Float):
        sound = f"typeof({name}) IN ('real', 'integer')"
    elif isinstance(kind, (sa.Integer, sa.Boolean)):
        sound = f"typeof({name}) = 'integer'"
    else:
        sound = f"typeof({name}) = 'text'"
    if column.name == "state" and column.table.name == "runs":
        sound = f"{name} IN ({', '.join(repr(state) for state in STATES)})"
    return f"{name} IS NULL OR {sound}" if column.nullable else f"{name} IS NOT NULL AND {sound}"
