"""A worker that dies in the last moments of a run, between its result and its last word, at each file it changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests.chaos.check import different_files, different_stores, left_behind
from tests.helpers import itopctl, started, write_spec

# A model of the user's runs in the worker: it listens to what the interpreter is about to do to files, and dies once.
DEADLY = """
import os, pathlib, signal, sys, torch

def make(input_shape, classes, event, starts, pool_too):
    run = pathlib.Path(os.readlink("/proc/self/fd/1")).parent
    died = run.parent.parent / f"died-{run.name}"

    def listen(name, arguments):
        if name != event or died.exists():
            return
        changed = os.path.basename(os.fspath(arguments[1 if name == "os.rename" else 0]))
        if changed.startswith(starts) and (name == "os.rename" or (run / "result.json").exists()):
            died.touch()
            if pool_too:
                worker = pathlib.Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
                os.kill(int(worker[1]), signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)

    if os.environ.get("DEADLY"):
        sys.addaudithook(listen)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))
"""
MOMENTS = {
    "before_its_result": ("os.rename", "result.json"),
    "before_its_checkpoint_goes": ("os.remove", "checkpoint"),
    "before_its_lock_goes": ("os.remove", "lock"),
}


@pytest.mark.slow
@pytest.mark.parametrize("pool_too", [False, True], ids=["worker", "worker and command"])
@pytest.mark.parametrize("moment", list(MOMENTS))
def test_a_worker_that_dies_as_its_run_ends_loses_nothing_and_leaves_nothing(
    moment: str, pool_too: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "\n".join(
        f"def {name}(input_shape, classes):\n    return make(input_shape, classes, {event!r}, {starts!r}, {pool_too})\n"
        for name, (event, starts) in MOMENTS.items()
    )
    (tmp_path / "deadly.py").write_text(DEADLY + model)
    base: dict[str, Any] = {"dataset": "digits", "model": f"deadly:{moment}", "method": "set-itop", "sparsity": 0.5,
                            "epochs": 4, "update_interval": 5, "checkpoint_minutes": 0.00001}  # fmt: skip
    spec = write_spec(tmp_path, base=base, grid={"seed": [0]})
    reference, results = Results(tmp_path / "in peace"), Results(tmp_path / "results")
    assert itopctl("sweep", spec, "--results", reference.path, cwd=tmp_path).returncode == 0
    first = started("sweep", spec, "--results", results.path, cwd=tmp_path, DEADLY="1")
    (run_id,) = results.run_ids()
    assert (results.path / f"died-{run_id}").exists(), first.stdout + first.stderr
    assert first.returncode == (-9 if pool_too else 0)
    last = started("sweep", spec, "--results", results.path, cwd=tmp_path, DEADLY="1")
    assert last.returncode == 0
    events = [event["event"] for event in read_journal(results.run(run_id).journal).events]
    assert events.count("started") == (2 if moment == "before_its_result" else 1)
    assert not [*different_files(results, reference), *different_stores(results, reference)]
    assert not list(left_behind(results))
