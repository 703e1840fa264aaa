"""What is written into the weights of sparse layers: right, or refused; values of two topologies never mix."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import _default_to_fused_or_foreach, _foreach_supported_types

from itopctl.dst import SparseParameter
from itopctl.errors import UserError
from tests.dst.sparse.keeping import NAME, Training, assert_computes, dense_weights, moved

WRITES: dict[str, Callable[[Any, Any, Any], object]] = {
    "copied into data": lambda weight, kept, copied: weight.data.copy_(kept),
    "given as data": lambda weight, kept, copied: setattr(weight, "data", kept),
    "copied": lambda weight, kept, copied: weight.copy_(kept),
    "a copied parameter": lambda weight, kept, copied: weight.copy_(copied),
    "data of a copied parameter": lambda weight, kept, copied: setattr(weight, "data", copied.data),
    "by slice": lambda weight, kept, copied: weight.data.__setitem__(slice(None), kept),
    "through a view": lambda weight, kept, copied: weight.data.view(-1).copy_(kept),
    "interpolated": lambda weight, kept, copied: weight.data.lerp_(kept, 0.5),
    "added": lambda weight, kept, copied: weight.add_(kept),
    "by a function": lambda weight, kept, copied: torch.add(kept, 1, out=weight.data),
    "by lists": lambda weight, kept, copied: torch._foreach_copy_([weight], [kept]),
    "by an operator": lambda weight, kept, copied: weight.data.__iadd__(copied),
    "without positions": lambda weight, kept, copied: weight.data.copy_(torch.zeros(kept.shape)),
    "as data without positions": lambda weight, kept, copied: setattr(weight, "data", torch.zeros(kept.shape)),
    "by slice without positions": lambda weight, kept, copied: weight.data.__setitem__(..., torch.zeros(kept.shape)),
    "by a vector": lambda weight, kept, copied: nn.utils.vector_to_parameters(torch.zeros(kept.shape), [weight]),
    "a copy by a vector": lambda weight, kept, copied: nn.utils.vector_to_parameters(torch.ones(kept.shape), [copied]),
}  # fmt: skip


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES.keys())
def test_values_of_other_positions_do_not_get_into_a_weight(write: Callable[[Any, Any, Any], object]) -> None:
    training, kept, copied = moved()
    before = training.weight.dense()
    with torch.no_grad(), pytest.raises(UserError, match=r"load_state_dict"):
        write(training.weight, kept, copied[0].weight)
    assert torch.equal(training.weight.dense(), before)
    training.step()


def test_values_kept_at_several_topologies_are_not_put_together() -> None:
    training = Training()
    states = []
    for _ in training.steps(3):
        states.append(copy.deepcopy(training.model.state_dict()))
        training.step()
    training.step()
    with pytest.raises(UserError, match="WeightAverage"):
        states[0][NAME] + states[1][NAME]
    with pytest.raises(UserError, match="WeightAverage"):
        torch.stack([state[NAME] for state in states]).mean(0)
    with pytest.raises(UserError, match="WeightAverage"):
        total = torch.zeros_like(states[0][NAME])
        for state in states:
            total += state[NAME] / 3
    with pytest.raises(UserError, match="WeightAverage"):
        states[0][NAME].lerp_(states[1][NAME], 0.5)


def test_values_of_two_trainings_are_not_put_together() -> None:
    one, other = Training(), Training(seed=1)
    with pytest.raises(UserError, match="two trainings"):
        one.weight.detach() + other.weight.detach()
    with pytest.raises(UserError, match="load_state_dict"):
        one.weight.data.copy_(other.weight.data)


def test_a_view_of_memory_that_a_weight_has_left_is_refused() -> None:
    training = Training()
    stale = training.weight.data
    list(training.steps(2))
    with pytest.raises(UserError, match="anew"):
        stale.add_(1)
    with pytest.raises(UserError, match="anew"):
        copy.deepcopy(training.weight).data.lerp_(stale, 0.5)


def test_a_forward_pass_with_an_ordinary_tensor_for_a_weight_that_has_moved_is_refused() -> None:
    training, kept, _ = moved()
    images = torch.randn(4, 12)
    training.model.eval()
    own = torch.func.functional_call(training.model, {NAME: training.weight.detach() * 2}, images)
    assert not torch.equal(own, training.model(images))
    with pytest.raises(UserError, match="ordinary tensor"):
        torch.func.functional_call(training.model, {NAME: torch.zeros(kept.shape)}, images)
    twin = copy.deepcopy(training.model)
    twin[0].load_state_dict({"weight": kept.dense(), "bias": twin[0].bias})
    expected = dense_weights(training.model) | {NAME: kept.dense()}  # the values of then, where they stood then
    with_kept = copy.deepcopy(training.model)
    output = torch.func.functional_call(with_kept, {NAME: kept}, images)
    assert_computes(with_kept, dense_weights(training.model))  # and the layer's own are back
    with_kept[0].weight.data = kept
    torch.testing.assert_close(output, with_kept(images))
    assert_computes(with_kept, expected)


def test_ordinary_changes_of_a_weight_stay_allowed() -> None:
    training, _, _ = moved()
    weight = training.weight
    with torch.no_grad():
        weight.add_(torch.randn(weight.shape)).mul_(0.5).clamp_(-1, 1)
        weight.data.add_(0.01 * torch.randn(weight.shape))
        weight.data *= 2
        weight.data[weight.data.abs() < 0.1] = 0
        weight.data.copy_(weight.data * 0.5)
        weight.data = weight.data.sign() * weight.abs()
        weight.zero_()
        nn.init.normal_(weight)
        weight.copy_(torch.tensor(0.5))
    assert (weight == 0.5).all()
    training.step()


def test_before_the_topology_moves_ordinary_values_may_be_copied_into_a_weight() -> None:
    training = Training()
    vector = nn.utils.parameters_to_vector(training.model.parameters())
    nn.utils.vector_to_parameters(vector * 2, training.model.parameters())
    training.weight.data.copy_(torch.ones(training.weight.shape))
    assert (training.weight == 1).all()


def test_a_distance_to_earlier_values_is_that_of_the_networks_and_can_be_differentiated() -> None:
    training, kept, _ = moved()
    mask = training.sparse.mask(NAME)
    expected = ((training.weight.dense() - kept.dense()) * mask).square().sum()
    distance = (training.weight - kept).square().sum()
    torch.testing.assert_close(distance.detach(), expected)
    (gradient,) = torch.autograd.grad(distance, training.weight)
    torch.testing.assert_close(gradient, (2 * (training.weight.dense() - kept.dense()))[mask])


def test_a_penalty_does_not_depend_on_how_it_is_written() -> None:
    training, _, _ = moved()
    weight = training.weight
    for penalty in (weight.square().sum(), (weight * weight).sum(), (weight**2).sum(), torch.sum(weight * weight)):
        (gradient,) = torch.autograd.grad(penalty, weight)
        torch.testing.assert_close(gradient, 2 * weight.detach())


def test_results_that_are_not_the_weights_values_in_their_order_have_no_positions() -> None:
    weight = Training().weight
    for result in (
        weight.data.sort().values,
        weight.data.flip(0),
        weight.data[:5],
        weight.data.sum(),
        weight.data.cumsum(0),
    ):
        assert type(result) is Tensor  # fmt: skip
    for result in (weight.data, weight.detach(), weight.clone(), weight * 2, weight.data.abs(), weight.data.double()):
        assert result.positions is weight.positions
        assert torch.equal(result.dense()[Training().sparse.mask(NAME)], result.detach())


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_sparse_weights_leave_optimizers_their_defaults(make: Any) -> None:
    training = Training()
    ordinary = nn.Sequential(nn.Linear(12, 16), nn.Linear(16, 9))
    for fused in (False, True):  # decided by types and devices alone
        own, usual = (
            _default_to_fused_or_foreach(list(model.parameters()), False, fused) for model in (training.model, ordinary)
        )
        assert own == usual
    assert SparseParameter in _foreach_supported_types
    optimizer = make(training.model.parameters(), lr=0.1)
    training.model(torch.randn(4, 12)).sum().backward()
    optimizer.step()
    slots = [slot for state in optimizer.state.values() for slot in state.values()]
    assert all(slot is None or type(slot) is Tensor for slot in slots)


def test_slow_weights_in_the_optimizers_own_state_follow_by_themselves() -> None:
    training = Training()
    training.step()
    state = training.optimizer.state[training.weight]
    state["slow"] = training.weight.data.clone()
    expected = training.weight.dense()
    for _ in training.steps(5):
        state["slow"].lerp_(training.weight.data, 0.5)
        expected = (expected + 0.5 * (training.weight.dense() - expected)) * training.sparse.mask(NAME)
    torch.testing.assert_close(state["slow"].dense(), expected)


def test_copies_are_printed_moved_and_changed_as_other_tensors() -> None:
    training, kept, copied = moved()
    assert "Parameter containing" in repr(copied[0].weight)
    assert repr(kept.sum()) in repr([kept.sum()])
    assert copied.double()[0].weight.dtype == torch.float64
    assert torch.equal(copied[0].weight.dense().float(), kept.dense())
    training.model.double().float()
    training.step()
    copied.float()
    with torch.inference_mode():
        copied[0].weight.lerp_(training.weight, 0.5)
        copied(torch.randn(4, 12))
    copied.train()(torch.randn(4, 12)).sum().backward()
    torch.optim.SGD(copied.parameters(), lr=0.1).step()
