"""The run id: one for each experiment, whatever the spelling; the same one for as long as the experiment is."""

from __future__ import annotations

import json
import random
import re
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from itopctl.catalogue import ARGS
from itopctl.config.identity import identity_fields, run_id
from itopctl.config.run_config import RunConfig, unhashed_settings
from tests.config.build import SPARSE, config, resolved

GOLDEN = """
dataset: cifar100
model: resnet34
method: rigl-itop
sparsity: 0.95
epochs: 250
batch_size: 128
optimizer: {name: sgd, lr: 0.1, momentum: 0.9, nesterov: true, weight_decay: 5.0e-4}
update_interval: 4000
seed: 2
"""


def identity(text: str) -> str:
    return run_id(resolved(text).config)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (GOLDEN, "5239092a342f"),
        ("{dataset: digits, model: lenet-300-100, method: dense, epochs: 1}", "28a1b711dea2"),
        (
            "{dataset: digits, model: lenet-5, method: set, sparsity: 0.9, epochs: 1, optimizer: {name: adam}}",
            "81edf1dc9a8d",
        ),
    ],
)
def test_the_id_of_a_known_run_is_what_it_always_was(text: str, known: str) -> None:
    """A change here makes every finished run unknown: raise the schema version only if a config means another thing."""
    assert identity(text) == known


def test_an_id_is_twelve_hex_digits() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", run_id(config()))


def test_two_spellings_of_a_number_are_one_run() -> None:
    spellings = ["0.1", "1e-1", "0.10", "1.0e-1", ".1", "0.1000", "10e-2", "+0.1"]
    assert len({identity(f"{yaml.safe_dump(SPARSE)}optimizer.lr: {spelling}") for spelling in spellings}) == 1


def test_a_whole_number_and_the_same_with_a_point_are_one_run() -> None:
    assert run_id(config(optimizer__lr=1)) == run_id(config(optimizer__lr=1.0))
    assert run_id(config(sparsity=0)) == run_id(config(sparsity=0.0))


def test_zero_is_one_number_whatever_its_sign() -> None:
    assert run_id(config(sparsity=-0.0)) == run_id(config(sparsity=0.0))
    assert run_id(config(label_smoothing=-0.0)) == run_id(config(label_smoothing=0.0))


def test_a_density_and_the_sparsity_it_stands_for_are_one_run() -> None:
    base = yaml.safe_dump({name: value for name, value in SPARSE.items() if name != "sparsity"})
    for sparsity, density in ((0.9, 0.1), (0.95, 0.05), (0.98, 0.02), (0.7, 0.3), (0.0, 1)):
        assert identity(f"{base}sparsity: {sparsity}") == identity(f"{base}density: {density}")


def test_nested_and_dotted_settings_are_one_run() -> None:
    base = yaml.safe_dump(SPARSE)
    assert identity(f"{base}optimizer: {{lr: 0.2}}") == identity(f"{base}optimizer.lr: 0.2")


def test_a_default_that_is_written_out_is_the_same_run() -> None:
    whole = {
        **SPARSE, "growth": "gradient", "drop": "magnitude", "update_interval": 4000, "drop_fraction": 0.5,
        "allocation": "erk", "batch_size": 128, "validation": 0.1, "optimizer": {"name": "sgd", "nesterov": True},
    }  # fmt: skip
    assert identity(yaml.safe_dump(whole)) == run_id(config())


def test_a_default_that_changed_is_another_run() -> None:
    """As after an edit of a preset or a field's default: the resolved value counts, not what was written."""
    run = config()
    changes: list[dict[str, Any]] = [
        {"update_interval": 3999}, {"batch_size": 64}, {"validation": 0.2}, {"drop_fraction": 0.3},
        {"optimizer": run.optimizer.model_copy(update={"weight_decay": 0.0})},
        {"lr_schedule": run.lr_schedule.model_copy(update={"gamma": 0.2})},
    ]  # fmt: skip
    assert len({run_id(run), *(run_id(run.model_copy(update=change)) for change in changes)}) == 7


OTHER: dict[str, Any] = {
    **{args: {"temperature": 0.5} for args in ARGS},
    "dataset": "mnist", "model": "lenet-5", "method": "set-itop", "sparsity": 0.8, "allocation": "er",
    "allocation_power": 2.0, "keep_dense": ("conv*",), "drop": "a:b", "growth": "random", "drop_fraction": 0.1,
    "drop_schedule": None, "update_interval": 5, "update_replaces_step": True, "replace_rounding": "floor", "seed": 1,
    "epochs": 3, "training_multiplier": 2.0, "batch_size": 64, "optimizer": config(optimizer__lr=0.3).optimizer,
    "lr_schedule": config(lr_schedule__name="cosine").lr_schedule, "label_smoothing": 0.1, "validation": 0.0,
    "augment": "crop-flip", "precision": "bf16", "channels_last": True, "compile": True, "device": "cpu",
    "evaluate_updates": "never", "checkpoint_minutes": 1.0, "keep_checkpoints": True, "keep_network": False,
    "compute": "masked",
    "layer_density": {"conv*": 0.5}, "dense_in_budget": False, "own_code": {"a": "0123456789ab"},
    "also_mask": ("embedding*",),
    "redistribution": "momentum", "gradient_batches": 2, "momentum_decay": 0.5, "drop_threshold": 0.1,
    "gradient_weight": 0.1, "exploration_weight": 0.1, "exploration_offset": 0.1, "sampled_share": 2.0,
}  # fmt: skip
RECORDED = {
    "channels_last",
    "checkpoint_minutes",
    "compile",
    "compute",
    "device",
    "evaluate_updates",
    "keep_checkpoints",
    "keep_network",
}


