"""Opening the database and writing to it: one writer at a time, whole transactions, clear refusals.

Only the process a person types into opens it; workers write run directories.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.base import RootTransaction
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError, OperationalError

from itopctl.errors import DiskFullError, EnvironmentUnfitError, NotWritableError, UserError
from itopctl.store import tables
from itopctl.store.files import aside, explained
from itopctl.store.filesystem import is_local
from itopctl.store.integrity import DamagedStoreError, check_files, check_rows, check_schema
from itopctl.store.migration import make_empty, make_tables, migrate, version_of

_BUSY_SECONDS = 10  # that SQLite waits for another writer by itself
_PATIENCE_SECONDS = 60  # in all, asked again and again
_ROWS_AT_ONCE = 500
_PAGES = 1 << 15  # bytes of the smallest file that SQLite keeps beside a database in WAL mode
_ADVISORY_LOCK = 1_769_238_896  # any number that others do not take: "itop" in ASCII
_SECRETS = ("password", "passwd", "secret", "token")
_UNWRITABLE = ("readonly", "unable to open", "disk I/O error")
_DAMAGE = ("no such", "decode", "malformed", "not a database", "has no column")


class Store:
    """An open database.

    Args:
        url: any SQLAlchemy URL; for SQLite the file is created where there is none.
        index: the database of a results folder: if that is what the URL names, and it is of an older schema version, it
            is emptied, for the next ingest to fill. Any other database gets the columns that it lacks.

    Attributes:
        emptied: whether that was done now.

    Raises:
        UserError: the URL makes no sense.
        EnvironmentUnfitError: it cannot be opened, is no database, was written by a newer itopctl, or not by itopctl.
            Its classes NotWritableError and DiskFullError say that only writing is impossible.
    """

    def __init__(self, url: str | sa.URL, index: Path | None = None) -> None:
        parsed = _parsed(url)
        self.name = _shown(parsed)
        try:
            self.engine = _make_engine(parsed)
        except ModuleNotFoundError as error:
            raise EnvironmentUnfitError(f"the store's driver is not installed: pip install {error.name}") from error
        except (NoSuchModuleError, ValueError) as error:
            raise UserError(f"--store {self.name}: {error}. A URL of sqlite or postgresql+psycopg expected.") from error
        self._transaction: Connection | None = None
        self.emptied = False
        self._prepare(index)

    @property
    def file(self) -> Path | None:
        """Where an SQLite database lies; None for one in memory, and for others."""
        name = self.engine.url.database
        is_file = self.engine.dialect.name == "sqlite" and name and name != ":memory:"
        return Path(name) if is_file and name else None

    @property
    def in_memory(self) -> bool:
        """Whether it is gone when it is closed."""
        return self.engine.dialect.name == "sqlite" and self.file is None

    def indexes(self, database: Path) -> bool:
        """Whether this is the SQLite file of a results folder, and so an index over that folder alone."""
        return self.file is not None and self.file.resolve() == database.resolve()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection for reading; within `write`, that one's."""
        if self._transaction is not None:
            yield self._transaction
            return
        with _explained(self.name, self.file), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start; committed on leaving without an error.

        Within another one, it is part of that.
        """
        if self._transaction is not None:
            yield self._transaction
            return
        with _explained(self.name, self.file), self.engine.connect() as connection:
            connection = connection.execution_options(itopctl_begin="BEGIN IMMEDIATE")
            with _begin(connection):
                if connection.dialect.name == "postgresql":
                    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{_PATIENCE_SECONDS}s'")
                    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
                self._transaction = connection
                try:
                    yield connection
                finally:
                    self._transaction = None

    def close(self) -> None:
        self.engine.dispose()

    def _prepare(self, index: Path | None) -> None:
        if self.file is not None:
            check_files(self.file.resolve(), self.name)
        with self.read() as connection:
            if self.file is not None:
                check_schema(connection, self.name)
            present = version_of(connection)
            if present is None and self.file is not None and sa.inspect(connection).has_table(tables.runs.name):
                raise DamagedStoreError(self.name, "it has runs, and does not say of which schema version")
        if present is not None and present > tables.SCHEMA_VERSION:
            raise EnvironmentUnfitError(
                f"{self.name} has schema version {present}; this itopctl knows {tables.SCHEMA_VERSION}. "
                "Update itopctl, or name another store."
            )
        if self.file is not None:
            self._choose_journal(self.file)
        if present != tables.SCHEMA_VERSION:
            with self.write() as connection:
                now = version_of(connection)  # another process may have been faster
                if now is None:
                    make_tables(connection)
                elif now < tables.SCHEMA_VERSION:
                    is_index = index is not None and self.indexes(index)
                    make_empty(connection) if is_index else migrate(connection)
                    self.emptied = is_index
        if present is not None and self.file is not None:
            with self.read() as connection:
                check_rows(connection, self.name)

    def _choose_journal(self, file: Path) -> None:
        """Write ahead where that is safe: on a file system of this machine alone. Elsewhere roll back, as ever.

        Raises:
            EnvironmentUnfitError: it writes ahead, must not here, and cannot be told to stop.
        """
        wanted = "wal" if is_local(file) else "delete"
        with _explained(self.name, self.file), self.engine.connect() as connection:
            connection = connection.execution_options(itopctl_begin=None)

            def ask(question: str) -> str:
                return str(connection.exec_driver_sql(question).scalar_one())

            if ask("PRAGMA journal_mode") == wanted:
                return
            took = _patiently(lambda: ask(f"PRAGMA journal_mode = {wanted}"))
            if took != wanted and took == "wal":
                raise EnvironmentUnfitError(
                    f"the store {self.name} lies on a shared file system and is in SQLite's WAL mode, which is not "
                    "safe there; it can be changed when no other command uses the store."
                )


def open_store(database: Path, url: str | None = None) -> Store:
    """The store of a results folder, or the one a URL names."""
    if url is None and database.is_symlink():
        raise NotWritableError(f"{database} is a symbolic link; name what it points to with --store.")
    return Store(url or sa.URL.create("sqlite", database=str(database)), index=database)


def upsert(connection: Connection, table: sa.Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Insert rows; where a key is there already, the columns given replace what was.

    All rows have the same columns; of several with one key the last counts. What does not fit is made to, or left out
    (`tables.fitting`).
    """
    keys = [column.name for column in table.primary_key.columns]
    fitted = (tables.fitting(table, row) for row in rows)
    unique = {tuple(row[key] for key in keys): row for row in fitted if row is not None}
    remaining = list(unique.values())
    if not remaining:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    changed = {name: statement.excluded[name] for name in remaining[0] if name not in keys}
    if changed:
        final = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    else:
        final = statement.on_conflict_do_nothing(index_elements=keys)
    for start in range(0, len(remaining), _ROWS_AT_ONCE):
        connection.execute(final, remaining[start : start + _ROWS_AT_ONCE])


