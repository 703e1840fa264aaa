from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from itopctl.errors import NotWritableError
from itopctl.store.locks import RunLockedError, is_held, lock_holder, locked, process_start, without_the_lock
from itopctl.store.rundir import RunDirectory

_HOLD = """
import sys
from pathlib import Path
from itopctl.store.locks import locked
from itopctl.store.rundir import RunDirectory
with locked(RunDirectory(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    path = tmp_path / "my results" / "runs" / "0123456789ab"
    path.mkdir(parents=True)
    return RunDirectory(path)


@pytest.fixture
def holder(run: RunDirectory) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run's lock."""
    command = [sys.executable, "-c", _HOLD, str(run.path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def leave_lock(run: RunDirectory, **fields: object) -> None:
    me = {"host": socket.gethostname(), "pid": os.getpid(), "start": process_start(os.getpid())}
    run.lock.write_text(json.dumps({**me, **fields}))


def test_a_lock_names_its_holder_and_is_gone_afterwards(run: RunDirectory) -> None:
    with locked(run):
        held_by = lock_holder(run)
        assert held_by is not None
        assert (held_by["host"], held_by["pid"]) == (socket.gethostname(), os.getpid())
        assert is_held(run)
    assert not is_held(run) and list(run.path.iterdir()) == []


def test_a_lock_is_given_back_when_its_holder_raises(run: RunDirectory) -> None:
    with pytest.raises(ZeroDivisionError), locked(run):
        raise ZeroDivisionError
    assert not run.lock.exists()


def test_a_second_holder_is_refused_and_told_who_has_it(run: RunDirectory, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(RunLockedError, match=f"0123456789ab is being run by process {holder.pid} on "), locked(run):
        pass
    assert is_held(run)


def test_the_lock_of_a_killed_process_is_taken_over(run: RunDirectory, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait()
    assert run.lock.exists() and not is_held(run)
    with locked(run):
        held_by = lock_holder(run)
        assert held_by is not None and held_by["pid"] == os.getpid()


def test_the_lock_of_a_killed_process_that_nobody_waited_for_is_taken_over(
    run: RunDirectory, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the process table
    assert not is_held(run)
    with locked(run):
        assert is_held(run)


def test_the_lock_of_another_host_is_respected(run: RunDirectory) -> None:
    leave_lock(run, host="another-host", pid=2**22 + 1)
    assert is_held(run)
    with pytest.raises(RunLockedError, match="on another-host"), locked(run):
        pass
    assert run.lock.exists()


def test_a_lock_whose_pid_now_belongs_to_another_process_is_taken_over(run: RunDirectory) -> None:
    leave_lock(run, start="1")  # this process did not start with the machine
    assert not is_held(run)
    with locked(run):
        held_by = lock_holder(run)
        assert held_by is not None and held_by["start"] == process_start(os.getpid())


def test_a_lock_file_that_is_damaged_is_taken_over(run: RunDirectory) -> None:
    run.lock.write_text('{"host": ')
    with locked(run):
        assert is_held(run)


_CONTEND = """
import os, sys, time
from pathlib import Path
from itopctl.store.locks import RunLockedError, locked
from itopctl.store.rundir import RunDirectory
overlaps = 0
for line in sys.stdin:
    start, _, path = line.strip().partition(" ")
    run = RunDirectory(Path(path))
    time.sleep(max(0.0, float(start) - time.monotonic()))
    try:
        with locked(run):
            try:
                os.close(os.open(run.path / "inside", os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                overlaps += 1
            else:
                time.sleep(0.0005)
                (run.path / "inside").unlink()
    except RunLockedError:
        pass
    print(overlaps, flush=True)
"""


@pytest.mark.parametrize("stale", [False, True], ids=["free", "left by a dead process"])
def test_of_processes_that_reach_for_a_lock_at_once_never_two_have_it(tmp_path: Path, stale: bool) -> None:
    command = [sys.executable, "-c", _CONTEND]
    rivals = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(6)
    ]
    overlaps = 0
    try:
        for round_ in range(150):
            run = RunDirectory(tmp_path / f"{round_:012x}")
            run.path.mkdir()
            if stale:
                leave_lock(run, start="1")
            start = time.monotonic() + 0.002
            for rival in rivals:
                assert rival.stdin is not None
                rival.stdin.write(f"{start} {run.path}\n")
            overlaps = sum(int(rival.stdout.readline()) for rival in rivals if rival.stdout is not None)
    finally:
        for rival in rivals:
            rival.communicate()
    assert overlaps == 0


def as_somebody_else(call: Callable[[], str]) -> str:
    """What a call returns in a process of another user."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setuid(65534)
            os.write(writing, call().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def taken(run: RunDirectory) -> str:
    """Why a lock cannot be taken."""
    try:
        with locked(run):
            return "it can"
    except RunLockedError as error:
        return str(error)


def test_a_lock_that_somebody_else_may_not_read_is_respected(run: RunDirectory, tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    with tempfile.TemporaryDirectory() as shared:  # pytest's own folders are closed to others
        theirs = RunDirectory(Path(shared) / run.run_id)
        theirs.path.mkdir()
        for folder in (theirs.path.parent, theirs.path):
            folder.chmod(0o777)
        with locked(theirs):
            theirs.lock.chmod(0o600)
            told = as_somebody_else(lambda: f"{taken(theirs)}; {is_held(theirs)}")
            assert told == f"run {run.run_id} may be being run: its lock cannot be read (Permission denied).; True"
            assert (lock_holder(theirs) or {})["pid"] == os.getpid()


@pytest.mark.parametrize("error", [errno.ESTALE, errno.EIO, errno.EMFILE])
def test_a_lock_that_cannot_be_read_for_a_moment_is_not_taken_for_none(
    run: RunDirectory, holder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    opened, failed = os.open, []

    def fail_once(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path) == str(run.lock) and not failed:
            failed.append(path)
            raise OSError(error, os.strerror(error))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail_once)
    with pytest.raises(RunLockedError), locked(run):
        raise AssertionError("two have it")
    assert failed and (lock_holder(run) or {})["pid"] == holder.pid


@pytest.mark.parametrize("what", ["link", "pipe", "large"])
def test_what_cannot_be_a_lock_of_ours_is_none(run: RunDirectory, what: str) -> None:
    if what == "link":
        run.lock.symlink_to("/etc/hostname")
    elif what == "pipe":
        os.mkfifo(run.lock)
    else:
        run.lock.write_bytes(bytes(1 << 17))
    assert lock_holder(run) is None
    with locked(run):
        assert (lock_holder(run) or {})["pid"] == os.getpid()


def test_nothing_is_written_into_the_folder_of_a_run_that_is_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run = RunDirectory(tmp_path / "0123456789ab")
    run.path.symlink_to(elsewhere)
    for writing in (locked(run), without_the_lock(run, run.cancel)):
        with pytest.raises(NotWritableError, match="symbolic link"), writing:
            pass
    assert not list(elsewhere.iterdir())
