"""The files of one run, and of one sweep. Whatever replaces a file is written aside and renamed.

RESULTS/runs/<run_id>/  config.json · journal.jsonl · checkpoint.pt · result.json · environment.json · log.txt · lock
RESULTS/sweeps/<name>.json   the spec as it was, and its runs: ids and configs
RESULTS/submissions/<name>/  what was handed to a scheduler (`submissions.py`)
RESULTS/snapshots/<digest>/  the code that was submitted
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itopctl.errors import EnvironmentUnfitError

_RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run's files."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.pt"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def cancel(self) -> Path:
        """There while somebody wants this run to stop."""
        return self.path / "cancel"


@dataclass(frozen=True)
class Results:
    """A results folder."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def sweeps(self) -> Path:
        return self.path / "sweeps"

    @property
    def submissions(self) -> Path:
        return self.path / "submissions"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def database(self) -> Path:
        return self.path / "itop.db"

    def run(self, run_id: str) -> RunDirectory:
        return RunDirectory(self.runs / run_id)

    def run_ids(self) -> list[str]:
        """Ids of all runs that have a folder; whatever else lies there is passed over."""
        try:
            with os.scandir(self.runs) as entries:
                return sorted(entry.name for entry in entries if _RUN_ID.fullmatch(entry.name) and entry.is_dir())
        except FileNotFoundError:
            return []

    def manifest(self, sweep: str) -> Path:
        return self.sweeps / f"{sweep}.json"

    def manifests(self) -> list[Path]:
        """Manifests of all recorded sweeps, by name; their stems are the sweeps' names."""
        return sorted(path for path in self.sweeps.glob("*.json") if not path.name.startswith("."))


def write_json(path: Path, data: Any) -> None:
    """Write JSON to `path` so that a reader sees the old file or the new one, whole.

    Raises:
        EnvironmentUnfitError: the file cannot be written.
    """
    with replacing(path) as aside:
        aside.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; on leaving without an error its content is flushed and takes the place of `path`."""
    with _aside(path) as aside:
        yield aside
        handle = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        aside.replace(path)


@contextlib.contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, gone on leaving unless it was renamed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.fchmod(handle, 0o644)
        os.close(handle)
    except OSError as error:
        raise EnvironmentUnfitError(f"{path} cannot be written: {error.strerror}.") from error
    aside = Path(name)
    try:
        yield aside
    except OSError as error:
        raise EnvironmentUnfitError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        aside.unlink(missing_ok=True)


def remove_leftovers(run: RunDirectory) -> None:
    """Remove what processes that were killed while writing left aside; only for who holds the run's lock."""
    with one_at_a_time(run.path):
        for file in (run.checkpoint, run.result, run.environment, run.lock):  # others write the config, without a lock
            for path in run.path.glob(f".{file.name}.*"):
                with contextlib.suppress(OSError):
                    path.unlink()


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is no file, or no whole object in it."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


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
    mine = {**_me(), "job_id": job_id, "job_start": job_start}
    with one_at_a_time(run.path), _aside(run.lock) as aside:
        aside.write_text(json.dumps(mine))
        holder = lock_holder(run)
        if run.lock.exists() and (holder is None or _gone(holder) or _earlier_start(holder, mine)):
            run.lock.unlink(missing_ok=True)
        try:
            _place(aside, run.lock)
        except FileExistsError:
            holder = lock_holder(run) or {}
            raise RunLockedError(
                f"run {run.run_id} is being run by process {holder.get('pid')} on {holder.get('host')}."
            ) from None
    try:
        yield lambda: lock_holder(run) == mine
    finally:
        with one_at_a_time(run.path):
            if lock_holder(run) == mine:
                run.lock.unlink(missing_ok=True)


def _earlier_start(holder: dict[str, Any], mine: dict[str, Any]) -> bool:
    """Whether a lock was taken by an earlier start of the same job: a scheduler runs a job once at a time."""
    same = mine["job_id"] is not None and holder.get("job_id") == mine["job_id"]
    before = holder.get("job_start")
    return same and isinstance(before, int) and before < mine["job_start"]


def _place(aside: Path, path: Path) -> None:
    """Give a file its second name, whole at once. Raises FileExistsError where there is one already."""
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with path.open("xb") as file:
            file.write(aside.read_bytes())


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


def release_lock_of_the_dead(run: RunDirectory, ended_job: str | None = None) -> None:
    """Remove a run's lock if its process is surely gone, or belongs to a job of which the scheduler says it is over."""
    with one_at_a_time(run.path):
        holder = lock_holder(run)
        over = holder is not None and ended_job is not None and holder.get("job_id") == ended_job
        if holder is None or over or _gone(holder):
            run.lock.unlink(missing_ok=True)


def lock_holder(run: RunDirectory) -> dict[str, Any] | None:
    """Who holds a run's lock: host, pid, start; None where nobody does."""
    return read_json(run.lock)


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


def _me() -> dict[str, Any]:
    return {
        "host": socket.gethostname(), "pid": os.getpid(), "start": process_start(os.getpid()), "boot": _boot(),
        "namespace": _pid_namespace(),
    }  # fmt: skip
