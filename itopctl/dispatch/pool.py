"""A pool of worker processes on this machine: bounded, each with its share of cores or a GPU of its own.

The pool's own process imports no torch. It hands runs to workers, replaces a worker that dies, and tells an
observer what happens. It stops when asked (after the current step of each run), kills when asked twice, and gives
up after many quick failures in a row.
"""

from __future__ import annotations

import re
import selectors
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from itopctl.dispatch.attempt_values import Job, Stop
from itopctl.dispatch.causes import RETRIED_AT_ONCE, Cause
from itopctl.dispatch.lost_attempts import end_for_the_dead
from itopctl.dispatch.memory import oom_kills
from itopctl.dispatch.slots import Slot
from itopctl.dispatch.worker_process import WorkerProcess
from itopctl.errors import EnvironmentUnfitError, describe_exit
from itopctl.store.files import read_json
from itopctl.store.locks import is_held, is_same_process
from itopctl.store.rundir import Results

MAX_ATTEMPTS = 3
"""Attempts at one run in one sweep command, where its worker was killed."""

QUICK_SECONDS = 30.0
QUICK_FAILURES = 5
"""So many runs in a row that fail alike within `QUICK_SECONDS` stop the sweep."""

LOCAL = Job()

_POLL_SECONDS = 0.2
_GRACE_SECONDS = 60.0  # for runs to save themselves when the pool itself comes to grief


