"""What the README shows runs as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.growth_figure import crossing, draw, read
from itopctl.catalogue import ALLOCATIONS, DROP_SCHEDULES, DROPS, GROWTHS, METHODS, MODELS, REDISTRIBUTIONS, Catalogue
from itopctl.dispatch.run_files import load_config
from itopctl.dst import SparseTraining
from itopctl.report.figures.make import encoded
from itopctl.store.rundir import RunDirectory
from itopctl.train.checkpoint import decode
from itopctl.train.export.network import trained_network
from tests.conftest import FinishedSweep
from tests.helpers import itopctl

README = Path("README.md").read_text()


def block(language: str, begins: str = "") -> str:
    """The first block of a language that has a text in its first lines."""
    blocks = [part.split("```")[0] for part in README.split(f"```{language}\n")[1:]]
    return next(block for block in blocks if begins in block[:200])


def test_the_example_spec_expands(tmp_path: Path) -> None:
    spec = tmp_path / "example.yaml"
    spec.write_text(block("yaml"))
    plan = itopctl("sweep", spec, "--dry-run", "--format", "json", cwd=tmp_path)
    assert plan.returncode == 0, plan.stderr
    configs = [record["config"] for record in json.loads(plan.stdout)]
    assert {config["method"] for config in configs} == {"set-itop", "rigl-itop", "dense", "static"}
    assert not any(config["method"] == "rigl-itop" and config["update_interval"] == 500 for config in configs)


def test_the_engine_alone_trains_as_shown() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        "loss_function": nn.CrossEntropyLoss(),
        "batches": [(torch.randn(8, 20), torch.randint(0, 4, (8,))) for _ in range(1200)],
    }
    exec(block("python", "import SparseTraining"), names)
    sparse = names["sparse"]
    assert sparse.active == round(0.1 * sparse.maskable)
    assert sparse.updates_done == 1
    assert sparse.exploration_rate > sparse.density


def test_what_layers_cost_is_told_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, sparsity=0.9, total_steps=10)
    exec(block("python", "layer_costs"), {"model": model, "sparse": sparse, "example": torch.zeros(1, 20)})
    ratio, size = map(float, capsys.readouterr().out.split())
    assert 0.05 < ratio < 0.2 and 0 < size < 0.003


@pytest.mark.slow
def test_a_project_does_what_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block("python", "import itopctl"), names)
    assert len(names["outcome"].done) == 4
    assert (tmp_path / "quick.html").exists() and (tmp_path / "results" / "itop.db").exists()


def test_exported_weights_are_read_as_shown(
    finished_sweep: FinishedSweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = json.loads(itopctl("report", "-t", "runs", "--json", "--results", finished_sweep.results).stdout)
    run = next(run["run_id"] for run in runs if run["method"] == "set-itop")
    path = tmp_path / "RUN.safetensors"
    assert itopctl("export", run, "-f", "safetensors", "-o", path, "--results", finished_sweep.results).returncode == 0
    monkeypatch.chdir(tmp_path)
    model = MODELS.function("lenet-300-100")(input_shape=(1, 8, 8), classes=10)
    exec(block("python", "safe_open"), {"model": model})
    kept = decode((finished_sweep.results / "runs" / run / "network.pt").read_bytes())
    network = trained_network(run, load_config(RunDirectory(finished_sweep.results / "runs" / run)), kept)
    for name, weight in network.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)


def test_a_rule_of_ones_own_works_as_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rules.py").write_text(block("python", "import rule"))
    monkeypatch.syspath_prepend(str(tmp_path))
    model = nn.Linear(20, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(
        model, optimizer, "rigl", sparsity=0.8, total_steps=10, update_interval=1, growth="my_rules:nearest_zero"
    )
    model(torch.randn(4, 20)).square().sum().backward()
    update = sparse.step()
    assert update is not None and update.replaced > 0
    assert sparse.active == 40


def test_the_exploration_rate_is_predicted_as_shown(capsys: pytest.CaptureFixture[str]) -> None:
    exec(block("python", "import Rules"), {})
    printed = capsys.readouterr().out.splitlines()
    shown = re.findall(r"^print.*# (.*)$", block("python", "import Rules"), re.MULTILINE)
    rates = dict(re.findall(r"'(\w+)': ([\d.]+)", printed[0]))
    assert {name: rate[:6] for name, rate in rates.items()} == dict(re.findall(r"'(\w+)': ([\d.]+)…", shown[0]))
    assert printed[1] == shown[1].split(":")[0]


@pytest.mark.parametrize("compute", ["masked", "sparse"])
def test_an_average_is_kept_as_shown(compute: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    names = {
        "model": model,
        "optimizer": optimizer,
        "sparse": SparseTraining(
            model, optimizer, "rigl-itop", sparsity=0.8, total_steps=100, update_interval=5, compute=compute
        ),
        "loss_function": nn.CrossEntropyLoss(),
        "batches": [(torch.randn(8, 20), torch.randint(0, 4, (8,))) for _ in range(20)],
        "evaluate": lambda network: network(torch.ones(1, 20)),
    }
    exec(block("python", "import WeightAverage"), names)
    assert torch.equal(names["network"](torch.ones(1, 20)), names["accuracy"])
    assert not torch.equal(model(torch.ones(1, 20)), names["accuracy"])


@pytest.mark.parametrize(
    ("setting", "catalogue"),
    [("method", METHODS), ("allocation", ALLOCATIONS), ("drop", DROPS), ("growth", GROWTHS),
     ("redistribution", REDISTRIBUTIONS), ("drop_fraction", DROP_SCHEDULES)],
)  # fmt: skip
def test_every_name_of_the_catalogues_is_in_the_table_of_rules(setting: str, catalogue: Catalogue) -> None:
    (row,) = re.findall(rf"^\| `{setting}`.*$", README, re.MULTILINE)
    assert all(f"`{name}`" in row or f'"{name}"' in row for name in catalogue.names())


def test_every_command_and_option_of_the_table_exists() -> None:
    table = README.split("## Commands")[1].split("## ")[0]
    rows = re.findall(r"^\| `itopctl ([^`]+)`(.*)$", table, re.MULTILINE)
    assert len(rows) >= 8
    for command, rest in rows:
        words = [word for word in command.split() if word.islower()]
        shown = itopctl(*words, "--help", COLUMNS="200").stdout
        assert "Usage: itopctl" in shown
        for option in re.findall(r"--[a-z][a-z-]+", rest):
            assert option in shown, (command, option)


def test_every_link_to_a_file_leads_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert Path(target).exists(), target


def test_the_picture_of_cost_is_of_the_data_beside_it_and_the_text_says_what_it_shows() -> None:
    costs, text = read(Path("docs/sparse-cost.csv")), " ".join(README.split())
    picture = encoded(draw(costs), "svg")
    assert picture.startswith(b"<?xml") and picture == encoded(draw(costs), "svg")
    for network in dict.fromkeys(cost.network for cost in costs if cost.against == "density"):
        density = crossing([cost for cost in costs if cost.network == network])
        assert density is not None and f"{density:.2f} in the {network.split()[0].split('-')[0]}" in text
