"""A pool of worker processes on this machine: bounded, each with its share of cores or a GPU of its own.

The pool's own process imports no torch. It hands runs to workers, replaces a worker that dies, and tells an
observer what happens. It stops when asked (after the current step of each run), kills when asked twice, and gives
up after many quick failures in a row.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from itopctl.dispatch.causes import RETRIED_AT_ONCE, Cause, describe_exit
from itopctl.errors import EnvironmentUnfitError
from itopctl.store.journal import JournalWriter
from itopctl.store.rundir import Results, release_lock_of_the_dead

MAX_ATTEMPTS = 3
"""Attempts at one run in one sweep command, where its worker was killed."""

QUICK_SECONDS = 30.0
QUICK_FAILURES = 5
"""So many runs in a row that fail within `QUICK_SECONDS` stop the sweep."""

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Slot:
    """A place for one worker: its threads, and the GPU it sees (None: no GPU)."""

    threads: int
    gpu: str | None = None


def plan_slots(workers: int | None, runs_per_gpu: int, cores: int, gpus: Sequence[str]) -> list[Slot]:
    """Places for workers on this machine.

    With GPUs: `runs_per_gpu` on each; without: one a core. `workers` overrides the number. Cores are divided
    among the places, so that a run has the same threads however many runs there are.
    """
    count = workers or (len(gpus) * runs_per_gpu if gpus else cores)
    threads = max(1, cores // count)
    return [Slot(threads, gpus[index % len(gpus)] if gpus else None) for index in range(count)]


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """GPUs this process may use, as values for `CUDA_VISIBLE_DEVICES`; asked of the driver's own tool."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() and name.strip() != "-1"]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


class Observer(Protocol):
    """What a pool tells while it runs."""

    def event(self, event: dict[str, Any]) -> None:
        """An event of a run, `run_id` included."""

    def started(self, run_id: str) -> None:
        """A worker has taken up a run."""

    def ended(self, run_id: str, state: str, cause: Cause | None, message: str | None, again: bool) -> None:
        """An attempt ended; `again`: the run waits for another."""

    def tick(self) -> None:
        """Called several times a second."""


@dataclass
class Outcome:
    """How a pool's work ended.

    Attributes:
        states: run id → `done`, `failed`, `cancelled` or `elsewhere`, for every run that was started.
        stopped: None, `interrupted`, or `failures` after too many quick ones in a row.
        common_cause: the commonest (cause, message) of those.
    """

    states: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    common_cause: tuple[str, str] | None = None


