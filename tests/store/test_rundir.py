from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from itopctl.errors import EnvironmentUnfitError
from itopctl.store.rundir import (
    Results,
    RunDirectory,
    RunLockedError,
    is_held,
    lock_holder,
    locked,
    process_start,
    read_json,
    replacing,
    write_json,
)

_HOLD = """
import sys
from pathlib import Path
from itopctl.store.rundir import RunDirectory, locked
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


# Files that are replaced whole ------------------------------------------------------------------------------


def test_a_written_object_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "result.json"
    write_json(path, {"accuracy": 0.1, "name": "ζ", "shape": [1, 2]})
    assert read_json(path) == {"accuracy": 0.1, "name": "ζ", "shape": [1, 2]}
    assert path.stat().st_mode & 0o777 == 0o644


def test_writing_replaces_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"long": "x" * 10_000})
    write_json(path, {"short": 1})
    assert read_json(path) == {"short": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("unwritable", [{"loss": float("nan")}, {"a": object()}])
def test_what_is_no_json_leaves_the_old_file_as_it_was(tmp_path: Path, unwritable: object) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, unwritable)
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_halfway_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as aside:
        aside.write_bytes(b"half of the n")
        assert path.read_bytes() == b"old"
        raise error
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_the_new_file_appears_only_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    with replacing(path) as aside:
        aside.write_bytes(b"new")
        assert not path.exists() and aside.parent == path.parent
    assert path.read_bytes() == b"new"


def test_a_place_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentUnfitError, match=r"file/result\.json cannot be written"):
        write_json(tmp_path / "file" / "result.json", {})


def test_a_folder_in_the_place_of_the_file_is_said_to_be_there_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(EnvironmentUnfitError, match="cannot be written"):
        write_json(tmp_path / "result.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"3", b"\xff", b"[" * 100_000])
def test_what_is_not_a_whole_object_reads_as_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert read_json(path) is None


def test_an_absent_file_reads_as_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "config.json") is None


# The lock ---------------------------------------------------------------------------------------------------


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
from itopctl.store.rundir import RunDirectory, RunLockedError, locked
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


# The results folder -----------------------------------------------------------------------------------------


def test_run_ids_are_the_run_folders_and_nothing_else(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name in ("bbbbbbbbbbbb", "0123456789ab", "0123456789AB", "0123456789a", "0123456789abc", ".aaaaaaaaaaaa", "x"):
        (results.runs / name).mkdir(parents=True)
    assert results.run_ids() == ["0123456789ab", "bbbbbbbbbbbb"]


def test_a_file_with_the_name_of_a_run_is_no_run(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.runs.mkdir()
    (results.runs / "0123456789ab").write_text("")
    assert results.run_ids() == []


def test_a_folder_without_results_has_no_runs_and_no_sweeps(tmp_path: Path) -> None:
    results = Results(tmp_path / "nowhere")
    assert results.run_ids() == [] and results.manifests() == []


def test_manifests_come_by_name_and_half_written_ones_are_passed_over(tmp_path: Path) -> None:
    results = Results(tmp_path)
    for name in ("b", "a", ".a.json.x1"):
        write_json(results.manifest(name), {})
    (results.sweeps / "notes.txt").write_text("")
    assert [path.stem for path in results.manifests()] == ["a", "b"]
    assert results.manifest("a") == results.manifests()[0]
