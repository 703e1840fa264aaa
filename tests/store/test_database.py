from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.store import tables
from itopctl.store.database import Store, open_store, upsert

ATTEMPT = {"run_id": "0123456789ab", "attempt": 1, "state": "running", "host": "here"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "itop.db"


def attempts(store: Store) -> list[tuple[object, ...]]:
    columns = (tables.attempts.c.run_id, tables.attempts.c.attempt, tables.attempts.c.state, tables.attempts.c.host)
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*columns))]


# Opening ----------------------------------------------------------------------------------------------------


def test_a_new_database_has_every_table_and_its_schema_version(path: Path) -> None:
    store = open_store(path)
    with store.read() as connection:
        assert set(sa.inspect(connection).get_table_names()) == set(tables.metadata.tables)
        assert connection.execute(sa.select(tables.meta)).all() == [("schema_version", str(tables.SCHEMA_VERSION))]


def test_opening_a_second_time_keeps_what_is_there(path: Path) -> None:
    first = open_store(path)
    with first.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT])
    first.close()
    assert attempts(open_store(path)) == [("0123456789ab", 1, "running", "here")]


def test_a_database_of_a_newer_itopctl_is_refused_with_both_versions(path: Path) -> None:
    store = open_store(path)
    newer = tables.SCHEMA_VERSION + 1
    with store.write() as connection:
        connection.execute(tables.meta.update().values(value=str(newer)))
    store.close()
    with pytest.raises(EnvironmentUnfitError, match=f"schema version {newer}; this itopctl knows {newer - 1}"):
        open_store(path)


@pytest.mark.parametrize("content", [b"this is a letter to my mother, not a database\n" * 50, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EnvironmentUnfitError, match=r"the store .*itop\.db cannot be used: .*not a database"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_folder_that_does_not_exist_is_said_to_be_the_reason(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match="unable to open database file"):
        open_store(tmp_path / "nowhere" / "itop.db")


@pytest.mark.parametrize("url", ["nonsense", "nonsense://host/name", "sqlite+nonsense:///x.db"])
def test_a_url_that_makes_no_sense_is_the_users_mistake(path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"^--store .*nonsense"):
        open_store(path, url)


def test_a_url_replaces_the_database_of_the_results_folder(path: Path, tmp_path: Path) -> None:
    open_store(path, f"sqlite:///{tmp_path / 'other.db'}")
    assert (tmp_path / "other.db").exists() and not path.exists()


def test_a_password_in_a_url_is_not_repeated_in_a_message(path: Path) -> None:
    with pytest.raises((UserError, EnvironmentUnfitError)) as caught:
        open_store(path, "postgresql+nonsense://me:secret@localhost:1/name")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["my results", "100%25", "what?", "a#b", "größe"])
def test_the_database_lies_in_the_results_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    open_store(folder / "itop.db").close()
    assert [entry.name for entry in folder.iterdir()] == ["itop.db"]


# Writing ----------------------------------------------------------------------------------------------------


def test_upsert_replaces_the_columns_given_and_keeps_the_others(path: Path) -> None:
    store = open_store(path)
    with store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT, {**ATTEMPT, "attempt": 2}])
        upsert(connection, tables.attempts, [{"run_id": "0123456789ab", "attempt": 2, "state": "failed"}])
    assert attempts(store) == [("0123456789ab", 1, "running", "here"), ("0123456789ab", 2, "failed", "here")]


def test_of_several_rows_with_one_key_the_last_counts(path: Path) -> None:
    store = open_store(path)
    with store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT, {**ATTEMPT, "state": "lost"}])
    assert attempts(store) == [("0123456789ab", 1, "lost", "here")]


def test_upsert_of_nothing_but_keys_keeps_the_row(path: Path) -> None:
    key = {"sweep": "a", "run_id": "0123456789ab"}
    table = sa.Table("pairs", sa.MetaData(), *(sa.Column(name, sa.String, primary_key=True) for name in key))
    store = open_store(path)
    with store.write() as connection:
        table.create(connection)
        upsert(connection, table, [key])
        upsert(connection, table, [key])
        assert connection.execute(sa.select(table)).all() == [("a", "0123456789ab")]


def test_upsert_takes_more_rows_than_a_statement_holds(path: Path) -> None:
    store = open_store(path)
    with store.write() as connection:
        upsert(connection, tables.attempts, ({**ATTEMPT, "attempt": n} for n in range(1201)))
        upsert(connection, tables.attempts, [])
    assert [row[1] for row in attempts(store)] == list(range(1201))


def test_a_transaction_that_raises_leaves_nothing(path: Path) -> None:
    store = open_store(path)
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT])
        raise ZeroDivisionError
    assert attempts(store) == []


def test_a_writer_holds_the_write_lock_from_its_start_and_a_reader_does_not(path: Path) -> None:
    store = open_store(path)
    other = sqlite3.connect(path, timeout=0, isolation_level=None)
    with store.read() as connection:
        connection.execute(sa.select(tables.runs)).all()
        other.execute("BEGIN IMMEDIATE")
        other.execute("ROLLBACK")
    with store.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
        other.execute("BEGIN IMMEDIATE")
    other.execute("BEGIN IMMEDIATE")


def test_a_writer_waits_for_another_that_is_soon_done(path: Path) -> None:
    store, other = open_store(path), open_store(path)
    began = threading.Event()

    def write_slowly() -> None:
        with other.write() as connection:
            began.set()
            upsert(connection, tables.attempts, [ATTEMPT])
            threading.Event().wait(0.2)

    thread = threading.Thread(target=write_slowly)
    thread.start()
    assert began.wait(5)
    with store.write() as connection:
        # Had this not waited, the other's row would not be here to be replaced.
        assert connection.execute(sa.select(tables.attempts.c.state)).scalars().all() == ["running"]
    thread.join()


_WRITE = """
import sys
from pathlib import Path
import sqlalchemy as sa
from itopctl.store import tables
from itopctl.store.database import open_store, upsert
name, path = sys.argv[1:]
store = open_store(Path(path))
print("open", flush=True)
sys.stdin.readline()
for n in range(40):
    with store.write() as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(tables.attempts)).scalar_one()
        upsert(connection, tables.attempts, [{"run_id": name, "attempt": n, "state": "done", "pid": total}])
"""


def test_two_processes_that_open_and_write_at_once_both_succeed_and_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITE, name, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two")
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdout.readline() == "open\n"
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    for writer in writers:
        writer.communicate()
    with open_store(path).read() as connection:
        seen = connection.execute(sa.select(tables.attempts.c.pid)).scalars().all()
    # Each saw every row written before its own: no transaction read, and then wrote beside another.
    assert sorted(seen) == list(range(80))
