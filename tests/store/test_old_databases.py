"""Databases that older versions of itopctl made: `databases/v1.db` to `v5.db`, with the folders that they index.

Each was written by the code of its schema version, which ran three tiny runs on digits: two done, one failed for its
learning rate. They are never made anew: what is tested is that files of the past can be read.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from itopctl.store import tables
from itopctl.store.database import Store, open_store
from itopctl.store.ingest import ingest
from itopctl.store.queries import run_details, run_states, select_runs, sweep_summaries
from itopctl.store.rundir import Results
from tests.faults.mounts import small_disk
from tests.helpers import itopctl
from tests.store.builders import broken_off_at, contents

DATABASES = Path(__file__).parent / "databases"
DENSE, FAILED, SET = "eb84d5a71aa6", "71c0dc811ea0", "527d7f6d850c"
WHY = "the loss became nan at step 2"


@pytest.fixture(params=sorted(range(1, tables.SCHEMA_VERSION)))
def version(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture
def folder(version: int, tmp_path: Path) -> Path:
    """A results folder of that version, as somebody left it."""
    folder = tmp_path / "old results"
    shutil.copytree(DATABASES / f"v{version}", folder)
    shutil.copy(DATABASES / f"v{version}.db", folder / "itop.db")
    return folder


def rows(database: Path) -> dict[str, list[tuple[Any, ...]]]:
    """What is in an SQLite file, by the library alone."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    found = {name: sorted(map(repr, connection.execute(f"SELECT * FROM {name}"))) for name in names}
    connection.close()
    return found


def told(folder: Path, *arguments: str) -> Any:
    """What a command answers in JSON about a results folder."""
    answer = itopctl(*arguments, "--json", "--results", folder)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert answer.stderr == ""
    return json.loads(answer.stdout)


def test_there_is_a_database_of_every_version_before_this_one() -> None:
    assert sorted(path.stem for path in DATABASES.glob("*.db")) == [f"v{n}" for n in range(1, tables.SCHEMA_VERSION)]


def test_a_file_holds_what_its_version_says(version: int) -> None:
    assert rows(DATABASES / f"v{version}.db")["meta"] == [f"('schema_version', '{version}')"]


def test_the_index_of_a_folder_is_emptied_and_filled_from_the_folder(folder: Path) -> None:
    store = open_store(folder / "itop.db")
    assert rows(folder / "itop.db")["meta"] == [f"('schema_version', '{tables.SCHEMA_VERSION}')"]
    assert not any(rows for name, rows in contents(store).items() if name != "meta")
    ingest(store, Results(folder))
    assert len(select_runs(store)) == 3
    fresh = Store("sqlite://")
    ingest(fresh, Results(folder))
    assert contents(store) == contents(fresh)
    store.close()
    assert not list(folder.glob("*backup*"))


def test_several_that_open_an_index_at_once_and_fill_it_all_find_it_whole(folder: Path) -> None:
    together = threading.Barrier(8)

    def look(_: int) -> dict[str, Any]:
        together.wait(20)
        store = open_store(folder / "itop.db")
        ingest(store, Results(folder))
        found = run_states(store)
        store.close()
        return found

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(look, range(8)))
    assert len(found[0]) == 3 and all(states == found[0] for states in found)


@pytest.mark.parametrize("moment", ["CREATE TABLE", "INSERT INTO meta", "INSERT INTO runs", "INSERT INTO layers"])
def test_a_kill_while_an_index_is_rebuilt_leaves_one_that_the_next_command_completes(folder: Path, moment: str) -> None:
    expected = Store("sqlite://")
    ingest(expected, Results(folder))
    with broken_off_at(moment), pytest.raises(KeyboardInterrupt):
        ingest(open_store(folder / "itop.db"), Results(folder))
    store = open_store(folder / "itop.db")
    ingest(store, Results(folder))
    assert contents(store) == contents(expected)
    store.close()


@pytest.mark.parametrize("hindrance", ["read-only", "full"])
def test_where_an_index_cannot_be_rebuilt_commands_read_the_folder(
    folder: Path, tmp_path: Path, hindrance: str
) -> None:
    with small_disk(tmp_path / "small disk", megabytes=3) as disk:
        results = shutil.copytree(folder, disk.path / "results")
        disk.read_only() if hindrance == "read-only" else disk.fill()
        answer = itopctl("status", "--json", "--results", results)
        assert answer.returncode == 0 and "Read from the run directories instead" in answer.stderr
        assert json.loads(answer.stdout)[0]["done"] == 2
        disk.read_only(False)
        disk.make_room()
        assert told(results, "status")[0]["done"] == 2
        assert rows(results / "itop.db")["meta"] == [f"('schema_version', '{tables.SCHEMA_VERSION}')"]


def test_a_store_named_by_a_url_keeps_its_rows_whatever_the_folder_holds(version: int, folder: Path) -> None:
    for name in ("runs", "sweeps"):
        shutil.rmtree(folder / name)
    store = Store(f"sqlite:///{folder / 'itop.db'}")
    (summary,) = sweep_summaries(store)
    assert (summary["sweep"], summary["done"], summary["failed"]) == ("old", 2, 1)
    found = {run["run_id"]: run for run in select_runs(store)}
    assert {run_id: run["state"] for run_id, run in found.items()} == {DENSE: "done", SET: "done", FAILED: "failed"}
    assert found[DENSE]["test_accuracy"] == pytest.approx(0.886111, abs=1e-6)
    details = run_details(store, FAILED)
    (attempt,) = details["attempt_history"]
    assert (attempt["cause"], attempt["host"]) == ("user-error", "pc")
    assert (attempt["log"] is None) == (version < 3)
    assert attempt["message"].startswith(WHY)
    assert run_details(store, SET)["layers"] and run_details(store, SET)["evaluations"]
    store.close()


def test_commands_tell_of_its_runs_as_ever(folder: Path) -> None:
    (sweep,) = told(folder, "status")
    assert (sweep["sweep"], sweep["total"], sweep["done"], sweep["failed"]) == ("old", 3, 2, 1)
    reported = {run["run_id"]: run for run in told(folder, "report", "-t", "runs")}
    assert reported[SET]["exploration_rate"] == pytest.approx(0.18, abs=0.01)
    shown = told(folder, "show", FAILED)
    assert shown["message"].startswith(WHY) and shown["config"]["optimizer"]["lr"] == 1e20


def test_what_it_says_is_what_a_store_made_anew_says(folder: Path) -> None:
    before = {command: told(folder, *command) for command in (("status",), ("report", "-t", "runs"), ("show", SET))}
    assert itopctl("store", "check", "--results", folder).returncode == 0
    (folder / "itop.db").unlink()
    assert {command: told(folder, *command) for command in before} == before


def test_the_failed_run_can_be_tried_again(folder: Path) -> None:
    plan = itopctl("retry", "--dry-run", "--results", folder)
    assert plan.returncode == 0 and FAILED in plan.stdout
