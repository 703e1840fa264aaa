"""Averages that people keep beside a training with sparse layers follow its topology."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_avg_fn, get_ema_multi_avg_fn

from tests.dst.sparse.keeping import DECAY, NAME, Reference, Training, assert_computes, dense_weights


@pytest.mark.parametrize("rules", [{}, {"redistribution": "magnitude"}], ids=str)
@pytest.mark.parametrize(
    ("settings", "decay"),
    [
        ({"multi_avg_fn": get_ema_multi_avg_fn(DECAY)}, DECAY), ({}, None), ({"avg_fn": get_ema_avg_fn(DECAY)}, DECAY),
        ({"avg_fn": lambda average, now, count: average + (now - average) / (count + 1)}, None),
        ({"multi_avg_fn": get_ema_multi_avg_fn(DECAY), "use_buffers": True}, DECAY),
    ],
    ids=["ema", "swa", "ema one by one", "swa one by one", "ema of buffers"],
)  # fmt: skip
def test_the_averaged_model_of_pytorch_follows_the_topology(
    settings: dict[str, Any], decay: float | None, rules: dict[str, Any]
) -> None:
    training, reference = Training(**rules), Reference(decay)
    averaged = AveragedModel(training.model, **settings)
    for _ in training.steps(11):
        averaged.update_parameters(training.model)
        reference.update(training)
    reference.assert_is(dense_weights(averaged.module))
    assert_computes(averaged.module, reference.average)


def by_parameters(ema: nn.Module, model: nn.Module) -> None:
    for average, now in zip(ema.parameters(), model.parameters(), strict=True):
        average.mul_(DECAY).add_(now, alpha=1 - DECAY)


def by_functions(ema: nn.Module, model: nn.Module) -> None:
    for average, now in zip(ema.parameters(), model.parameters(), strict=True):
        average.copy_(torch.lerp(now, average, DECAY))


def by_lists(ema: nn.Module, model: nn.Module) -> None:
    torch._foreach_mul_(list(ema.parameters()), DECAY)
    torch._foreach_add_(list(ema.parameters()), list(model.parameters()), alpha=1 - DECAY)


def by_data(ema: nn.Module, model: nn.Module) -> None:
    for average, now in zip(ema.parameters(), model.parameters(), strict=True):
        average.data = DECAY * average.data + (1 - DECAY) * now.data


def by_changed_data(ema: nn.Module, model: nn.Module) -> None:
    for average, now in zip(ema.parameters(), model.parameters(), strict=True):
        average.data += (1 - DECAY) * (now - average)


def by_states(ema: nn.Module, model: nn.Module) -> None:
    for average, now in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        average.copy_(DECAY * average + (1 - DECAY) * now)


def by_states_in_lists(ema: nn.Module, model: nn.Module) -> None:
    averages, new = [], []
    for average, now in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if average.is_floating_point():
            averages.append(average)
            new.append(now)
        else:
            average.copy_(now)
    torch._foreach_lerp_(averages, new, weight=1 - DECAY)


def by_loading(ema: nn.Module, model: nn.Module) -> None:
    now, average = model.state_dict(), ema.state_dict()
    mixed = {key: DECAY * average[key] + (1 - DECAY) * now[key] for key in now if now[key].is_floating_point()}
    ema.load_state_dict({**now, **mixed})


@pytest.mark.parametrize("rules", [{}, {"redistribution": "magnitude"}], ids=str)
@pytest.mark.parametrize(
    "update",
    [by_parameters, by_functions, by_lists, by_data, by_changed_data, by_states, by_states_in_lists, by_loading],
)
def test_a_copy_that_is_averaged_by_hand_follows_the_topology(
    update: Callable[[nn.Module, nn.Module], None], rules: dict[str, Any]
) -> None:
    training, reference = Training(**rules), Reference(DECAY)
    training.step()
    ema = copy.deepcopy(training.model)
    reference.update(training)
    for _ in training.steps(8):
        with torch.no_grad():
            update(ema, training.model)
        reference.update(training)
    reference.assert_is(dense_weights(ema))
    assert_computes(ema, reference.average)


class Shadows:
    """Shadow parameters in a list, as several packages keep them."""

    def __init__(self, model: nn.Module) -> None:
        self.values = [parameter.clone().detach() for parameter in model.parameters()]
        self.kept: list[Tensor] = []

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for shadow, parameter in zip(self.values, model.parameters(), strict=True):
            shadow.sub_((1 - DECAY) * (shadow - parameter))

    def store(self, model: nn.Module) -> None:
        self.kept = [parameter.clone() for parameter in model.parameters()]

    def copy_to(self, model: nn.Module) -> None:
        for shadow, parameter in zip(self.values, model.parameters(), strict=True):
            parameter.data.copy_(shadow.data)

    def restore(self, model: nn.Module) -> None:
        for kept, parameter in zip(self.kept, model.parameters(), strict=True):
            parameter.data.copy_(kept.data)


def test_shadows_in_a_list_follow_the_topology_and_come_and_go() -> None:
    training, reference = Training(), Reference(DECAY)
    training.step()
    shadows = Shadows(training.model)
    reference.update(training)
    for _ in training.steps(8):
        shadows.update(training.model)
        reference.update(training)
    before = training.dense()
    shadows.store(training.model)
    shadows.copy_to(training.model)
    reference.assert_is(training.dense())
    assert_computes(training.model, reference.average)
    shadows.restore(training.model)
    assert all(torch.equal(now, before[name]) for name, now in training.dense().items())
    training.step()


def test_an_average_in_buffers_follows_the_topology() -> None:
    training, reference = Training(), Reference(DECAY)
    training.step()
    keeper = nn.Module()
    for name, parameter in training.model.named_parameters():
        keeper.register_buffer(name.replace(".", "-"), parameter.clone().detach().data)
    reference.update(training)
    for _ in training.steps(8):
        with torch.no_grad():
            for name, parameter in training.model.named_parameters():
                shadow = keeper.get_buffer(name.replace(".", "-"))
                shadow.sub_((1 - DECAY) * (shadow - parameter))
        reference.update(training)
    shadow = keeper.get_buffer(NAME.replace(".", "-"))
    torch.testing.assert_close(shadow, reference.average[NAME][training.sparse.mask(NAME)])


def test_slow_weights_of_lookahead_are_those_of_whole_weights() -> None:
    training = Training()
    slow = {parameter: parameter.data.clone() for parameter in training.model.parameters()}
    whole = training.dense()
    for index in training.steps(12):
        if index % 3 == 2:
            fast = training.dense()
            for name, parameter in training.model.named_parameters():
                slow[parameter].add_(parameter.data - slow[parameter], alpha=0.5)
                parameter.data.copy_(slow[parameter])
                mask = training.sparse.mask(name) if name in training.sparse.compressed else torch.ones(1).bool()
                whole[name] = (whole[name] + 0.5 * (fast[name] - whole[name])) * mask
            for name, weight in training.dense().items():
                torch.testing.assert_close(weight, whole[name])


def test_a_sum_into_an_ordinary_tensor_takes_positions_with_the_first_values() -> None:
    training = Training()
    total = torch.zeros(training.weight.shape)
    expected = torch.zeros(16, 12)
    for _ in training.steps(6):
        total.add_(training.weight.data)
        expected = (expected + training.weight.dense()) * training.sparse.mask(NAME)
    torch.testing.assert_close(total, expected[training.sparse.mask(NAME)])
