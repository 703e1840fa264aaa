"""Commands on a results folder that is full, read-only or somebody else's: one clear sentence, exit code 3.

No traceback; and commands that only look show what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FinishedSweep
from tests.faults.mounts import SmallDisk
from tests.faults.zygote import Zygote
from tests.helpers import itopctl, write_spec

Done = subprocess.CompletedProcess[str]
BASE: dict[str, Any] = {
    "dataset": "digits",
    "model": "lenet-300-100",
    "epochs": 1,
    "method": "dense",
    "batch_size": 500,
}
LOOKS = (
    ["status"], ["status", "--runs", "--json"], ["report"], ["report", "-t", "runs", "--json"], ["list", "sweeps"],
)  # fmt: skip


def refuses(done: Done, *words: str) -> None:
    """It ends with exit code 3 and one line that says why."""
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 3, done
    (line,) = done.stderr.splitlines()
    assert line.startswith("itopctl: ")
    assert all(word in line for word in words), line


def shows_the_same(done: Done, writable: Done) -> None:
    """It says what it says of a folder that can be written, perhaps after a note."""
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == 0, done
    assert done.stdout == writable.stdout
    assert all(line.startswith("itopctl: ") for line in done.stderr.splitlines())


@pytest.fixture
def finished(finished_sweep: FinishedSweep, disk: SmallDisk) -> Path:
    """A results folder with a finished sweep, on a small disk."""
    shutil.copytree(finished_sweep.results, disk.path / "results")
    return disk.path / "results"


# A full disk ------------------------------------------------------------------------------------------------------


def test_a_sweep_into_a_new_folder_on_a_full_disk_is_refused(disk: SmallDisk, tmp_path: Path) -> None:
    disk.fill()
    spec = write_spec(tmp_path, base=BASE, grid={"seed": 2})
    refuses(itopctl("sweep", spec, "--results", disk.path / "results"), "full")


@pytest.mark.parametrize("line", LOOKS, ids=" ".join)
def test_commands_that_look_show_results_on_a_full_disk(
    finished: Path, finished_sweep: FinishedSweep, disk: SmallDisk, line: list[str]
) -> None:
    (finished / "itop.db").unlink()  # there is none yet, and none can be made
    disk.fill()
    shows_the_same(itopctl(*line, "--results", finished), itopctl(*line, "--results", finished_sweep.results))


def test_a_sweep_on_a_full_disk_is_refused_and_harms_nothing(finished: Path, disk: SmallDisk, tmp_path: Path) -> None:
    before = itopctl("report", "-t", "runs", "--json", "--results", finished).stdout
    disk.fill()
    spec = write_spec(tmp_path, base=BASE, grid={"seed": 2})
    refuses(itopctl("sweep", spec, "--results", finished), "full")
    disk.make_room()
    assert itopctl("report", "-t", "runs", "--json", "--results", finished).stdout == before


@pytest.mark.slow
def test_a_sweep_whose_disk_becomes_full_says_so_and_goes_on_once_there_is_room(
    disk: SmallDisk, tmp_path: Path
) -> None:
    """It ends by itself; the same command ends with the numbers of a sweep that nothing happened to."""
    base = {**BASE, "method": "set-itop", "sparsity": 0.9, "update_interval": 2, "epochs": 20, "batch_size": 50}
    spec = write_spec(tmp_path, base={**base, "checkpoint_minutes": 1e-3}, grid={"seed": 3})
    results = disk.path / "results"
    command = [sys.executable, "-m", "itopctl", "sweep", str(spec), "--results", str(results), "--workers", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as sweep:
        until = time.monotonic() + 60
        while not list(results.glob("runs/*/checkpoint-*.pt")) and time.monotonic() < until:
            time.sleep(0.01)
        disk.fill()
        out, err = sweep.communicate(timeout=120)
    assert "Traceback" not in out + err
    assert sweep.returncode in (1, 3), out + err
    assert "disk-full" in out + err or "full" in err
    disk.make_room()
    again = itopctl("sweep", spec, "--results", results, "--workers", "2")
    assert again.returncode == 0, again
    whole = itopctl("sweep", spec, "--results", tmp_path / "undisturbed", "--workers", "2")
    assert whole.returncode == 0, whole
    assert numbers(results) == numbers(tmp_path / "undisturbed")


def numbers(results: Path) -> list[dict[str, Any]]:
    """What `report` says of each run, times and attempts excepted."""
    runs = json.loads(itopctl("report", "-t", "runs", "--json", "--results", results).stdout)
    left_out = ("wall_seconds", "steps_per_second", "peak_memory_bytes", "energy_joules", "attempts")
    return [{name: value for name, value in run.items() if name not in left_out} for run in runs]


# Read-only --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["new", "results"])
def test_a_sweep_into_a_read_only_file_system_is_refused(
    finished: Path, disk: SmallDisk, tmp_path: Path, folder: str
) -> None:
    disk.read_only()
    spec = write_spec(tmp_path, base=BASE, grid={"seed": 2})
    refuses(itopctl("sweep", spec, "--results", disk.path / folder), "Read-only file system")


@pytest.mark.parametrize("line", LOOKS, ids=" ".join)
@pytest.mark.parametrize("database", ["up to date", "none"])
def test_commands_that_look_show_results_on_a_read_only_file_system(
    finished: Path, finished_sweep: FinishedSweep, disk: SmallDisk, line: list[str], database: str
) -> None:
    if database == "none":
        (finished / "itop.db").unlink()
    disk.read_only()
    shows_the_same(itopctl(*line, "--results", finished), itopctl(*line, "--results", finished_sweep.results))


# Somebody else's --------------------------------------------------------------------------------------------------


SOMEBODY = 65534
TYPE_AS = "tests.faults.typed:type_as"


@pytest.fixture
def shared(finished_sweep: FinishedSweep) -> Iterator[Path]:
    """A results folder that everybody may read, and only root write."""
    if os.getuid() != 0:
        pytest.skip("only root can be somebody else")
    folder = Path(tempfile.mkdtemp(prefix="itopctl-shared-"))  # pytest's own folders are closed to others
    folder.chmod(0o755)
    try:
        shutil.copytree(finished_sweep.results, folder / "results")
        spec = write_spec(folder, base=BASE, grid={"seed": 2})
        spec.chmod(0o644)
        yield folder / "results"
    finally:
        shutil.rmtree(folder)


class Somebody:
    """Types commands that root could type, too, who owns the results."""

    def __init__(self, zygote: Zygote, finished: FinishedSweep) -> None:
        self.zygote = zygote
        lines = [*LOOKS, ["sweep", str(finished.spec), "--dry-run"]]
        self.before = [[*line, "--results", str(finished.results)] for line in lines]

    def __call__(self, *line: str | Path, user: int = SOMEBODY) -> Done:
        done = self.zygote.call(TYPE_AS, user=user, line=list(map(str, line)), before=self.before).value
        return Done(line, done["code"], done["out"], done["err"])


@pytest.fixture
def somebody(zygote: Zygote, finished_sweep: FinishedSweep) -> Somebody:
    return Somebody(zygote, finished_sweep)


@pytest.mark.parametrize("line", LOOKS, ids=" ".join)
def test_somebody_who_may_only_read_results_sees_them(shared: Path, somebody: Somebody, line: list[str]) -> None:
    theirs = somebody(*line, "--results", shared)
    shows_the_same(theirs, somebody(*line, "--results", shared, user=0))


@pytest.mark.parametrize("folder", ["new", "results"])
def test_somebody_who_may_only_read_results_is_refused_to_change_them(
    shared: Path, somebody: Somebody, folder: str
) -> None:
    refuses(somebody("sweep", shared.parent / "spec.yaml", "--results", shared.parent / folder), "cannot be")


@pytest.mark.parametrize("closed", ["", "runs", "sweeps"])
@pytest.mark.parametrize("line", LOOKS, ids=" ".join)
def test_a_folder_that_may_not_even_be_read_is_said_to_be_so(
    shared: Path, somebody: Somebody, closed: str, line: list[str]
) -> None:
    (shared / closed).chmod(0o700)
    done = somebody(*line, "--results", shared)
    assert done.returncode == 3 or (done.returncode == 2 and not closed), "what was typed is of no use"
    assert "Permission denied" in done.stderr or "is not readable" in " ".join(done.stderr.split())


@pytest.mark.parametrize("line", LOOKS, ids=" ".join)
def test_a_store_that_may_not_be_read_is_done_without(shared: Path, somebody: Somebody, line: list[str]) -> None:
    expected = somebody(*line, "--results", shared, user=0)
    (shared / "itop.db").chmod(0o600)
    shows_the_same(somebody(*line, "--results", shared), expected)


def test_a_run_that_may_not_be_read_does_not_hide_the_others(shared: Path, somebody: Somebody) -> None:
    (shared / "itop.db").unlink()
    first, *others = sorted((shared / "runs").iterdir())
    first.chmod(0o700)
    done = somebody("report", "-t", "runs", "--json", "--results", shared)
    assert done.returncode == 0, done
    states = {run["run_id"]: run["state"] for run in json.loads(done.stdout)}
    assert {states[run.name] for run in others} == {"done"}
    assert states[first.name] != "done"
