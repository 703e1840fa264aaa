"""A process that its scheduler gave up for dead while it lived on must not spoil what the next start does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from itopctl.config.identity import run_id
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.dispatch.manifest import record_config
from itopctl.store.files import write_json
from itopctl.store.rundir import Results, RunDirectory
from tests.helpers import run_config

CONFIG = run_config(epochs=4)
OTHER = {"host": "node2", "pid": 5, "start": "2", "job_id": "slurm:c:77_0", "job_start": 1}


@pytest.fixture
def run(tmp_path: Path, no_waiting_for_the_disk: None) -> RunDirectory:
    results = Results(tmp_path / "my results")
    record_config(results, run_id(CONFIG), CONFIG)
    return results.run(run_id(CONFIG))


def taken_over_at(run: RunDirectory, epoch: int) -> tuple[str, int]:
    """Train, and lose the run at the end of an epoch; returns how it ended, and the journal's lines at that moment."""
    lines = 0

    def notify(event: dict[str, Any]) -> None:
        nonlocal lines
        if event["event"] == "evaluated" and event["epoch"] == epoch:
            write_json(run.lock, OTHER)
            lines = len(run.journal.read_text().splitlines())

    ended = execute(run, Path("data"), Job("slurm", "77_0", "c", 0), lambda: None, notify)
    return ended.state, lines


@pytest.mark.parametrize("epoch", [1, 4])
def test_who_lost_its_run_writes_neither_result_nor_checkpoint_nor_an_end(run: RunDirectory, epoch: int) -> None:
    state, lines = taken_over_at(run, epoch)
    assert state == "elsewhere"
    assert not run.result.exists()
    assert json.loads(run.lock.read_text()) == OTHER
    events = [json.loads(line)["event"] for line in run.journal.read_text().splitlines()[lines:]]
    assert not {"finished", "failed", "checkpoint"} & set(events)


def test_nor_anything_else_in_the_journal_that_is_the_others_now(run: RunDirectory) -> None:
    _, lines = taken_over_at(run, 1)
    assert len(run.journal.read_text().splitlines()) == lines
