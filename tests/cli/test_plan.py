"""`itopctl plan`: what people and programs see of it, and that a sweep then does what the plan said."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from itopctl.config.expand import expand
from itopctl.config.reading import read_file
from itopctl.config.sweep import parse_sweep
from itopctl.plan.predicted_exploration import predicted_exploration
from itopctl.train.loop import Training
from itopctl.train.setup import be_deterministic
from tests.cli.desk import Desk
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, need_fashion_mnist, write_spec
from tests.share import of_share

SWEEPS = Path(__file__).parents[2] / "sweeps"
BASE = {"dataset": "digits", "model": "lenet-300-100", "method": "set-itop", "sparsity": 0.9, "epochs": 20}

GROUP_FIELDS = [
    "dataset", "model", "method", "sparsity", "growth", "update_interval", "settings", "runs", "new", "done", "pending",
    "running", "failed", "steps", "updates", "exploration_rate", "exploration_known", "maskable", "trainable",
    "density", "total_density", "left_dense", "train_flops_ratio", "inference_flops_ratio", "seconds",
    "seconds_from_runs", "memory_bytes", "disk_bytes", "kept_bytes", "problem",
]  # fmt: skip


def planned(desk: Desk, *arguments: str | Path) -> list[dict[str, Any]]:
    done = desk("plan", *arguments, "--json")
    assert done.code == 0, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def test_runs_that_differ_in_the_seed_alone_are_a_row(desk: Desk) -> None:
    spec = write_spec(desk.folder, base=BASE, grid={"seed": 3, "update_interval": [10, 20], "sparsity": [0.8, 0.9]})
    rows = planned(desk, spec)
    assert [(row["update_interval"], row["sparsity"], row["runs"], row["new"]) for row in rows] == [
        (10, 0.8, 3, 3), (10, 0.9, 3, 3), (20, 0.8, 3, 3), (20, 0.9, 3, 3),
    ]  # fmt: skip
    assert [row["settings"] for row in rows[::2]] == [{"update_interval": 10}, {"update_interval": 20}]
    assert [(row["steps"], row["updates"]) for row in rows[::2]] == [(220, 21), (220, 10)]


def test_every_run_has_a_row_where_that_is_asked(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 10}, grid={"seed": 3})
    rows = planned(desk, spec, "--runs")
    assert [(row["seed"], row["state"]) for row in rows] == [(0, "new"), (1, "new"), (2, "new")]
    assert {row["run_id"] for row in rows} == set(expand(parse_sweep(read_file(spec))).runs)
    assert rows[0]["config"]["update_interval"] == 10


def test_the_fields_for_programs_are_stable(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 10})
    (row,) = planned(desk, spec)
    assert list(row) == GROUP_FIELDS
    header, _ = desk("plan", spec, "--format", "csv").out.splitlines()
    assert header.split(",") == GROUP_FIELDS
    (one,) = planned(desk, spec, "--runs")
    shared = [name for name in GROUP_FIELDS if name not in ("settings", "runs", *GROUP_FIELDS[8:13])]
    assert list(one) == ["run_id", "state", *shared[:6], "seed", *shared[6:], "config"]


def test_a_person_sees_notes_table_totals_and_warnings(desk: Desk) -> None:
    spec = write_spec(
        desk.folder,
        base={**BASE, "method": "rigl-itop"},
        grid={"update_interval": [10, 100, 220, "1 epoch"]},
        include=[{"base": {"method": "dense"}}, {"base": {"method": "static"}}],
    )
    done = desk("plan", spec)
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "Plan: 6 new, 0 done, 0 running, 0 failed, 0 duplicate."
    assert any(
        re.fullmatch(r"trial: (sparsity|update_interval).* means? nothing for dense \(.*\)", line) for line in lines
    )
    assert (
        "never updates in 220 steps on digits: it is a static network; an interval below 220 steps, or 21 " in done.out
    )
    table = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[:7] for row in table] == [
        ["dense", "0 %", "1 new", "–", "220", "0", "1.00"],
        ["static", "90 %", "1 new", "–", "220", "0", "0.10"],
        ["rigl-itop", "90 %", "1 new", "10", "220", "21", "≤ 0.46"],
        ["rigl-itop", "90 %", "1 new", "11", "220", "19", "≤ 0.44"],
        ["rigl-itop", "90 %", "1 new", "100", "220", "2", "≤ 0.13"],
        ["rigl-itop", "90 %", "1 new", "220", "220", "0", "0.10"],
    ]
    assert "Gradients come back to the same weights and explore less" in done.out
    assert "To run: 6 runs, 1,320 steps, 42 topology updates," in done.out
    assert "Time: unknown, since this machine has finished no such run." in done.out
    assert lines[-1].startswith("Warning: 1 run (rigl-itop, lenet-300-100 on digits) will hardly explore (R_s 0.13)")


def test_beside_a_table_for_programs_totals_and_warnings_go_to_standard_error(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 100})
    done = desk("plan", spec, "--json")
    assert len(json.loads(done.out)) == 1
    assert done.err.startswith("To run: 1 run, 220 steps")
    assert "Warning: 1 run (set-itop" in done.err


def test_nothing_is_made(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 10})
    before = sorted(desk.folder.rglob("*"))
    planned(desk, spec)
    assert sorted(desk.folder.rglob("*")) == before


def test_a_run_that_cannot_be_made_is_named_beside_the_others_and_is_exit_2(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 10}, grid={"sparsity": [0.9, 0.99999], "seed": 2})
    done = desk("plan", spec, "--json")
    assert done.code == 2
    good, bad = json.loads(done.out)
    assert good["problem"] is None and good["exploration_rate"] is not None
    assert "largest reachable sparsity" in bad["problem"] and bad["steps"] is None
    assert "Warning: 2 runs (set-itop, lenet-300-100 on digits) cannot be made: sparsity 0.99999 leaves" in done.err
    assert done.err.endswith("itopctl: 2 runs cannot be made; `itopctl sweep` starts nothing of this.\n")
    assert "2 runs cannot be made; see below.\nTo run: 2 runs, 440 steps" in done.err
    shown = desk("plan", spec)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.out.splitlines() if "99.999 %" in line]
    assert (shown.code, rows[0]) == (2, ["set-itop", "99.999 %", "2 new", "10", *["–"] * 7])


OWN = """
from pathlib import Path
from torch import nn

