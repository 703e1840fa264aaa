"""Saving and resuming: an interrupted training ends in the same bits as one that was never interrupted."""

from __future__ import annotations

import copy
import io
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from itopctl.catalogue import METHODS
from itopctl.dst import SparseTraining
from tests.dst.nets import conv_net, make_optimizer, mlp, modest, plain_sgd, train

TOTAL = 60


def fresh(method: str, optimizer_name: str = "sgd-nesterov", init: int = 0, **settings):
    torch.manual_seed(init)
    model = conv_net()
    optimizer = make_optimizer(optimizer_name, model)
    settings = {"sparsity": 0.8, "total_steps": TOTAL, "seed": 3, "update_interval": 4, **settings}
    return model, optimizer, SparseTraining(model, optimizer, method, **settings)


def through_a_file(state: object) -> object:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def assert_same(a: object, b: object) -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b)
        for left, right in zip(a, b, strict=True):
            assert_same(left, right)
    else:
        assert a == b


def all_states(model, optimizer, sparse) -> dict:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sparse": sparse.state_dict()}


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("optimizer_name", ["sgd-nesterov", "adamw"])
@pytest.mark.parametrize("stop", [30, 32])  # 32 is a step with an update
def test_a_training_resumed_from_a_file_ends_in_the_same_bits(method, optimizer_name, stop):
    model, optimizer, sparse = fresh(method, optimizer_name)
    updates = list(train(model, sparse, (2, 6, 6), range(TOTAL)))

    halted = fresh(method, optimizer_name)
    first = list(train(halted[0], halted[2], (2, 6, 6), range(stop)))
    saved = through_a_file(all_states(*halted))

    resumed = fresh(method, optimizer_name, init=1)
    resumed[0].load_state_dict(saved["model"])
    resumed[1].load_state_dict(saved["optimizer"])
    resumed[2].load_state_dict(saved["sparse"])
    second = list(train(resumed[0], resumed[2], (2, 6, 6), range(stop, TOTAL)))

    assert first + second == updates
    assert_same(all_states(*resumed), all_states(model, optimizer, sparse))
    assert list(resumed[2].layers()) == list(sparse.layers())
    assert resumed[2].exploration_rate == sparse.exploration_rate
    if method not in ("dense", "static"):
        assert sparse.exploration_rate > sparse.density
        assert sum(update is not None for update in updates) >= 8


@modest(25)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=4),
    st.floats(0.1, 0.8),
    st.sampled_from(["set", "rigl", "set-itop", "rigl-itop"]),
    st.integers(1, 4),
    st.integers(0, 9),
)
@pytest.mark.filterwarnings("ignore:sparsity .* gives less than one weight")
def test_state_survives_a_file_for_layers_of_any_size(widths, sparsity, method, interval, stop):
    size = sum(a * b for a, b in pairwise(widths))
    sparsity = min(sparsity, 1 - len(widths) / size) if size > len(widths) else 0.0
    settings = {"sparsity": sparsity, "total_steps": 12, "update_interval": interval}
    model = mlp(*widths)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), method, **settings)
    list(train(model, sparse, (widths[0],), range(stop)))
    twin = copy.deepcopy(model)
    other = SparseTraining(twin, plain_sgd(twin, 0.1), method, **settings)
    twin.load_state_dict(model.state_dict())
    other.load_state_dict(through_a_file(sparse.state_dict()))
    assert_same(other.state_dict(), sparse.state_dict())
    assert list(other.layers()) == list(sparse.layers())
    assert other.exploration_rate == sparse.exploration_rate


def test_a_state_of_before_drops_were_counted_is_taken_over():
    model, _, sparse = fresh("set-itop")
    list(train(model, sparse, (2, 6, 6), range(20)))
    assert all(layer.dropped > 0 for layer in sparse.layers() if layer.active < layer.size)
    state = sparse.state_dict()
    for entry in state["layers"].values():
        del entry["dropped"]
    other = fresh("set-itop")[2]
    other.load_state_dict(state)
    assert not any(layer.dropped for layer in other.layers())
    for wrong in (-1, "7", None):
        state["layers"]["0.weight"]["dropped"] = wrong
        with pytest.raises(ValueError, match="no number of dropped weights"):
            other.load_state_dict(state)


