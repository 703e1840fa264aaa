"""`itopctl sweep`, end to end: real runs on real data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FinishedSweep
from tests.helpers import itopctl, write_spec

ONE = {
    "base": {"dataset": "digits", "model": "lenet-300-100", "method": "static", "sparsity": 0.9, "epochs": 1},
    "grid": {"seed": [0]},
}


def tree(folder: Path) -> dict[str, float]:
    """Every file below a folder with the time of its last change."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.suffix != ".db"}


def test_a_sweep_tells_its_plan_its_runs_and_how_to_go_on(finished_sweep: FinishedSweep) -> None:
    lines = finished_sweep.output.splitlines()
    assert lines[0] == "Plan: 14 new, 0 done, 0 running, 0 failed, 2 duplicate."
    assert "trial: sparsity means nothing for dense (4 of its points set it)" in lines
    assert sum(line.startswith("done ") for line in lines) == 14
    assert lines[-2] == "14 of 14 runs done."
    assert lines[-1] == "See the results: itopctl report trial --table paper"
    assert not any("\x1b" in line for line in lines)


def test_a_finished_sweep_starts_nothing_again(finished_sweep: FinishedSweep) -> None:
    before = tree(finished_sweep.results)
    again = itopctl("sweep", finished_sweep.spec, "--results", finished_sweep.results)
    assert again.returncode == 0
    assert again.stdout.startswith("Plan: 0 new, 14 done, 0 running, 0 failed, 2 duplicate.")
    assert tree(finished_sweep.results) == before


def test_a_spec_that_gained_points_runs_only_those(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert itopctl("sweep", write_spec(tmp_path, **ONE), "--results", results).returncode == 0
    before = tree(results / "runs")
    grown = itopctl("sweep", write_spec(tmp_path, **{**ONE, "grid": {"seed": [0, 1]}}), "--results", results)
    assert grown.stdout.startswith("Plan: 1 new, 1 done")
    assert before.items() <= tree(results / "runs").items()
    assert len(list((results / "runs").iterdir())) == 2


def test_two_specs_share_the_runs_they_have_in_common(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = write_spec(tmp_path / "a", **ONE, name="first")
    second = write_spec(tmp_path / "b", **{**ONE, "grid": {"seed": [0, 1]}}, name="second")
    done = itopctl("sweep", first, second, "--results", tmp_path / "results")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Plan: 2 new, 0 done, 0 running, 0 failed, 1 duplicate.")
    runs = json.loads(itopctl("report", "-t", "runs", "--json", "--results", tmp_path / "results").stdout)
    assert sorted(run["sweep"] for run in runs) == ["first,second", "second"]


def test_two_specs_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    other = write_spec(tmp_path / "a", **ONE)
    both = itopctl("sweep", write_spec(tmp_path, **ONE), other, "--results", tmp_path / "results")
    assert both.returncode == 2
    assert "is the name of" in both.stderr


def test_a_dry_run_prints_the_plan_and_writes_nothing(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, **ONE)
    plan = itopctl("sweep", spec, "--dry-run", "--set", "seed=7", cwd=tmp_path)
    assert plan.returncode == 0
    assert "Plan: 1 new" in plan.stdout
    assert "static" in plan.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]
    records = json.loads(itopctl("sweep", spec, "--dry-run", "--format", "json", cwd=tmp_path).stdout)
    assert records[0]["config"]["sparsity"] == 0.9
    assert records[0]["state"] == "new"


def test_set_overrides_every_run(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, **{**ONE, "grid": {"seed": [0, 1]}})
    arguments = ("--set", "optimizer.lr=1e-2", "--set", "sparsity=0.5", "--dry-run", "--format", "json")
    records = json.loads(itopctl("sweep", spec, *arguments, cwd=tmp_path).stdout)
    assert len(records) == 2
    assert all(record["config"]["optimizer"]["lr"] == 0.01 for record in records)
    assert all(record["config"]["sparsity"] == 0.5 for record in records)


def test_a_missing_data_set_is_told_before_anything_starts(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**ONE["base"], "dataset": "cifar100"}, grid={"seed": [0]})
    missing = itopctl("sweep", spec, cwd=tmp_path)
    assert missing.returncode == 3
    assert "itopctl data fetch cifar100" in missing.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["spec.yaml"]


def test_another_cluster_is_refused_with_what_there_is(tmp_path: Path) -> None:
    refused = itopctl("sweep", write_spec(tmp_path, **ONE), "--cluster", "locla", cwd=tmp_path)
    assert refused.returncode == 2
    assert "Did you mean 'local'?" in refused.stderr