@pytest.mark.parametrize("name", RunConfig.model_fields)
def test_every_setting_counts_unless_it_only_says_where_or_how_fast(name: str) -> None:
    run = config()
    assert getattr(run, name) != OTHER[name]
    changed = run.model_copy(update={name: OTHER[name]})
    assert (run_id(changed) == run_id(run)) == (name in RECORDED)


def test_a_run_that_masks_nothing_further_is_the_run_that_it_was_before_it_could() -> None:
    assert "also_mask" not in identity_fields(config())
    assert identity(f"{GOLDEN}also_mask: []") == identity(f"{GOLDEN}also_mask: null") == "5239092a342f"
    assert identity(f"{GOLDEN}also_mask: [embedding*]") not in (identity(GOLDEN), identity(f"{GOLDEN}also_mask: [a]"))


def test_what_is_recorded_but_not_hashed_is_known_by_name() -> None:
    assert unhashed_settings() == RECORDED


def test_settings_that_mean_nothing_for_the_method_do_not_count() -> None:
    dense = "{dataset: digits, model: lenet-5, method: dense, epochs: 1%s}"
    assert identity(dense % ", sparsity: 0.9, update_interval: 5, growth: random") == identity(dense % "")


def test_settings_of_another_optimizer_do_not_count() -> None:
    assert run_id(config(optimizer__name="adam", optimizer__momentum=0.5)) == run_id(config(optimizer__name="adam"))


def test_an_interval_in_epochs_is_the_run_of_its_steps() -> None:
    assert run_id(config(update_interval="1 epoch")) == run_id(config(update_interval=11))


def test_milestones_in_epochs_are_the_run_of_their_fractions() -> None:
    assert run_id(config(epochs=200, lr_schedule__milestones=[100, 150])) == run_id(config(epochs=200))


@settings(max_examples=50, deadline=None)
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(order: random.Random) -> None:
    written = yaml.safe_load(GOLDEN)
    names, inner = list(written), list(written["optimizer"])
    order.shuffle(names)
    order.shuffle(inner)
    shuffled = {name: written[name] for name in names}
    shuffled["optimizer"] = {name: written["optimizer"][name] for name in inner}
    assert identity(yaml.safe_dump(shuffled, sort_keys=False)) == identity(GOLDEN)


@settings(max_examples=50, deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "sparsity": st.integers(0, 99).map(lambda n: n / 100),
            "seed": st.integers(0, 2**32 - 1),
            "update_interval": st.integers(1, 10_000),
            "optimizer__lr": st.floats(1e-6, 10.0),
        }
    )
)
def test_a_run_keeps_its_id_through_its_json(written: dict[str, Any]) -> None:
    run = config(**written)
    assert run_id(RunConfig.model_validate_json(run.model_dump_json())) == run_id(run)
    assert run_id(RunConfig.model_validate_json(json.dumps(run.model_dump(mode="json"), sort_keys=True))) == run_id(run)


class _Inner(BaseModel):
    lr: float = 0.1
    clip: float | None = None
    warm: bool = Field(default=False, json_schema_extra={"as_before": False})


class _Before(BaseModel):
    """A config as it was in an early version."""

    epochs: int = 3
    inner: _Inner = _Inner()


class _After(_Before):
    """The same with fields that a later version added."""

    rounds: int = Field(default=1, json_schema_extra={"as_before": 1})
    mode: Literal["old", "new"] = Field(default="new", json_schema_extra={"as_before": "old"})
    extra: str | None = None
    device: str = Field(default="auto", json_schema_extra={"identity": False})


def test_null_says_that_a_field_means_nothing_and_is_left_out() -> None:
    assert identity_fields(_Inner()) == {"lr": 0.1}
    assert identity_fields(_Inner(clip=0.0)) == {"lr": 0.1, "clip": 0.0}


def test_the_value_that_means_as_before_is_left_out() -> None:
    assert identity_fields(_Inner(warm=False)) == {"lr": 0.1}
    assert identity_fields(_Inner(warm=True)) == {"lr": 0.1, "warm": True}


def test_a_run_from_before_a_field_existed_keeps_its_fields() -> None:
    assert identity_fields(_After(mode="old")) == identity_fields(_Before())


def test_a_new_default_that_is_not_as_before_counts() -> None:
    assert identity_fields(_After()) == {**identity_fields(_Before()), "mode": "new"}
    assert identity_fields(_After(mode="old", rounds=2, extra="")) == {
        **identity_fields(_Before()), "rounds": 2, "extra": "",
    }  # fmt: skip


def test_a_field_that_is_recorded_only_is_left_out() -> None:
    assert identity_fields(_After(device="cpu")) == identity_fields(_After(device="cuda"))