def good(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Linear(16, classes))

def broken(input_shape, classes):
    if Path("broken").exists():
        raise RuntimeError("no such thing")
    return good(input_shape, classes)

def lacks_a_gpu(input_shape, classes):
    raise RuntimeError("No CUDA GPUs are available")
"""


def test_a_model_that_cannot_be_made_stops_plan_and_sweep_before_anything_starts(desk: Desk) -> None:
    (desk.folder / "own_nets.py").write_text(OWN)
    (desk.folder / "broken").touch()
    base = {**BASE, "update_interval": 10, "epochs": 1}
    said = "2 runs (set-itop, own_nets:broken on digits) cannot be made: own_nets.py:10: RuntimeError: no such thing."

    only = write_spec(desk.folder, base={**base, "model": "own_nets:broken"}, grid={"seed": 2})
    shown = desk("plan", only)
    assert shown.code == 2 and f"Warning: {said}" in shown.out and "Nothing is left to run" not in shown.out
    assert shown.err == "itopctl: 2 runs cannot be made; `itopctl sweep` starts nothing of this.\n"

    some = write_spec(desk.folder, base=base, grid={"model": ["own_nets:good", "own_nets:broken"], "seed": 2})
    for arguments in ((), ("--dry-run",)):
        refused = desk("sweep", some, *arguments)
        assert refused.code == 2
        assert refused.err.startswith(f"itopctl: nothing is started: 2 of 4 runs cannot be made.\n{said}\n")
        assert ("own_nets:good" in refused.out) == (arguments == ("--dry-run",))
    assert not desk.results.path.exists()


@pytest.mark.slow
def test_a_run_that_is_done_needs_no_making(desk: Desk) -> None:
    (desk.folder / "own_nets.py").write_text(OWN)
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 10, "epochs": 1, "model": "own_nets:broken"})
    assert desk("sweep", spec).code == 0
    (desk.folder / "broken").touch()
    assert desk("sweep", spec).code == 0
    again = desk("plan", spec)
    assert (again.code, again.err) == (0, "") and "Nothing is left to run." in again.out


def test_a_model_that_this_machine_cannot_make_is_left_to_the_nodes(desk: Desk) -> None:
    (desk.folder / "own_nets.py").write_text(OWN)
    spec = write_spec(desk.folder, base={**BASE, "update_interval": 10, "model": "own_nets:lacks_a_gpu"})
    said = "cannot be made on this machine: own_nets.py:14: RuntimeError: No CUDA GPUs are available."
    there = desk("sweep", spec, "--cluster", "slurm")
    assert there.code == 0 and f"{said} The nodes may have what this machine lacks: `--first 1`" in there.err
    assert len(desk.fake.arrays) == 1


def test_a_plan_knows_what_is_done_and_what_it_took(finished_sweep: FinishedSweep) -> None:
    done = itopctl("plan", finished_sweep.spec, "--results", finished_sweep.results, "--json", "--runs")
    assert done.returncode == 0, done.stderr
    assert "Nothing is left to run." in done.stderr.splitlines()
    rows = json.loads(done.stdout)
    assert len(rows) == 14
    results = {row["run_id"]: _result(finished_sweep.results, row["run_id"]) for row in rows}
    for row in rows:
        result = results[row["run_id"]]
        assert row["state"] == "done" and row["seconds"] > 0 and row["seconds_from_runs"] >= 1
        assert row["updates"] == result["topology_updates"]
        assert row["train_flops_ratio"] == pytest.approx(result["train_flops_ratio"])
        folder = finished_sweep.results / "runs" / row["run_id"]
        written = sum(file.stat().st_size for file in folder.iterdir())
        assert 0.3 < row["kept_bytes"] / (2 * written) < 3  # the folder, and as much in the store


def _result(results: Path, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((results / "runs" / run_id / "result.json").read_text())
    return found


def test_what_a_finished_sweep_took_tells_the_time_of_a_longer_one(finished_sweep: FinishedSweep) -> None:
    arguments = ("plan", finished_sweep.spec, "--results", finished_sweep.results, "--set", "epochs=400")
    done = itopctl(*arguments, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert re.search(r"Time: .* here with 2 runs at one time \([\d.]+ worker hours\)\.", done.stdout)
    assert "unknown" not in done.stdout


# The interval that reaches an exploration rate ------------------------------------------------------------


def test_an_interval_to_reach_is_solved_alike_by_sweep_plan_and_doctor(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "update_interval": {"reach": 0.4}})
    (row,) = planned(desk, spec, "--runs")
    assert 0.4 <= row["exploration_rate"] < 0.45
    dry = json.loads(desk("sweep", spec, "--dry-run", "--format", "json").out)
    assert [(run["run_id"], run["config"]["update_interval"]) for run in dry] == [
        (row["run_id"], row["update_interval"])
    ]
    assert "trial: update_interval {reach: 0.4} is 12 steps" in desk("plan", spec).out
    assert desk("doctor", spec).code in (0, 3)
    (set_,) = planned(desk, write_spec(desk.folder, base=BASE), "--set", "update_interval={reach: 0.4}")
    assert set_["update_interval"] == row["update_interval"]


@pytest.mark.parametrize("verb", ["plan", "sweep"])
def test_an_interval_out_of_reach_says_where_it_stands_and_what_would_do(desk: Desk, verb: str) -> None:
    spec = write_spec(desk.folder, base={**BASE, "epochs": 2}, grid={"update_interval": [5, {"reach": 0.95}]})
    done = desk(verb, spec)
    assert (done.code, done.out) == (2, "")
    where = rf"itopctl: {re.escape(str(spec))}:\d+: grid\.update_interval\[1\]: an exploration rate of 0\.95 is out of "
    assert re.match(where + r"reach: .* 22 steps \(2 epochs\) explores 0\.\d{4}\. Training for \d+ epochs", done.err)


@pytest.mark.parametrize("style", ["rich", "json", "csv"])
def test_a_network_that_stays_static_is_warned_of_whatever_the_format(desk: Desk, tmp_path: Path, style: str) -> None:
    for setting in ({"update_interval": 5000}, {"drop_schedule": {"name": "cosine", "final": 0.005, "stop": 0.01}}):
        spec = write_spec(tmp_path, base={**BASE, "update_interval": 5, **setting})
        done = desk("plan", spec, "--format", style)
        told = done.out if style == "rich" else done.err
        assert done.code == 0 and any(line.startswith("Warning: ") and "never" in line for line in told.splitlines())


def test_a_sweep_that_asks_for_no_rate_does_not_import_torch(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={**BASE, "update_interval": 5})
    code = (
        "import sys; sys.argv = ['itopctl', 'sweep', sys.argv[1], '--dry-run']\n"
        "from itopctl.cli import app\n"
        "try:\n    app.run()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(spec)], check=True, cwd=tmp_path, capture_output=True)


def test_a_run_reaches_what_its_interval_was_solved_for(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "epochs": 30, "update_interval": {"reach": 0.5}})
    (row,) = planned(desk, spec, "--runs")
    assert desk("sweep", spec, "--workers", "1").code == 0
    result = _result(desk.results.path, row["run_id"])
    assert result["exploration_rate"] == pytest.approx(row["exploration_rate"], abs=0.01)
    assert result["exploration_rate"] > 0.49
    assert planned(desk, spec, "--runs")[0]["state"] == "done"


# The shipped sweeps, for real -------------------------------------------------------------------------------


def _check_random_growth(name: str, **only: Any) -> int:
    """Train a third of the runs of a shipped sweep that grow at random, or of those with the given settings.

    Another third with each commit (`tests/share.py`). Returns how many there are.
    """
    be_deterministic(1)
    runs = expand(parse_sweep(read_file(SWEEPS / name))).runs.values()
    chosen = [
        run for run in runs
        if run.growth == "random" and all(getattr(run, setting) == value for setting, value in only.items())
    ]  # fmt: skip
    for config in of_share(chosen, name, 3):
        result = Training(config, Path("data"), lambda name, fields: None).run()
        predicted, known = predicted_exploration(config.model_dump(mode="json"), result["layers"])
        assert known == "expected"
        assert predicted == pytest.approx(result["exploration_rate"], abs=0.02), config
    return len(chosen)


@pytest.mark.slow
def test_predicted_and_measured_exploration_of_the_digits_sweep_are_within_a_fiftieth() -> None:
    assert _check_random_growth("digits.yaml") == 18


@pytest.mark.slow
def test_predicted_and_measured_exploration_of_a_fashion_mnist_run_are_within_a_fiftieth() -> None:
    need_fashion_mnist()
    assert _check_random_growth("fashion_mnist.yaml", seed=0, sparsity=0.95, update_interval=50) == 1
