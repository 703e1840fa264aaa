"""Optimizers, and the learning rate as a function of the step."""

from __future__ import annotations

import pytest
import torch

from itopctl.config.run_config import RunConfig
from itopctl.train.optim import lr_factor, make_optimizer
from tests.helpers import run_config


def factors(total: int, **schedule: object) -> list[float]:
    config: RunConfig = run_config(lr_schedule=schedule, epochs=100)
    return [lr_factor(config.lr_schedule, step, total) for step in range(total)]


def test_milestones_divide_at_the_step_they_name() -> None:
    values = factors(1000, name="milestones", milestones=[0.5, 0.75], gamma=0.1)
    assert values[499] == 1.0
    assert values[500] == pytest.approx(0.1)
    assert values[749] == pytest.approx(0.1)
    assert values[750] == pytest.approx(0.01)


def test_milestones_in_epochs_are_fractions_of_training() -> None:
    assert factors(1000, name="milestones", milestones=[50, 75]) == factors(
        1000, name="milestones", milestones=[0.5, 0.75]
    )


def test_a_milestone_is_not_missed_by_float_dust() -> None:
    values = factors(10, name="milestones", milestones=[0.1, 0.3, 0.7])
    assert [values.index(v) for v in dict.fromkeys(values)] == [0, 1, 3, 7]


def test_cosine_falls_from_one_to_nothing() -> None:
    values = factors(1000, name="cosine")
    assert values[0] == 1.0
    assert values[500] == pytest.approx(0.5)
    assert values[999] < 1e-5
    assert values == sorted(values, reverse=True)


def test_warmup_rises_linearly_and_never_from_zero() -> None:
    values = factors(1000, name="cosine", warmup=0.1)
    assert 0 < values[0] < 0.02
    assert values[49] == pytest.approx(50 / 101)
    assert max(values) == values[100] == 1.0


def test_one_cycle_rises_to_its_peak_and_falls_to_almost_nothing() -> None:
    values = factors(1000, name="one-cycle", peak=0.3)
    assert values[0] == pytest.approx(1 / 25)
    assert values.index(max(values)) == 300
    assert values[300] == 1.0
    assert values[999] < 1e-4


def test_constant_stays() -> None:
    assert set(factors(50, name="constant")) == {1.0}


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({"name": "sgd"}, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}),
        ({"name": "sgd", "momentum": 0.0}, torch.optim.SGD, {"momentum": 0.0, "nesterov": False}),
        ({"name": "adam", "lr": 0.01}, torch.optim.Adam, {"lr": 0.01, "betas": (0.9, 0.999), "weight_decay": 0.0}),
        ({"name": "adamw", "betas": [0.8, 0.95]}, torch.optim.AdamW, {"betas": (0.8, 0.95), "weight_decay": 0.01}),
    ],
)
def test_optimizers_get_their_settings(settings: dict, kind: type, expected: dict) -> None:
    optimizer = make_optimizer(run_config(optimizer=settings).optimizer, torch.nn.Linear(3, 2))
    assert type(optimizer) is kind
    assert {name: optimizer.defaults[name] for name in expected} == expected