def _make_engine(url: sa.URL) -> Engine:
    if url.get_backend_name() == "postgresql":  # connections may be cut, and the server may have other defaults
        return sa.create_engine(url, json_deserializer=_json, pool_pre_ping=True, isolation_level="READ COMMITTED")
    engine = sa.create_engine(url, json_deserializer=_json)
    if engine.dialect.name != "sqlite":
        raise ValueError(f"{engine.dialect.name} is not supported; sqlite and postgresql are")

    @sa.event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions behind our back
        connection.execute(f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}")
        connection.execute("PRAGMA trusted_schema = OFF")  # the file may be somebody else's
        connection.execute("PRAGMA cell_size_check = ON")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred transaction that turns into a writer is refused at once, whatever the time-out.
        how = connection.get_execution_options().get("itopctl_begin", "BEGIN")
        if how:
            connection.exec_driver_sql(how)

    return engine


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedStoreError("that was opened", "a value is no JSON that can be read") from error


def _begin(connection: Connection) -> RootTransaction:
    return _patiently(connection.begin)


def _patiently(call: Any) -> Any:
    """Call again, after pauses of random length, while another process has the database."""
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return call()
        except OperationalError as error:
            if "locked" not in str(error.orig) or time.monotonic() > until:
                raise
            time.sleep(random.uniform(0.02, 0.2))


def _try_to_write(file: Path) -> None:
    """Write beside a database, as SQLite must; raises the error that says why that cannot be done, if it cannot."""
    with explained(file), aside(file, bytes(_PAGES)):
        pass


def _parsed(url: str | sa.URL) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        if "@" in (parsed.host or ""):
            raise ValueError("a password's @ is written %40")
        return parsed
    except (ArgumentError, ValueError) as error:  # whose text may hold a password
        shown = "//***@".join(["", str(url).rpartition("@")[2]]) if "@" in str(url) else str(url)
        raise UserError(
            f"--store {shown}: it is no URL of a database, such as postgresql+psycopg://host/name."
        ) from error


def _shown(url: sa.URL) -> str:
    """A URL as it may be printed."""
    if url.drivername.startswith("sqlite"):
        return url.database or "in memory"
    query = {key: "***" if any(word in key.lower() for word in _SECRETS) else value for key, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True)


@contextlib.contextmanager
def _explained(name: str, file: Path | None = None) -> Iterator[None]:
    """Turn a driver's errors into those that a person understands.

    Args:
        name: of the store.
        file: of an SQLite database: where it cannot be used, what the file system says is told.
    """
    try:
        yield
    except UnicodeDecodeError as error:
        raise DamagedStoreError(name, "a text in it is none") from error
    except OperationalError as error:
        reason = str(error.orig)
        what = f"the store {name} cannot be used"
        if "locked" in reason or "lock timeout" in reason:
            reason = f"another process has held it locked for {_PATIENCE_SECONDS} s; try again"
        elif "is full" in reason:
            raise DiskFullError(f"{what}: the disk is full.") from error
        elif any(word in reason for word in _UNWRITABLE):
            if file is not None:
                _try_to_write(file)
            if "I/O" not in reason:
                raise NotWritableError(f"{what}: {reason}.") from error
        reason = " ".join(reason.split()).rstrip(".?")
        if any(word in reason for word in _DAMAGE):
            raise DamagedStoreError(name, reason) from error
        raise EnvironmentUnfitError(f"{what}: {reason}.") from error
    except DatabaseError as error:
        raise DamagedStoreError(name, " ".join(str(error.orig).split()).rstrip(".?")) from error
