"""Models with attention, recurrent layers and parameters of their own: what runs mask, count, leave dense and tell."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cli.desk import Desk
from tests.helpers import itopctl, write_spec

MATRICES = 8 * 16 + 3 * 16 * 16 + 16 * 16 + 2 * 16 * 32 + 16 * 10  # of the transformer, in its layers
POSITIONS = 8 * 16
REST = 16 + 3 * 16 + 16 + 32 + 16 + 4 * 16 + 10  # biases and norms
PRODUCTS = 2 * 8 * 8 * 16  # of queries with keys, and of attention weights with values
MACS = 8 * (8 * 16 + 4 * 16 * 16 + 2 * 16 * 32) + 16 * 10 + PRODUCTS

BASE = {"dataset": "digits", "epochs": 1, "method": "set-itop", "sparsity": 0.8, "update_interval": 4,
        "compute": "masked"}  # fmt: skip
MODELS = Path(__file__).with_name("own_layers.py")

Record = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """A finished sweep over such models, and what `plan` said of it before."""

    spec: Path
    results: Path
    planned: list[Record]

    def __call__(self, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return itopctl(*arguments, "--results", self.results, cwd=self.spec.parent)

    def json(self, *arguments: str | Path) -> Any:
        done = self(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def run(self, model: str, method: str, also_mask: list[str] | None = None) -> str:
        """The id of a run."""
        (found,) = [
            row["run_id"] for row in self.planned
            if (row["model"], row["method"], row["config"]["also_mask"]) == (f"own_layers:{model}", method, also_mask)
        ]  # fmt: skip
        return str(found)

    def result(self, run_id: str) -> Record:
        found: Record = json.loads((self.results / "runs" / run_id / "result.json").read_text())
        return found


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    folder = tmp_path_factory.mktemp("own layers")
    shutil.copy(MODELS, folder)
    spec = write_spec(folder, base=BASE, include=[
        {"base": {"model": "own_layers:transformer"}, "grid": {"method": ["set-itop", "static", "dense"]}},
        {"base": {"model": "own_layers:transformer", "also_mask": ["posi*"]}},
        {"base": {"model": "own_layers:lstm"}},
        {"base": {"model": "own_layers:product", "also_mask": ["matrix"]}},
    ])  # fmt: skip
    plan = itopctl("plan", spec, "--results", folder / "results", "--json", "--runs", cwd=folder)
    assert plan.returncode == 0, plan.stderr
    swept = itopctl("sweep", spec, "--results", folder / "results", "--workers", "1", cwd=folder)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    return Work(spec, folder / "results", json.loads(plan.stdout))


def test_what_plan_says_of_weights_and_costs_is_what_the_runs_have(work: Work) -> None:
    for row in work.planned:
        result = work.result(row["run_id"])
        for name in ("maskable", "trainable", "density", "total_density", "left_dense"):
            assert row[name] == result[name], (row["model"], name)
        for name in ("train_flops_ratio", "inference_flops_ratio"):
            assert row[name] == pytest.approx(result[name]), (row["model"], name)


def test_projections_of_attention_are_masked_and_its_products_stay_in_the_costs(work: Work) -> None:
    result = work.result(work.run("transformer", "set-itop"))
    active = round(0.2 * MATRICES)
    assert (result["maskable"], result["active"]) == (MATRICES, active)
    assert result["left_dense"] == {"positions": POSITIONS}
    assert result["trainable"] == MATRICES + POSITIONS + REST
    assert result["total_density"] == pytest.approx((active + POSITIONS + REST) / (MATRICES + POSITIONS + REST))
    layers = {layer["name"]: layer["shape"] for layer in result["layers"]}
    assert [layers[f"encoder.self_attn.in_proj_weight.{block}"] for block in "qkv"] == 3 * [[16, 16]]
    assert work.result(work.run("transformer", "dense"))["inference_flops"] == 2 * MACS
    uses = {layer["name"]: 1 if layer["name"] == "out.weight" else 8 for layer in result["layers"]}
    sparse = PRODUCTS + sum(uses[layer["name"]] * layer["active"] for layer in result["layers"])
    assert result["inference_flops_ratio"] == pytest.approx(sparse / MACS)


def test_gates_of_an_lstm_are_masked_one_by_one(work: Work) -> None:
    result = work.result(work.run("lstm", "set-itop"))
    assert result["maskable"] == 4 * 12 * (8 + 12) + 12 * 10
    assert [layer["name"] for layer in result["layers"]] == [
        *(f"lstm.weight_ih_l0.{gate}" for gate in "ifgo"), *(f"lstm.weight_hh_l0.{gate}" for gate in "ifgo"),
        "out.weight",
    ]  # fmt: skip
    assert result["left_dense"] == {}


def test_also_mask_masks_what_would_be_left_dense(work: Work) -> None:
    result = work.result(work.run("transformer", "set-itop", ["posi*"]))
    assert (result["maskable"], result["left_dense"]) == (MATRICES + POSITIONS, {})
    assert "positions" in {layer["name"] for layer in result["layers"]}
    product = work.result(work.run("product", "set-itop", ["matrix"]))
    assert (product["maskable"], product["active"], product["total_density"]) == (640, 128, 0.2)
    assert product["inference_flops_ratio"] == 1.0  # nothing of it is counted: the model writes the product out itself


SAID = f"positions ({100 * POSITIONS / (MATRICES + POSITIONS + REST):.1f} % of all weights)"


def test_plan_says_once_for_each_model_what_is_left_dense(desk: Desk) -> None:
    shutil.copy(MODELS, desk.folder)
    spec = write_spec(desk.folder, base={**BASE, "model": "own_layers:transformer"}, grid={"sparsity": [0.8, 0.9]},
                      include=[{"base": {"method": "dense"}}])  # fmt: skip
    notes = [line for line in desk("plan", spec).out.splitlines() if "ense: " in line]
    assert notes == [f"Left dense: {SAID}. `also_mask` masks them, too."]
    assert "Left dense" not in desk("plan", spec, "--set", "also_mask=[positions]").out
    refused = desk("plan", spec, "--set", "also_mask=[pos]")
    assert refused.code == 2
    assert "also_mask 'pos' matches no parameter of two or more dimensions" in refused.out


def test_what_is_left_dense_is_said_by_log_and_show(work: Work) -> None:
    for method in ("set-itop", "static"):  # by one worker, the second run no less than the first
        log = (work.results / "runs" / work.run("transformer", method) / "log.txt").read_text().splitlines()
        (line,) = [line for line in log if "left dense" in line]
        assert line == f"Warning: left dense: {SAID}. Name them in also_mask to mask them, too."
        (begins,) = [line for line in log if line.startswith("training on ")]
        assert begins == f"training on cpu: {MATRICES:,} maskable weights at density 0.1999 (0.2989 of all weights)"
    shown = work("show", work.run("transformer", "set-itop")).stdout
    assert SAID in shown and "density over all weights" in shown and "encoder.self_attn.in_proj_weight.q" in shown
    assert "left dense" not in work("show", work.run("transformer", "dense")).stdout
    assert "left dense" not in (work.results / "runs" / work.run("transformer", "dense") / "log.txt").read_text()


def test_show_report_and_the_store_have_the_density_over_all_weights(work: Work) -> None:
    run = work.run("transformer", "set-itop")
    result = work.result(run)
    shown = work.json("show", run)
    assert {name: shown[name] for name in ("total_density", "trainable", "left_dense", "maskable")} == {
        name: result[name] for name in ("total_density", "trainable", "left_dense", "maskable")
    }
    rows = work.json("report", "-t", "runs", "--columns", "run_id,total_density", "--where", "total_density < 31%")
    assert {row["run_id"]: row["total_density"] for row in rows}[run] == result["total_density"]
    layers = work.json("report", "-t", "layers", "--where", "method = set-itop and model ~ *transformer")
    assert {"encoder.self_attn.in_proj_weight.q", "encoder.self_attn.in_proj_weight.v"} <= {
        row["layer"] for row in layers
    }
    assert len(work.json("report", "-t", "cost")) == 6


def test_a_finished_run_is_not_marked_as_long_as_its_model_is_the_same(work: Work) -> None:
    run = work.run("lstm", "set-itop")
    assert work.json("show", run, "--trust")["maskable_today"] == work.result(run)["maskable"]
    assert "An older version" not in work("show", run).stdout
