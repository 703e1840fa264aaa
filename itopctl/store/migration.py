"""The schema version of a database, and what happens to one of an older version.

The index of a results folder is emptied, and the ingest that follows fills it again: nothing lives in it alone. A store
that was named by a URL may hold runs of other folders, so it gets the columns and tables that it lacks. For 10,000 runs
adding columns takes 0.4 s; rebuilding takes one CPU core 17 s (10 epochs each) to 100 s (250 epochs each), once per
version. In return a rebuilt index has the values of new columns for finished runs, too, and needs no backup.
"""

from __future__ import annotations

import re

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.store import tables
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
    """Make the tables that are missing, in a transaction that writes, and record the present version."""
    tables.metadata.create_all(connection)
    connection.execute(sa.delete(tables.meta))
    connection.execute(tables.meta.insert(), {"key": "schema_version", "value": str(tables.SCHEMA_VERSION)})


def make_empty(connection: Connection) -> None:
    """Make all tables anew, without rows, in a transaction that writes."""
    tables.metadata.drop_all(connection)
    make_tables(connection)


def migrate(connection: Connection) -> None:
    """Add the columns and tables that an older database lacks, in a transaction that writes."""
    inspector, quoted = sa.inspect(connection), connection.dialect.identifier_preparer.quote
    for name in tables.metadata.tables.keys() & set(inspector.get_table_names()):
        present = {column["name"] for column in inspector.get_columns(name)}
        for column in tables.metadata.tables[name].columns:
            if column.name not in present:
                kind = column.type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {quoted(name)} ADD COLUMN {quoted(column.name)} {kind}")
    make_tables(connection)
