from __future__ import annotations

import dataclasses

import pytest
import torch

from itopctl.catalogue import METHODS
from itopctl.dst.layer_view import LayerView
from itopctl.dst.maskable import maskable_weights
from itopctl.dst.masked_layer import MaskedLayer
from itopctl.dst.rules import DropSchedule, Rules
from itopctl.errors import UserError


def view(seed: int = 0, gradient: torch.Tensor | None = None) -> LayerView:
    fc = torch.nn.Linear(40, 30)
    layer = MaskedLayer(0, maskable_weights(torch.nn.ModuleDict({"fc": fc}))["fc.weight"], 100, seed)
    return LayerView(
        "fc.weight", (30, 40), 1, 1, 0.5, torch.Generator().manual_seed(seed), kept=torch.arange(0), entries=None,
        _layer=layer, _gradient=gradient,
    )  # fmt: skip


def test_the_presets_are_those_of_the_papers():
    rigl = Rules.of_method("rigl")
    assert (rigl.growth, rigl.drop_fraction, rigl.update_interval) == ("gradient", 0.3, 100)
    assert rigl.drop_schedule == DropSchedule("cosine", final=0.0, stop=0.75)
    assert (rigl.update_replaces_step, rigl.replace_rounding) == (True, "floor")
    for method, growth, interval in [("set-itop", "random", 1500), ("rigl-itop", "gradient", 4000)]:
        itop = Rules.of_method(method)
        assert (itop.growth, itop.drop_fraction, itop.update_interval) == (growth, 0.5, interval)
        assert itop.drop_schedule == DropSchedule("cosine", final=0.005, stop=1.0)
        assert (itop.update_replaces_step, itop.replace_rounding) == (False, "ceil")


@pytest.mark.parametrize("method", METHODS.names())
def test_every_method_is_dense_static_or_dynamic(method):
    rules = Rules.of_method(method, update_interval=10)
    assert (rules.sparse, rules.dynamic) == {
        "dense": (False, False),
        "static": (True, False),
    }.get(method, (True, True))


def test_overrides_replace_single_settings():
    rules = Rules.of_method("rigl", update_interval=7, allocation="uniform", drop_schedule={"name": "constant"})
    assert (rules.update_interval, rules.allocation, rules.drop_fraction) == (7, "uniform", 0.3)
    assert rules.drop_schedule == DropSchedule("constant", final=0.0, stop=1.0)


def test_settings_that_mean_nothing_for_a_method_are_left_out():
    assert Rules.of_method("dense", update_interval=7, allocation="erk") == Rules()
    assert Rules.of_method("static", growth="random").growth is None


def test_an_interval_in_epochs_must_be_given_in_steps():
    with pytest.raises(UserError, match="pass update_interval in steps"):
        Rules.of_method("set")
    assert Rules.of_method("set", update_interval=391).update_interval == 391


@pytest.mark.parametrize(
    ("setting", "word", "nearest"),
    [("growth", "gradeint", "gradient"), ("drop", "magnitud", "magnitude")],
)
def test_an_unknown_rule_is_answered_with_the_nearest_word(setting, word, nearest):
    with pytest.raises(UserError, match=f"Did you mean '{nearest}'"):
        Rules.of_method("rigl", **{setting: word})


def test_an_unknown_method_is_answered_with_the_nearest_word():
    with pytest.raises(UserError, match="Did you mean 'rigl-itop'"):
        Rules.of_method("rigl_itop")


def test_an_unknown_setting_is_answered_with_the_nearest_word():
    with pytest.raises(UserError, match="Did you mean 'update_interval'"):
        Rules.of_method("rigl", update_intervall=5)


def test_a_dynamic_method_with_a_missing_setting_names_it():
    with pytest.raises(UserError, match="growth, drop_fraction"):
        Rules(allocation="erk", drop="magnitude", drop_schedule=DropSchedule(), update_interval=5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("update_interval", 0),
        ("update_interval", -5),
        ("drop_fraction", 0.0),
        ("drop_fraction", -0.1),
        ("drop_fraction", 1.5),
        ("drop_schedule", {"name": "cosine", "final": 1.5}),
        ("drop_schedule", {"name": "cosine", "final": -0.1}),
        ("drop_schedule", {"name": "cosine", "stop": 0.0}),
        ("drop_schedule", {"name": "cosine", "stop": 1.5}),
        ("drop_schedule", {"name": "cosin"}),
        ("drop_schedule", {"name": "cosine", "fnal": 0.1}),
        ("replace_rounding", "round"),
        ("allocation", "erkk"),
    ],
)
def test_a_setting_outside_its_documented_range_is_the_users_error(setting, value):
    with pytest.raises(UserError):
        Rules.of_method("rigl", **{setting: value})


def test_rules_cannot_be_changed_once_made():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rules.of_method("rigl").update_interval = 5  # type: ignore[misc]


def test_random_scores_depend_on_the_generator_alone():
    first, again, other = view(1).random_scores(), view(1).random_scores(), view(2).random_scores()
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (1200,)
    assert 0 <= first.min() < 0.1
    assert 0.9 < first.max() < 1


def test_a_rule_that_did_not_ask_for_the_gradient_is_told_how():
    with pytest.raises(RuntimeError, match="needs="):
        _ = view().gradient
    assert torch.equal(view(gradient=torch.ones(30, 40)).gradient, torch.ones(1200))