def failing_model(folder: Path) -> None:
    (folder / "shaky.py").write_text(
        "import pathlib, torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        if self.training and not pathlib.Path('mended').exists():\n"
        "            raise RuntimeError('the model is broken')\n"
        "        return super().forward(images)\n"
        "def make_model(input_shape, classes):\n"
        "    return Net(torch.nn.Flatten(), torch.nn.Linear(64, classes))\n"
    )


def test_a_failed_run_ends_with_code_1_its_cause_and_is_tried_again_next_time(tmp_path: Path) -> None:
    failing_model(tmp_path)
    spec = write_spec(tmp_path, base=ONE["base"], grid={"model": ["shaky:make_model", "lenet-300-100"]})
    failed = itopctl("sweep", spec, cwd=tmp_path)
    assert failed.returncode == 1
    assert "user-error" in failed.stdout
    assert "the model is broken" in failed.stdout
    assert "1 of 2 runs done, 1 failed." in failed.stdout
    assert "Traceback" not in failed.stdout + failed.stderr
    status = json.loads(itopctl("status", "--json", cwd=tmp_path).stdout)
    assert (status[0]["done"], status[0]["failed"]) == (1, 1)
    (run,) = json.loads(itopctl("status", "--state", "failed", "--json", cwd=tmp_path).stdout)
    assert run["cause"] == "user-error"
    assert "Traceback" in itopctl("logs", run["run_id"], cwd=tmp_path).stdout

    (tmp_path / "mended").touch()
    mended = itopctl("sweep", spec, cwd=tmp_path)
    assert mended.returncode == 0, mended.stdout
    assert mended.stdout.startswith("Plan: 0 new, 1 done, 0 running, 1 failed")
    details = json.loads(itopctl("show", run["run_id"], "--json", cwd=tmp_path).stdout)
    assert [attempt["state"] for attempt in details["attempt_history"]] == ["failed", "done"]
    assert details["state"] == "done"


def test_divergence_is_a_failure_with_its_step_and_the_rest_goes_on(tmp_path: Path) -> None:
    base: dict[str, Any] = {**ONE["base"], "epochs": 20, "method": "dense"}
    spec = write_spec(tmp_path, base=base, grid={"optimizer.lr": [1e6, 0.1]})
    done = itopctl("sweep", spec, "--results", tmp_path / "r")
    assert done.returncode == 1
    assert "at step" in done.stdout
    assert "last good value" in done.stdout
    assert "1 of 2 runs done, 1 failed." in done.stdout


def test_a_results_folder_that_cannot_be_made_is_exit_3(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    blocked = itopctl("sweep", write_spec(tmp_path, **ONE), "--results", tmp_path / "file" / "results")
    assert blocked.returncode == 3
    assert "cannot be written" in blocked.stderr


def test_results_and_data_folders_come_from_the_environment(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, **ONE)
    done = itopctl("sweep", spec, cwd=tmp_path, ITOPCTL_RESULTS=str(tmp_path / "elsewhere"))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere" / "itop.db").exists()
    assert not (tmp_path / "results").exists()


def test_the_store_can_be_deleted_and_comes_back(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished_sweep.results, copy)
    (copy / "itop.db").unlink()
    commands = [("status",), ("report", "-t", "runs"), ("report", "-t", "paper")]
    for command in commands:
        ours = itopctl(*command, "--json", "--results", copy).stdout
        assert ours == itopctl(*command, "--json", "--results", finished_sweep.results).stdout


@pytest.mark.parametrize("name", ["digits", "fashion_mnist", "cifar10", "cifar100"])
def test_shipped_specs_expand(name: str, tmp_path: Path) -> None:
    path = Path("sweeps").resolve() / f"{name}.yaml"
    plan = json.loads(itopctl("sweep", path, "--dry-run", "--format", "json", cwd=tmp_path).stdout)
    configs = [record["config"] for record in plan]
    assert {"dense", "static", "set-itop", "rigl-itop"} <= {config["method"] for config in configs}
    assert len({config["seed"] for config in configs}) >= 2
    if name == "cifar100":
        assert {config["model"] for config in configs} == {"resnet34"}
        assert {config["epochs"] for config in configs} == {250}
        assert {config["batch_size"] for config in configs} == {128}
        assert {config["sparsity"] for config in configs} == {0.0, 0.9, 0.95, 0.98}
        intervals = {(c["growth"], c["update_interval"]) for c in configs}
        assert {("random", 1500), ("gradient", 4000)} < intervals
