"""The processes of a sweep as the system sees them: which there are, what each has in hand, and an end to them.

They are known by a variable in their environment, which each hands on to what it starts, so that only processes of
one harness are ever seen, and ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

MARK = "ITOPCTL_TESTS_CHAOS"
_WORKER = b"itopctl.dispatch.worker"


def need_proc() -> None:
    """Skip the test where processes cannot be looked at from outside."""
    if not Path("/proc/self/environ").exists() or not hasattr(os, "pidfd_open"):
        pytest.skip("no /proc, or no file descriptors for processes")


@contextlib.contextmanager
def two_cores() -> Iterator[None]:
    """Keep this process, and what it starts, to two cores: with two workers each has one thread, on every machine."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[:2])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@dataclass(frozen=True)
class Process:
    """A process, told from a later one of the same pid by when it started."""

    pid: int
    start: str

    @property
    def folder(self) -> Path:
        return Path("/proc") / str(self.pid)

    @property
    def state(self) -> str | None:
        """The system's letter for what it does, such as S (waits), T (stopped); None where it is gone or a zombie."""
        found = _state_and_start(self.pid)
        return found[0] if found is not None and found[1] == self.start and found[0] not in "ZX" else None

    def run_in_hand(self) -> str | None:
        """Id of the run that a runner trains: what it prints goes to that run's log."""
        try:
            log = (self.folder / "fd" / "1").readlink()
        except OSError:
            return None
        return log.parent.name if log.name == "log.txt" else None

    def kill(self) -> bool:
        """SIGKILL; whether it was alive to be hit. Never sent to another process of the same pid."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            if self.state is None:  # looked at while the handle keeps the pid from meaning another
                return False
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def freeze(self) -> bool:
        """SIGSTOP; whether it stands still now, which proves that it lives."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGSTOP)
        if not wait_for(lambda: self.state in (None, "T"), 5.0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGCONT)
        return self.state == "T"


class Family:
    """All processes that were started with one mark in their environment."""

    def __init__(self) -> None:
        self._mark = f"{MARK}={uuid.uuid4().hex}"
        self._ours: dict[Process, bool] = {}

    @property
    def environment(self) -> dict[str, str]:
        """For the first of them: this process's environment, without settings of the user's, and the mark."""
        name, _, value = self._mark.partition("=")
        return {**{k: v for k, v in os.environ.items() if not k.startswith("ITOPCTL_")}, name: value}

    def workers(self) -> list[Process]:
        """Live worker processes, by pid; what a worker starts looks like itself until it is another program.

        A runner whose worker is dead is among them.
        """
        return [
            process for process in self._living() if _is_worker(process.pid) and not _started_by_worker(process.pid)
        ]

    def runners(self) -> list[Process]:
        """Live processes that workers started to make runs; what a runner starts is none."""
        by_worker = [
            process for process in self._living() if _is_worker(process.pid) and _started_by_worker(process.pid)
        ]
        return [process for process in by_worker if not _started_by_worker(_parent(process.pid) or 0)]

    def runner_of(self, worker: Process) -> Process | None:
        """The live process in which a worker makes runs."""
        return next((runner for runner in self.runners() if _parent(runner.pid) == worker.pid), None)

    def workers_of(self, pid: int) -> list[Process]:
        """Live workers that a command started, and their runners."""
        workers = [worker for worker in self.workers() if _parent(worker.pid) == pid]
        return [*workers, *(runner for worker in workers if (runner := self.runner_of(worker)) is not None)]

    def end_all(self) -> None:
        """End whatever is left."""
        for process in self._living():
            process.kill()

    def _living(self) -> list[Process]:
        seen: dict[Process, bool] = {}
        for pid in sorted(int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()):
            found = _state_and_start(pid)
            if found is None or found[0] in "ZX":
                continue
            process = Process(pid, found[1])
            known = self._ours.get(process)
            mark = self._mark.encode()
            seen[process] = mark in _read(process.folder / "environ").split(b"\0") if known is None else known
        self._ours = seen
        return [process for process, ours in seen.items() if ours]


def of_pid(pid: int) -> Process | None:
    found = _state_and_start(pid)
    return None if found is None else Process(pid, found[1])


def wait_for(true: Callable[[], bool], seconds: float, pause: float = 0.002) -> bool:
    """Whether something becomes true in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(pause)
    return True


def kill_at_once(processes: Sequence[Process]) -> list[Process]:
    """Freeze them all, so that none does anything more while others die, then kill; returns those that were hit."""
    frozen = [process for process in processes if process.freeze()]
    return [process for process in frozen if process.kill()]


def _is_worker(pid: int) -> bool:
    return _WORKER in _read(Path("/proc") / str(pid) / "cmdline").split(b"\0")


def _started_by_worker(pid: int) -> bool:
    return _is_worker(_parent(pid) or 0)


def _state_and_start(pid: int) -> tuple[str, str] | None:
    fields = _read(Path("/proc") / str(pid) / "stat").rpartition(b")")[2].split()
    return (fields[0].decode(), fields[19].decode()) if len(fields) > 19 else None


def _parent(pid: int) -> int | None:
    fields = _read(Path("/proc") / str(pid) / "stat").rpartition(b")")[2].split()
    return int(fields[1]) if len(fields) > 1 else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
