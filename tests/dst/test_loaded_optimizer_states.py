"""Optimizer state that is loaded, after or before SparseTraining is made, or that an optimizer inside another keeps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import assert_masked, backward, make_batch, mlp, slots, train

SHAPE = (12,)


def momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01)


def rprop(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Rprop(model.parameters(), lr=0.01)


def make(model: nn.Module, optimizer: Any, method: str = "set-itop", **settings: Any) -> SparseTraining:
    settings = {} if method == "static" else {"update_interval": 3, **settings}
    return SparseTraining(model, optimizer, method, sparsity=0.7, total_steps=40, **settings)


@pytest.mark.parametrize("kind", [momentum, adam, rprop])
@pytest.mark.parametrize("method", ["static", "rigl"])
@pytest.mark.parametrize("moment", ["before the first step", "between steps", "after backward"])
def test_the_state_of_a_dense_training_wakes_nothing(moment, method, kind):
    dense = mlp(12, 20, 8)
    pretrained = kind(dense)
    for step in range(4):
        backward(dense, make_batch(SHAPE, step))
        pretrained.step()

    model = mlp(12, 20, 8)
    optimizer = kind(model)
    sparse = make(model, optimizer, method)
    if moment != "before the first step":
        list(train(model, sparse, SHAPE, range(2)))
    if moment == "after backward":
        backward(model, make_batch(SHAPE, 2))
    optimizer.load_state_dict(copy.deepcopy(pretrained.state_dict()))
    if moment == "after backward":
        sparse.step()
    for _ in train(model, sparse, SHAPE, range(3, 8)):
        assert_weights_masked(model, sparse)
    for name, mask in sparse.masks.items():
        for slot in slots(optimizer, model.get_parameter(name)).values():
            assert slot[~mask].unique().numel() <= 1  # that of a new weight


def assert_weights_masked(model: nn.Module, sparse: SparseTraining) -> None:
    for name, mask in sparse.masks.items():
        assert not model.get_parameter(name)[~mask].any(), name


@pytest.mark.parametrize("compute", ["masked", "sparse"])
def test_a_loaded_state_keeps_its_values_on_the_mask(compute):
    model = mlp(12, 20, 8)
    sparse = make(model, momentum(model), compute=compute)
    list(train(model, sparse, SHAPE, range(4)))
    twin, _, again = copy.deepcopy((model, sparse.optimizer, sparse))
    again.optimizer.load_state_dict(copy.deepcopy(sparse.optimizer.state_dict()))
    again.load_state_dict(copy.deepcopy(sparse.state_dict()))
    list(train(model, sparse, SHAPE, range(4, 9)))
    list(train(twin, again, SHAPE, range(4, 9)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


class Sam(torch.optim.Optimizer):
    """Sharpness-aware minimisation (Foret et al. 2021) around another optimizer, which has a state of its own."""

    def __init__(self, parameters: Any, inner: type[torch.optim.Optimizer], rho: float = 0.05, **settings: Any) -> None:
        super().__init__(parameters, {"rho": rho, **settings})
        self.inner = inner(self.param_groups, **settings)
        self.param_groups = self.inner.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        closure()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        before = [weight.clone() for weight in weights]
        norm = torch.stack([weight.grad.norm() for weight in weights]).norm()
        for weight in weights:
            weight.add_(weight.grad, alpha=float(self.param_groups[0]["rho"] / norm))
        self.zero_grad()
        closure()
        for weight, value in zip(weights, before, strict=True):
            weight.copy_(value)
        self.inner.step()


@pytest.mark.parametrize("method", ["rigl", "rigl-itop", "set-itop", "snfs"])
def test_the_state_of_an_optimizer_inside_another_is_masked_too(method):
    model = mlp(12, 20, 8)
    optimizer = Sam(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
    sparse = make(model, optimizer, method)
    for step in range(8):
        sparse.step(lambda step=step: backward(model, make_batch(SHAPE, step)))
        assert_masked(model, sparse)
        for name, mask in sparse.masks.items():
            assert not optimizer.inner.state[model.get_parameter(name)]["momentum_buffer"][~mask].any()


def test_what_grows_has_the_first_state_of_the_optimizer_inside():
    model = mlp(12, 20, 8)
    optimizer = Sam(model.parameters(), torch.optim.Adagrad, lr=0.1, initial_accumulator_value=0.5)
    sparse = make(model, optimizer, update_interval=1)
    for step in range(12):
        before = sparse.masks
        sparse.step(lambda step=step: backward(model, make_batch(SHAPE, step)))
        for name, mask in sparse.masks.items():
            grown = mask & ~before[name]
            assert grown.any()
            assert (optimizer.inner.state[model.get_parameter(name)]["sum"][grown] == 0.5).all()


def saved() -> dict[str, Any]:
    model = mlp(12, 20, 8)
    sparse = make(model, momentum(model))
    list(train(model, sparse, SHAPE, range(7)))
    return copy.deepcopy({"model": model, "optimizer": sparse.optimizer, "training": sparse})


@pytest.mark.parametrize("then", [("model", "training"), ("training", "model")], ids=" ".join)
def test_an_optimizer_loaded_before_the_training_was_made_is_refused(then):
    states = {name: part.state_dict() for name, part in saved().items()}
    model = mlp(12, 20, 8)
    parts: dict[str, Any] = {"model": model, "optimizer": momentum(model)}
    parts["optimizer"].load_state_dict(states["optimizer"])
    parts["training"] = make(model, parts["optimizer"])  # clears some of the momentum
    for name in then:
        parts[name].load_state_dict(states[name])
    with pytest.raises(UserError, match=r"optimizer's state .* loaded before .* Make the model, the optimizer"):
        model(make_batch(SHAPE, 0))


def test_an_optimizer_that_is_loaded_again_is_taken():
    whole = saved()
    states = {name: copy.deepcopy(part.state_dict()) for name, part in whole.items()}
    model = mlp(12, 20, 8)
    optimizer = momentum(model)
    optimizer.load_state_dict(copy.deepcopy(states["optimizer"]))
    sparse = make(model, optimizer)
    sparse.load_state_dict(states["training"])
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    list(train(model, sparse, SHAPE, range(7, 12)))
    list(train(whole["model"], whole["training"], SHAPE, range(7, 12)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole["model"].parameters(), strict=True))


def test_an_optimizer_without_state_is_taken():
    states = {name: part.state_dict() for name, part in saved().items() if name != "optimizer"}
    model = mlp(12, 20, 8)
    sparse = make(model, momentum(model))
    model.load_state_dict(states["model"])
    sparse.load_state_dict(states["training"])
    list(train(model, sparse, SHAPE, range(7, 9)))
    assert_masked(model, sparse)
