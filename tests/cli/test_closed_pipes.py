"""Whoever read a command's output is gone: `itopctl report | head -1`. The command ends quietly, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from itopctl.store.locks import locked
from itopctl.store.rundir import Results
from tests.cli.desk import BASE
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, write_spec


def into_nothing(
    arguments: Sequence[str | Path], *streams: str, cwd: Path | None = None, **environment: str
) -> tuple[int, str]:
    """A command whose standard output, or other streams, nobody reads from the start; its exit code, and the rest."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    pipes = dict.fromkeys(streams or ("stdout",), write_end)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "itopctl", *map(str, arguments)], stdin=subprocess.DEVNULL, check=False, cwd=cwd,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes}, timeout=240,
            env={**os.environ, **environment},
        )  # type: ignore[call-overload]  # fmt: skip
    finally:
        os.close(write_end)
    return done.returncode, ((done.stdout or b"") + (done.stderr or b"")).decode()


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("streams", [("stdout",), ("stdout", "stderr")], ids=["| true", "2>&1 | true"])
def test_a_command_whose_output_nobody_reads_ends_quietly_with_its_own_code(
    finished_sweep: FinishedSweep, streams: tuple[str, ...], unbuffered: str
) -> None:
    results = ("--results", finished_sweep.results)
    environment = {"PYTHONUNBUFFERED": unbuffered}
    assert into_nothing(["report", *results], *streams, **environment) == (0, "")
    assert into_nothing(["--help"], *streams, **environment) == (0, "")
    if len(streams) == 2:
        assert into_nothing(["report", "-t", "nonsense", *results], *streams, **environment) == (2, "")


def test_every_command_may_be_left_without_a_reader(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    run = min(path.name for path in (finished_sweep.results / "runs").iterdir())
    lines = [
        ["status"], ["status", "--json"], ["status", "--watch"], ["show", run], ["logs", run], ["logs", run, "-f"],
        ["report", "--format", "json"], ["report", "--format", "csv"], ["report", "--format", "latex"],
        ["list", "models"], ["data", "list"], ["store", "check"], ["schema"], ["cancel", "--yes"], ["--version"],
        ["store", "export", str(tmp_path / "all.tar.gz")], ["sweep", "--help"],
    ]  # fmt: skip
    # The reader goes after the first line; what the chain says of codes goes to a file.
    told = tmp_path / "told"
    code = (
        "import json, os, sys\n"
        "from itopctl.cli import app\n"
        "from itopctl.cli.streams import survive_closed_pipes\n"
        "survive_closed_pipes()\n"
        f"with open({str(told)!r}, 'w') as file:\n"
        f"    for line in {lines!r}:\n"
        "        sys.argv = ['itopctl', *line]\n"
        "        try:\n"
        "            code = app.run()\n"
        "        except SystemExit as end:\n"
        "            code = int(end.code or 0)\n"
        "        print(code, *line, file=file)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "ITOPCTL_RESULTS": str(finished_sweep.results)},
    )  # fmt: skip
    assert command.stdout is not None and command.stderr is not None
    command.stdout.read(1)
    command.stdout.close()
    errors = command.stderr.read().decode()
    assert (command.wait(120), errors) == (0, "")
    assert told.read_text().splitlines() == [f"0 {' '.join(line)}" for line in lines]


@pytest.mark.parametrize("shell", ["bash"])
def test_completion_ends_quietly(shell: str) -> None:
    asked = {"_ITOPCTL_COMPLETE": f"complete_{shell}", "COMP_WORDS": "itopctl st", "COMP_CWORD": "1"}
    assert into_nothing([], "stdout", "stderr", **asked)[1] == ""


def test_a_sweep_that_nobody_reads_trains_all_its_runs_and_says_so_by_its_code(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**BASE, "epochs": 1}, grid={"seed": 2})
    assert into_nothing(["sweep", spec, "--workers", "1"], "stdout", "stderr", cwd=tmp_path) == (0, "")
    runs = json.loads(itopctl("status", "--runs", "--json", cwd=tmp_path).stdout)
    assert [(run["state"], run["attempts"]) for run in runs] == [("done", 1)] * 2


@pytest.mark.parametrize("command", [["status", "--watch"], ["logs", "-f"]], ids=" ".join)
def test_what_goes_on_without_end_stops_when_nobody_reads(
    finished_sweep: FinishedSweep, tmp_path: Path, command: list[str]
) -> None:
    shutil.copytree(finished_sweep.results, tmp_path / "r")
    run = Results(tmp_path / "r").run(min(Results(tmp_path / "r").run_ids()))
    run.result.unlink()
    with locked(run):  # it seems to run, and prints nothing more
        process = subprocess.Popen(
            [sys.executable, "-m", "itopctl", *command, *[run.run_id] * (command[0] == "logs")], cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "ITOPCTL_RESULTS": "r"},
        )  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        time.sleep(2.0)
        assert process.poll() is None
        process.stdout.close()
        assert (process.wait(20), process.stderr.read()) == (0, b"")


def test_a_command_without_standard_streams_writes_into_no_file_of_its_own(
    finished_sweep: FinishedSweep, tmp_path: Path
) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-m", "itopctl", "report", "--results", str(finished_sweep.results)],
        check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0
    assert json.loads(itopctl("store", "check", "--json", "--results", finished_sweep.results).stdout) is not None
    assert list(tmp_path.iterdir()) == []
