from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.dst.maskable import maskable_weights, matching
from itopctl.errors import UserError
from tests.dst.nets import assert_masked, mlp, plain_sgd

CONVOLUTIONS = [
    (nn.Conv1d(4, 8, 3), (4, 9)),
    (nn.Conv2d(4, 8, 3), (4, 5, 6)),
    (nn.Conv2d(4, 8, (1, 3), groups=2), (4, 5, 6)),
    (nn.Conv2d(8, 16, 3, groups=8), (8, 5, 6)),
    (nn.Conv3d(2, 4, 2), (2, 4, 5, 6)),
    (nn.ConvTranspose1d(4, 8, 3, groups=2), (4, 9)),
    (nn.ConvTranspose2d(4, 8, 3, stride=2), (4, 5, 6)),
    (nn.ConvTranspose3d(2, 4, 2), (2, 4, 5, 6)),
]


def test_weights_of_linear_convolution_and_recurrent_layers_are_maskable():
    model = nn.Sequential(
        nn.Embedding(7, 5), nn.Linear(5, 6), nn.LayerNorm(6), nn.PReLU(6), nn.BatchNorm1d(6), nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.Bilinear(2, 2, 2), nn.LSTM(2, 2),
    )  # fmt: skip
    gates = [f"10.weight_{kind}_l0.{gate}" for kind in ("ih", "hh") for gate in "ifgo"]
    assert list(maskable_weights(model)) == ["1.weight", "5.weight", *gates]


def test_norms_embeddings_slopes_and_biases_are_left_alone():
    model = nn.Sequential(nn.Embedding(7, 5), nn.Linear(5, 6), nn.LayerNorm(6), nn.PReLU(6), nn.BatchNorm1d(6))
    before = {name: p.detach().clone() for name, p in model.named_parameters() if name != "1.weight"}
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.8, total_steps=10)
    assert (sparse.maskable, sparse.active) == (30, 6)
    assert len(before) == 7
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters() if name != "1.weight")


def test_tied_weights_are_found_once_under_their_first_name():
    model = mlp(8, 8, 8)
    model[2].weight = model[0].weight
    assert list(maskable_weights(model)) == ["0.weight"]
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.75, total_steps=10)
    assert (sparse.maskable, sparse.active) == (64, 16)
    assert torch.count_nonzero(model[2].weight) == 16


def test_frozen_weights_are_neither_masked_nor_counted():
    model = mlp(8, 8, 8)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.75, total_steps=10)
    assert [layer.name for layer in sparse.layers()] == ["2.weight"]
    assert sparse.maskable == 64
    assert torch.equal(model[0].weight, before)


def test_a_model_that_is_one_layer_has_a_weight_without_a_prefix():
    assert list(maskable_weights(nn.Linear(3, 4))) == ["weight"]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda value: str(value).replace(" ", ""))
@pytest.mark.parametrize("method", ["rigl", "set-itop"])
def test_every_kind_of_convolution_can_be_trained_sparsely(layer, shape, method):
    layer = copy.deepcopy(layer)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    sparse = SparseTraining(layer, optimizer, method, sparsity=0.5, total_steps=7, update_interval=2)
    assert sparse.maskable == layer.weight.numel()
    moved = 0
    for step in range(6):
        optimizer.zero_grad()
        layer(torch.randn(3, *shape, generator=torch.Generator().manual_seed(step))).square().mean().backward()
        update = sparse.step()
        moved += update.moved if update else 0
        assert_masked(layer, sparse)
        assert sparse.active == layer.weight.numel() // 2
    assert moved > 0


def test_globs_choose_layers_with_or_without_the_word_weight():
    names = ["conv1.weight", "layer1.0.conv1.weight", "fc.weight"]
    assert matching(names, "conv1", {}, "keep_dense") == {"conv1.weight"}
    assert matching(names, "conv1.weight", {}, "keep_dense") == {"conv1.weight"}
    assert matching(names, "*1", {}, "keep_dense") == {name for name in names if "1" in name}


def test_a_glob_that_matches_nothing_names_the_layers_there_are():
    with pytest.raises(UserError, match=r"'fc2' matches no layer.*fc\.weight"):
        matching(["fc.weight"], "fc2", {}, "keep_dense")


def test_a_model_without_maskable_layers_is_the_users_error():
    model = nn.Sequential(nn.Embedding(3, 4), nn.LayerNorm(4))
    with pytest.raises(UserError, match="no linear or convolution layer"):
        SparseTraining(model, plain_sgd(model), "static", sparsity=0.5, total_steps=10)


def test_a_model_without_parameters_is_the_users_error_too():
    with pytest.raises(UserError, match="no linear or convolution layer"):
        SparseTraining(nn.ReLU(), plain_sgd(nn.Linear(1, 1)), "static", sparsity=0.5, total_steps=10)
