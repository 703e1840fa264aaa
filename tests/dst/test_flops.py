from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.models import resnet50

from itopctl.dst import FlopsMeter, LayerReport, SparseTraining
from itopctl.dst.allocation import layer_densities
from itopctl.dst.flops import LayerCost, layer_costs
from itopctl.dst.maskable import maskable_weights
from tests.dst.nets import mlp, plain_sgd


def at_density(densities: dict[str, float], size: int = 1000) -> list[LayerReport]:
    return [LayerReport(name, (size,), size, round(density * size), size) for name, density in densities.items()]


def forward_flops(model: nn.Module, example: torch.Tensor) -> dict[str, float]:
    """Multiply-accumulates of each layer of the dense network."""
    return {name: cost.flops(convention="macs") for name, cost in layer_costs(model, example).items()}


def costs_of(macs: dict[str, int]) -> dict[str, LayerCost]:
    """Layers that cost so many multiply-accumulates."""
    return {name: LayerCost(name, weights=count, channels=1, outputs=1, uses=1) for name, count in macs.items()}


def test_lenet_300_100_costs_one_product_a_weight():
    model = nn.Sequential(nn.Flatten(), *mlp(784, 300, 100, 10))
    assert forward_flops(model, torch.zeros(1, 1, 28, 28)) == {
        "1.weight": 784 * 300,
        "3.weight": 300 * 100,
        "5.weight": 100 * 10,
    }


def test_a_convolution_costs_its_weights_once_an_output_position():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 8·3·9 weights at 10×12 positions
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 16, 3, stride=2),  # 16·8·9 weights at 4×5
        nn.Conv2d(16, 32, 1, groups=4),  # 32·4 weights at 4×5
        nn.Conv2d(32, 32, 3, groups=32, padding=1),  # 32·9 weights at 4×5
        nn.ConvTranspose2d(32, 6, 3, stride=2),  # 32·6·9 weights, each used at every one of the 4×5 inputs
        nn.Flatten(),
        nn.Linear(6 * 9 * 11, 10),
    )
    assert forward_flops(model, torch.zeros(1, 3, 10, 12)) == {
        "0.weight": 216 * 120,
        "2.weight": 1152 * 20,
        "3.weight": 128 * 20,
        "4.weight": 288 * 20,
        "5.weight": 1728 * 20,
        "7.weight": 5940,
    }


def test_a_grouped_transposed_convolution_and_other_dimensions_are_counted():
    transposed = nn.ConvTranspose1d(8, 4, 5, stride=3, groups=2)  # 8·2·5 weights at 7 inputs
    assert forward_flops(transposed, torch.zeros(1, 8, 7)) == {"weight": 80 * 7}
    assert forward_flops(nn.Conv1d(4, 6, 3), torch.zeros(1, 4, 9)) == {"weight": 72 * 7}
    assert forward_flops(nn.Conv3d(2, 3, 2), torch.zeros(1, 2, 3, 4, 5)) == {"weight": 48 * 2 * 3 * 4}


def test_a_linear_layer_over_a_sequence_counts_every_position():
    assert forward_flops(nn.Linear(5, 7), torch.zeros(1, 11, 5)) == {"weight": 35 * 11}


def test_positions_folded_into_the_batch_are_counted_too():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(5, 7)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(x.reshape(-1, 5))

    assert forward_flops(Windows(), torch.zeros(1, 11, 5)) == {"fc.weight": 35 * 11}


def test_a_layer_used_twice_costs_twice():
    shared = nn.Linear(6, 6)
    assert forward_flops(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(1, 6)) == {"0.weight": 72}


def test_tied_weights_are_counted_under_one_name():
    model = mlp(6, 6, 6)
    model[2].weight = model[0].weight
    assert forward_flops(model, torch.zeros(1, 6)) == {"0.weight": 72}


