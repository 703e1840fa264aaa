"""A quota that is used up, from any moment of a run on: said and recorded as a full disk is.

The error is raised in place of the system call: a file system with quotas is more than tests can bring up.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from itopctl.config.identity import run_id
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.dispatch.manifest import record_config
from itopctl.store import files
from itopctl.store.files import Change
from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests.helpers import run_config


@pytest.mark.parametrize("first", [0, 3, 12, 25])
def test_a_run_whose_owner_has_used_up_a_quota_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    config = run_config(method="set-itop", batch_size=500, epochs=3, update_interval=2, checkpoint_minutes=1e-9)
    results = Results(tmp_path / "results")
    record_config(results, run_id(config), config)
    writes = 0

    def refuse(change: Change) -> None:
        nonlocal writes
        writes += change.kind == "write"
        if (
            change.kind == "write"
            and writes > first
            and not (change.path.name == "journal.jsonl" and b'"failed"' in change.data)
        ):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(files, "watchers", [refuse])
    ended = execute(results.run(run_id(config)), Path("data"), Job(), lambda: None)
    assert (ended.state, ended.cause) == ("failed", "disk-full"), ended
    assert "quota" in (ended.message or "").lower()
    events = read_journal(results.run(run_id(config)).journal).events
    assert [event["cause"] for event in events if event["event"] == "failed"] in (["disk-full"], [])
    monkeypatch.setattr(files, "watchers", [])
    assert execute(results.run(run_id(config)), Path("data"), Job(), lambda: None).state == "done"
