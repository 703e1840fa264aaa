"""Opening the database and writing to it: one writer at a time, whole transactions, clear refusals.

Only the process a person types into opens it; workers write run directories.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.store import tables

_BUSY_SECONDS = 30
_ROWS_AT_ONCE = 500
_ADVISORY_LOCK = 1_769_238_896  # any number that others do not take: "itop" in ASCII


class Store:
    """An open database.

    Args:
        url: any SQLAlchemy URL; for SQLite the file is created where there is none.

    Raises:
        UserError: the URL makes no sense.
        EnvironmentUnfitError: it cannot be opened, is no database, or was written by a newer itopctl.
    """

    def __init__(self, url: str | sa.URL) -> None:
        self.name = re.sub(r"//[^@/]*@", "//***@", str(url))  # as it may be shown: without a password
        try:
            self.engine = _make_engine(sa.make_url(url))
        except ModuleNotFoundError as error:
            raise EnvironmentUnfitError(f"the store's driver is not installed: pip install {error.name}") from error
        except (ArgumentError, NoSuchModuleError, ValueError) as error:
            raise UserError(
                f"--store {self.name}: {error}. A URL expected, such as postgresql+psycopg://host/name."
            ) from error
        self._prepare()

    def indexes(self, database: Path) -> bool:
        """Whether this is the SQLite file of a results folder, and so an index over that folder alone."""
        url = self.engine.url
        return url.drivername.startswith("sqlite") and Path(url.database or "").resolve() == database.resolve()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading."""
        with _explained(self.name), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start; committed on leaving without an error."""
        with _explained(self.name), self.engine.connect() as connection:
            connection = connection.execution_options(itopctl_writes=True)
            with connection.begin():
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                yield connection

    def close(self) -> None:
        self.engine.dispose()

    def _prepare(self) -> None:
        with self.read() as connection:
            version = _version(connection)
        if version is None:
            with self.write() as connection:
                tables.metadata.create_all(connection)
                if _version(connection) is None:
                    row = {"key": "schema_version", "value": str(tables.SCHEMA_VERSION)}
                    connection.execute(tables.meta.insert(), row)
        elif version > tables.SCHEMA_VERSION:
            raise EnvironmentUnfitError(
                f"{self.name} has schema version {version}; this itopctl knows {tables.SCHEMA_VERSION}. "
                "Update itopctl, or name another store."
            )
        elif version < tables.SCHEMA_VERSION:
            with self.write() as connection:
                _migrate(connection)


def open_store(database: Path, url: str | None = None) -> Store:
    """The store of a results folder, or the one a URL names."""
    return Store(url or sa.URL.create("sqlite", database=str(database)))


def upsert(connection: Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows; where a key is there already, the columns given replace what was.

    All rows have the same columns; of several with one key the last counts.
    """
    keys = [column.name for column in table.primary_key.columns]
    unique = {tuple(row[key] for key in keys): row for row in rows}
    rows = list(unique.values())
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    if changed:
        final = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    else:
        final = statement.on_conflict_do_nothing(index_elements=keys)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        connection.execute(final, rows[start : start + _ROWS_AT_ONCE])


def _make_engine(url: sa.URL) -> Engine:
    engine = sa.create_engine(url)
    if engine.dialect.name == "postgresql":
        return engine
    if engine.dialect.name != "sqlite":
        raise ValueError(f"{engine.dialect.name} is not supported; sqlite and postgresql are")

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer is refused at once, whatever the time-out.
        writes = connection.get_execution_options().get("itopctl_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _migrate(connection: Connection) -> None:
    """Bring an older schema forward; another process may just have done so."""
    present = _version(connection) or tables.SCHEMA_VERSION
    tables.metadata.create_all(connection)
    prepare = connection.dialect.identifier_preparer.quote
    for version in range(present + 1, tables.SCHEMA_VERSION + 1):
        for table, columns in tables.ADDED[version]:
            for name in columns:
                kind = table.c[name].type.compile(connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {prepare(table.name)} ADD COLUMN {prepare(name)} {kind}")
    connection.execute(
        sa.update(tables.meta).where(tables.meta.c.key == "schema_version").values(value=str(tables.SCHEMA_VERSION))
    )


def _version(connection: Connection) -> int | None:
    if not sa.inspect(connection).has_table("meta"):
        return None
    value = connection.execute(
        sa.select(tables.meta.c.value).where(tables.meta.c.key == "schema_version")
    ).scalar_one_or_none()
    return int(value) if value is not None else None


@contextlib.contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        reason = str(error.orig)
        if "locked" in reason:
            reason = f"another process has held it locked for {_BUSY_SECONDS} s; try again"
        raise EnvironmentUnfitError(f"the store {name} cannot be used: {reason}.") from error
    except DatabaseError as error:
        raise EnvironmentUnfitError(
            f"the store {name} cannot be used: {error.orig}. If it is the itop.db of a results folder, move it away: "
            "it is rebuilt from the run directories."
        ) from error
