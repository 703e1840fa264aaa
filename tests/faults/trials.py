"""One tiny real run, attempts at it that are disturbed, and all that must be the same in the end.

The run has six steps in two epochs, two topology updates, and a checkpoint after every step.
"""

from __future__ import annotations

import errno
import json
import os
import pickle
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

import torch

import itopctl.train.loop
import itopctl.train.measure  # noqa: F401  what attempts import when they need it
from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.dispatch.manifest import record_config
from itopctl.store import files, tables
from itopctl.store.checkpoints import checkpoints
from itopctl.store.database import Store
from itopctl.store.files import Change, read_json
from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results, RunDirectory
from itopctl.train.checkpoint import decode
from tests.dispatch.told import lab_at
from tests.faults.mounts import fill
from tests.helpers import run_config
from tests.store.builders import Lab, contents

CONFIG: RunConfig = run_config(
    method="rigl-itop", batch_size=500, epochs=2, update_interval=2, checkpoint_minutes=1e-9, keep_checkpoints=True,
    optimizer={"name": "sgd", "lr": 0.3, "momentum": 0.9},
)  # fmt: skip
RUN = run_id(CONFIG)
SWEEP = "trial"
DATA = Path("data")
ATTEMPT = f"{__name__}:attempt"
"""For `Zygote.call`."""

_TIMES = {
    "wall_seconds",
    "steps_per_second",
    "peak_memory_bytes",
    "energy_joules",
    "training_seconds",
    "finished_at",
    "attempt",
}


# Attempts, each in a process of its own -------------------------------------------------------------------------


def attempt(
    results: str, kill_at: int | None = None, torn: bool = False, tidy: bool = False, record: str | None = None,
    memory: int | None = None, ballast: str | None = None, fill_at: int | None = None, fill_after: float | None = None,
    unreadable: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make an attempt at the run.

    Args:
        results: the results folder.
        kill_at: SIGKILL itself before the change of this number, from 0.
        torn: if that change is a write, half of it is made.
        tidy: no checkpoint is kept.
        record: file for a list of all changes, those included that prepare the run.
        memory: bytes that this process may take at most.
        ballast: a file that fills the disk, before the change of number `fill_at`, or `fill_after` so many seconds.
        unreadable: number of the error that opening a checkpoint gives; ENOMEM: of the kind that Python raises then.

    Returns:
        How it ended, the kinds of all changes that were made, and whether output goes where it went before.
    """
    os.fsync = lambda handle: None  # what is killed is not the machine
    folder = Results(Path(results))
    if memory is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    changes: list[Change] = []
    files.watchers.append(changes.append)
    record_config(folder, RUN, CONFIG.model_copy(update={"keep_checkpoints": not tidy}))
    prepared = len(changes)
    if kill_at is not None:
        files.watchers.append(killer(kill_at, torn))
    if ballast is not None:
        _fill(Path(ballast), fill_at, fill_after)
    if unreadable is not None:
        _keep_from_opening_checkpoints(unreadable)
    output = [Path(f"/proc/self/fd/{number}").readlink() for number in (1, 2)]
    ended = execute(folder.run(RUN), DATA, Job(), lambda: None)
    restored = output == [Path(f"/proc/self/fd/{number}").readlink() for number in (1, 2)]
    if record is not None:
        Path(record).write_bytes(pickle.dumps(changes))
    kinds = [change.kind for change in changes[prepared:]]
    told = {"state": ended.state, "cause": ended.cause, "message": ended.message}
    return {**told, "changes": kinds, "restored": restored}


def _keep_from_opening_checkpoints(number: int) -> None:
    def refusing(path: Any, *arguments: Any, **about: Any) -> int:
        if Path(path).name.startswith("checkpoint-"):
            raise MemoryError if number == errno.ENOMEM else OSError(number, os.strerror(number), str(path))
        return really(path, *arguments, **about)

    really, os.open = os.open, refusing


def _fill(ballast: Path, at: int | None, after: float | None) -> None:
    if after is not None:
        Timer(after, fill, [ballast]).start()
        return
    made: list[Change] = []

    def watch(change: Change) -> None:
        if len(made) == at:
            fill(ballast)
        made.append(change)

    files.watchers.append(watch)


def killer(number: int, torn: bool = False) -> Callable[[Change], None]:
    """A watcher that kills this process before a change, or, `torn`, in the middle of it if it is a write."""
    left = number

    def watch(change: Change) -> None:
        nonlocal left
        if left == 0:
            if torn and change.kind == "write":
                with change.path.open("ab") as file:
                    file.write(change.data[: len(change.data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    return watch


# What must be the same ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Numbers:
    """All that a run ends with, times excepted.

    Attributes:
        result: of `result.json`.
        evaluations: rows of the store, by kind and step.
        layers: rows of the store.
        state: of the newest checkpoint: weights, masks, explored sets, optimizer, generators.
        network: content of `network.pt`; None where there was no room for it.
    """

    result: dict[str, Any]
    evaluations: dict[tuple[str, int], dict[str, Any]]
    layers: list[dict[str, Any]]
    state: Any
    network: bytes | None

    def check(self, others: Numbers) -> None:
        """Fail where anything differs in a single bit."""
        assert self.result == others.result
        assert self.evaluations == others.evaluations
        assert self.layers == others.layers
        assert_same(self.state, others.state)
        assert self.network in (None, others.network)


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing happened to: what it ends with, and the kinds of the changes that it made."""

    numbers: Numbers
    changes: list[str]


def numbers(lab: Lab) -> Numbers:
    """Of a finished run, as its files and a store that is up to date have them."""
    run = lab.results.run(RUN)
    result = read_json(run.result)
    assert result is not None
    network = run.network.read_bytes() if run.network.exists() else None
    found = evaluations(lab.store), rows(lab.store, "layers"), newest_state(run)
    return Numbers(without_times(result), *found, network)


def newest_state(run: RunDirectory) -> Any:
    """What the newest whole checkpoint holds, as far as it must be the same."""
    state = decode(checkpoints(run)[0].read())
    del state["journal"]
    # One of the last step may be from before its evaluation, which is in the journal and the result.
    for name in ("epochs_ended", "epoch_loss_sum", "epoch_loss_steps", "best"):
        del state["progress"][name]
    return without_times(state)


def evaluations(store: Store) -> dict[tuple[str, int], dict[str, Any]]:
    """Rows of the store, by kind and step."""
    return {(row["kind"], row["step"]): without_times(row) for row in rows(store, "evaluations")}


def rows(store: Store, table: str) -> list[dict[str, Any]]:
    names = [column.name for column in tables.metadata.tables[table].columns]
    return [dict(zip(names, row, strict=True)) for row in contents(store)[table]]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in _TIMES}
    return value


