"""Models of many kinds, under every dynamic method: compiled, channels-last, tied, frozen, and all kinds of layers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from itopctl.catalogue import METHODS
from itopctl.dst import Rules, SparseTraining
from tests.dst.nets import assert_masked, backward, conv_net, make_batch, make_optimizer, mlp

DYNAMIC = [name for name in METHODS.names() if Rules.of_method(name, update_interval=2).dynamic]
SPARSE = ["static", *DYNAMIC]
CONVOLUTIONS = {
    "conv1d": (nn.Conv1d(4, 8, 3), (4, 9)),
    "conv2d": (nn.Conv2d(4, 8, 3), (4, 5, 6)),
    "conv2d-grouped": (nn.Conv2d(4, 8, 3, groups=2), (4, 5, 6)),
    "conv2d-depthwise": (nn.Conv2d(8, 16, 3, groups=8), (8, 5, 6)),
    "conv2d-dilated-reflecting": (nn.Conv2d(4, 6, 3, dilation=2, padding=2, padding_mode="reflect"), (4, 7, 7)),
    "conv3d": (nn.Conv3d(2, 6, 2), (2, 4, 5, 6)),
    "transposed1d-grouped": (nn.ConvTranspose1d(4, 8, 3, groups=2), (4, 9)),
    "transposed2d": (nn.ConvTranspose2d(4, 8, 3, stride=2), (4, 5, 6)),
    "transposed3d": (nn.ConvTranspose3d(2, 5, 2), (2, 4, 5, 6)),
}


def make(model: nn.Module, method: str, inner: nn.Module | None = None, **settings) -> SparseTraining:
    """A training of `model` with the optimizer over its parameters, and updates after 2, 4 and 6 steps."""
    optimizer = make_optimizer("sgd-nesterov", inner or model)
    interval = {} if method == "static" else {"update_interval": 2}
    return SparseTraining(model, optimizer, method, **{"sparsity": 0.6, "total_steps": 14, **interval, **settings})


def masks_of(sparse: SparseTraining) -> list[Tensor]:
    return [sparse.mask(layer.name).clone() for layer in sparse.layers()]


def trained(model: nn.Module, sparse: SparseTraining, shape: tuple[int, ...], inner: nn.Module, steps: int = 7):
    """Masks after each of some steps, every one of which is checked."""
    found = [masks_of(sparse)]
    for step in range(steps):
        backward(model, make_batch(shape, step).to(next(inner.parameters()).dtype))
        sparse.step()
        assert_masked(inner, sparse)
        found.append(masks_of(sparse))
    return found


def assert_same_masks(a: list[list[Tensor]], b: list[list[Tensor]]) -> None:
    for step, (first, second) in enumerate(zip(a, b, strict=True)):
        assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True)), f"after step {step}"


# Compiled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("given", ["the wrapper", "the model inside"])
def test_a_compiled_model_is_trained_as_the_model_inside(method, given):
    torch.manual_seed(0)
    plain = mlp(10, 16, 4).double()
    inside = copy.deepcopy(plain)
    compiled = torch.compile(inside, backend="eager")
    theirs = make(compiled if given == "the wrapper" else inside, method, inner=inside)
    assert [layer.name for layer in theirs.layers()] == ["0.weight", "2.weight"]
    ours = make(plain, method)
    assert_same_masks(trained(compiled, theirs, (10,), inside), trained(plain, ours, (10,), plain))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), inside.parameters(), strict=True))
    assert theirs.state_dict()["layers"].keys() == ours.state_dict()["layers"].keys()


def test_a_model_compiled_in_place_is_trained_under_its_own_names():
    torch.manual_seed(0)
    model = mlp(10, 16, 4)
    model.compile(backend="eager")
    sparse = make(model, "rigl")
    assert [layer.name for layer in sparse.layers()] == ["0.weight", "2.weight"]
    trained(model, sparse, (10,), model)
    assert sparse.exploration_rate > sparse.density


def test_a_layer_compiled_inside_a_model_is_masked():
    torch.manual_seed(0)
    model = nn.Sequential(torch.compile(nn.Linear(10, 16), backend="eager"), nn.ReLU(), nn.Linear(16, 4))
    sparse = make(model, "rigl")
    assert sparse.maskable == 160 + 64
    trained(model, sparse, (10,), model)


# Channels last --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in SPARSE if name not in ("set", "rigl", "set-itop", "rigl-itop")])
def test_channels_last_training_has_the_masks_of_contiguous_training(method):
    def masks(memory_format: torch.memory_format) -> list[list[Tensor]]:
        torch.manual_seed(0)
        model = conv_net().double().to(memory_format=memory_format)
        sparse = make(model, method)
        found = [masks_of(sparse)]
        for step in range(7):
            backward(model, make_batch((2, 6, 6), step).double().to(memory_format=memory_format))
            sparse.step()
            assert_masked(model, sparse)
            found.append(masks_of(sparse))
        assert model[3].weight.is_contiguous(memory_format=memory_format)
        return found

    assert_same_masks(masks(torch.contiguous_format), masks(torch.channels_last))


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_model_made_channels_last_while_it_is_trained_stays_masked(method):
    torch.manual_seed(0)
    model = conv_net()
    sparse = make(model, method)
    for step in range(7):
        if step == 3:
            model.to(memory_format=torch.channels_last)
        backward(model, make_batch((2, 6, 6), step))
        sparse.step()
        assert_masked(model, sparse)


# Tied, frozen, not maskable -------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers with one weight between them, whose gradients add up."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.second(self.first(inputs).relu()).relu())


@pytest.mark.parametrize("method", SPARSE)
def test_tied_layers_have_one_mask_that_both_obey(method):
    torch.manual_seed(0)
    model = Tied()
    sparse = make(model, method)
    assert [layer.name for layer in sparse.layers()] == ["first.weight", "head.weight"]
    assert sparse.maskable == 64 + 24
    trained(model, sparse, (8,), model)
    assert model.second.weight is model.first.weight
    assert not model.second.weight[~sparse.mask("first.weight")].any()


class Language(nn.Module):
    """Token embeddings that are the classifier's weight, too, with norms and a masked layer between."""

    def __init__(self, tie: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.norm = nn.LayerNorm(8)
        self.hidden = nn.Linear(8, 8)
        self.groups = nn.GroupNorm(2, 8)
        self.slope = nn.PReLU(8)
        self.out = nn.Linear(8, 11, bias=False)
        if tie:
            self.out.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.slope(self.groups(self.hidden(self.norm(self.embedding(tokens))))))


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("tie", [True, False])
def test_embeddings_norms_and_slopes_stay_dense_and_a_classifier_tied_to_an_embedding_too(method, tie):
    torch.manual_seed(0)
    model = Language(tie)
    sparse = make(model, method)
    assert [layer.name for layer in sparse.layers()] == ["hidden.weight"] + ([] if tie else ["out.weight"])
    assert sparse.active == round(0.4 * sparse.maskable)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for step in range(7):
        model.zero_grad()
        tokens = torch.randint(11, (16,), generator=torch.Generator().manual_seed(step))
        nn.functional.cross_entropy(model(tokens), (tokens + 1) % 11).backward()
        sparse.step()
        assert_masked(model, sparse)
    masked = {layer.name for layer in sparse.layers()}
    for name, parameter in model.named_parameters():
        if name not in masked:
            assert parameter.ne(before[name]).any(), f"{name} was not trained"
            assert parameter.count_nonzero() == parameter.numel()


