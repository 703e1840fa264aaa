"""The interval that reaches an exploration rate in a run; or a sentence that says what would."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.run_config import RunConfig
from itopctl.dst.expected import explored_with_interval
from itopctl.dst.network_outline import LayerOutline, Outline
from itopctl.dst.rules import Rules
from itopctl.errors import UserError
from itopctl.plan.reach import interval_reaching
from tests.helpers import run_config

LAYERS = (("a", 19_200, 1_500), ("b", 30_000, 2_900), ("c", 1_000, 620))


def outline(layers: tuple[tuple[str, int, int], ...] = LAYERS) -> Outline:
    return Outline(tuple(LayerOutline(name, size, active, size) for name, size, active in layers), 0, 1, 0, 0)


def reached(config: RunConfig, interval: int, epochs: int | None = None) -> float:
    steps = (epochs or config.total_epochs) * config.steps_per_epoch
    return explored_with_interval(interval, Rules.of_settings(config.model_dump()), outline().shares, steps)


@pytest.mark.parametrize("growth", ["random", "random-unexplored"])
@pytest.mark.parametrize("target", [0.15, 0.5, 0.9])
def test_it_is_the_largest_interval_that_reaches_it(growth: str, target: float) -> None:
    config = run_config(epochs=60, growth=growth)
    interval = interval_reaching(target, config, outline())
    assert reached(config, interval) >= target > reached(config, interval + 1)


def test_the_interval_that_a_run_has_already_does_not_matter() -> None:
    found = {interval_reaching(0.5, run_config(epochs=60, update_interval=n), outline()) for n in (1, 50, 5000)}
    assert len(found) == 1


def complaint(target: float, **changed: object) -> str:
    with pytest.raises(UserError) as caught:
        interval_reaching(target, run_config(**changed), outline())
    return str(caught.value)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from([0.8, 0.9, 0.99, 0.9999]), st.integers(1, 4), st.sampled_from(["random", "random-unexplored"]))
def test_out_of_reach_names_the_most_and_the_fewest_epochs_that_would_do(
    target: float, epochs: int, growth: str
) -> None:
    config = run_config(epochs=epochs, growth=growth, drop_fraction=0.1)
    if reached(config, 1) >= target:
        return
    said = complaint(target, epochs=epochs, growth=growth, drop_fraction=0.1)
    most, longer = re.findall(r"explores (0\.\d{4})\. Training for ([\d,]+) epochs would do it", said)[0]
    needed = int(longer.replace(",", ""))
    assert float(most) <= reached(config, 1) < float(most) + 1e-4
    assert reached(config, 1, needed) >= target - 1e-12 > reached(config, 1, needed - 1)
    assert interval_reaching(float(most), config, outline()) == 1  # what it names is within reach


def test_the_sentence_reads_well() -> None:
    assert complaint(0.99, epochs=3) == (
        "an exploration rate of 0.99 is out of reach: a topology update at every one of 33 steps (3 epochs) explores "
        "0.5894. Training for 18 epochs would do it, at that interval. A larger drop_fraction or a smaller sparsity "
        "explores more, too."
    )


def test_what_no_training_reaches_is_said_to_be_so() -> None:
    said = complaint(0.5, epochs=3, drop_fraction=1e-5, drop_schedule={"name": "constant"}, replace_rounding="floor")
    assert "explores 0.1000. Nor would 1,000 times as long a training do it." in said


@pytest.mark.parametrize(
    ("method", "rules", "why"),
    [
        ("rigl-itop", {}, "by growth 'gradient'"),
        ("snfs", {}, "with redistribution 'momentum'"),
        ("dst-ee", {}, "by growth 'gradient-plus-exploration'"),
        ("set-itop", {"drop": "threshold"}, "where weights are dropped by 'threshold'"),
    ],
)
def test_where_it_is_not_known_before_training_it_is_refused(method: str, rules: dict[str, str], why: str) -> None:
    said = complaint(0.3, method=method, epochs=60, **rules)
    assert said.startswith(f"how much is explored {why} is not known before training")
    assert said.endswith(". Give these runs an interval in steps or epochs; {reach: …} is for random growth.")
    assert ("comes back to the same weights" in said) == (method in ("rigl-itop", "dst-ee"))


def test_a_drop_fraction_that_rises_is_refused() -> None:
    said = complaint(0.3, epochs=60, drop_fraction=0.1, drop_schedule={"name": "linear", "final": 0.5})
    assert "rises" in said


def test_a_very_long_training_that_would_do_it_is_estimated_and_not_counted_out() -> None:
    said = complaint(0.9999, epochs=2, drop_fraction=0.001, dataset="cifar10", batch_size=4)
    assert "Training for" in said
