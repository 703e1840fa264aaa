"""What any database does for the store: opened, written to by one at a time, refused where it is of no use."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.store import tables
from itopctl.store.database import Store, open_store, upsert

ATTEMPT = {"run_id": "0123456789ab", "attempt": 1, "state": "running", "host": "here"}
Open = Callable[[], Store]


def attempts(store: Store) -> list[tuple[object, ...]]:
    columns = (tables.attempts.c.run_id, tables.attempts.c.attempt, tables.attempts.c.state, tables.attempts.c.host)
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(sa.select(*columns).order_by(*columns))]


# Opening ----------------------------------------------------------------------------------------------------


def test_a_new_database_has_every_table_and_its_schema_version(open_again: Open) -> None:
    with open_again().read() as connection:
        assert set(sa.inspect(connection).get_table_names()) == set(tables.metadata.tables)
        assert connection.execute(sa.select(tables.meta)).all() == [("schema_version", str(tables.SCHEMA_VERSION))]


def test_opening_a_second_time_keeps_what_is_there(open_again: Open) -> None:
    first = open_again()
    with first.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT])
    first.close()
    assert attempts(open_again()) == [("0123456789ab", 1, "running", "here")]


def test_many_that_open_a_new_database_at_once_all_find_it_whole(open_again: Open) -> None:
    together = threading.Barrier(8)

    def count(_: int) -> int:
        together.wait(20)
        with open_again().read() as connection:
            return connection.execute(sa.select(sa.func.count()).select_from(tables.meta)).scalar_one()

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(count, range(8))) == [1] * 8


def test_a_database_of_a_newer_itopctl_is_refused_with_both_versions(open_again: Open) -> None:
    newer = tables.SCHEMA_VERSION + 1
    with open_again().write() as connection:
        connection.execute(tables.meta.update().values(value=str(newer)))
    with pytest.raises(EnvironmentUnfitError, match=f"schema version {newer}; this itopctl knows {newer - 1}"):
        open_again()


@pytest.mark.parametrize("url", ["nonsense", "nonsense://host/name", "sqlite+nonsense:///x.db"])
def test_a_url_that_makes_no_sense_is_the_users_mistake(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"^--store .*nonsense"):
        open_store(tmp_path / "itop.db", url)


def test_a_url_replaces_the_database_of_the_results_folder(tmp_path: Path, store_url: str) -> None:
    store = open_store(tmp_path / "itop.db", store_url)
    assert attempts(store) == []
    assert not (tmp_path / "itop.db").exists()
    assert not store.indexes(tmp_path / "itop.db")
    store.close()


# Writing ----------------------------------------------------------------------------------------------------


def test_upsert_replaces_the_columns_given_and_keeps_the_others(open_again: Open) -> None:
    store = open_again()
    with store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT, {**ATTEMPT, "attempt": 2}])
        upsert(connection, tables.attempts, [{"run_id": "0123456789ab", "attempt": 2, "state": "failed"}])
    assert attempts(store) == [("0123456789ab", 1, "running", "here"), ("0123456789ab", 2, "failed", "here")]


def test_of_several_rows_with_one_key_the_last_counts(open_again: Open) -> None:
    store = open_again()
    with store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT, {**ATTEMPT, "state": "lost"}])
    assert attempts(store) == [("0123456789ab", 1, "lost", "here")]


def test_upsert_of_nothing_but_keys_keeps_the_row(open_again: Open) -> None:
    key = {"run_id": "0123456789ab", "kind": "epoch", "step": 20}
    of, store = tables.evaluations.c, open_again()
    with store.write() as connection:
        upsert(connection, tables.evaluations, [{**key, "train_loss": 0.5}])
        upsert(connection, tables.evaluations, [key])
        assert connection.execute(sa.select(of.step, of.train_loss)).all() == [(20, 0.5)]


def test_upsert_takes_more_rows_than_a_statement_holds(open_again: Open) -> None:
    store = open_again()
    with store.write() as connection:
        upsert(connection, tables.attempts, ({**ATTEMPT, "attempt": n} for n in range(1201)))
        upsert(connection, tables.attempts, [])
    assert [row[1] for row in attempts(store)] == list(range(1201))


def test_a_transaction_that_raises_leaves_nothing(open_again: Open) -> None:
    store = open_again()
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT])
        raise ZeroDivisionError
    assert attempts(store) == []


def test_a_reader_does_not_wait_for_a_writer_and_sees_nothing_unfinished(open_again: Open) -> None:
    store, other = open_again(), open_again()
    with store.write() as connection:
        upsert(connection, tables.attempts, [ATTEMPT])
        assert attempts(other) == []
    assert attempts(other) == [("0123456789ab", 1, "running", "here")]


def test_a_writer_is_in_the_way_of_writers_from_its_start_and_a_reader_is_not(open_again: Open) -> None:
    store, other = open_again(), open_again()

    def writer() -> tuple[threading.Thread, threading.Event]:
        at_it = threading.Event()

        def write() -> None:
            with other.write():
                at_it.set()

        thread = threading.Thread(target=write)
        thread.start()
        return thread, at_it

    with store.read() as connection:
        connection.execute(sa.select(tables.runs)).all()
        thread, at_it = writer()
        assert at_it.wait(20)
    thread.join()
    with store.write():
        thread, at_it = writer()
        assert not at_it.wait(0.3)
    assert at_it.wait(20)
    thread.join()


def test_a_writer_waits_for_another_that_is_soon_done(open_again: Open) -> None:
    store, other = open_again(), open_again()
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
import sqlalchemy as sa
from itopctl.store import tables
from itopctl.store.database import Store, upsert
name, url = sys.argv[1:]
store = Store(url)
print("open", flush=True)
sys.stdin.readline()
for n in range(40):
    with store.write() as connection:
        total = connection.execute(sa.select(sa.func.count()).select_from(tables.attempts)).scalar_one()
        upsert(connection, tables.attempts, [{"run_id": name, "attempt": n, "state": "done", "pid": total}])
"""


def test_two_processes_that_open_and_write_at_once_both_succeed_and_lose_nothing(store_url: str) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITE, name, store_url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
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
    with Store(store_url).read() as connection:
        seen = connection.execute(sa.select(tables.attempts.c.pid)).scalars().all()
    # Each saw every row written before its own: no transaction read, and then wrote beside another.
    assert sorted(seen) == list(range(80))