def assert_same(one: Any, other: Any, where: str = "state") -> None:
    """Fail where two nested values differ in a single bit."""
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert one.dtype == other.dtype and one.shape == other.shape, where
        bits, others = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
        assert bool((bits == others).all()), where
    elif isinstance(one, dict):
        assert list(one) == list(other), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), where
        for number, pair in enumerate(zip(one, other, strict=True)):
            assert_same(*pair, f"{where}[{number}]")
    else:
        assert one == other, where


# What must hold at any time -------------------------------------------------------------------------------------


def begun(folder: Path) -> Lab:
    """A results folder with the run in a sweep, not begun, and a store that stays as long as the object."""
    lab = lab_at(folder)
    lab.sweep(SWEEP, {RUN: CONFIG.model_dump(mode="json")})
    return lab


def check_what_readers_see(lab: Lab, whole: Numbers) -> str:
    """The store is right about what is on disk, whenever it looks; returns the run's state.

    It says `done` only of a whole result; it has no evaluation that the undisturbed run does not have; and it is no
    other than one that is made anew.
    """
    row = lab.row(RUN)
    run = lab.results.run(RUN)
    result = read_json(run.result)
    assert (row["state"] == "done") == (result is not None)
    if result is not None:
        assert without_times(result) == whole.result
        assert row["test_accuracy"] == whole.result["test_accuracy"]
        assert evaluations(lab.store) == whole.evaluations
    else:
        assert row["state"] in ("queued", "lost", "failed"), "its process is gone"
        assert row["test_accuracy"] is None
    assert evaluations(lab.store).items() <= whole.evaluations.items()
    fresh = lab_at(lab.results.path)
    fresh.ingest()
    assert without_stamps(fresh.everything()) == without_stamps(lab.everything())
    return str(row["state"])


def without_stamps(found: dict[str, list[tuple[Any, ...]]]) -> dict[str, Any]:
    return {name: some for name, some in found.items() if name != "meta"}


def check_the_end(lab: Lab, whole: Numbers) -> None:
    """The run is done as if nothing had happened, and nothing is left lying about."""
    assert check_what_readers_see(lab, whole) == "done"
    numbers(lab).check(whole)
    run = lab.results.run(RUN)
    check_journal(run)
    if not run.network.exists():
        assert "the trained network is not kept" in run.log.read_text()
    assert left_in(run) | {"log.txt", "network.pt"} == {
        "checkpoint", "config.json", "environment.json", "journal.jsonl", "log.txt", "network.pt", "result.json",
    }  # fmt: skip


def left_in(run: RunDirectory) -> set[str]:
    """Names of a run's files; all checkpoints as one."""
    return {path.name.partition("-")[0] for path in run.path.iterdir()}


def check_journal(run: RunDirectory) -> None:
    """Attempts one after the other, events numbered through, one end at most of each attempt."""
    part = read_journal(run.journal)
    if part.torn:  # killed while it said that it had finished
        assert part.events[-1]["event"] not in ("finished", "failed")
    assert [event["seq"] for event in part.events] == list(range(1, len(part.events) + 1))
    attempts = [event["attempt"] for event in part.events]
    assert attempts == sorted(attempts)
    assert set(attempts) == set(range(1, max(attempts) + 1))
    for number in set(attempts):
        kinds = [event["event"] for event in part.events if event["attempt"] == number]
        assert kinds.count("started") == (kinds != ["failed"]), "a full disk may leave room for the last word alone"
        assert kinds[0] in ("started", "failed")
        assert kinds.count("finished") + kinds.count("failed") <= 1
    assert json.loads(run.result.read_text())["attempt"] == max(attempts)
