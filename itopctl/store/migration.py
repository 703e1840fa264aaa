"""Bringing a database of an older schema version forward, with a copy of it kept beside it."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.store import tables
from itopctl.store.files import cannot_write, flush_folder, remove, rename
from itopctl.store.integrity import DamagedStoreError


def version_of(connection: Connection) -> int | None:
    """The schema version of a database; None where it holds none of ours yet."""
    if not sa.inspect(connection).has_table("meta"):
        return None
    value = connection.execute(
        sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema_version")
    ).scalar_one_or_none()
    if value is not None and not re.fullmatch(r"[0-9]{1,9}", str(value)):
        raise DamagedStoreError(str(connection.engine.url.database), "its schema version is no number")
    return int(value) if value is not None else None


def make_tables(connection: Connection) -> None:
    """Make what is missing, in a transaction that writes."""
    tables.metadata.create_all(connection)
    if version_of(connection) is None:
        row = {"key": "schema_version", "value": str(tables.SCHEMA_VERSION)}
        connection.execute(tables.meta.insert(), row)


def migrate(connection: Connection) -> None:
    """Bring an older schema forward, in a transaction that writes; another process may just have done so."""
    present = version_of(connection) or tables.SCHEMA_VERSION
    tables.metadata.create_all(connection)
    prepare = connection.dialect.identifier_preparer.quote
    for version in range(present + 1, tables.SCHEMA_VERSION + 1):
        for column in tables.added_in(version):
            kind, name = column.type.compile(connection.dialect), prepare(column.name)
            connection.exec_driver_sql(f"ALTER TABLE {prepare(column.table.name)} ADD COLUMN {name} {kind}")
    connection.execute(
        sa.update(tables.meta).where(tables.meta.c.key == "schema_version").values(value=str(tables.SCHEMA_VERSION))
    )


def back_up(database: Path, version: int) -> Path:
    """Copy an SQLite file to `<name>.v<version>.backup` beside it, unless that is there; returns the copy's path.

    Only for who holds the write lock: so nobody else makes the same copy, or changes what is copied.

    Raises:
        EnvironmentUnfitError: it cannot be written.
    """
    copy = database.with_name(f"{database.name}.v{version}.backup")
    if copy.exists():
        return copy
    aside = copy.with_name(f".{copy.name}")
    try:
        remove(aside)
        with contextlib.closing(sqlite3.connect(database)) as source, contextlib.closing(sqlite3.connect(aside)) as to:
            source.backup(to)
        rename(aside, copy)
        flush_folder(copy.parent)
    except (OSError, sqlite3.Error) as error:
        with contextlib.suppress(OSError):
            remove(aside)
        raise cannot_write(copy, error if isinstance(error, OSError) else OSError(str(error))) from error
    return copy
