"""`itopctl forget` as it is typed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.dispatch.told import finishes
from tests.helpers import itopctl
from tests.store.builders import Lab, config, run_id

A, B = run_id(1), run_id(2)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    lab = Lab.at(tmp_path / "results")
    for run in (A, B):
        finishes(lab, run)
    lab.sweep("mine", {A: config()})
    lab.sweep("ours", {A: config(), B: config()})
    lab.store.close()
    return lab.results.path


def test_it_says_what_would_go_and_deletes_nothing_without_being_told(results: Path) -> None:
    asked = itopctl("forget", "ours", "--results", results)
    assert asked.returncode == 2 and "--yes" in asked.stderr
    assert "this would delete 1 sweep (ours) and 1 run, 1 of them finished (" in asked.stderr
    assert asked.stdout == "1 run stays, since mine has it, too.\n"
    assert (results / "runs" / B / "result.json").exists()


def test_with_yes_it_is_gone(results: Path) -> None:
    done = itopctl("forget", "ours", "--yes", "--results", results)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].startswith("Deleted 1 sweep (ours) and 1 run, 1 of them finished (")
    assert {path.name for path in (results / "runs").iterdir()} == {A}
    assert itopctl("store", "check", "--results", results, "--json").stdout.count('"problem"') <= 1
    status = itopctl("status", "--results", results).stdout
    assert "mine" in status and "ours" not in status


def test_nothing_named_is_a_mistake_and_not_everything(results: Path) -> None:
    asked = itopctl("forget", "--yes", "--results", results)
    assert asked.returncode == 2 and "SWEEP|RUN" in asked.stderr
    assert len(list((results / "runs").iterdir())) == 2
