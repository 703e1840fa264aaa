"""Databases that older versions of itopctl made: `databases/v1.db` to `v4.db`, with the folders that they index.

Each was written by the code of its schema version, which ran three tiny runs on digits: two done, one failed for its
learning rate. They are never made anew: what is tested is that files of the past can be read.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from itopctl.store import tables
from itopctl.store.database import open_store
from itopctl.store.queries import run_details, select_runs, sweep_summaries
from tests.helpers import itopctl

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


def test_opening_one_brings_it_to_the_present_version(folder: Path) -> None:
    open_store(folder / "itop.db").close()
    assert rows(folder / "itop.db")["meta"] == [f"('schema_version', '{tables.SCHEMA_VERSION}')"]


def test_a_copy_of_the_old_file_stays_beside_it(version: int, folder: Path) -> None:
    before = rows(folder / "itop.db")
    open_store(folder / "itop.db").close()
    backup = folder / f"itop.db.v{version}.backup"
    assert rows(backup) == before
    assert [path.name for path in folder.glob("*.backup")] == [backup.name]


def test_opening_it_twice_makes_no_second_copy(version: int, folder: Path) -> None:
    open_store(folder / "itop.db").close()
    backup = folder / f"itop.db.v{version}.backup"
    before = backup.stat().st_mtime_ns, backup.read_bytes()
    open_store(folder / "itop.db").close()
    assert (backup.stat().st_mtime_ns, backup.read_bytes()) == before


def test_its_rows_are_read_before_anything_else_is_looked_at(version: int, folder: Path) -> None:
    for name in ("runs", "sweeps"):
        shutil.rmtree(folder / name)
    store = open_store(folder / "itop.db")
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
