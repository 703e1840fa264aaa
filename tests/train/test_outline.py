"""The outline of a run's network is the network that the engine starts from, made without its weights."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from itopctl.catalogue import DATASETS, MODELS
from itopctl.dst import FlopsMeter, SparseTraining, layer_costs
from itopctl.errors import UserError
from itopctl.train.outline import outline_of
from itopctl.train.setup import rules_of
from tests.helpers import run_config

MINE = """
import torch
from torch import nn


class Stubborn(nn.Module):
    "Looks at its numbers, which there are none of on the meta device."

    def __init__(self, classes):
        super().__init__()
        self.first, self.second = nn.Linear(64, 12), nn.Linear(12, classes)
        self.scale = nn.Parameter(torch.ones(12))
        self.first.weight.requires_grad = False
        assert float(self.second.weight.detach().abs().sum()) > 0

    def forward(self, x):
        return self.second(torch.relu(self.first(x.flatten(1))) * self.scale)


def stubborn(input_shape, classes):
    return Stubborn(classes)


def broken(input_shape, classes):
    raise RuntimeError("no such thing as a width of -3")


def nothing_to_mask(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"models_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield name
    sys.modules.pop(name, None)


def real(**settings: Any) -> tuple[torch.nn.Module, SparseTraining, FlopsMeter]:
    """The network of a run with the engine on it, as the training makes them."""
    config = run_config(**settings)
    options = DATASETS.get(config.dataset).options
    model = MODELS.function(config.model)(input_shape=options["shape"], classes=options["classes"])
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    sparse = SparseTraining(
        model, optimizer, rules=rules_of(config), sparsity=config.sparsity, total_steps=config.total_steps
    )
    return model, sparse, FlopsMeter(layer_costs(model, torch.zeros(1, *options["shape"])))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"sparsity": 0.98, "allocation": "uniform"},
        {"allocation": "uniform-plus", "model": "lenet-5"},
        {"model": "lenet-5", "layer_density": {"0": 0.5}, "keep_dense": ["type:Linear"], "dense_in_budget": False},
        {"model": "wrn-22-2", "dataset": "synthetic", "sparsity": 0.95, "allocation": "er"},
        {"model": "resnet18", "dataset": "cifar100", "keep_dense": ["conv1"]},
        {"model": "vgg16-c", "dataset": "cifar10", "sparsity": 0.9, "method": "rigl"},
        {"method": "static"},
        {"method": "dense"},
        {"sparsity": 0.0},
    ],
    ids=str,
)
def test_the_outline_has_the_layers_densities_and_costs_that_the_engine_has(settings: dict[str, Any]) -> None:
    outline = outline_of(run_config(**settings))
    model, sparse, meter = real(**settings)
    assert outline.shares == {layer.name: (layer.active, layer.size) for layer in sparse.layers()}
    assert (outline.active, outline.maskable) == (sparse.active, sparse.maskable)
    assert outline.inference_ratio == pytest.approx(meter.inference_ratio(sparse.layers()), abs=1e-12)
    assert outline.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert outline.buffers == sum(buffer.numel() for buffer in model.buffers())


def test_activations_are_what_the_innermost_modules_give() -> None:
    # Flatten 64, then 300, 300 after ReLU, 100, 100, 10.
    assert outline_of(run_config()).activations == 64 + 300 + 300 + 100 + 100 + 10


def test_an_outline_needs_no_memory_for_weights_and_moves_no_generator() -> None:
    before = torch.get_rng_state()
    outline = outline_of(run_config(model="wrn-28-10", dataset="cifar100"))
    assert outline.maskable > 36_000_000
    assert torch.equal(before, torch.get_rng_state())


def test_runs_that_share_model_data_set_and_allocation_share_an_outline() -> None:
    one = outline_of(run_config(seed=0, update_interval=5))
    assert outline_of(run_config(seed=7, update_interval=9, optimizer={"lr": 0.3})) is one
    assert outline_of(run_config(sparsity=0.8)) is not one


def test_a_model_that_looks_at_its_weights_is_built_for_real(mine: str) -> None:
    outline = outline_of(run_config(model=f"{mine}:stubborn", sparsity=0.5))
    assert outline.shares == {"second.weight": (60, 120)}  # the first layer is frozen
    assert outline.other_macs == 64 * 12
    assert outline.inference_ratio == pytest.approx((64 * 12 + 60) / (64 * 12 + 120))
    assert (outline.parameters, outline.buffers) == (12 + 120 + 12 + 10, 64 * 12)


def test_a_model_that_cannot_be_built_is_the_users_error(mine: str) -> None:
    with pytest.raises(UserError, match=r"broken' cannot be built for digits: RuntimeError: no such thing as a width"):
        outline_of(run_config(model=f"{mine}:broken"))


def test_a_model_with_nothing_to_mask_is_the_users_error(mine: str) -> None:
    with pytest.raises(UserError, match="no linear or convolution layer"):
        outline_of(run_config(model=f"{mine}:nothing_to_mask"))


def test_layers_that_the_allocation_starves_are_named() -> None:
    assert outline_of(run_config(sparsity=0.999)).starved == ()
    starved = outline_of(run_config(sparsity=0.9995, allocation="uniform")).starved
    assert starved == ("5.weight",)


def test_a_sparsity_that_cannot_be_reached_is_the_users_error() -> None:
    with pytest.raises(UserError, match="the largest reachable sparsity is"):
        outline_of(run_config(sparsity=0.99999))
