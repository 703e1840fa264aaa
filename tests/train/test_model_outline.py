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
from itopctl.train.model_outline import outline_of
from itopctl.train.setup import rules_of
from tests.helpers import run_config

MINE = """
import sys

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


def deep(input_shape, classes):
    return [broken(input_shape, classes) for _ in range(2)]


def leaves(input_shape, classes):
    sys.exit(3)


def takes_nothing():
    return nn.Linear(64, 10)


class Demanding(nn.Module):
    def __init__(self, width):
        super().__init__()


a_number = 5


def lacks_a_package(input_shape, classes):
    import no_such_package


def gives_nothing(input_shape, classes):
    nn.Linear(64, classes)


def gives_a_class(input_shape, classes):
    return nn.Linear


def nothing_to_mask(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64))


def too_wide(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(65, classes))


class Picky(nn.Linear):
    def forward(self, x):
        assert x.shape[1] == 3, "three channels are needed"


def fails_forward(input_shape, classes):
    return Picky(64, classes)


def few_classes(input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def no_flatten(input_shape, classes):
    return nn.Linear(8, classes)


class Pair(nn.Sequential):
    def forward(self, x):
        return super().forward(x.flatten(1)), x


def a_pair(input_shape, classes):
    return Pair(nn.Linear(64, classes))


def no_shares(sizes, *rest, **more):
    raise ValueError("no shares")
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
        model, optimizer, rules=rules_of(config), sparsity=config.sparsity, total_steps=config.total_steps,
        also_mask=config.also_mask or (),
    )  # fmt: skip
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
        {"model": "tests.cli.own_layers:transformer", "allocation": "erk"},
        {"model": "tests.cli.own_layers:transformer", "also_mask": ["positions"], "allocation": "uniform"},
        {"model": "tests.cli.own_layers:lstm"},
        {"model": "tests.cli.own_layers:product", "also_mask": ["matrix"]},
    ],
    ids=str,
)
def test_the_outline_has_the_layers_densities_and_costs_that_the_engine_has(settings: dict[str, Any]) -> None:
    outline = outline_of(run_config(**settings))
    model, sparse, meter = real(**settings)
    assert outline.shares == {layer.name: (layer.active, layer.size) for layer in sparse.layers()}
    assert (outline.active, outline.maskable) == (sparse.active, sparse.maskable)
    assert (outline.total_density, dict(outline.left_dense)) == (sparse.total_density, sparse.left_dense)
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


def line_of(words: str) -> int:
    """Line of the user's module that begins with these words."""
    return 1 + next(n for n, line in enumerate(MINE.splitlines()) if line.strip().startswith(words))


@pytest.mark.parametrize(
    ("function", "line", "said"),
    [
        ("broken", "raise RuntimeError", "RuntimeError: no such thing as a width of -3"),
        ("deep", "raise RuntimeError", "RuntimeError: no such thing as a width of -3"),
        ("leaves", "sys.exit", "it ends the process (SystemExit: 3)"),
        ("takes_nothing", "def takes_nothing", "TypeError: takes_nothing() got an unexpected keyword argument"),
        ("Demanding", "class Demanding", "TypeError: Demanding.__init__() got an unexpected keyword argument"),
        ("a_number", None, "TypeError: 'int' object is not callable"),
        ("lacks_a_package", "import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("gives_nothing", "def gives_nothing", "its function returns None; a torch.nn.Module is expected."),
        ("gives_a_class", "def gives_a_class", "its function returns a type; a torch.nn.Module is expected."),
        ("nothing_to_mask", "def nothing_to_mask", "has nothing to make sparse: no linear or convolution layer"),
        ("too_wide", "def too_wide", "it does not take an image of digits (1×8×8): RuntimeError: mat1 and mat2"),
        ("fails_forward", "assert x.shape",
         "it does not take an image of digits (1×8×8): AssertionError: three channels"),
        ("few_classes", "def few_classes", "it returns [1, 3] for one image, where logits [1, 10] are expected"),
        ("no_flatten", "def no_flatten", "it returns [1, 1, 8, 10] for one image, where logits [1, 10] are expected"),
        ("a_pair", "def a_pair", "it returns a tuple where logits [n, 10] are expected"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_made_is_told_with_the_users_file_and_line(
    mine: str, function: str, line: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a file there is named as it is seen from there
    with pytest.raises(UserError) as caught:
        outline_of(run_config(model=f"{mine}:{function}"))
    place = f"{mine}.py:{line_of(line)}: " if line else ""
    assert str(caught.value).startswith(place) and said in str(caught.value)


def test_a_module_with_a_fault_is_told_with_the_line_of_the_fault(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "helper_of_mine.py").write_text("x = 1\ny = (\n")
    (tmp_path / "models_of_mine.py").write_text("import helper_of_mine\ndef net(input_shape, classes): ...\n")
    with pytest.raises(UserError, match=r"helper_of_mine\.py, line 2: '\(' was never closed"):
        outline_of(run_config(model="models_of_mine:net"))


def test_an_allocation_of_the_users_own_that_fails_is_told_with_its_line(mine: str) -> None:
    with pytest.raises(UserError, match=rf"{mine}\.py:{line_of('raise ValueError')}: ValueError: no shares"):
        outline_of(run_config(allocation=f"{mine}:no_shares"))


def test_layers_that_the_allocation_starves_are_named() -> None:
    assert outline_of(run_config(sparsity=0.999)).starved == ()
    starved = outline_of(run_config(sparsity=0.9995, allocation="uniform")).starved
    assert starved == ("5.weight",)


def test_a_sparsity_that_cannot_be_reached_is_the_users_error() -> None:
    with pytest.raises(UserError, match="the largest reachable sparsity is"):
        outline_of(run_config(sparsity=0.99999))
