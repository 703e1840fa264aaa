"""In a container a user may have neither a home nor a name; and the folder one stands in may be gone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.cli.desk import BASE
from tests.conftest import FinishedSweep
from tests.dispatch.fake_slurm import FakeSlurm
from tests.helpers import write_spec

UID = 12345
NAMELESS = ("unshare", "--user", f"--map-user={UID}", f"--map-group={UID}")
"""A command's user gets a number that no list of users has; what it may read and write stays the same."""

_CHAIN = """
import json, sys
from itopctl.cli import app
from itopctl.cli.streams import survive_closed_pipes
survive_closed_pipes()
for line in json.loads(sys.stdin.read()):
    sys.argv = ["itopctl", *line]
    try:
        code = app.run()
    except SystemExit as end:
        code = int(end.code or 0)
    sys.stdout.flush()
    print(f"\\n::{code}", " ".join(line), flush=True)
"""
"""Runs many commands in one process, as they would run in one each."""


def can_be_nameless() -> bool:
    try:
        return subprocess.run([*NAMELESS, "true"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def chain(lines: Sequence[Sequence[str]], folder: Path, environment: dict[str, str], wrap: Sequence[str] = ()) -> str:
    """Run commands; returns all that they printed, with a line `::CODE COMMAND` after each."""
    clean = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "OMP_NUM_THREADS") if name in os.environ}
    done = subprocess.run(
        [*wrap, sys.executable, "-c", _CHAIN], input=json.dumps(lines), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, cwd=folder, env={**clean, **environment}, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stdout, done.stdout
    return done.stdout


def codes(output: str) -> dict[str, int]:
    told = [line.removeprefix("::").partition(" ") for line in output.splitlines() if line.startswith("::")]
    return {command: int(code) for code, _, command in told}


@pytest.fixture
def work(tmp_path: Path, finished_sweep: FinishedSweep) -> Path:
    """A folder with a spec and results."""
    if not can_be_nameless():
        pytest.skip("no user namespaces here")
    folder = tmp_path / "work"
    folder.mkdir()
    shutil.copytree(finished_sweep.results, folder / "results")
    write_spec(folder, name="tiny", base={**BASE, "epochs": 1, "compute": "sparse"}, grid={"seed": [7]})
    return folder


def a_run(folder: Path) -> str:
    return min(path.name for path in (folder / "results" / "runs").iterdir())


@pytest.mark.parametrize("home", [{}, {"HOME": "/nonexistent"}], ids=["no home", "a home that is not there"])
def test_a_user_without_name_and_home_can_use_a_cluster(tmp_path: Path, work: Path, home: dict[str, str]) -> None:
    fake = FakeSlurm(tmp_path / "fake slurm")
    lines = [
        ["sweep", "spec.yaml", "--cluster", "slurm", "--dry-run"], ["sweep", "spec.yaml", "--cluster", "slurm"],
        ["status", "--runs"], ["doctor", "spec.yaml"], ["cancel", "--yes"], ["retry"], ["list", "models"],
        ["data", "list"], ["show", a_run(work)], ["logs", a_run(work)], ["report"], ["schema"], ["--version"],
    ]  # fmt: skip
    output = chain(lines, work, {**fake.env, **home}, NAMELESS)
    assert codes(output) == {" ".join(line): 0 for line in lines}, output
    ((_, about),) = fake.arrays.items()
    assert about["user"] == [str(UID)]
    assert set(about["tasks"]["0"]["word"].split()) == {"CANCELLED"}


@pytest.mark.slow
def test_a_user_without_name_and_home_can_train_draw_and_export(work: Path) -> None:
    lines = [
        ["plan", "spec.yaml"], ["sweep", "spec.yaml"], ["report", "--format", "html", "-o", "page.html"],
        ["plot", "sparsity", "-o", "figure.svg"], ["export", a_run(work), "-o", "net.safetensors"],
        ["export", a_run(work), "-o", "net.pt2"], ["data", "check", "digits"], ["store", "check"],
        ["store", "export", "all.tar.gz"], ["store", "import", "all.tar.gz", "--results", "other"],
        ["store", "rebuild"],
    ]  # fmt: skip
    output = chain(lines, work, {}, NAMELESS)
    assert codes(output) == {" ".join(line): 0 for line in lines}, output


def test_without_a_home_there_is_no_profile_of_the_user(tmp_path: Path) -> None:
    code = "from itopctl.config.slurm import profile_path; print(profile_path())"
    clean = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    wrap = NAMELESS if can_be_nameless() else ()
    done = subprocess.run(
        [*wrap, sys.executable, "-c", code], capture_output=True, text=True, env=clean, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


# The current folder ----------------------------------------------------------------------------------------


def from_nowhere(tmp_path: Path, *arguments: Any) -> subprocess.CompletedProcess[str]:
    """A command given in a folder that is gone."""
    gone = tmp_path / "gone"
    gone.mkdir()
    script = 'rmdir "$PWD"; exec "$@"'
    return subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "itopctl", *map(str, arguments)],
        capture_output=True, text=True, cwd=gone, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("command", [["plan"], ["sweep"], ["sweep", "--cluster", "slurm"]], ids=" ".join)
def test_a_sweep_from_a_folder_that_is_gone_says_so_and_leaves_nothing(
    tmp_path: Path, fake: FakeSlurm, command: list[str]
) -> None:
    spec = write_spec(tmp_path, base=BASE, grid={"seed": 1})
    done = from_nowhere(tmp_path, *command, spec, "--results", tmp_path / "r")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == "itopctl: the current folder is gone; change to another one.\n"
    assert not (tmp_path / "r").exists()


def test_what_needs_no_current_folder_works_without_one(tmp_path: Path, finished_sweep: FinishedSweep) -> None:
    done = from_nowhere(tmp_path, "status", "--results", finished_sweep.results)
    assert (done.returncode, done.stderr) == (0, ""), done
    relative = from_nowhere(tmp_path, "status")
    assert relative.returncode == 3
    assert relative.stderr.endswith("\nitopctl: the current folder is gone; change to another one.\n")
