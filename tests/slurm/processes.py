"""Processes: starting daemons, ending them, and finding what their jobs left. Only ever touches those named to it.

A process is known by its number *and* when it started: the number alone may be somebody else's by now.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd")


@dataclass(frozen=True)
class Process:
    """A process, and when it started in ticks since the machine did."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        """The process of this number; None where there is none that runs."""
        stat = _stat(pid)
        return cls(pid, stat.started) if stat is not None else None

    def alive(self) -> bool:
        """Whether it is still there, and no zombie."""
        return Process.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass


@dataclass(frozen=True)
class _Stat:
    parent: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    state, parent, *rest = text.rpartition(")")[2].split()
    return None if state in "ZX" else _Stat(int(parent), int(rest[17]))


def launch(command: Sequence[str | Path], log: Path, env: Mapping[str, str]) -> Process:
    """Start a daemon in a session of its own, so that it outlives whoever starts it and gets no Ctrl-C."""
    started = subprocess.run(
        # The shell goes at once, so that nobody here has a child to wait for. It lets what it starts ignore Ctrl-C,
        # which jobs would inherit: `env` undoes that.
        ["/bin/sh", "-c", 'env --default-signal "$@" >>"$0" 2>&1 & echo $!', str(log), *map(str, command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(env),
        cwd=log.parent,
        start_new_session=True,
        check=True,
    )
    pid = int(started.stdout)
    return Process.of(pid) or Process(pid, 0)


def end(processes: Iterable[Process], *, first: signal.Signals = signal.SIGTERM, patience: float = 10) -> None:
    """Ask processes to end, wait, and kill those that are still there after `patience` seconds."""
    everyone = list(processes)
    for number in (first, signal.SIGKILL):
        for process in everyone:
            process.send(number)
        wait_until(lambda: not any(map(Process.alive, everyone)), patience)


def wait_until(true: Callable[[], bool], seconds: float, every: float = 0.05) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(every)
    return True


def descendants(roots: Iterable[Process]) -> list[Process]:
    """The children of processes, their children, and so on."""
    children: dict[int, list[Process]] = {}
    for pid in _all():
        stat = _stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(Process(pid, stat.started))
    found: list[Process] = []
    todo = list(roots)
    while todo:
        new = children.get(todo.pop().pid, [])
        found += new
        todo += new
    return found


def daemons_with_open(path: Path) -> list[Process]:
    """SLURM's daemons, slurmstepd and the database where they hold open `path`, or a file under it."""
    return [
        process
        for pid in _all()
        if _program(pid) in _DAEMONS and _has_open(pid, str(path)) and (process := Process.of(pid)) is not None
    ]


def job_processes(conf: Path, log: Path, node: str) -> list[Process]:
    """All that runs for jobs on a node: first each slurmstepd, then what they started, and what outlived its parent.

    Args:
        conf: slurm.conf, by the path the node was started with; jobs have it in their environment.
        log: the node's log file, by its real path; each slurmstepd holds it open.
    """
    wanted = {f"SLURM_CONF={conf}".encode(), f"SLURMD_NODENAME={node}".encode()}
    orphans = [process for pid in _all() if wanted <= _environment(pid) and (process := Process.of(pid)) is not None]
    stepds = [process for process in daemons_with_open(log) if _program(process.pid) == "slurmstepd"]
    found = dict.fromkeys([*stepds, *orphans, *descendants([*stepds, *orphans])])
    return [process for process in found if process.pid != os.getpid()]


def _all() -> list[int]:
    return [int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal()]


def _program(pid: int) -> str:
    try:
        name = (_PROC / str(pid) / "exe").readlink().name
    except OSError:
        return ""
    return name.removesuffix(" (deleted)").removesuffix("-wlm")  # Debian's are called slurmd-wlm and so on


def _has_open(pid: int, path: str) -> bool:
    try:
        handles = list((_PROC / str(pid) / "fd").iterdir())
    except OSError:
        return False
    for handle in handles:
        try:
            target = str(handle.readlink()).removesuffix(" (deleted)")
        except OSError:
            continue
        if target == path or target.startswith(path + "/"):
            return True
    return False


def _environment(pid: int) -> set[bytes]:
    try:
        return set((_PROC / str(pid) / "environ").read_bytes().split(b"\0"))
    except OSError:
        return set()