@pytest.mark.parametrize("method", SPARSE)
def test_frozen_layers_keep_every_bit_and_are_not_counted(method):
    torch.manual_seed(0)
    model = conv_net()
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    sparse = make(model, method)
    assert [layer.name for layer in sparse.layers()] == ["3.weight", "6.weight"]
    trained(model, sparse, (2, 6, 6), model)
    assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_layer_frozen_while_it_is_trained_stays_masked(method):
    torch.manual_seed(0)
    model = mlp(8, 12, 4)
    sparse = make(model, method)
    for step in range(7):
        model[0].weight.requires_grad_(step < 3)
        backward(model, make_batch((8,), step))
        sparse.step()
        assert_masked(model, sparse)


# Every kind of layer --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in SPARSE if name not in ("rigl", "set-itop")])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_every_kind_of_convolution_is_trained_by_every_method(kind, method):
    layer, shape = copy.deepcopy(CONVOLUTIONS[kind][0]), CONVOLUTIONS[kind][1]
    model = nn.Sequential(layer, nn.Flatten(), nn.LazyLinear(3))
    model(torch.zeros(1, *shape))
    sparse = make(model, method)
    counts = sparse.active
    assert counts == round(0.4 * sparse.maskable)
    found = trained(model, sparse, shape, model)
    assert sparse.active == counts
    if method != "static":
        assert sparse.exploration_rate > sparse.density
        assert any(not torch.equal(a, b) for a, b in zip(found[0], found[-1], strict=True))


@pytest.mark.parametrize("method", DYNAMIC)
def test_attention_and_a_layer_used_twice_are_trained(method):
    torch.manual_seed(0)

    class Blocks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.mixed = nn.Linear(8, 8)

        def forward(self, inputs: Tensor) -> Tensor:
            attended = self.norm(inputs + self.attention(inputs, inputs, inputs, need_weights=False)[0])
            return self.mixed(self.mixed(attended).relu()).mean(dim=1)

    model = Blocks()
    sparse = make(model, method)
    projections = [f"attention.in_proj_weight.{block}" for block in "qkv"]
    assert [layer.name for layer in sparse.layers()] == [*projections, "attention.out_proj.weight", "mixed.weight"]
    trained(model, sparse, (5, 8), model)
    assert sparse.exploration_rate > sparse.density
