"""A training that is gone on from after any step ends as one that was never stopped: bit for bit, whatever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from itopctl.catalogue import METHODS
from itopctl.train.setup import be_deterministic
from tests.faults.resuming import OWN, STEPS, config_of, resumed, train
from tests.faults.trials import assert_same

METHOD_CASES: dict[str, dict[str, Any]] = {
    method: {"method": method, **({} if method in ("dense", "static") else {"update_interval": 3})}
    for method in METHODS.names()
}
SGD = {"name": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
CASES: dict[str, dict[str, Any]] = {
    "a rule of the user's own": {"growth": "own_for_resuming:seldom_and_steep"},
    "drop by gradient": {"method": "rigl-itop", "drop": "mest", "gradient_weight": 0.5},
    "redistribution": {"method": "rigl-itop", "redistribution": "magnitude"},
    "redistribution in a CNN": {
        "model": "own_for_resuming:small_cnn",
        "method": "rigl-itop",
        "redistribution": "magnitude",
    },
    "several gradients averaged": {"method": "rigl", "gradient_batches": 2},
    "a longer window": {"method": "dst-ee", "gradient_batches": 3, "update_interval": 4},
    "sgd without momentum": {"optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.0}},
    "sgd": {"method": "rigl", "optimizer": SGD},
    "adam": {"method": "rigl-itop", "optimizer": {"name": "adam", "weight_decay": 1e-3}},
    "adamw": {"method": "snfs", "optimizer": {"name": "adamw", "weight_decay": 1e-2}},
    "milestones": {"lr_schedule": {"name": "milestones", "milestones": [0.3, 0.7], "gamma": 0.1, "warmup": 0.2}},
    "cosine": {"lr_schedule": {"name": "cosine", "warmup": 0.25}},
    "one cycle": {"lr_schedule": {"name": "one-cycle", "peak": 0.4}},
    "crops and flips": {"augment": "crop-flip"},
    "a multiplier, smoothing, no validation": {"training_multiplier": 0.5, "label_smoothing": 0.1, "validation": 0},
    "bf16": {"precision": "bf16", "method": "rigl-itop"},
    "fp16": {"precision": "fp16", "method": "rigl-itop", "optimizer": SGD},
    "a model that draws": {"model": "own_for_resuming:restless", "method": "rigl-itop"},
    "a model that draws, and adam": {"model": "own_for_resuming:restless", "optimizer": {"name": "adam"}},
    "channels last": {"model": "own_for_resuming:small_cnn", "channels_last": True, "method": "rigl-itop"},
    "measured at some updates": {"evaluate_updates": "auto", "update_interval": 2},
    "checkpoints kept": {"keep_checkpoints": True},
}


@pytest.fixture(autouse=True)
def _deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_deterministic(1)
    (tmp_path / "own_for_resuming.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)


def check(settings: dict[str, Any]) -> None:
    """From each of its steps a training comes to the same end as if it had never been stopped, nor saved."""
    config = config_of(**settings)
    undisturbed, whole = train(config, saves=False), train(config)
    assert whole.result == undisturbed.result
    assert whole.events == undisturbed.events
    assert_same(whole.state, undisturbed.state)
    steps = []
    for step, again, events in resumed(config, whole):
        assert again.result == whole.result, step
        assert again.events == events, step
        assert_same(again.state, whole.state, f"from step {step}")
        steps.append(step)
    assert [*range(1, config.total_steps + 1)] == steps[: config.total_steps]


@pytest.mark.parametrize("name", METHOD_CASES)
def test_every_method_goes_on_from_every_step(name: str) -> None:
    check(METHOD_CASES[name])


@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_training_goes_on_from_every_step(name: str) -> None:
    check(CASES[name])


def test_the_training_in_question_is_what_it_is_taken_for() -> None:
    whole = train(config_of(method="rigl-itop"))
    assert [fields["step"] for name, fields in whole.events if name == "topology"] == [3, 6, 9]
    assert [fields["step"] for name, fields in whole.events if name == "evaluated"] == [6, 12]
    assert len(whole.saved) == STEPS
    assert len({fields["train_loss"] for _, fields in whole.events}) == 5, "it moves"


def test_a_model_that_draws_when_it_is_measured_goes_on_from_every_step() -> None:
    check({"model": "own_for_resuming:restless_always", "method": "rigl-itop"})


def test_measuring_a_model_that_draws_does_not_change_its_training() -> None:
    """How often is measured is no part of a run's identity."""
    often, never = (
        train(config_of(model="own_for_resuming:restless_always", evaluate_updates=choice))
        for choice in ("always", "never")
    )
    assert_same(often.state["model"], never.state["model"])
