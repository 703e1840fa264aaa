"""Copies, pickles and states of networks with sparse layers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from itopctl.dst import SparseParameter, SparseTraining
from itopctl.dst.sparse.module import SparseModule
from itopctl.errors import UserError
from tests.dst.sparse.keeping import DECAY, Reference, Training, assert_computes, dense_weights, moved, saved
from tests.dst.sparse.test_averages_of_others import by_parameters


def averaged(states: list[dict[str, Tensor]], cast: bool) -> dict[str, Tensor]:
    """The mean of states, as it is made of files."""
    mean = {key: torch.stack([state[key].float() for state in states]).mean(0) for key in states[0]}
    return {key: value.to(states[0][key].dtype) for key, value in mean.items()} if cast else mean


@pytest.mark.parametrize("cast", [True, False])
def test_states_averaged_from_files_are_right_at_one_topology_and_refused_at_several(cast: bool) -> None:
    training = Training(method="static", update_interval=None)
    states, expected = [], []
    for _ in training.steps(3):
        states.append(saved(training.model.state_dict()))
        expected.append(training.weight.dense())
    training.model.load_state_dict(averaged(states, cast))
    torch.testing.assert_close(training.weight.dense(), torch.stack(expected).mean(0))

    training = Training()
    states = [saved(training.model.state_dict()) for _ in training.steps(4)]
    with pytest.raises(UserError, match="do not say where"):
        training.model.load_state_dict(averaged(states, cast))


def saved_whole(model: nn.Module) -> nn.Module:
    buffer = io.BytesIO()
    torch.save(model, buffer)
    buffer.seek(0)
    loaded: nn.Module = torch.load(buffer, weights_only=False)
    return loaded


COPIES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy, "pickle": lambda model: pickle.loads(pickle.dumps(model)), "torch.save": saved_whole
}  # fmt: skip


@pytest.mark.parametrize("way", COPIES.values(), ids=COPIES.keys())
def test_a_kept_copy_is_a_network_of_its_own_that_no_later_step_changes(way: Callable[[Any], nn.Module]) -> None:
    training = Training()
    list(training.steps(3))
    best, weights = way(training.model), training.dense()
    assert all(isinstance(layer.weight, SparseParameter) for layer in best if isinstance(layer, SparseModule))
    list(training.steps(4))
    assert all(torch.equal(weight, weights[name]) for name, weight in dense_weights(best).items())
    assert_computes(best, weights)
    now = training.dense()
    optimizer = torch.optim.Adam(best.parameters())  # it can be trained on, with the topology that it has
    best.train()(torch.randn(4, 12)).sum().backward()
    optimizer.step()
    assert all(torch.equal(weight, now[name]) for name, weight in training.dense().items())
    with torch.no_grad():
        for kept, parameter in zip(best.parameters(), training.model.parameters(), strict=True):
            kept.copy_(parameter)  # the best so far is another
    assert all(torch.equal(weight, now[name]) for name, weight in dense_weights(best).items())
    assert_computes(best, now)


def test_an_average_that_was_pickled_goes_on_beside_a_resumed_training() -> None:
    training, reference = Training(), Reference(DECAY)
    training.step()
    ema = copy.deepcopy(training.model)
    reference.update(training)
    for index in training.steps(8):
        if index == 4:
            ema = pickle.loads(pickle.dumps(ema))
        with torch.no_grad():
            by_parameters(ema, training.model)
        reference.update(training)
    reference.assert_is(dense_weights(ema))


def test_a_weight_that_becomes_trained_with_its_copied_layer_moves_alone() -> None:
    training, _, _ = moved()
    twin, ema = copy.deepcopy((training.model, training.model))
    weight, before = twin[0].weight, training.weight.positions
    weight.become_trained()
    ema = copy.deepcopy(ema)
    positions = torch.arange(weight.numel())
    twin[0].compress(positions)
    assert training.weight.positions is before
    with pytest.raises(UserError, match="load_state_dict"):
        weight.data.copy_(ema[0].weight.data)
    ema[0].weight.data.lerp_(weight.data, 0.5)
    assert torch.equal(ema[0].weight.positions, positions)


def test_a_state_in_a_file_is_of_ordinary_tensors_and_brings_the_network_back() -> None:
    training = Training()
    list(training.steps(3))
    state, weights = training.model.state_dict(), training.dense()
    from_file, in_memory = saved(state), copy.deepcopy(state)
    assert all(type(value) is Tensor for value in from_file.values())
    list(training.steps(4))
    twin = copy.deepcopy(training.model)
    for kept in (from_file, in_memory):
        twin.load_state_dict(kept)
        assert all(torch.equal(weight, weights[name]) for name, weight in dense_weights(twin).items())
        assert_computes(twin, weights)
        twin.load_state_dict(training.model.state_dict())
    twin.load_state_dict(from_file, assign=True)
    assert_computes(twin, weights)


def test_a_state_without_positions_is_refused_once_the_topology_has_moved() -> None:
    training = Training()
    state = {name: value for name, value in training.model.state_dict().items() if "positions" not in name}
    training.model.load_state_dict(state)
    list(training.steps(2))
    state = {name: value for name, value in training.model.state_dict().items() if "positions" not in name}
    with pytest.raises(UserError, match=r"has no 0\.positions"):
        training.model.load_state_dict(state)


def test_a_training_does_not_go_on_from_a_model_of_another_topology_alone() -> None:
    training = Training()
    list(training.steps(3))
    states = copy.deepcopy([training.model.state_dict(), training.optimizer.state_dict(), training.sparse.state_dict()])
    list(training.steps(2))
    training.model.load_state_dict(states[0])
    with pytest.raises(UserError, match=r"0\.weight: a state of another topology"):
        training.step()
    training.optimizer.load_state_dict(states[1])
    training.sparse.load_state_dict(states[2])
    training.step()


def test_a_dense_state_goes_into_sparse_layers_at_the_positions_that_they_have() -> None:
    training = Training()
    list(training.steps(3))
    torch.manual_seed(7)
    pretrained = nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 9), nn.Linear(9, 3))
    training.model.load_state_dict(pretrained.state_dict())
    for name, weight in training.dense().items():
        expected = pretrained.get_parameter(name)
        mask = training.sparse.mask(name) if name in training.sparse.compressed else torch.ones_like(expected).bool()
        assert torch.equal(weight, expected.detach() * mask), name
    training.step()


def test_a_dense_convolution_goes_into_a_sparse_one() -> None:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2))
    pretrained = copy.deepcopy(model)
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute="sparse"
    )
    model.load_state_dict(pretrained.state_dict())
    for name in sparse.compressed:
        assert torch.equal(sparse.weight(name).dense(), pretrained.get_parameter(name) * sparse.mask(name))  # type: ignore[attr-defined]
