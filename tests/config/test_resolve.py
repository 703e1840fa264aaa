"""What was written and the presets make one run; what cannot be a run is refused where it stands."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.catalogue import METHODS
from itopctl.config.resolve import describe
from itopctl.config.run_config import RunConfig, batches_of
from itopctl.config.sweep import SETTINGS
from itopctl.errors import UserError, quoted
from tests.config.build import complaint_on, config, resolved

DENSE = "dataset: digits\nmodel: lenet-5\nmethod: dense\nepochs: 10\n"
SET_ITOP = "dataset: digits\nmodel: lenet-5\nmethod: set-itop\nepochs: 10\nsparsity: 0.9\n"


def said(text: str) -> str:
    with pytest.raises(UserError) as caught:
        resolved(text)
    return str(caught.value)


def test_the_methods_preset_fills_what_was_not_written() -> None:
    run = config(method="set-itop")
    assert (run.growth, run.drop, run.allocation, run.update_interval, run.drop_fraction) == (
        "random", "magnitude", "erk", 1500, 0.5,
    )  # fmt: skip
    assert run.drop_schedule is not None and run.drop_schedule.name == "cosine"
    assert config(method="rigl-itop").growth == "gradient"


def test_what_was_written_wins_over_the_methods_preset() -> None:
    run = config(method="set-itop", update_interval=7, growth="gradient", drop_schedule__name="linear")
    assert (run.update_interval, run.growth) == (7, "gradient")
    assert run.drop_schedule is not None
    assert (run.drop_schedule.name, run.drop_schedule.final) == ("linear", 0.005)


@pytest.mark.parametrize("name", METHODS.names())
def test_every_method_makes_a_run(name: str) -> None:
    run = config(method=name)
    assert run.method == name
    assert run.sparsity == (0.0 if name == "dense" else 0.9)


def test_a_dense_run_has_null_for_all_that_concerns_sparsity() -> None:
    run = resolved(DENSE + "sparsity: 0.9\nupdate_interval: 5\ngrowth: random\n")
    ignored = ("growth", "sparsity", "update_interval")
    assert run.ignored == dict.fromkeys(ignored, "dense")
    assert run.config.sparsity == 0.0
    assert all(
        getattr(run.config, name) is None
        for name in (*METHODS.get("dense").options["ignores"],)
        if name != "sparsity"
    )  # fmt: skip


def test_a_static_run_keeps_its_sparsity_and_has_no_topology_update() -> None:
    run = resolved(SET_ITOP.replace("set-itop", "static") + "update_interval: 5\ndrop_schedule: {final: 0.1}\n")
    assert run.ignored == dict.fromkeys(("drop_schedule.final", "update_interval"), "static")
    assert (run.config.sparsity, run.config.allocation) == (0.9, "erk")
    assert (run.config.update_interval, run.config.growth, run.config.drop_schedule) == (None, None, None)


@given(st.integers(min_value=0, max_value=999))
def test_density_is_one_minus_sparsity_without_float_dust(thousandths: int) -> None:
    by_sparsity = config(sparsity=thousandths / 1000)
    by_density = resolved(SET_ITOP.replace("sparsity: 0.9", f"density: {(1000 - thousandths) / 1000}")).config
    assert by_sparsity.sparsity == by_density.sparsity == thousandths / 1000
    assert by_sparsity.density == by_density.density == (1000 - thousandths) / 1000


@pytest.mark.parametrize(
    ("interval", "batch_size", "validation", "steps"),
    [
        ("1 epoch", 128, 0.1, 11),  # 1437 − 144 = 1293 samples, 10.1 batches
        ("2 epochs", 128, 0.1, 22),
        ("0.5 epochs", 128, 0.1, 6),
        (" 1epoch ", 128, 0.1, 11),
        ("1 epoch", 64, 0.1, 21),
        ("1 epoch", 128, 0, 12),
        ("1 epoch", 4, 0.1, 323),  # 323 batches of 4 and a lone sample, which is left out
        ("1 epoch", 5000, 0.1, 1),
        (7, 128, 0.1, 7),
    ],
)
def test_an_interval_in_epochs_becomes_steps(interval: object, batch_size: int, validation: float, steps: int) -> None:
    run = config(update_interval=interval, batch_size=batch_size, validation=validation)
    assert run.update_interval == steps


def test_an_interval_in_epochs_follows_the_data_set() -> None:
    assert config(update_interval="1 epoch", dataset="cifar10").update_interval == math.ceil(45_000 / 128) == 352


@pytest.mark.parametrize(
    "interval", ["0 epochs", "0.01 epochs", "-1 epochs", "1 epoche", "epoch", "1500", "1 step", "", "1,5 epochs"]
)
def test_an_interval_that_is_neither_steps_nor_epochs_is_refused(interval: str) -> None:
    assert complaint_on(update_interval=interval) == (
        f"spec.yaml:6: update_interval: found {interval!r}; whole steps of at least 1 expected, such as 1500, "
        f"or epochs, such as '1 epoch', or the exploration rate to reach, such as {{reach: 0.95}}."
    )


@pytest.mark.parametrize("interval", [0, -5, 1.5, True, [1], float("inf"), float("nan")])
def test_an_interval_that_is_no_whole_number_of_steps_is_refused(interval: object) -> None:
    message = complaint_on(update_interval=interval)
    assert message.startswith(f"spec.yaml:6: update_interval: found {quoted(interval)}")


def test_an_interval_of_more_epochs_than_a_number_holds_is_refused() -> None:
    assert complaint_on(update_interval=f"{'9' * 400} epochs").startswith("spec.yaml:6: update_interval: found '999")


@pytest.mark.parametrize(
    ("name", "value"),
    [("validation", float("inf")), ("validation", float("nan")), ("validation", "all"), ("validation", 10**400),
     ("batch_size", float("inf")), ("batch_size", 0), ("batch_size", "all"), ("batch_size", None)],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_an_interval_in_epochs_does_not_hide_what_is_wrong_beside_it(name: str, value: object) -> None:
    message = complaint_on(update_interval="1 epoch", **{name: value})
    assert message.startswith(f"spec.yaml:7: {name}: found ")


@given(st.integers(1, 5000), st.integers(1, 600))
def test_an_epoch_sees_every_sample_but_a_lone_last_one(samples: int, batch_size: int) -> None:
    batches = batches_of(samples, batch_size)
    assert batches >= 1
    assert (batches - 1) * batch_size < samples
    assert samples - batches * batch_size <= 1


def test_milestones_in_epochs_become_fractions_of_training() -> None:
    by_epochs = config(epochs=200, lr_schedule__milestones=[100, 150]).lr_schedule
    by_fractions = config(epochs=200, lr_schedule__milestones=[0.5, 0.75]).lr_schedule
    assert by_epochs == by_fractions == config(epochs=200).lr_schedule
    assert by_epochs.milestones == (0.5, 0.75)


@pytest.mark.parametrize(
    "milestones", [[0.75, 0.5], [5, 3], [0.5, 0.5], [0], [10], [11], [0.5, 1], [-1], [float("nan")], [float("inf")]]
)
def test_milestones_that_do_not_rise_inside_training_are_refused(milestones: list[float]) -> None:
    assert complaint_on(epochs=10, lr_schedule__milestones=milestones) == (
        f"spec.yaml:6: lr_schedule.milestones: found {milestones} for 10 epochs; rising positions inside training "
        "expected: epochs from 1 on, or fractions between 0 and 1, which stretch with epochs."
    )


@pytest.mark.parametrize("milestones", ["0.5", [True], ["0.5"], 5, [[1]], {"a": 1}])
def test_milestones_that_are_no_numbers_are_refused(milestones: object) -> None:
    assert complaint_on(lr_schedule__milestones=milestones).startswith("spec.yaml:6: lr_schedule.milestones: found ")


@pytest.mark.parametrize("milestone", [10**400, -(10**400)], ids=["huge", "hugely negative"])
def test_a_milestone_no_training_could_reach_is_refused(milestone: int) -> None:
    message = complaint_on(lr_schedule__milestones=[milestone])
    assert message.startswith("spec.yaml:6: lr_schedule.milestones: found ")


@pytest.mark.parametrize("epochs", [0, -1])
def test_no_epochs_are_refused_with_milestones_in_epochs_too(epochs: int) -> None:
    assert said(f"{DENSE}lr_schedule: {{milestones: [5]}}\n".replace("10", str(epochs))).startswith("spec.yaml:")


def test_the_training_multiplier_stretches_epochs_and_steps() -> None:
    run = config(epochs=3, training_multiplier=2.5)
    assert (run.total_epochs, run.steps_per_epoch, run.total_steps) == (8, 11, 88)
    assert config(epochs=1, training_multiplier=0.1).total_epochs == 1


def test_an_optimizers_preset_fills_its_own_settings_alone() -> None:
    adam = config(optimizer__name="adam").optimizer
    assert (adam.lr, adam.betas, adam.eps, adam.momentum, adam.nesterov) == (1e-3, (0.9, 0.999), 1e-8, None, None)
    sgd = config().optimizer
    assert (sgd.name, sgd.lr, sgd.momentum, sgd.nesterov, sgd.betas) == ("sgd", 0.1, 0.9, True, None)


def test_settings_of_another_optimizer_or_schedule_are_left_out_and_reported() -> None:
    run = resolved(DENSE + "optimizer: {name: adamw, momentum: 0.9}\nlr_schedule: {name: cosine, gamma: 0.5}\n")
    assert run.ignored == {"lr_schedule.gamma": "cosine", "optimizer.momentum": "adamw"}
    assert (run.config.optimizer.momentum, run.config.lr_schedule.gamma) == (None, None)


def test_nesterov_is_off_where_there_is_no_momentum() -> None:
    assert config(optimizer__momentum=0).optimizer.nesterov is False
    assert complaint_on(optimizer__momentum=0, optimizer__nesterov=True) == (
        "spec.yaml:7: optimizer.nesterov: nesterov needs a momentum above 0."
    )


def test_augmentation_follows_the_data_set_unless_written() -> None:
    assert (config(dataset="cifar10").augment, config().augment) == ("crop-flip", "none")
    assert config(dataset="cifar10", augment="none").augment == "none"


@pytest.mark.parametrize("missing", ["dataset", "model", "method", "epochs"])
def test_a_run_without_what_it_needs_is_refused(missing: str) -> None:
    text = "".join(line for line in DENSE.splitlines(keepends=True) if not line.startswith(missing))
    assert said(text) == f"spec.yaml:1: a run needs {missing}; it is set nowhere."


def test_a_sparse_method_needs_a_sparsity() -> None:
    message = said(SET_ITOP.replace("sparsity: 0.9\n", ""))
    assert message == "spec.yaml:3: method: set-itop needs a sparsity (or density); it is set nowhere."


@pytest.mark.parametrize(
    ("name", "word", "kind", "nearest"),
    [
        ("dataset", "cifar-10", "data set", "cifar10"),
        ("dataset", "Digits", "data set", "digits"),
        ("model", "resnet-34", "model", "resnet34"),
        ("model", "ResNet50", "model", "resnet50"),
        ("method", "rigl_itop", "method", "rigl-itop"),
        ("method", "sett", "method", "set"),
        ("growth", "gradients", "growth rule", "gradient"),
        ("drop", "magnitud", "drop rule", "magnitude"),
        ("allocation", "erdk", "allocation", "erk"),
    ],
)
def test_an_unknown_name_is_refused_with_what_is_allowed_and_the_nearest(
    name: str, word: str, kind: str, nearest: str
) -> None:
    message = complaint_on(**{name: word})
    assert f": {name}: unknown {kind} {word!r}. Did you mean {nearest!r}? Allowed: " in message
    assert message.startswith("spec.yaml:")


@pytest.mark.parametrize("name", ["dataset", "model", "method", "growth", "drop", "allocation"])
@pytest.mark.parametrize("value", [5, True, ["a"], {"a": 1}])
def test_a_name_that_is_not_text_is_refused(name: str, value: object) -> None:
    message = complaint_on(**{name: value})
    assert f": {name}: the name of a " in message and f"expected; found {quoted(value)}." in message


def test_a_word_that_looks_like_nothing_gets_no_guess() -> None:
    assert "Did you mean" not in complaint_on(method="zzzzzz")


@pytest.mark.parametrize(
    "sparsity", [1, 1.0, 1.5, -0.1, -1, True, "0.9", "high", None, [0.9], float("nan"), float("inf")]
)
def test_a_sparsity_outside_0_to_1_is_refused(sparsity: object) -> None:
    message = complaint_on(sparsity=sparsity)
    assert message.startswith(f"spec.yaml:5: sparsity: found {quoted(sparsity)}; ")
    assert "in [0, 1)" in message


@pytest.mark.parametrize("density", [0, -0.1, 1.1, True, "0.1", None, [0.1], float("nan"), float("inf"), 1e-13])
def test_a_density_outside_0_to_1_is_refused(density: object) -> None:
    text = SET_ITOP.replace(
        "sparsity: 0.9", yaml.safe_dump({"density": density}, default_flow_style=True).strip(" {}\n")
    )
    assert said(text).startswith(f"spec.yaml:5: density: found {quoted(density)}; a density is a number in (0, 1]")


def test_a_full_network_may_have_density_1_or_sparsity_0() -> None:
    assert config(sparsity=0).sparsity == 0.0
    assert resolved(SET_ITOP.replace("sparsity: 0.9", "density: 1")).config.sparsity == 0.0


NUMBERS = [
    "sparsity", "allocation_power", "drop_fraction", "drop_schedule.final", "drop_schedule.stop", "update_interval",
    "seed", "epochs", "training_multiplier", "batch_size", "label_smoothing", "validation", "optimizer.lr",
    "optimizer.weight_decay", "optimizer.momentum", "lr_schedule.gamma", "lr_schedule.warmup",
]  # fmt: skip


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [True, False, "1e400", ".nan", ".inf", "'5'", "[1]", "{}"], ids=lambda value: str(value).lower()
)
def test_what_is_no_finite_number_is_refused_where_a_number_belongs(name: str, value: object) -> None:
    text = "".join(line for line in SET_ITOP.splitlines(keepends=True) if not line.startswith(f"{name}:"))
    message = said(f"{text}{name}: {str(value).lower()}\n")
    assert message.startswith(f"spec.yaml:{len(text.splitlines()) + 1}: {name}: found ")
    assert "expected" in message


@pytest.mark.parametrize("name", ["seed", "epochs", "optimizer.lr", "density"])
def test_a_number_of_thousands_of_digits_is_refused_in_a_short_message(name: str) -> None:
    text = DENSE.replace("epochs: 10\n", "") + ("" if name == "epochs" else "epochs: 1\n")
    message = said(f"{text}{name}: 0x{'f' * 5000}\n".replace("dense", "set" if name == "density" else "dense"))
    assert message.startswith(f"spec.yaml:{len(text.splitlines()) + 1}: ")
    assert len(message) < 1000


@pytest.mark.parametrize("name", ["epochs", "batch_size", "update_interval", "training_multiplier"])
def test_a_number_no_training_could_mean_is_refused(name: str) -> None:
    """What goes into the store is a 64-bit integer, and the total of steps must be a finite number."""
    assert complaint_on(**{name: 10**30}).startswith("spec.yaml:")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", -1), ("seed", 2**32), ("seed", 10**12), ("seed", 1.0), ("epochs", 0), ("epochs", 1.5),
        ("batch_size", 0), ("batch_size", -1), ("drop_fraction", 0), ("drop_fraction", 1.1), ("validation", 0.6),
        ("validation", -0.1), ("label_smoothing", 1), ("training_multiplier", 0), ("optimizer__lr", 0),
        ("optimizer__lr", -0.1), ("optimizer__momentum", 1), ("optimizer__weight_decay", -1),
        ("drop_schedule__stop", 0), ("drop_schedule__stop", 1.1), ("lr_schedule__warmup", 1),
        ("lr_schedule__gamma", 0), ("allocation_power", -1), ("precision", "fp8"), ("augment", "flip"),
        ("device", "gpu"), ("device", "cuda:x"), ("compile", 1), ("compile", "yes"), ("keep_dense", "conv1"),
        ("also_mask", "embedding"), ("also_mask", [1]),
        ("keep_dense", [1]), ("replace_rounding", "up"), ("optimizer__name", "sgdd"), ("optimizer__nesterov", 1),
        ("lr_schedule__name", "cosin"), ("drop_schedule__name", "cosinus"), ("optimizer__name", None),
    ],
)  # fmt: skip
def test_a_value_out_of_range_or_of_the_wrong_type_is_refused_where_it_stands(name: str, value: object) -> None:
    message = complaint_on(**{name: value})
    found = value[0] if isinstance(value, list) else value
    assert message.startswith("spec.yaml:")
    assert f": {name.replace('__', '.')}: found {quoted(found)}" in message


@pytest.mark.parametrize(
    ("name", "word", "nearest"),
    [
        ("optimizer__name", "adm", "adam"),
        ("lr_schedule__name", "cosin", "cosine"),
        ("drop_schedule__name", "const", "constant"),
        ("precision", "bf61", "bf16"),
        ("augment", "cropflip", "crop-flip"),
        ("replace_rounding", "flor", "floor"),
        ("evaluate_updates", "allways", "always"),
    ],
)
def test_a_word_that_is_not_one_of_a_few_gets_the_nearest(name: str, word: str, nearest: str) -> None:
    message = complaint_on(**{name: word})
    assert f"found {word!r}; " in message and message.endswith(f"Did you mean {nearest!r}?")


@pytest.mark.parametrize("betas", [[0.9], [0.9, 0.99, 0.999], [], ["0.9", 0.99], [0.9, True], 0.9])
def test_moments_decay_by_two_numbers(betas: object) -> None:
    message = complaint_on(optimizer__name="adam", optimizer__betas=betas)
    assert message.startswith("spec.yaml:7: optimizer.betas: found ")


@pytest.mark.parametrize("betas", [[5, 5], [0.9, 1], [-0.1, 0.9]])
def test_moments_decay_by_factors_below_1(betas: list[float]) -> None:
    message = complaint_on(optimizer__name="adam", optimizer__betas=betas)
    assert message.startswith("spec.yaml:7: optimizer.betas: found ")


@pytest.mark.parametrize(
    "name",
    ["drop", "growth", "drop_fraction", "update_interval", "update_replaces_step", "replace_rounding", "allocation"],
)
def test_null_is_refused_for_what_the_method_needs(name: str) -> None:
    assert f": {name}: " in complaint_on(**{name: None})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("sparsity: 1.5\n", "spec.yaml:5: sparsity: found 1.5"),
        ("density: 0\n", "spec.yaml:5: density: found 0"),
        ("update_interval: often\n", "spec.yaml:5: update_interval: found 'often'"),
        ("drop_fraction: 7\n", "spec.yaml:5: drop_fraction: found 7"),
        ("optimizer: {name: adam, momentum: 9}\n", "spec.yaml:5: optimizer.momentum: found 9"),
    ],
)
def test_a_wrong_value_is_refused_where_it_means_nothing_too(text: str, place: str) -> None:
    assert said(DENSE + text).startswith(place)


def test_sparsity_and_density_are_never_both_given() -> None:
    message = said(SET_ITOP + "density: 0.1\n")
    assert message == "spec.yaml:6: density: sparsity and density both given; they say the same thing: keep one."


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of the user's own, as the working directory."""
    import sys

    (tmp_path / "own_rules_for_resolve.py").write_text("def make_model(input_shape, classes):\n    raise SystemExit\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


@pytest.mark.parametrize("name", ["model", "growth", "drop"])
def test_a_function_of_the_users_own_is_accepted_by_module_and_name(own_module: Path, name: str) -> None:
    run = config(**{name: "own_rules_for_resolve:make_model"})
    assert getattr(run, name) == "own_rules_for_resolve:make_model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_rules_for_resolve:make_modle", "unknown function 'make_modle'. Did you mean 'make_model'?"),
        ("nowhere_at_all.models:make", "there is no module 'nowhere_at_all.models'"),
        ("nowhere_at_all:make", "there is no module 'nowhere_at_all' on Python's path"),
        ("own_rules_for_resolve.py:make_model", "there is no module"),
        ("own..rules:make_model", "there is no module"),
    ],
)
def test_a_function_that_is_not_there_is_refused(own_module: Path, name: str, message: str) -> None:
    said = complaint_on(model=name)
    assert said.startswith("spec.yaml:2: model: ") and message in said


