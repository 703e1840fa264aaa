"""States loaded in any order: right, or refused; never weights lost without a word."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import backward, make_batch, mlp

STATES = ("model", "optimizer", "training")


class Whole:
    """Model, optimizer and training, made; from states that were loaded before it was made, too."""

    def __init__(self, method: str, compute: str, first: dict | None = None, seed: int = 3) -> None:
        torch.manual_seed(seed)
        self.model: nn.Module = mlp(12, 16, 4)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        for name, state in (first or {}).items():
            getattr(self, name).load_state_dict(state)
        settings = {} if method == "static" else {"update_interval": 2}
        self.training = SparseTraining(
            self.model, self.optimizer, method, sparsity=0.8, total_steps=60, compute=compute, **settings
        )

    def steps(self, steps: range) -> list[torch.Tensor]:
        for step in steps:
            backward(self.model, make_batch((12,), step))
            self.training.step()
        return [parameter.detach().clone() for parameter in self.model.parameters()]

    def states(self) -> dict:
        return {name: getattr(self, name).state_dict() for name in STATES}


def saved(method: str, compute: str) -> tuple[dict, list[torch.Tensor]]:
    """States of a training after some steps, and the weights that it ends with."""
    whole = Whole(method, compute, seed=1)
    whole.steps(range(7))
    states = copy.deepcopy(whole.states())
    return states, whole.steps(range(7, 12))


@pytest.mark.parametrize("order", [*itertools.permutations(STATES)], ids=" ".join)
@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("method", ["static", "set-itop", "rigl"])
def test_states_loaded_after_everything_is_made_go_on_in_any_order(method, compute, order):
    states, expected = saved(method, compute)
    whole = Whole(method, compute)
    for name in order:
        getattr(whole, name).load_state_dict(states[name])
    assert all(torch.equal(a, b) for a, b in zip(whole.steps(range(7, 12)), expected, strict=True))


@pytest.mark.parametrize("method", ["set-itop", "rigl"])
@pytest.mark.parametrize("look", ["forward", "step"])
@pytest.mark.parametrize("first", [("model",), ("model", "optimizer")], ids=" ".join)
def test_a_model_loaded_before_the_training_was_made_is_refused(first, look, method):
    states, _ = saved(method, "masked")
    whole = Whole(method, "masked", {name: states[name] for name in first})
    for name in STATES:
        if name not in first:
            getattr(whole, name).load_state_dict(states[name])
    with pytest.raises(UserError, match=r"weights are not those of the loaded state: .* Make the model, the optimizer"):
        if look == "forward":
            whole.model(make_batch((12,), 0))
        else:
            whole.training.step()


@pytest.mark.parametrize("compute", ["masked", "sparse"])
def test_a_training_loaded_without_its_model_is_refused(compute):
    states, _ = saved("set-itop", compute)
    whole = Whole("set-itop", compute)
    whole.training.load_state_dict(states["training"])
    with pytest.raises(UserError, match="not those of the loaded state"):
        whole.model(make_batch((12,), 0))


def test_a_state_right_after_an_update_is_taken_for_whole():
    # What has just grown is zero, in the right order, too.
    whole = Whole("set-itop", "masked", seed=1)
    whole.steps(range(2))
    states = whole.states()
    other = Whole("set-itop", "masked", seed=1)
    for name in STATES:
        getattr(other, name).load_state_dict(states[name])
    other.steps(range(2, 4))


def test_a_state_of_before_nonzeros_were_counted_is_taken_over():
    states, expected = saved("set-itop", "masked")
    for entry in states["training"]["layers"].values():
        del entry["nonzeros"]
    whole = Whole("set-itop", "masked")
    for name in STATES:
        getattr(whole, name).load_state_dict(states[name])
    assert all(torch.equal(a, b) for a, b in zip(whole.steps(range(7, 12)), expected, strict=True))


@pytest.mark.parametrize("left_out", ["training", "optimizer"])
def test_states_of_two_topologies_are_refused_in_sparse_layers(left_out):
    whole = Whole("set-itop", "sparse", seed=1)
    whole.steps(range(3))
    states = copy.deepcopy(whole.states())
    whole.steps(range(3, 6))
    for name in STATES if left_out == "optimizer" else ("optimizer",):
        if name != left_out:
            getattr(whole, name).load_state_dict(states[name])
    with pytest.raises(UserError, match=r"with sparse layers .* stand at other weights"):
        whole.steps(range(6, 7))


def test_sparse_layers_are_rolled_back_as_a_whole():
    whole = Whole("set-itop", "sparse", seed=1)
    whole.steps(range(3))
    states = copy.deepcopy(whole.states())
    expected = whole.steps(range(3, 8))
    for name in STATES:
        getattr(whole, name).load_state_dict(states[name])
    assert all(torch.equal(a, b) for a, b in zip(whole.steps(range(3, 8)), expected, strict=True))
