"""What the README shows runs as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import nn

from tests.helpers import itopctl

README = Path("README.md").read_text()


def block(language: str) -> str:
    """The first block of a language."""
    return README.split(f"```{language}\n")[1].split("```")[0]


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
    exec(block("python"), names)
    sparse = names["sparse"]
    assert sparse.active == round(0.1 * sparse.maskable)
    assert sparse.updates_done == 1
    assert sparse.exploration_rate > sparse.density


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
