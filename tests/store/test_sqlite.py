"""What is SQLite's own: a file in the results folder, and what may be the matter with it."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from itopctl.errors import EnvironmentUnfitError
from itopctl.store import database, tables
from itopctl.store.database import Store, open_store
from itopctl.store.integrity import DamagedStoreError
from itopctl.store.maintenance import rebuild
from itopctl.store.queries import select_runs
from tests.store.builders import Lab, run_id


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "itop.db"


@pytest.mark.parametrize("content", [b"this is a letter to my mother, not a database\n" * 50, b"\x00" * 4096])
def test_a_file_that_is_no_database_is_refused_by_name_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(EnvironmentUnfitError, match=r"the store .*itop\.db cannot be used: .*not a database"):
        open_store(path)
    assert path.read_bytes() == content


def test_a_folder_that_does_not_exist_is_said_to_be_the_reason(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentUnfitError, match="No such file or directory"):
        open_store(tmp_path / "nowhere" / "itop.db")


@pytest.mark.parametrize("name", ["my results", "100%25", "what?", "a#b", "größe"])
def test_the_database_lies_in_the_results_folder_whatever_that_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    open_store(folder / "itop.db").close()
    assert [entry.name for entry in folder.iterdir()] == ["itop.db"]


def test_the_file_in_a_results_folder_is_an_index_over_that_folder_alone(tmp_path: Path) -> None:
    path, other = tmp_path / "itop.db", tmp_path / "other.db"
    assert open_store(path).indexes(path)
    assert open_store(path, f"sqlite:///{path}").indexes(path)
    assert not open_store(path, f"sqlite:///{other}").indexes(path)
    assert not Store("sqlite://").indexes(path)


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


def test_a_writer_that_waits_in_vain_is_told_that_another_holds_the_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_BUSY_SECONDS", "_PATIENCE_SECONDS"):
        monkeypatch.setattr(database, name, 0.2, raising=False)
    store, other = open_store(path), open_store(path)
    with store.write(), pytest.raises(EnvironmentUnfitError, match="another process has held it locked"), other.write():
        pass


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_pipe_in_place_of_one_of_the_stores_files_is_not_waited_for(lab: Lab, suffix: str) -> None:
    """SQLite opens what lies beside a database, and at a pipe waits for ever for somebody who writes."""
    database = lab.results.database
    lab.done(run_id(0))
    lab.ingest()
    lab.store.close()
    path = database.with_name(database.name + suffix)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(DamagedStoreError, match=f"{path.name} is no regular file"):
        open_store(database)
    store, aside = rebuild(lab.results)
    assert aside is not None and not path.is_fifo()
    assert select_runs(store, columns=("run_id",)) == [{"run_id": run_id(0)}]
    store.close()
