"""The published FLOPs and sizes, to the printed digit (RigL's tables; Evci et al. 2020 and its README)."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from itopctl.dst import LayerReport, SparseTraining, inference_flops, layer_costs, size_megabytes
from itopctl.dst.allocation import layer_densities
from itopctl.dst.flops import LayerCost, rigl_training_ratio, training_ratio_of_step
from itopctl.dst.maskable import maskable_weights
from tests.dst.nets import plain_sgd


@pytest.fixture(scope="module")
def resnet() -> tuple[dict[str, LayerCost], dict[str, tuple[int, ...]]]:
    """Costs and shapes of ResNet-50 as RigL's counter sees it.

    Its Keras model pads the image to 230 before the first convolution, and the counter takes that one for 'same':
    115×115 outputs instead of 112×112. Without this quirk the last printed digits are others.
    """
    with torch.device("meta"):
        model = resnet50()
        costs = layer_costs(model, torch.zeros(1, 3, 224, 224))
    conv1 = costs["conv1.weight"]
    costs["conv1.weight"] = dataclasses.replace(conv1, outputs=64 * 115**2, uses=115**2)
    return costs, {name: tuple(weight.shape) for name, weight in maskable_weights(model).items()}


def densities_of(shapes, sparsity: float, allocation: str) -> dict[str, float]:
    """As RigL has them: under `uniform` the first layer is dense, and nobody pays for it."""
    if allocation == "erk":
        return layer_densities(shapes, sparsity)
    return layer_densities(shapes, sparsity, "uniform", fixed={"conv1.weight": 1.0}, fixed_in_budget=False)


def ratio_of(costs: dict[str, LayerCost], densities: dict[str, float], convention: str = "micronet") -> float:
    dense = sum(cost.flops(convention=convention) for cost in costs.values())
    return sum(cost.flops(densities[name], convention) for name, cost in costs.items()) / dense


def test_dense_resnet50_costs_8_2_gigaflops_and_102_megabytes(resnet):
    costs, _ = resnet
    assert len(costs) == 54
    assert sum(cost.weights for cost in costs.values()) == 25_502_912
    assert inference_flops(costs.values(), ()) == pytest.approx(8.202e9, abs=5e5)
    assert size_megabytes(costs.values(), ()) == pytest.approx(102.122, abs=5e-4)


@pytest.mark.parametrize(
    ("sparsity", "allocation", "inference", "training_x5", "printed"),
    [
        (0.80, "erk", 0.4153, 2.086, ("0.42", "2.09")),
        (0.90, "erk", 0.2431, 1.228, ("0.24", "1.23")),
        (0.95, "erk", 0.1230, 0.630, ("0.12", "0.63")),
        (0.80, "uniform", 0.2254, 1.140, ("0.23", "1.14")),
        (0.90, "uniform", 0.1285, 0.657, ("0.13", "0.66")),
        (0.95, "uniform", 0.0801, 0.416, ("0.08", "0.42")),
    ],
)
def test_rigls_ratios_come_out_as_printed(resnet, sparsity, allocation, inference, training_x5, printed):
    costs, shapes = resnet
    ratio = ratio_of(costs, densities_of(shapes, sparsity, allocation))
    training = 5 * rigl_training_ratio(ratio, update_interval=100)
    assert ratio == pytest.approx(inference, abs=5.1e-5)
    assert training == pytest.approx(training_x5, abs=5.1e-4)
    assert (f"{ratio:.2f}", f"{training:.2f}") == printed


@pytest.mark.parametrize(
    ("sparsity", "allocation", "ratio"),
    [(0.8, "erk", 0.4138), (0.9, "erk", 0.2418), (0.95, "erk", 0.1217),
     (0.8, "uniform", 0.2231), (0.9, "uniform", 0.1260), (0.95, "uniform", 0.0774)],
)  # fmt: skip
def test_the_plain_convention_gives_other_last_digits(sparsity, allocation, ratio):
    with torch.device("meta"):
        model = resnet50()
        costs = layer_costs(model, torch.zeros(1, 3, 224, 224))
    shapes = {name: tuple(weight.shape) for name, weight in maskable_weights(model).items()}
    assert ratio_of(costs, densities_of(shapes, sparsity, allocation), "macs") == pytest.approx(ratio, abs=5.1e-5)


@pytest.mark.parametrize(("sparsity", "megabytes"), [(0.80, 23.684), (0.90, 13.499), (0.95, 8.399)])
def test_rigls_sizes_come_out_as_printed(resnet, sparsity, megabytes):
    costs, shapes = resnet
    densities = densities_of(shapes, sparsity, "erk")
    bits = sum(cost.size_bits(densities[name]) for name, cost in costs.items())
    assert bits / 8e6 == pytest.approx(megabytes, abs=5.1e-4)


def test_a_dense_first_layer_that_nobody_pays_for_has_the_size_of_rigls_96_5_percent_network(resnet):
    costs, shapes = resnet
    free = layer_densities(shapes, 0.965, fixed={"conv1.weight": 1.0}, fixed_in_budget=False)
    paid = layer_densities(shapes, 0.965)
    sizes = [sum(cost.size_bits(d[name]) for name, cost in costs.items()) / 8e6 for d in (free, paid)]
    assert sizes == [pytest.approx(6.904, abs=5.1e-4), pytest.approx(6.869, abs=5.1e-4)]


@pytest.mark.parametrize(("sparsity", "ratio"), [(0.8, "0.61"), (0.9, "0.50")])
def test_snfs_pays_for_a_dense_gradient_at_every_step(resnet, sparsity, ratio):
    costs, shapes = resnet
    inference = ratio_of(costs, densities_of(shapes, sparsity, "erk"))
    assert f"{training_ratio_of_step(inference, dense_gradient=True):.2f}" == ratio


def test_rigl_at_90_percent_and_single_length_is_printed_as_a_quarter(resnet):
    costs, shapes = resnet
    inference = ratio_of(costs, densities_of(shapes, 0.9, "erk"))
    assert rigl_training_ratio(inference, 100) == pytest.approx(0.2456, abs=5.1e-5)


class WideResNet22x2(nn.Module):
    """The layers of WRN-22-2 for CIFAR, in a chain that gives each its input size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.blocks = nn.ModuleList()
        width = 16
        for group, wide in enumerate((32, 64, 128)):
            for block in range(3):
                stride = 2 if group and not block else 1
                layers = {"conv1": nn.Conv2d(width, wide, 3, stride, 1, bias=False)}
                layers["conv2"] = nn.Conv2d(wide, wide, 3, 1, 1, bias=False)
                if width != wide:
                    layers["shortcut"] = nn.Conv2d(width, wide, 1, stride, bias=False)
                self.blocks.append(nn.ModuleDict(layers))
                width = wide
        self.classifier = nn.Linear(128, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.stem(images)
        for block in self.blocks:
            shortcut = block["shortcut"](features) if "shortcut" in block else features
            features = block["conv2"](block["conv1"](features)) + shortcut
        return self.classifier(features.mean(dim=(2, 3)))


@pytest.mark.parametrize(("allocation", "printed"), [("uniform", "0.20"), ("erk", "0.35")])
def test_wrn_22_2_at_80_percent_costs_what_rigl_reproducibility_prints(allocation, printed):
    with torch.device("meta"):
        model = WideResNet22x2()
        costs = layer_costs(model, torch.zeros(1, 3, 32, 32))
    shapes = {name: tuple(weight.shape) for name, weight in maskable_weights(model).items()}
    assert sum(cost.weights for cost in costs.values()) == 1_076_912
    assert f"{ratio_of(costs, layer_densities(shapes, 0.8, allocation)):.2f}" == printed


def test_cost_and_size_of_a_real_training_are_those_of_its_masks():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 3))
    costs = layer_costs(model, torch.zeros(1, 1, 6, 6))
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.5, total_steps=10, keep_dense=("0",))
    active = {layer.name: layer.active for layer in sparse.layers()}
    assert active["0.weight"] == 36
    # 4·16 outputs of 9 weights each, then 3 outputs
    by_hand = 2 * 36 * 16 + 64 + 2 * active["2.weight"] + 3
    assert inference_flops(costs.values(), sparse.layers()) == pytest.approx(by_hand)
    bits = 32 * (36 + active["2.weight"]) + 192 + 32 * (4 + 3)
    assert size_megabytes(costs.values(), sparse.layers()) == pytest.approx(bits / 8e6)


def test_a_layer_that_is_used_twice_costs_twice_and_is_stored_once():
    layer = nn.Linear(4, 4)
    (cost,) = layer_costs(nn.Sequential(layer, nn.ReLU(), layer), torch.zeros(1, 4)).values()
    assert (cost.flops(), cost.flops(convention="macs"), cost.size_bits()) == (2 * 2 * 16 + 8, 32, 32 * 16 + 32 * 4)


def test_a_layer_at_density_one_has_no_mask_unless_it_is_said_to_have_one():
    cost = LayerCost("a", weights=100, channels=10, outputs=10, uses=1)
    assert cost.size_bits(1.0) == 32 * 110
    assert cost.size_bits(0.5) == 32 * 60 + 100
    assert size_megabytes([cost], [LayerReport("a", (10, 10), 100, 100, 100)]) == 32 * 110 / 8e6