@pytest.mark.parametrize("name", ["dataset", "method"])
def test_a_function_of_the_users_own_is_refused_where_none_can_stand(own_module: Path, name: str) -> None:
    assert "unknown" in complaint_on(**{name: "own_rules_for_resolve:make_model"})


def test_a_run_is_frozen() -> None:
    run = config()
    with pytest.raises(ValueError, match="frozen"):
        run.seed = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted({*SETTINGS} - {"density"}))
def test_every_setting_has_a_description(name: str) -> None:
    assert len(describe(name)) > 5


def test_a_resolved_run_is_read_back_from_its_json() -> None:
    run = config(optimizer__name="adam", keep_dense=["conv*"], lr_schedule__milestones=[0.25, 0.5])
    assert RunConfig.model_validate_json(run.model_dump_json()) == run


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from([10**30, -(10**400), "1 epoch", "dense"]),
    st.text(max_size=5), st.lists(st.integers() | st.floats() | st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(SETTINGS), ANYTHING, min_size=1, max_size=4))
def test_any_settings_make_a_run_or_one_complaint(written: dict[str, Any]) -> None:
    try:
        run = config(**written)
    except UserError as error:
        assert str(error).startswith("spec.yaml")
    else:
        assert 0.0 <= run.sparsity < 1.0
        assert run.update_interval is None or run.update_interval >= 1
