"""`itopctl store`: checking, making anew, exchanging."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest

from tests.conftest import FinishedSweep
from tests.helpers import itopctl


@pytest.fixture
def results(finished_sweep: FinishedSweep, tmp_path: Path) -> Path:
    """A copy of a results folder with finished runs."""
    copy = tmp_path / "my results"
    shutil.copytree(finished_sweep.results, copy)
    return copy


def rows(results: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(itopctl("report", "-t", "runs", "--json", "--results", results).stdout)
    return found


def findings(results: Path, code: int) -> list[dict[str, str]]:
    done = itopctl("store", "check", "--json", "--results", results)
    assert done.returncode == code, done.stdout + done.stderr
    found: list[dict[str, str]] = json.loads(done.stdout)
    return found


def test_a_sound_folder_has_nothing_to_tell(results: Path) -> None:
    assert findings(results, 0) == []


def test_a_row_that_differs_from_its_files_is_a_problem_that_a_rebuild_puts_right(results: Path) -> None:
    before = rows(results)
    with sqlite3.connect(results / "itop.db") as database:
        database.execute("UPDATE runs SET test_accuracy = 1.0")
        database.execute("DELETE FROM layers")
    found = findings(results, 1)
    assert {one["kind"] for one in found} == {"problem"}
    assert any("test_accuracy is 1.0" in one["what"] for one in found)
    assert any(one["where"].startswith("layers ") for one in found)
    assert itopctl("store", "rebuild", "--results", results).returncode == 0
    assert findings(results, 0) == []
    assert rows(results) == before


def test_damaged_files_of_runs_are_problems(results: Path) -> None:
    first, second, *_ = sorted((results / "runs").iterdir())
    (first / "result.json").write_text("{")
    config = json.loads((second / "config.json").read_text())
    config["config"]["seed"] += 1000
    (second / "config.json").write_text(json.dumps(config))
    said = {(one["where"], one["what"].split(" ")[1]) for one in findings(results, 1) if one["kind"] == "problem"}
    assert {(first.name, "result.json"), (second.name, "config.json")} <= said


@pytest.mark.parametrize("content", [b"no database at all", b"", b"SQLite format 3\0" + b"\xff" * 5000])
def test_whatever_became_of_the_database_it_is_made_anew(results: Path, content: bytes) -> None:
    before = rows(results)
    for beside in results.glob("itop.db*"):
        beside.unlink()
    (results / "itop.db").write_bytes(content)
    assert itopctl("store", "rebuild", "--results", results).returncode == 0
    assert rows(results) == before
    kept = [path.read_bytes() for path in results.glob("itop.db.damaged-*")]
    assert kept == ([content] if content else [])


def test_a_database_with_triggers_is_refused_and_made_anew(results: Path) -> None:
    before = rows(results)
    with sqlite3.connect(results / "itop.db") as database:
        database.execute("CREATE TRIGGER sly AFTER UPDATE ON runs BEGIN DELETE FROM sweeps; END")
    refused = itopctl("status", "--results", results)
    assert refused.returncode == 3 and "trigger 'sly'" in refused.stderr and "store rebuild" in refused.stderr
    assert itopctl("store", "rebuild", "--results", results).returncode == 0
    assert rows(results) == before


@pytest.mark.parametrize("name", ["runs.tar", "runs.tar.gz", "runs.tar.xz"])
def test_what_is_exported_and_imported_elsewhere_is_the_same(results: Path, tmp_path: Path, name: str) -> None:
    assert itopctl("store", "export", tmp_path / name, "--results", results).returncode == 0
    taken = itopctl("store", "import", tmp_path / name, "--results", tmp_path / "theirs")
    assert taken.returncode == 0, taken.stdout + taken.stderr
    assert rows(tmp_path / "theirs") == rows(results)
    assert findings(tmp_path / "theirs", 0) == []
    again = itopctl("store", "import", tmp_path / name, "--results", tmp_path / "theirs")
    assert again.returncode == 0 and "0 runs taken over" in again.stdout


def test_two_folders_are_merged_and_results_that_differ_stay_what_they_were(results: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(results, theirs)
    one, other, *_ = sorted(path.name for path in (results / "runs").iterdir())
    shutil.rmtree(results / "runs" / one)
    path = theirs / "runs" / other / "result.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "test_accuracy": 0.123}))
    done = itopctl("store", "import", theirs, "--results", results)
    assert done.returncode == 1
    assert "1 run taken over" in done.stdout and f"{other} is finished here with other results" in done.stdout
    found = {str(row["run_id"]): row["test_accuracy"] for row in rows(results)}
    assert found[one] is not None and found[other] != 0.123
    assert findings(results, 0) == []


def test_a_result_that_is_not_its_configs_is_not_taken(results: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    shutil.copytree(results, theirs)
    first = sorted((theirs / "runs").iterdir())[0]
    shutil.move(first, first.with_name("0123456789ab"))
    done = itopctl("store", "import", theirs, "--results", tmp_path / "new")
    assert done.returncode == 1 and "0123456789ab was not taken: its config.json describes run" in done.stdout
    assert not (tmp_path / "new" / "runs" / "0123456789ab").exists()


@pytest.mark.parametrize("name", ["runs.tar", "runs.tar.gz"])
def test_an_archive_that_was_cut_off_between_two_files_is_not_taken_for_whole(
    results: Path, tmp_path: Path, name: str
) -> None:
    assert itopctl("store", "export", tmp_path / name, "--results", results).returncode == 0
    with tarfile.open(tmp_path / name) as archive:
        members = [member for member in archive if member.name.endswith("config.json")]
        cut = members[1].offset
    opened = gzip.open if name.endswith("gz") else open
    with opened(tmp_path / name, "rb") as file:
        whole = file.read()
    with opened(tmp_path / name, "wb") as file:
        file.write(whole[:cut])
    done = itopctl("store", "import", tmp_path / name, "--results", tmp_path / "theirs")
    assert done.returncode == 2 and "ends before its end" in done.stderr, done
