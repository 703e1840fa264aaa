"""That a change has one place: what it takes to record another measured quantity.

A copy of the package is given one field in the schema and the line that measures it; everything else follows.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import write_spec

PACKAGE = Path(__file__).parents[1] / "itopctl"
FIELD = """    idle_seconds: Real | None = _result(
        "time without work", Unit.SECONDS, "idle", better=Better.LOWER
    )
"""
MEASURED = '        "idle_seconds": 90.0,\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package that measures one quantity more, and a sweep that was made with it."""
    folder = tmp_path_factory.mktemp("one place")
    shutil.copytree(PACKAGE, folder / "itopctl", ignore=shutil.ignore_patterns("__pycache__"))
    insert(folder / "itopctl/schema/run.py", FIELD, before="    left_dense: ")
    insert(folder / "itopctl/train/result.py", MEASURED, before='        "threads": ')
    version = folder / "itopctl/schema/__init__.py"
    version.write_text(version.read_text().replace("VERSION = 6", "VERSION = 7"))
    write_spec(
        folder,
        base={"dataset": "digits", "model": "lenet-300-100", "epochs": 1, "sparsity": 0.9, "update_interval": 5},
        grid={"method": ["static", "set-itop"]},
    )
    told(folder, "sweep", "spec.yaml")
    return folder


def insert(path: Path, text: str, before: str) -> None:
    content = path.read_text(encoding="utf-8")
    assert content.count(before) == 1, (path, before)
    path.write_text(content.replace(before, text + before), encoding="utf-8")


def told(folder: Path, *arguments: str) -> str:
    """What a command of that package says."""
    command = [sys.executable, "-m", "itopctl", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_quantity_that_is_declared_and_measured_is_in_every_output(folder: Path) -> None:
    runs = json.loads(told(folder, "report", "-t", "runs", "--json"))
    assert [run["idle_seconds"] for run in runs] == [90.0, 90.0]
    assert told(folder, "report", "-t", "runs", "--format", "csv").splitlines()[0].count(",idle_seconds,") == 1
    shown = told(folder, "show", runs[0]["run_id"])
    assert "time without work" in shown and "1 min 30 s" in shown
    assert json.loads(told(folder, "show", runs[0]["run_id"], "--json"))["idle_seconds"] == 90.0
    assert "time without work" in told(folder, "list", "fields")


def test_it_can_be_asked_for_like_every_other(folder: Path) -> None:
    pivot = told(folder, "report", "-t", "pivot", "--rows", "method", "--cell", "idle_seconds")
    assert "idle" in pivot and "1 min 30 s" in pivot and "time without work" in pivot
    chosen = ("report", "-t", "runs", "--columns", "method,idle_seconds", "--json")
    assert json.loads(told(folder, *chosen, "--where", "idle_seconds > 89")) == [
        {"method": "static", "idle_seconds": 90.0}, {"method": "set-itop", "idle_seconds": 90.0},
    ]  # fmt: skip
    assert json.loads(told(folder, *chosen, "--where", "idle_seconds > 90")) == []


def test_a_store_of_the_version_before_gets_it(folder: Path, tmp_path: Path) -> None:
    """Results of the present version are read; what they did not measure is not there."""
    old = tmp_path / "old"
    shutil.copytree(Path(__file__).parent / "cli" / "before_schema" / "recorded", old)
    runs = json.loads(told(folder, "report", "-t", "runs", "--json", "--results", str(old)))
    assert len(runs) == 18 and {run["idle_seconds"] for run in runs} == {None}