class Observer(Protocol):
    """What a pool tells while it runs."""

    def event(self, event: dict[str, Any]) -> None:
        """An event of a run, `run_id` included."""

    def started(self, run_id: str) -> None:
        """A worker has taken up a run."""

    def ended(self, run_id: str, state: str, cause: Cause | None, message: str | None, again: bool) -> None:
        """An attempt ended; `again`: the run waits for another."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def tick(self) -> None:
        """Called several times a second."""


@dataclass
class Outcome:
    """How a pool's work ended.

    Attributes:
        states: run id → `done`, `failed`, `cancelled` or `elsewhere`, for every run that was started.
        stopped: None, `interrupted`, `failures` after too many quick ones alike in a row, or `error`.
        common_cause: cause and message of the last of those.
    """

    states: dict[str, str] = field(default_factory=dict)
    stopped: str | None = None
    common_cause: tuple[str, str] | None = None


@dataclass(frozen=True)
class _End:
    """How an attempt ended; `began` by the monotonic clock."""

    run_id: str
    state: str
    cause: Cause | None
    message: str | None
    began: float
    alone: bool = False

    @property
    def kind(self) -> tuple[str, str]:
        """Cause and message without numbers: what failures of one kind have in common."""
        return self.cause or "", re.sub(r"[\d.]+", "#", self.message or "")


class Pool:
    """Runs a queue of runs to the end.

    Args:
        results: the results folder; `prepare` makes the runs' directories in it.
        data_dir: where data sets lie.
        slots: one worker is kept at each.
        observer: is told what happens.
        prepare: called with a run's id before it is handed to a worker; writes its `config.json`.
        job: who runs all this.
        own_code: ids of the runs that call functions of the user's own; where there are several for a worker, it is
            made for them.
    """

    def __init__(
        self, results: Results, data_dir: Path, slots: Sequence[Slot], observer: Observer,
        prepare: Callable[[str], None], job: Job = LOCAL, own_code: Collection[str] = (),
    ) -> None:  # fmt: skip
        self.results = results
        self.data_dir = data_dir
        self.slots = slots
        self.observer = observer
        self.prepare = prepare
        self.job = job
        self.own_code = own_code
        self.outcome = Outcome()
        self._queue: deque[str] = deque()
        self._tries: Counter[str] = Counter()
        self._quick_failures: list[_End] = []
        self._workers: dict[int, WorkerProcess] = {}
        self._selector = selectors.DefaultSelector()
        # Several processes that train together cannot be put together again when one of them is gone.
        self._most_tries = MAX_ATTEMPTS if self.job.rank is None else 1
        self._kill = self._given_up = False
        self._oom_kills = oom_kills()
        self._why: Stop = ("cancelled", "")
        self._false_starts = 0
        self._told_of_gpus = False
        self._elsewhere: set[str] = set()

    def stop(self, why: Stop = ("cancelled", "")) -> None:
        """Ask to end after the current step of each run; asked again: kill. Safe in a signal handler.

        Args:
            why: what is recorded as the cause.
        """
        self._why = why
        if self.outcome.stopped == "interrupted":
            self._kill = True
        self.outcome.stopped = "interrupted"

    def give_up(self) -> None:
        """Kill what did not stop when it was asked to, for the reason that was given then."""
        self._given_up = True
        self._kill_all()

    def run(self, run_ids: Iterable[str]) -> Outcome:
        """Run them all; returns when no worker is left.

        Raises:
            EnvironmentUnfitError: a worker process could not start.
        """
        self._queue.extend(run_ids)
        told_at: float | None = None
        try:
            for slot in self.slots[: len(self._queue)]:
                self._start_worker(slot)
            while self._workers:
                self._listen()
                self.observer.tick()
                if self.outcome.stopped and told_at is None:
                    told_at = time.monotonic()
                    self._tell_all_to_stop()
                if self._kill:
                    self._kill_all()
        finally:
            if self._workers:  # an error is on its way up: let the other runs save what they have
                self.outcome.stopped = self.outcome.stopped or "error"
                self._tell_all_to_stop()
                until = time.monotonic() + _GRACE_SECONDS
                while self._workers and time.monotonic() < until and not self._kill:
                    self._listen()
                self._kill_all()
        return self.outcome

    def _listen(self) -> None:
        for key, _ in self._selector.select(_POLL_SECONDS):
            self._hear(key.data)
        for worker in list(self._workers.values()):
            if worker.process.poll() is not None and worker.report in self._workers:
                self._hear(worker, last=True)  # its stream may be held open by a process that it started

    def _start_worker(self, slot: Slot) -> None:
        own = sum(run_id in self.own_code for run_id in self._queue) if self.own_code else 0
        worker = WorkerProcess(slot, self.job.scheduler, forking=own > len(self.slots))
        self._workers[worker.report] = worker
        self._selector.register(worker.report, selectors.EVENT_READ, worker)

    def _tell_all_to_stop(self) -> None:
        for worker in self._workers.values():
            self._tell_to_stop(worker)

    def _tell_to_stop(self, worker: WorkerProcess) -> None:
        cause, message = self._why
        worker.send({"stop": cause, "message": message})

    def _hear(self, worker: WorkerProcess, last: bool = False) -> None:
        """Take in what a worker reported; `last`: it is dead, and nothing more will come."""
        if worker.report not in self._workers:
            return
        messages, open_ended = worker.read()
        for message in messages:
            if "ready" in message:
                worker.ready = True
                self._false_starts = 0
                self._give(worker)
            elif "runner" in message:
                worker.runner = message["runner"]
            elif "gpu" in message:
                self._check_gpu(worker.slot, bool(message["gpu"]))
            elif "ended" in message:
                worker.run_id = None
                end = _End(
                    message["ended"], message["state"], message["cause"], message["message"], worker.began,
                    message["alone"],
                )  # fmt: skip
                again = self._count(end)
                self._give(worker)  # before the observer, which may take its time
                self._tell(end, again)
            else:
                self.observer.event(message)
        if last or not open_ended:
            self._bury(worker)

    def _check_gpu(self, slot: Slot, usable: bool) -> None:
        """Tell where what PyTorch finds is not what was planned with; once."""
        if usable == (slot.gpu is not None) or self._told_of_gpus:
            return
        self._told_of_gpus = True
        if usable:
            self.observer.note(
                "PyTorch finds a GPU that is not listed: all workers share it, unless runs ask for the CPU."
            )
        else:
            self.observer.note("GPUs are listed that PyTorch cannot use: runs are on the CPU, unless they ask for one.")

    def _give(self, worker: WorkerProcess) -> None:
        if not self._queue:
            self._take_back_abandoned()
        while self._queue and self.job.rank is None and self.results.run(self._queue[0]).cancel.exists():
            self.outcome.states[self._queue.popleft()] = "cancelled"
        if self.outcome.stopped or not self._queue:
            self._tell_to_stop(worker)
            return
        run_id = self._queue.popleft()
        self._tries[run_id] += 1
        self.prepare(run_id)
        worker.run_id, worker.began = run_id, time.monotonic()
        self.observer.started(run_id)
        # Absolute: the user's code may change the working directory.
        run, data_dir = self.results.run(run_id).path.absolute(), self.data_dir.absolute()
        more = bool(self.own_code) and any(other in self.own_code for other in self._queue)
        worker.send({"run": str(run), "data_dir": str(data_dir), "job": asdict(self.job), "more": more})

    def _take_back_abandoned(self) -> None:
        """Queue runs that another command had, and has let go of unfinished."""
        for run_id in list(self._elsewhere):
            run = self.results.run(run_id)
            if not is_held(run):
                self._elsewhere.discard(run_id)
                self._queue.append(run_id)

    def _count(self, end: _End) -> bool:
        """Keep the books on an attempt that ended; returns whether its run is to be tried again."""
        again = end.state == "failed" and end.cause in RETRIED_AT_ONCE and self._tries[end.run_id] < self._most_tries
        self.outcome.states[end.run_id] = end.state
        if end.state == "elsewhere" and self._tries[end.run_id] < self._most_tries:
            self._elsewhere.add(end.run_id)
        if again and not self.outcome.stopped:
            self._queue.append(end.run_id)
            return True
        quick = end.state == "failed" and not end.alone and time.monotonic() - end.began < QUICK_SECONDS
        if not quick or (self._quick_failures and self._quick_failures[-1].kind != end.kind):
            self._quick_failures.clear()
        if quick:
            self._quick_failures.append(end)
        if len(self._quick_failures) >= QUICK_FAILURES and not self.outcome.stopped:
            self.outcome.stopped = "failures"
            self.outcome.common_cause = (end.cause or "", end.message or "")
        return False

    def _tell(self, end: _End, again: bool) -> None:
        self.observer.ended(end.run_id, end.state, end.cause, end.message, again)

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker is gone. Its run, if any, lost an attempt, unless its result is there."""
        self._selector.unregister(worker.report)
        del self._workers[worker.report]
        words = worker.last_words()
        worker.close()
        if not worker.ready and not self.outcome.stopped:
            self._false_starts += 1
            if worker.process.returncode >= 0 or self._false_starts >= MAX_ATTEMPTS:
                end = describe_exit(worker.process.returncode)
                raise EnvironmentUnfitError(f"a worker process could not start: {end}.\n{words}")
        if worker.run_id is not None:
            self._settle(worker.run_id, worker)
        if self._queue and not self.outcome.stopped:
            self._start_worker(worker.slot)

    def _settle(self, run_id: str, worker: WorkerProcess) -> None:
        """Say for a worker that died with a run in hand how the attempt ended. Its own result decides success."""
        if read_json(self.results.run(run_id).result) is not None:
            end = _End(run_id, "done", "finished", None, worker.began)
        else:
            end = _End(run_id, *self._how_it_died(worker), worker.began)
            end_for_the_dead(
                self.results.run(run_id), lambda owner: is_same_process(owner, worker.runner),
                end.cause or "lost", end.message or "",
            )  # fmt: skip
        self._tell(end, self._count(end))

    def _how_it_died(self, worker: WorkerProcess) -> tuple[str, Cause, str]:
        if self._given_up:
            return "cancelled", self._why[0], f"{self._why[1]}; it did not save itself in time"
        if self._kill:
            return "cancelled", "cancelled", "killed on request"
        if worker.process.returncode in (0, -signal.SIGTERM) and self.outcome.stopped:
            cause, why = self._why
            return "cancelled", cause, why or "its process was told to stop"
        if worker.process.returncode == -signal.SIGKILL and self._oom_kills != (now := oom_kills()):
            self._oom_kills = now
            return "failed", "out-of-memory", "its process was killed for want of memory"
        return "failed", "killed", describe_exit(worker.process.returncode)

    def _kill_all(self) -> None:
        self._kill = True
        for worker in list(self._workers.values()):
            worker.kill()
            self._hear(worker, last=True)
