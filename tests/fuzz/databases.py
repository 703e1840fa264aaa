"""SQLite files that itopctl did not make, or not as they are now."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
from pathlib import Path

from itopctl.store import tables
from tests.fuzz.mutations import DEEP, VALUES, damaged

_TABLES = sorted(tables.metadata.tables)
SCHEMAS = (  # SQL that a file of somebody else may carry
    "CREATE TRIGGER t AFTER {verb} ON {table} BEGIN DELETE FROM runs; END",
    "CREATE TRIGGER t BEFORE INSERT ON {table} BEGIN SELECT RAISE(ABORT, 'no'); END",
    "CREATE VIEW v AS SELECT * FROM {table}",
    "DROP TABLE {table}; CREATE VIEW {table} AS SELECT 1 AS run_id, 2 AS state",
    "DROP TABLE {table}; CREATE VIEW {table} AS WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) "
    "SELECT x AS run_id FROM n",
    "DROP TABLE {table}; CREATE VIRTUAL TABLE {table} USING fts5(run_id, state)",
    "CREATE VIRTUAL TABLE f USING rtree(id, a, b)",
    "DROP TABLE {table}",
    "DROP TABLE {table}; CREATE TABLE {table} (x)",
    "ALTER TABLE {table} RENAME TO {table}_old",
    "ALTER TABLE {table} ADD COLUMN more DEFAULT (1)",
    "ALTER TABLE {table} ADD COLUMN made AS (zeroblob(100000000))",
    "CREATE TABLE copy AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE copy RENAME TO {table}",
    "CREATE UNIQUE INDEX one ON {table} ((1))",
    "CREATE INDEX odd ON {table} (abs({column}))",
    "CREATE TABLE unrelated (a, b); DROP TABLE meta",
    "DELETE FROM meta",
    "UPDATE meta SET value = '1'",
    "UPDATE meta SET value = '2'",
    "UPDATE meta SET value = '99'",
    "UPDATE meta SET value = '-1'",
    "UPDATE meta SET value = '٣'",
    "UPDATE meta SET value = ''",
    "UPDATE meta SET value = 'x'",
    "UPDATE meta SET value = x'00ff'",
    "UPDATE meta SET value = '" + "9" * 5000 + "'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE {table} (' WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 999999 WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = 'sqlite_x' WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET type = 'view' WHERE name = '{table}'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'VARCHAR', 'BLOB CHECK (0)')",
    "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name LIKE '%autoindex%'",
    "PRAGMA user_version = -5; PRAGMA application_id = 7",
    "PRAGMA journal_mode = wal; DELETE FROM {table}",
    "INSERT INTO {table} SELECT * FROM {table}",
    "UPDATE {table} SET rowid = -rowid",
    "UPDATE {table} SET rowid = 9223372036854775807",
)


def damaged_database(path: Path, rng: random.Random) -> None:
    """Make something else of a store."""
    kind = rng.random()
    if kind < 0.35:
        path.write_bytes(damaged(path.read_bytes(), rng))
    elif kind < 0.45:
        _damage_pages(path, rng)
    elif kind < 0.5:
        beside = path.with_name(path.name + rng.choice(("-wal", "-shm", "-journal")))
        beside.write_bytes(
            rng.choice(
                (rng.randbytes(5000), bytes(5000), b"", b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + rng.randbytes(2000))
            )
        )
    elif kind < 0.53:
        path.write_bytes(rng.choice((b"", rng.randbytes(9000), b"SQLite format 3\x00",
        b"SQLite format 3\x00" + rng.randbytes(9000),
                                     bytes(4096), b"not a database")))  # fmt: skip
    elif kind < 0.75:
        for _ in range(rng.choice((1, 2, 6))):
            _change_row(path, rng)
    else:
        _change_schema(path, rng)


def _damage_pages(path: Path, rng: random.Random) -> None:
    """Swap, clear or repeat whole pages; SQLite finds every pointer in place, to what is not there."""
    data = bytearray(path.read_bytes())
    pages = len(data) // 4096
    for _ in range(rng.choice((1, 2, 5))):
        one, other = (4096 * rng.randrange(1, pages) for _ in range(2))
        page = data[one : one + 4096]
        match rng.randrange(3):
            case 0:
                data[one : one + 4096], data[other : other + 4096] = data[other : other + 4096], page
            case 1:
                data[one : one + 4096] = bytes(4096)
            case 2:
                data[other : other + 4096] = page
    path.write_bytes(data)


def _change_row(path: Path, rng: random.Random) -> None:
    """Put any value into any column of a row, whatever the table says of it."""
    table = tables.metadata.tables[rng.choice(_TABLES)]
    column = rng.choice(list(table.columns))
    value: object = rng.choice(VALUES)
    if isinstance(value, (list, dict)):
        value = json.dumps(value)
    if isinstance(value, int) and abs(value) >= 2**63:
        value = float("inf") if value > 2**70 else str(value)
    if rng.random() < 0.3:
        value = rng.choice(
            (
                b"\x00\xff",
                b"done",
                float("inf"),
                float("-inf"),
                DEEP,
                '{"a":' * 3000,
                "{}",
                "[]",
                '"x"',
                "NaN",
                -(2**63),
            )
        )
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogatepass")
        sql = "CAST(? AS TEXT)"  # text that is no UTF-8 as well
    else:
        sql = "?"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if value is None:
            _allow_null(connection, table.name)
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection,
        contextlib.suppress(sqlite3.Error),
    ):
        row = "" if rng.random() < 0.3 else f" WHERE rowid = (SELECT rowid FROM {table.name} LIMIT 1)"
        connection.execute(f'UPDATE OR REPLACE {table.name} SET "{column.name}" = {sql}{row}', (value,))


def _allow_null(connection: sqlite3.Connection, table: str) -> None:
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = ?", (table,))


def _change_schema(path: Path, rng: random.Random) -> None:
    table = rng.choice(_TABLES)
    column = rng.choice([column.name for column in tables.metadata.tables[table].columns])
    script = rng.choice(SCHEMAS).format(
        table=table, column=f'"{column}"', verb=rng.choice(("INSERT", "UPDATE", "DELETE"))
    )
    change_schema(path, script)


def change_schema(path: Path, script: str) -> None:
    """Run SQL on a file, as far as it goes."""
    with (
        contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection,
        contextlib.suppress(sqlite3.Error),
    ):
        connection.executescript(script)