def test_a_weight_tied_to_an_embedding_is_dense_and_costs_in_full():
    class LanguageModel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(9, 4)
            self.head = nn.Linear(4, 9, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return self.head(self.embedding(tokens))

    model = LanguageModel()
    assert forward_flops(model, torch.zeros(1, 3, dtype=torch.long)) == {"head.weight": 3 * 4 * 9}
    assert maskable_weights(model) == {}


def test_resnet50_costs_what_is_published():
    with torch.device("meta"):
        model = resnet50()
        flops = forward_flops(model, torch.zeros(1, 3, 224, 224))
    assert len(flops) == 54
    # Kusupati et al. 2020 print 4 089 284 608, which counts the 7×7 average over 2048 channels as well.
    assert sum(flops.values()) == 4_089_284_608 - 7 * 7 * 2048


@pytest.mark.parametrize(("sparsity", "ratio"), [(0.8, 0.4138), (0.9, 0.2418), (0.95, 0.1217)])
def test_resnet50_at_erk_has_the_published_inference_ratio(sparsity, ratio):
    with torch.device("meta"):
        model = resnet50()
        meter = FlopsMeter(layer_costs(model, torch.zeros(1, 3, 224, 224)))
    shapes = {name: tuple(weight.shape) for name, weight in maskable_weights(model).items()}
    densities = layer_densities(shapes, sparsity)
    assert meter.inference_ratio(at_density(densities, size=10**9)) == pytest.approx(ratio, abs=5e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_models_mode_is_restored(training):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train(training)
    forward_flops(model, torch.zeros(1, 4))
    assert [module.training for module in model.modules()] == [training] * 3


def test_the_mode_of_every_submodule_is_restored():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).train()
    model[1].eval()  # frozen statistics, as in fine-tuning
    forward_flops(model, torch.zeros(1, 4))
    assert model.training
    assert not model[1].training


def test_counting_leaves_no_hook_and_does_not_touch_the_statistics():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    forward_flops(model, torch.ones(1, 1, 5, 5))
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_forward_pass_that_fails_leaves_no_hook_and_the_old_mode():
    model = mlp(4, 4).train()
    with pytest.raises(RuntimeError):
        forward_flops(model, torch.zeros(1, 5))
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_inference_is_the_mean_density_weighted_by_cost():
    meter = FlopsMeter(costs_of({"a": 300, "b": 100}))
    assert meter.inference_ratio(at_density({"a": 0.1, "b": 0.5})) == pytest.approx((30 + 50) / 400)


def test_a_layer_without_a_mask_counts_in_full():
    meter = FlopsMeter(costs_of({"a": 300, "frozen": 100}))
    assert meter.inference_ratio(at_density({"a": 0.1})) == pytest.approx((30 + 100) / 400)
    assert meter.inference_ratio([]) == 1.0


def test_dense_training_costs_one_and_half_of_it_a_half():
    meter = FlopsMeter(costs_of({"a": 1}))
    meter.add_steps(50, 1.0)
    assert meter.training_ratio(100) == pytest.approx(0.5)
    meter.add_steps(50, 1.0)
    assert meter.training_ratio(100) == pytest.approx(1.0)
    assert meter.steps == 100


def test_sparse_training_costs_its_density():
    meter = FlopsMeter(costs_of({"a": 1}))
    meter.add_steps(80, 0.2)
    meter.add_steps(20, 0.5)
    assert meter.training_ratio(100) == pytest.approx(0.8 * 0.2 + 0.2 * 0.5)


@pytest.mark.parametrize(("ratio", "published"), [(0.2431, 0.2456), (0.4153, 0.4172)])
def test_rigls_ratio_follows_the_published_formula(ratio, published):
    # (ΔT·3f_S + 2f_S + f_D) / (ΔT + 1), relative to 3f_D: one step in 101 has a dense gradient.
    meter = FlopsMeter(costs_of({"a": 1}))
    meter.add_steps(100, ratio)
    meter.add_steps(1, ratio, dense_gradient=True)
    assert meter.training_ratio(101) == pytest.approx((100 * 3 * ratio + 2 * ratio + 1) / (101 * 3))
    assert meter.training_ratio(101) == pytest.approx(published, abs=1e-4)


def test_the_ratio_of_a_real_training_is_that_of_its_masks():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 3))
    meter = FlopsMeter(layer_costs(model, torch.zeros(1, 1, 6, 6)))
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.5, total_steps=10)
    active = {layer.name: layer.active for layer in sparse.layers()}
    by_hand = (active["0.weight"] * 16 + active["2.weight"]) / (36 * 16 + 192)
    assert meter.inference_ratio(sparse.layers()) == pytest.approx(by_hand)


def test_a_network_of_which_nothing_is_counted_has_ratio_one():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(6, 3))

        def forward(self, x):
            return x @ self.matrix

    model = Product()
    meter = FlopsMeter(layer_costs(model, torch.zeros(1, 6)))
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.5, total_steps=10, also_mask=["matrix"])
    assert (sparse.active, meter.inference_ratio(sparse.layers())) == (9, 1.0)


def test_dense_training_has_ratio_one():
    model = mlp(6, 5, 4)
    meter = FlopsMeter(layer_costs(model, torch.zeros(1, 6)))
    sparse = SparseTraining(model, plain_sgd(model), "dense", total_steps=10)
    assert meter.inference_ratio(sparse.layers()) == 1.0
