"""Code that a results folder names is run only by whoever says that they trust it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from tests.helpers import itopctl, write_spec

BASE = {"dataset": "digits", "model": "own_net:net", "method": "static", "sparsity": 0.5, "epochs": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with a run whose model, a function of the user's own, failed; it leaves a mark when it runs."""
    (tmp_path / "own_net.py").write_text(
        textwrap.dedent("""
            from pathlib import Path

            from torch import nn

            class Net(nn.Linear):
                def forward(self, images):
                    if self.training:
                        raise ValueError("not today")
                    return super().forward(images.flatten(1))

            def net(input_shape, classes):
                Path(__file__).with_name("mark").touch()
                return Net(64, classes)
        """)
    )
    spec = write_spec(tmp_path, base=BASE, grid={"seed": [0]})
    assert itopctl("sweep", spec, "--results", tmp_path / "r", cwd=tmp_path).returncode == 1
    (tmp_path / "mark").unlink()
    return tmp_path


def test_options_of_the_other_place_are_refused_with_where_the_runs_were(folder: Path) -> None:
    refused = itopctl("retry", "--slurm", "mem=1G", "--results", folder / "r", cwd=folder)
    assert refused.returncode == 2
    assert "These runs were run there last; say with --cluster where to run them now." in refused.stderr


def test_retry_runs_the_users_own_code_where_it_is_what_the_runs_were_made_by(folder: Path) -> None:
    tried = itopctl("retry", "--results", folder / "r", cwd=folder)
    assert tried.returncode == 1 and "not today" in tried.stdout
    assert (folder / "mark").exists()


def test_retry_runs_no_code_from_the_results_folder_unless_it_is_trusted(folder: Path) -> None:
    (folder / "own_net.py").rename(folder / "r" / "own_net.py")  # the very code, and yet anybody may have put it there
    for place, path in ((folder / "r", ""), (folder, str(folder / "r"))):
        refused = itopctl("retry", "--results", folder / "r", cwd=place, PYTHONPATH=_path(path))
        assert refused.returncode == 2, refused.stdout
        assert "own_net:net" in refused.stderr and "--trust" in refused.stderr
    assert not (folder / "r" / "mark").exists()
    trusted = itopctl("retry", "--trust", "--results", folder / "r", cwd=folder / "r")
    assert trusted.returncode == 1 and "not today" in trusted.stdout
    assert (folder / "r" / "mark").exists()


def test_what_a_results_folder_says_of_other_functions_is_not_believed(folder: Path) -> None:
    """A function of an installed module has no digest, whatever the folder claims of it."""
    manifest = folder / "r" / "sweeps" / "trial.json"
    content = json.loads(manifest.read_text())
    (point,) = content["runs"]
    point["config"] |= {"model": "shutil:rmtree", "own_code": {"shutil": "0123456789ab"}}
    point["run_id"] = run_id(RunConfig.model_validate(point["config"]))
    manifest.write_text(json.dumps(content))
    (folder / "r" / "runs" / point["run_id"]).mkdir()
    journal = next((folder / "r" / "runs").glob("*/journal.jsonl"))
    (folder / "r" / "runs" / point["run_id"] / "journal.jsonl").write_text(journal.read_text())
    refused = itopctl("retry", "--results", folder / "r", cwd=folder)
    assert refused.returncode == 2 and "shutil" in refused.stderr


def _path(first: str) -> str:
    return os.pathsep.join(filter(None, [first, os.environ.get("PYTHONPATH", "")]))


def test_commands_that_look_run_no_code_of_the_results_folder(folder: Path) -> None:
    (run,) = json.loads(itopctl("status", "--runs", "--json", "--results", folder / "r", cwd=folder).stdout)
    for command in (["status"], ["report"], ["show", run["run_id"]], ["store", "check"], ["store", "rebuild"],
                    ["retry", "--dry-run"]):  # fmt: skip
        assert itopctl(*command, "--results", folder / "r", cwd=folder).returncode == 0, command
    assert not (folder / "mark").exists()


def test_status_and_show_say_why_a_run_failed_with_the_end_of_its_log(folder: Path) -> None:
    status = itopctl("status", "--results", folder / "r", cwd=folder).stdout
    assert "user-error" in status and "ValueError: not today" in status
    (run,) = json.loads(itopctl("status", "--runs", "--json", "--results", folder / "r", cwd=folder).stdout)
    shown = itopctl("show", run["run_id"], "--results", folder / "r", cwd=folder).stdout
    assert 'raise ValueError("not today")' in shown


def test_a_manifest_cannot_smuggle_in_another_runs_config(folder: Path) -> None:
    manifest = folder / "r" / "sweeps" / "trial.json"
    content = json.loads(manifest.read_text())
    content["runs"][0]["config"]["seed"] = 7
    manifest.write_text(json.dumps(content))
    refused = itopctl("retry", "--trust", "--results", folder / "r", cwd=folder)
    assert refused.returncode == 2 and "the config of run" in refused.stderr
    assert not (folder / "mark").exists()


def test_no_module_that_lies_in_a_results_folder_is_imported_by_who_stands_in_it(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    spec = write_spec(tmp_path, base={**BASE, "model": "lenet-300-100"}, grid={"seed": [0]})
    assert itopctl("sweep", spec, "--results", theirs, cwd=tmp_path).returncode == 0
    (run,) = (theirs / "runs").iterdir()
    (run / "result.json").unlink()
    (theirs / "itop.db").unlink()
    for name in ("torch", "numpy", "typing", "pynvml", "json"):
        (theirs / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'mark')!r}).touch()\n")
    done = _typed_in(theirs, "retry", "--results", ".")
    assert done.returncode == 0 and "1 run to try again" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "mark").exists()


def _typed_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the installed command does; `python -m` would look for modules in the folder before anything of ours."""
    start = "import sys; sys.path[:] = filter(None, sys.path); from itopctl.__main__ import main; main()"
    command = [sys.executable, "-c", start, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