class _Worker:
    """A worker process, and the run it is at."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.run_id: str | None = None
        self.began = 0.0
        self.ready = False
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker; what it prints outside a run
        self.report, write_end = os.pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(slot.threads),
            "MKL_NUM_THREADS": str(slot.threads),
        }
        environment["CUDA_VISIBLE_DEVICES"] = slot.gpu if slot.gpu is not None else ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "itopctl.dispatch.worker", str(write_end), str(slot.threads)],
            stdin=subprocess.PIPE, stdout=self.output, stderr=self.output, pass_fds=(write_end,),
            start_new_session=True, env=environment,
        )  # fmt: skip
        os.close(write_end)
        self.pending = b""

    def send(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> list[dict[str, Any]] | None:
        """Whole messages that have come; None at the end of the stream."""
        chunk = os.read(self.report, 1 << 16)
        if not chunk:
            return None
        *lines, self.pending = (self.pending + chunk).split(b"\n")
        return [json.loads(line) for line in lines]

    def last_words(self) -> str:
        """The end of what it printed outside a run."""
        self.output.seek(0)
        return self.output.read()[-2000:].decode(errors="replace").strip()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.wait()
        os.close(self.report)
        self.output.close()


class Pool:
    """Runs a queue of runs to the end.

    Args:
        results: the results folder; `prepare` makes the runs' directories in it.
        data_dir: where data sets lie.
        slots: one worker is kept at each.
        observer: is told what happens.
        prepare: called with a run's id before it is handed to a worker; writes its `config.json`.
    """

    def __init__(
        self, results: Results, data_dir: Path, slots: Sequence[Slot], observer: Observer,
        prepare: Callable[[str], None],
    ) -> None:  # fmt: skip
        self.results = results
        self.data_dir = data_dir
        self.slots = slots
        self.observer = observer
        self.prepare = prepare
        self.outcome = Outcome()
        self._queue: deque[str] = deque()
        self._tries: Counter[str] = Counter()
        self._quick_failures: list[tuple[str, str]] = []
        self._workers: dict[int, _Worker] = {}
        self._selector = selectors.DefaultSelector()
        self._kill = False
        self._false_starts = 0

    def stop(self) -> None:
        """Ask to end after the current step of each run; asked again: kill. Safe in a signal handler."""
        if self.outcome.stopped == "interrupted":
            self._kill = True
        self.outcome.stopped = "interrupted"

    def run(self, run_ids: Iterable[str]) -> Outcome:
        """Run them all; returns when no worker is left.

        Raises:
            EnvironmentUnfitError: a worker process could not start.
        """
        self._queue.extend(run_ids)
        told = False
        try:
            for slot in self.slots[: len(self._queue)]:
                self._start_worker(slot)
            while self._workers:
                for key, _ in self._selector.select(_POLL_SECONDS):
                    self._hear(key.data)
                self.observer.tick()
                if self.outcome.stopped and not told:
                    told = True
                    for worker in self._workers.values():
                        worker.send({"stop": True})
                if self._kill:
                    self._kill_all()
        finally:
            if self._workers:  # an error is on its way up
                self.outcome.stopped = self.outcome.stopped or "interrupted"
                self._kill = True
                self._kill_all()
        return self.outcome

    def _start_worker(self, slot: Slot) -> None:
        worker = _Worker(slot)
        self._workers[worker.report] = worker
        self._selector.register(worker.report, selectors.EVENT_READ, worker)

    def _hear(self, worker: _Worker) -> None:
        messages = worker.read()
        if messages is None:
            self._bury(worker)
            return
        for message in messages:
            if "ready" in message:
                worker.ready = True
                self._give(worker)
            elif "ended" in message:
                worker.run_id = None
                self._note_end(message["ended"], message["state"], message["cause"], message["message"], worker.began)
                self._give(worker)
            else:
                self.observer.event(message)

    def _give(self, worker: _Worker) -> None:
        if self.outcome.stopped or not self._queue:
            worker.send({"stop": True})
            return
        run_id = self._queue.popleft()
        worker.run_id, worker.began = run_id, time.monotonic()
        self._tries[run_id] += 1
        self.prepare(run_id)
        self.observer.started(run_id)
        worker.send({"run": str(self.results.run(run_id).path), "data_dir": str(self.data_dir)})

    def _note_end(self, run_id: str, state: str, cause: Cause | None, message: str | None, began: float) -> None:
        again = state == "failed" and cause in RETRIED_AT_ONCE and self._tries[run_id] < MAX_ATTEMPTS
        again = again and not self.outcome.stopped
        if again:
            self._queue.append(run_id)
        self.outcome.states[run_id] = state
        self.observer.ended(run_id, state, cause, message, again)
        if state == "done":
            self._quick_failures.clear()
        elif state == "failed" and time.monotonic() - began < QUICK_SECONDS:
            self._quick_failures.append((cause or "", message or ""))
            if len(self._quick_failures) >= QUICK_FAILURES and not self.outcome.stopped:
                self.outcome.stopped = "failures"
                self.outcome.common_cause = Counter(self._quick_failures).most_common(1)[0][0]

    def _bury(self, worker: _Worker) -> None:
        """A worker's stream has ended: it is gone. Its run, if any, lost an attempt."""
        self._selector.unregister(worker.report)
        del self._workers[worker.report]
        words = worker.last_words()
        worker.close()
        if not worker.ready and not self.outcome.stopped:
            self._false_starts += 1
            if worker.process.returncode >= 0 or self._false_starts >= MAX_ATTEMPTS:
                end = describe_exit(worker.process.returncode)
                raise EnvironmentUnfitError(f"a worker process could not start: {end}.\n{words}")
        if worker.run_id is None:
            self._replace(worker.slot)
            return
        run_id, killed_by_us = worker.run_id, self._kill
        cause: Cause = "cancelled" if killed_by_us else "killed"
        message = "killed at the second interrupt" if killed_by_us else describe_exit(worker.process.returncode)
        self._journal_end(run_id, cause, message)
        self._note_end(run_id, "cancelled" if killed_by_us else "failed", cause, message, worker.began)
        self._replace(worker.slot)

    def _replace(self, slot: Slot) -> None:
        if self._queue and not self.outcome.stopped:
            self._start_worker(slot)

    def _journal_end(self, run_id: str, cause: Cause, message: str) -> None:
        """Write the end that a dead worker could not write itself."""
        run = self.results.run(run_id)
        journal = JournalWriter(run.journal, continuing=True)
        journal.write("failed", {"step": None, "epoch": None, "cause": cause, "message": message})
        journal.close()
        release_lock_of_the_dead(run)

    def _kill_all(self) -> None:
        for worker in list(self._workers.values()):
            worker.process.kill()
            if worker.report in self._selector.get_map():
                while worker.read() is not None:
                    pass
                self._bury(worker)
