"""Who is at a run: its lock, and the processes that locks name.

A lock says host, pid and start of a process. It is stale where that process is surely gone: known on its own host
alone, and never by anybody's clock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from itopctl.errors import EnvironmentUnfitError
from itopctl.store.files import aside, explained, make_folder, place, read_json_surely, remove
from itopctl.store.rundir import RunDirectory


class RunLockedError(EnvironmentUnfitError):
    """Another process is at this run."""


@contextlib.contextmanager
def locked(run: RunDirectory, job_id: str | None = None, job_start: int = 0) -> Iterator[Callable[[], bool]]:
    """Be the only process at a run. A lock whose process is gone from this host is taken over.

    The lock file appears whole, by a hard link that fails where there is one. Only a process of the same host may
    take a lock over, so a file lock on the directory is enough to let one process at a time judge and replace it.
    The other case is a job that its scheduler started again, on any node: it takes over what it held before.

    Args:
        run: its directory.
        job_id: of the scheduler's job that this process is part of, with whatever makes it unique.
        job_start: how many times the scheduler has started that job before.

    Yields:
        Tells whether the lock still is this process's. It is not where the scheduler gave the job up for dead and
        started it elsewhere while this process lived on: it must not write then.

    Raises:
        RunLockedError: a live process, or one of another host, holds it.
    """
    mine = {**this_process(), "job_id": job_id, "job_start": job_start}
    run.check()
    with explained(run.lock), one_at_a_time(run.path), aside(run.lock, json.dumps(mine).encode()) as written:
        holder = lock_holder(run)
        if holder is None or _gone(holder) or _earlier_start(holder, mine):
            remove(run.lock)
        try:
            place(written, run.lock)
        except FileExistsError:
            holder = lock_holder(run) or {}
            if "unreadable" in holder:
                raise RunLockedError(
                    f"run {run.run_id} may be being run: its lock cannot be read ({holder['unreadable']})."
                ) from None
            raise RunLockedError(
                f"run {run.run_id} is being run by process {holder.get('pid')} on {holder.get('host')}."
            ) from None
    try:
        yield lambda: lock_holder(run) == mine
    finally:
        with one_at_a_time(run.path):
            if lock_holder(run) == mine:
                remove(run.lock)


def _earlier_start(holder: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Whether a lock was taken by an earlier start of the same job: a scheduler runs a job once at a time."""
    same = mine["job_id"] is not None and holder.get("job_id") == mine["job_id"]
    before = holder.get("job_start")
    return same and isinstance(before, int) and before < mine["job_start"]


@contextlib.contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Keep other processes of this host out of the sections that take the same folder, where the file system can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def without_the_lock(run: RunDirectory, named: Path) -> Iterator[None]:
    """For who writes into a run's folder and does not hold its lock: it is there, and nobody tidies up meanwhile.

    Whoever tidies up would take a file away that is being written.

    Args:
        run: its folder is made where it is missing.
        named: what is said to be unwritable where the folder is.

    Raises:
        EnvironmentUnfitError: it cannot be written.
    """
    run.check()
    with explained(named):
        make_folder(run.path)
        with one_at_a_time(run.path):
            yield


def remove_leftovers(run: RunDirectory) -> None:
    """Remove what processes that were killed while writing left aside; only for who holds the run's lock."""
    with one_at_a_time(run.path):  # as does whoever writes here without the lock
        for path in run.path.glob(".*"):
            with contextlib.suppress(OSError):
                remove(path)


def release_lock_of_the_dead(run: RunDirectory, ended_job: str | None = None) -> None:
    """Remove a run's lock if its process is surely gone, or belongs to a job of which the scheduler says it is over."""
    with one_at_a_time(run.path):
        drop_lock_of_the_dead(run, ended_job)


def drop_lock_of_the_dead(run: RunDirectory, ended_job: str | None = None) -> None:
    """The same, for who is within `one_at_a_time` already."""
    holder = lock_holder(run)
    over = holder is not None and ended_job is not None and holder.get("job_id") == ended_job
    if holder is None or over or _gone(holder):
        remove(run.lock)


def lock_holder(run: RunDirectory) -> dict[str, Any] | None:
    """Who holds a run's lock: host, pid, start; None where nobody does.

    Where there is a lock that cannot be read, somebody unknown holds it: why it cannot is said as `unreadable`.
    """
    try:
        return read_json_surely(run.lock)
    except OSError as error:
        return {"unreadable": error.strerror or str(error)}


def is_held(run: RunDirectory) -> bool:
    """Whether a process that may be alive holds the run's lock (one of another host may always be)."""
    holder = lock_holder(run)
    return holder is not None and not _gone(holder)


def _gone(holder: dict[str, Any]) -> bool:
    """Whether the lock's process is surely dead: same host, and no process of that pid and start time.

    In another container of the same host name its pid would mean nothing here, so it may be alive.
    """
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or not isinstance(pid, int):
        return False
    if holder.get("boot") == _boot() and holder.get("namespace") != _pid_namespace():
        return False
    return process_start(pid) != holder.get("start")


def is_alive_here(who: dict[str, Any]) -> bool:
    """Whether a process (`this_process`) is alive; of those of other hosts that is not known, so they are not."""
    if who.get("host") != socket.gethostname() or not isinstance(who.get("pid"), int):
        return False
    return who.get("start") is not None and process_start(who["pid"]) == who["start"]


def _boot() -> str | None:
    """What tells this boot of the machine from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pid_namespace() -> str | None:
    """What tells the pids seen here from those of another container."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return None


def process_start(pid: int) -> str | None:
    """Something that tells this process from a later one of the same pid; None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return "alive"
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]


def this_process() -> dict[str, Any]:
    """What tells this process from any other, on any machine."""
    return process_here(os.getpid())


def process_here(pid: int) -> dict[str, Any]:
    """The same of another process that this one can see, such as its child."""
    return {
        "host": socket.gethostname(), "pid": pid, "start": process_start(pid), "boot": _boot(),
        "namespace": _pid_namespace(),
    }  # fmt: skip


def is_same_process(who: dict[str, Any], process: dict[str, Any]) -> bool:
    """Whether a lock, or the first event of an attempt, which says less, names a process (`process_here`)."""
    told = {name: value for name, value in process.items() if name in ("host", "pid") or name in who}
    return all(who.get(name) == value for name, value in told.items())