def test_loading_masks_weights_and_optimizer_slots():
    _, _, saved = fresh("static")
    model, optimizer, sparse = fresh("static")
    list(train(model, sparse, (2, 6, 6), range(3)))
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        optimizer.state[model[0].weight]["momentum_buffer"].fill_(1.0)
    sparse.load_state_dict(saved.state_dict())
    mask = sparse.mask("0.weight")
    assert torch.equal(model[0].weight != 0, mask)
    assert torch.equal(optimizer.state[model[0].weight]["momentum_buffer"] != 0, mask)


def test_the_state_is_bits_and_plain_values():
    _, _, sparse = fresh("set-itop")
    state = sparse.state_dict()
    layer = state["layers"]["0.weight"]
    assert layer["shape"] == [4, 2, 3, 3]
    assert layer["mask"].dtype == layer["explored"].dtype == torch.uint8
    assert layer["mask"].numel() == layer["explored"].numel() == 9
    assert layer["dropped"] == 0
    assert state["seed"] == 3
    assert state["total_steps"] == TOTAL


def test_a_saved_state_does_not_change_while_training_goes_on():
    model, _, sparse = fresh("set-itop")
    list(train(model, sparse, (2, 6, 6), range(10)))
    state = sparse.state_dict()
    before = copy.deepcopy(state)
    list(train(model, sparse, (2, 6, 6), range(10, 30)))
    assert sparse.exploration_rate > sparse.density
    assert_same(state, before)


def test_training_after_a_load_does_not_change_the_loaded_state():
    _, _, source = fresh("set-itop")
    state = copy.deepcopy(source.state_dict())
    before = copy.deepcopy(state)
    model, _, sparse = fresh("set-itop")
    sparse.load_state_dict(state)
    list(train(model, sparse, (2, 6, 6), range(20)))
    assert_same(state, before)


def edited(sparse: SparseTraining, **changes) -> dict:
    state = copy.deepcopy(sparse.state_dict())
    state.update(changes)
    return state


def test_a_state_with_a_missing_layer_is_refused():
    _, _, sparse = fresh("set-itop")
    state = edited(sparse)
    del state["layers"]["3.weight"]
    with pytest.raises(ValueError, match="saved state has masks for"):
        sparse.load_state_dict(state)


def test_a_state_of_another_model_is_refused():
    model = mlp(6, 6)
    other = SparseTraining(model, plain_sgd(model), "set-itop", sparsity=0.5, total_steps=TOTAL, seed=3)
    with pytest.raises(ValueError, match="saved state has masks for"):
        fresh("set-itop")[2].load_state_dict(other.state_dict())


@pytest.mark.parametrize("method", ["set-itop", "rigl", "static"])
def test_a_state_of_another_seed_or_length_is_refused(method):
    _, _, sparse = fresh(method)
    with pytest.raises(ValueError, match="seed"):
        sparse.load_state_dict(fresh(method, seed=4)[2].state_dict())
    with pytest.raises(ValueError, match="total_steps"):
        sparse.load_state_dict(fresh(method, total_steps=TOTAL + 1)[2].state_dict())


def test_a_state_of_another_sparsity_is_refused():
    _, _, sparse = fresh("set-itop")
    with pytest.raises(ValueError, match="expected"):
        sparse.load_state_dict(fresh("set-itop", sparsity=0.7)[2].state_dict())


def test_a_state_of_a_transposed_layer_is_refused():
    def make(n_in: int, n_out: int) -> SparseTraining:
        layer = nn.Linear(n_in, n_out)
        return SparseTraining(layer, plain_sgd(layer), "set-itop", sparsity=0.5, total_steps=9)

    with pytest.raises(ValueError, match="shape"):
        make(4, 6).load_state_dict(make(6, 4).state_dict())


def test_a_refused_state_leaves_the_training_as_it_was():
    model, _, sparse = fresh("set-itop")
    list(train(model, sparse, (2, 6, 6), range(10)))
    before = copy.deepcopy(sparse.state_dict())
    state = copy.deepcopy(fresh("set-itop")[2].state_dict())
    state["layers"]["6.weight"]["shape"] = [1, 2]
    with pytest.raises(ValueError, match="shape"):
        sparse.load_state_dict(state)
    assert_same(sparse.state_dict(), before)
