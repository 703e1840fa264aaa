"""Settings that belong to single rules: filled in where a chosen rule has them, dropped and told where none has."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from itopctl.catalogue import ARGS, METHODS, rule_settings
from itopctl.config.identity import identity_fields, run_id
from itopctl.config.run_config import defining_settings
from itopctl.dst.methods import SPARSE
from itopctl.dst.rules import Rules
from itopctl.train.setup import rules_of
from tests.config.build import complaint_on, config, resolved

SETS = "dataset: digits\nmodel: lenet-5\nepochs: 10\nsparsity: 0.9\n"


@pytest.mark.parametrize(
    ("written", "filled"),
    [
        ({"method": "mest"}, {"gradient_weight": 0.01, "gradient_batches": 1}),
        ({"method": "snfs"}, {"momentum_decay": 0.9, "redistribution": "momentum"}),
        ({"method": "dst-ee"}, {"exploration_weight": 1e-3, "exploration_offset": 1.0}),
        ({"method": "gse"}, {"sampled_share": 1.0, "allocation": "er"}),
        ({"method": "set-itop", "drop": "threshold"}, {"drop_threshold": 1e-3}),
        ({"method": "rigl", "gradient_batches": 4}, {"gradient_batches": 4}),
    ],
)
def test_a_rule_brings_the_defaults_of_its_settings(written: dict[str, Any], filled: dict[str, Any]) -> None:
    run = config(**written)
    assert {name: getattr(run, name) for name in filled} == filled


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("set-itop", "gradient_batches", 4), ("rigl", "momentum_decay", 0.5), ("rigl", "gradient_weight", 0.1),
        ("snfs", "sampled_share", 2.0), ("gse", "exploration_weight", 0.1), ("mest", "drop_threshold", 0.1),
    ],
)  # fmt: skip
def test_a_setting_that_no_chosen_rule_has_is_dropped_and_told(method: str, setting: str, value: float) -> None:
    run = resolved(f"{SETS}method: {method}\n{setting}: {value}\n")
    assert getattr(run.config, setting) is None
    assert setting in run.ignored
    assert run_id(run.config) == run_id(resolved(f"{SETS}method: {method}\n").config)


def test_a_rule_of_the_users_own_may_have_any_setting(tmp_path, monkeypatch) -> None:
    (tmp_path / "rules_that_read.py").write_text("def mine(layer):\n    return layer.weight\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    run = resolved(f"{SETS}method: rigl\ngrowth: rules_that_read:mine\nexploration_weight: 0.5\n")
    assert run.config.exploration_weight == 0.5
    assert "exploration_weight" not in run.ignored


def test_a_power_is_of_the_exponential_schedule_alone() -> None:
    assert config(method="rigl", drop_schedule__name="exponential").drop_schedule.power == 3.0
    run = resolved(f"{SETS}method: rigl\ndrop_schedule.power: 2.0\n")
    assert run.config.drop_schedule.power is None
    assert run.ignored == {"drop_schedule.power": "cosine"}


@pytest.mark.parametrize("method", ["set", "rigl", "set-itop", "rigl-itop", "static"])
def test_runs_of_the_first_methods_keep_their_identity(method: str) -> None:
    """None of the settings that came later is in the hash of a run that does not use them."""
    later = {"layer_density", "dense_in_budget", "redistribution", *rule_settings(), *ARGS}
    assert not later & set(identity_fields(config(method=method)))


def test_the_density_of_layers_is_written_as_a_mapping_in_any_order() -> None:
    one = resolved(SETS + "method: rigl\nlayer_density: {conv1: 0.5, 'type:Linear': 0.1}\n").config
    other = resolved(SETS + "method: rigl\nlayer_density: {'type:Linear': 0.1, conv1: 0.5}\n").config
    assert one.layer_density == {"conv1": 0.5, "type:Linear": 0.1}
    assert run_id(one) == run_id(other) != run_id(config(method="rigl"))


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("layer_density", {"conv1": 1.5}, "layer_density"), ("layer_density", {"conv1": 0}, "layer_density"),
        ("layer_density", [0.5], "layer_density"), ("gradient_batches", 0, "gradient_batches"),
        ("momentum_decay", 1.0, "momentum_decay"), ("redistribution", "momentm", "Did you mean 'momentum'?"),
        ("sampled_share", 0.0, "sampled_share"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_where_they_stand(setting: str, value: Any, words: str) -> None:
    method = "gse" if setting == "sampled_share" else "snfs" if setting == "momentum_decay" else "rigl"
    assert words in complaint_on(method=method, **{setting: value})


@pytest.mark.parametrize("method", METHODS.names())
def test_the_engine_gets_the_rules_that_the_method_has_by_itself(method: str) -> None:
    run = config(method=method, update_interval=7)
    ours = rules_of(run)
    theirs = Rules.of_method(method, update_interval=7)
    for field in fields(Rules):
        if field.name != "settings":
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    assert ours.needs == theirs.needs


def test_more_batches_than_an_interval_has_are_refused_in_the_spec() -> None:
    assert "less than update_interval (8)" in complaint_on(method="rigl", update_interval=8, gradient_batches=8)
    assert config(method="rigl", update_interval=8, gradient_batches=7).gradient_batches == 7


def test_everything_a_rule_may_be_set_to_means_nothing_for_a_dense_network() -> None:
    ours = {field.name for field in fields(Rules)} - {"settings"} | rule_settings().keys()
    assert ours < set(SPARSE)
    assert set(METHODS.get("dense").options["ignores"]) == set(SPARSE)


def test_a_record_from_before_a_setting_existed_tells_the_same_experiment() -> None:
    now = config(method="rigl").model_dump(mode="json")
    before = {name: value for name, value in now.items() if name not in {"redistribution", "dense_in_budget"}}
    before = {name: value for name, value in before.items() if name not in rule_settings()}
    ours, theirs = ({k: v for k, v in defining_settings(c).items() if v is not None} for c in (now, before))
    assert ours == theirs
    assert "device" not in ours
    assert defining_settings(now | {"redistribution": "momentum"})["redistribution"] == "momentum"
