"""Sweeps that go wrong: diverging runs, two commands at once, damaged files, second thoughts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, write_spec

BASE: dict[str, Any] = {"dataset": "digits", "model": "lenet-300-100", "epochs": 3, "method": "dense"}


def runs_of(results: Path) -> list[dict[str, Any]]:
    return json.loads(itopctl("report", "-t", "runs", "--json", "--results", results).stdout)


def test_runs_that_diverge_do_not_keep_the_others_from_running(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**BASE, "epochs": 20}, grid={"optimizer.lr": [1e20, 0.1], "seed": 6})
    done = itopctl("sweep", spec, "--results", tmp_path / "r")
    assert done.returncode == 1
    assert "6 of 12 runs done, 6 failed." in done.stdout
    assert "repeated quick failures" not in done.stdout
    assert all("at step" in run["message"] for run in runs_of(tmp_path / "r") if run["state"] == "failed")


def test_commands_at_the_same_time_share_the_work_and_agree(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base=BASE, grid={"seed": 8})
    command = [sys.executable, "-m", "itopctl", "sweep", str(spec), "--results", str(tmp_path / "r"), "--workers", "2"]
    sweeps = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    answers = [sweep.communicate(timeout=200) for sweep in sweeps]
    assert [sweep.returncode for sweep in sweeps] == [0, 0, 0], answers
    results = Results(tmp_path / "r")
    assert len(results.run_ids()) == 8
    for run_id in results.run_ids():
        events = read_journal(results.run(run_id).journal).events
        assert [e["seq"] for e in events] == list(range(1, len(events) + 1))
        assert [e["event"] for e in events].count("finished") == 1
        assert {e["attempt"] for e in events} == {1}
    assert {run["state"] for run in runs_of(results.path)} == {"done"}


def test_a_run_that_failed_for_its_device_is_run_on_another(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**BASE, "device": "cuda"}, grid={"seed": 1})
    failed = itopctl("sweep", spec, "--results", tmp_path / "r")
    if failed.returncode == 0:
        pytest.skip("this machine has a GPU")
    assert "environment" in failed.stdout and "no GPU" in failed.stdout
    mended = itopctl("sweep", spec, "--set", "device=cpu", "--results", tmp_path / "r")
    assert mended.returncode == 0, mended.stdout
    assert [run["attempts"] for run in runs_of(tmp_path / "r")] == [2]


def test_a_damaged_checkpoint_is_set_aside_and_the_run_starts_anew(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base=BASE, grid={"seed": 1})
    plan = json.loads(itopctl("sweep", spec, "--dry-run", "--format", "json", cwd=tmp_path).stdout)
    directory = tmp_path / "r" / "runs" / plan[0]["run_id"]
    directory.mkdir(parents=True)
    (directory / f"checkpoint-{5:012d}-{'0' * 16}.pt").write_bytes(b"PK\x03\x04 not really")
    done = itopctl("sweep", spec, "--results", tmp_path / "r")
    assert done.returncode == 0, done.stdout
    assert "set aside as checkpoint.damaged-" in (directory / "log.txt").read_text()
    assert not list(directory.glob("checkpoint*"))


def test_points_that_nobody_asks_for_any_more_leave_the_sweep_unless_they_ran(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**BASE, "epochs": 1}, grid={"seed": 1})
    itopctl("sweep", spec, "--results", tmp_path / "r")
    manifest = tmp_path / "r" / "sweeps" / "trial.json"
    content = json.loads(manifest.read_text())
    never_ran = {**content["runs"][0], "run_id": "0" * 12}
    manifest.write_text(json.dumps({**content, "runs": [*content["runs"], never_ran]}))
    itopctl("sweep", write_spec(tmp_path, base={**BASE, "epochs": 1}, grid={"seed": [1]}), "--results", tmp_path / "r")
    (row,) = json.loads(itopctl("status", "--json", "--results", tmp_path / "r").stdout)
    assert (row["total"], row["done"], row["queued"]) == (2, 2, 0)


def test_a_plan_beside_run_directories_without_a_store_writes_none(
    finished_sweep: FinishedSweep, tmp_path: Path
) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "runs").symlink_to(finished_sweep.results / "runs")
    plan = itopctl("sweep", finished_sweep.spec, "--dry-run", "--results", tmp_path / "r")
    assert plan.stdout.startswith("Plan: 0 new, 14 done")
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["runs"]


def test_a_report_is_written_through_a_link_and_to_a_device(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "link.md").symlink_to(tmp_path / "real.md")
    assert itopctl("report", "--results", finished_sweep.results, "-o", tmp_path / "link.md").returncode == 0
    assert (tmp_path / "real.md").read_text().startswith("**lenet")
    assert itopctl("report", "--results", finished_sweep.results, "-o", "/dev/null").returncode == 0
    assert Path("/dev/null").is_char_device()
    wrong = itopctl("report", "--results", finished_sweep.results, "-o", tmp_path / "no" / "such.md")
    assert wrong.returncode == 3
    assert "cannot be written" in wrong.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_behind_the_output_is_one_line(finished_sweep: FinishedSweep) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "itopctl", "report", "--json", "--results", str(finished_sweep.results)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_a_terminal_that_cannot_show_every_sign_gets_the_table_all_the_same(finished_sweep: FinishedSweep) -> None:
    done = itopctl("report", "--results", finished_sweep.results, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    assert "set-itop" in done.stdout


def test_an_interval_that_never_comes_is_pointed_out(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**BASE, "method": "rigl-itop", "sparsity": 0.9}, grid={"seed": 3})
    plan = itopctl("sweep", spec, "--dry-run", cwd=tmp_path)
    assert plan.stdout.count("never updates in 33 steps on digits: it is a static network") == 1


def test_a_growth_rule_of_the_users_own_runs_and_may_be_edited_meanwhile(tmp_path: Path) -> None:
    (tmp_path / "own_rules.py").write_text(
        "import pathlib\n"
        "from itopctl.dst import rule\n"
        "@rule(needs=())\n"
        "def last_first(layer):\n"
        "    pathlib.Path('own_rules.py').write_text('def half typed(')\n"  # the user is editing it
        "    n = layer.weight.numel()\n"
        "    import torch\n"
        "    return torch.arange(n, dtype=torch.float32).view(layer.weight.shape)\n"
    )
    base = {**BASE, "method": "set-itop", "sparsity": 0.9, "update_interval": 5, "growth": "own_rules:last_first"}
    done = itopctl("sweep", write_spec(tmp_path, base=base), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = json.loads(itopctl("report", "-t", "runs", "--json", cwd=tmp_path).stdout)
    assert run["growth"] == "own_rules:last_first"
    assert run["train_flops_ratio"] == pytest.approx(run["inference_flops_ratio"])
    assert (tmp_path / "own_rules.py").stat().st_size < 20


NET = "torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, classes))"


def run_own_model(folder: Path, body: str) -> tuple[int, dict[str, Any]]:
    """Sweep one run of a model of the user's; returns the exit code and the run's record."""
    code = f"import os, sys, torch\ndef make_model(input_shape, classes):\n    {body}\n    return {NET}\n"
    return run_own_code(folder, code)


def run_own_code(folder: Path, code: str) -> tuple[int, dict[str, Any]]:
    (folder / "own_net.py").write_text(code)
    done = itopctl("sweep", write_spec(folder, base={**BASE, "model": "own_net:make_model"}), cwd=folder)
    assert "Traceback" not in done.stdout + done.stderr
    (run,) = json.loads(itopctl("status", "--runs", "--json", cwd=folder).stdout)
    return done.returncode, run


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("os.chdir('/')", id="that changes the working directory"),
        pytest.param("assert sys.stdin.read() == ''", id="that reads standard input"),
        pytest.param("import subprocess; subprocess.Popen(['sleep', '30'])", id="that leaves a process behind"),
    ],
)
def test_a_model_of_odd_manners_is_trained_all_the_same(tmp_path: Path, body: str) -> None:
    code, run = run_own_model(tmp_path, body)
    assert (code, run["state"]) == (0, "done")


@pytest.mark.parametrize(
    ("body", "cause", "attempts"),
    [
        ("os._exit(0)", "killed", 3),
        ("raise KeyboardInterrupt", "user-error", 1),
        ("raise GeneratorExit", "user-error", 1),
        ("sys.exit('enough')", "user-error", 1),
    ],
)
def test_a_model_that_leaves_is_a_failure_and_exit_code_1(tmp_path: Path, body: str, cause: str, attempts: int) -> None:
    net = f"class Net(torch.nn.Linear):\n    def forward(self, x):\n        if self.training:\n            {body}\n"
    net += "        return super().forward(x.flatten(1))\n"
    rest = "def make_model(input_shape, classes):\n    return Net(64, classes)\n"
    code, run = run_own_code(tmp_path, f"import os, sys, torch\n{net}{rest}")
    assert (code, run["state"], run["cause"], run["attempts"]) == (1, "failed", cause, attempts)


def test_commands_with_other_settings_share_a_sweep_and_lose_none_of_its_runs(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base=BASE, grid={"batch_size": [64, 128, 256, 512]})
    command = [sys.executable, "-m", "itopctl", "sweep", str(spec), "--results", str(tmp_path / "r"), "--workers", "1"]
    sweeps = [
        subprocess.Popen([*command, "--set", f"seed={seed}"], stdout=subprocess.PIPE, text=True) for seed in range(2)
    ]
    for sweep in sweeps:
        sweep.communicate(timeout=200)
    (row,) = json.loads(itopctl("status", "--json", "--results", tmp_path / "r").stdout)
    assert (row["total"], row["done"]) == (8, 8)
    assert {run["sweep"] for run in runs_of(tmp_path / "r")} == {"trial"}


def test_a_plan_of_many_runs_shows_some_and_says_how_many_more(tmp_path: Path) -> None:
    plan = itopctl("sweep", write_spec(tmp_path, base=BASE, grid={"seed": 230}), "--dry-run", cwd=tmp_path)
    assert "Plan: 230 new" in plan.stdout
    assert "… and 30 more" in plan.stdout
