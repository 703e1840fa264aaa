"""One run: what it records, that it repeats to the bit, and that it goes on where it stopped."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from itopctl.catalogue import METHODS
from itopctl.config.run_config import RunConfig
from itopctl.train import loop
from itopctl.train.checkpoint import OtherWeightsError
from itopctl.train.loop import Training, TrainingDivergedError, TrainingStoppedError
from itopctl.train.setup import be_deterministic
from tests.helpers import need_fashion_mnist, run_config

DATA = Path("data")
TIMES = ("wall_seconds", "steps_per_second", "peak_memory_bytes", "energy_joules")


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    be_deterministic(1)


def train(config: RunConfig) -> tuple[Training, dict[str, Any], list[tuple[str, dict[str, Any]]]]:
    """Train to the end; returns the training, its result and its events."""
    events: list[tuple[str, dict[str, Any]]] = []
    training = Training(config, DATA, lambda name, fields: events.append((name, fields)))
    return training, training.run(), events


def lasting(events: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """Evaluations and topology updates, without what a clock decides."""
    return [
        (name, {key: value for key, value in fields.items() if key not in TIMES})
        for name, fields in events
        if name in ("evaluated", "topology")
    ]


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name not in TIMES}


def test_the_same_run_twice_is_the_same_to_the_bit() -> None:
    first, result, events = train(run_config())
    second, again, events_again = train(run_config())
    assert numbers(result) == numbers(again)
    assert lasting(events) == lasting(events_again)
    for name, tensor in first.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name])


def test_another_seed_is_another_run() -> None:
    assert numbers(train(run_config(seed=1))[1]) != numbers(train(run_config(seed=0))[1])


@pytest.mark.parametrize("method", METHODS.names())
@pytest.mark.parametrize("stop_at", [1, 10, 11, 13])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(method: str, stop_at: int, tmp_path: Path) -> None:
    sparse = {} if method == "dense" else {"sparsity": 0.8}
    dynamic = {} if method in ("dense", "static") else {"update_interval": 5}
    config = run_config(method=method, optimizer={"name": "adam"}, **sparse, **dynamic)
    whole, result, events = train(config)
    saved: list[dict[str, Any]] = []
    before: list[tuple[str, dict[str, Any]]] = []
    stopped = Training(
        config,
        DATA,
        lambda name, fields: before.append((name, fields)),
        lambda: stopped.progress.step == stop_at,
        saved.append,
    )
    with pytest.raises(TrainingStoppedError, match=f"after step {stop_at}"):
        stopped.run()
    torch.save(saved[0], tmp_path / "checkpoint.pt")

    torch.manual_seed(99)
    after: list[tuple[str, dict[str, Any]]] = []
    resumed = Training(config, DATA, lambda name, fields: after.append((name, fields)))
    resumed.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    assert numbers(resumed.run()) == numbers(result)
    assert lasting(before) + lasting(after) == lasting(events)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name])


def test_a_run_goes_on_with_the_threads_that_it_had() -> None:
    """With others, the last bits would differ."""
    saved: list[dict[str, Any]] = []
    be_deterministic(2)
    stopped = Training(
        run_config(), DATA, lambda *_: None, lambda: True, lambda state: saved.append(copy.deepcopy(state))
    )
    with pytest.raises(TrainingStoppedError):
        stopped.run()
    be_deterministic(1)
    resumed = Training(run_config(), DATA, lambda *_: None)
    resumed.load_state_dict(saved[0])
    assert torch.get_num_threads() == 2 == resumed.run()["threads"]


@pytest.mark.parametrize("threads", [0, -1, True, "2", 10**9])
def test_a_state_with_an_impossible_number_of_threads_is_refused(threads: Any) -> None:
    training = Training(run_config(), DATA, lambda *_: None)
    with pytest.raises(ValueError, match="number of threads"):
        training.load_state_dict({**training.state_dict(), "threads": threads})


def test_a_state_of_a_training_with_other_maskable_weights_is_none_to_go_on_from() -> None:
    training = Training(run_config(), DATA, lambda *_: None)
    state = training.state_dict()
    assert state["maskable"] == training.sparse.maskable == 50_200
    with pytest.raises(OtherWeightsError, match="begun with 50,199 maskable weights, but its model has 50,200 now"):
        training.load_state_dict({**state, "maskable": 50_199})
    with pytest.raises(ValueError, match="number of maskable weights"):
        training.load_state_dict({**state, "maskable": "many"})
    training.load_state_dict({name: value for name, value in state.items() if name != "maskable"})  # an older state


def test_a_stop_in_the_middle_of_an_augmented_epoch_changes_nothing(tmp_path: Path) -> None:
    config = run_config(
        dataset="synthetic", model="lenet-5", augment="crop-flip", batch_size=500, epochs=1, update_interval=4
    )
    _, result, _ = train(config)
    saved: list[dict[str, Any]] = []
    stopped = Training(config, DATA, lambda *_: None, lambda: stopped.progress.step == 5, saved.append)
    with pytest.raises(TrainingStoppedError):
        stopped.run()
    resumed = Training(config, DATA, lambda *_: None)
    resumed.load_state_dict(saved[0])
    assert numbers(resumed.run()) == numbers(result)


def test_every_epoch_and_every_update_is_recorded_with_its_own_step() -> None:
    config = run_config(epochs=3, update_interval=6)
    training, result, events = train(config)
    updates = [fields for name, fields in events if name == "topology"]
    epochs = [fields for name, fields in events if name == "evaluated"]
    assert [fields["step"] for fields in updates] == [6, 12, 18, 24, 30]
    assert [fields["step"] for fields in epochs] == [11, 22, 33]
    assert [fields["epoch"] for fields in epochs] == [1.0, 2.0, 3.0]
    for fields in updates + epochs:
        for name in ("train_loss", "exploration_rate", "density", "drop_fraction", "wall_seconds"):
            assert isinstance(fields[name], float), name
        assert 0.0 < fields["test_accuracy"] <= 1.0
        assert 0.0 < fields["validation_accuracy"] <= 1.0
    rates = [fields["exploration_rate"] for name, fields in events if name in ("evaluated", "topology")]
    assert rates == sorted(rates)
    assert result["exploration_rate"] == rates[-1] == training.sparse.exploration_rate
    assert result["test_accuracy"] == epochs[-1]["test_accuracy"]


def test_the_best_epoch_is_chosen_on_validation_and_carries_its_own_exploration_rate() -> None:
    _, result, events = train(run_config(epochs=8))
    epochs = [fields for name, fields in events if name == "evaluated"]
    best = max(epochs, key=lambda fields: (fields["validation_accuracy"], -fields["epoch"]))
    assert result["best_epoch"] == best["epoch"]
    assert result["best_validation_accuracy"] == best["validation_accuracy"]
    assert result["test_accuracy_at_best_validation"] == best["test_accuracy"]
    assert result["exploration_rate_at_best_validation"] == best["exploration_rate"]


def test_without_validation_the_final_step_is_reported() -> None:
    training, result, _ = train(run_config(validation=0, epochs=8))
    assert len(training.data.train) == 1437
    assert result["validation_accuracy"] is None
    assert result["best_epoch"] is None
    assert result["test_accuracy_at_best_validation"] is None
    assert result["test_accuracy"] > 0.3


def test_the_density_is_exact_and_the_layers_add_up() -> None:
    _, result, _ = train(run_config(sparsity=0.93))
    assert result["active"] == round(0.07 * result["maskable"]) == sum(layer["active"] for layer in result["layers"])
    assert result["density"] == result["active"] / result["maskable"]
    explored = sum(layer["exploration_rate"] * layer["size"] for layer in result["layers"])
    assert explored / result["maskable"] == pytest.approx(result["exploration_rate"])


def test_the_drops_of_the_layers_add_up_to_those_of_the_updates() -> None:
    _, result, events = train(run_config(method="set-itop"))
    replaced = [fields["replaced"] for event, fields in events if event == "topology"]
    assert len(replaced) > 1 and all(replaced)
    assert sum(layer["dropped"] for layer in result["layers"]) == sum(replaced)
    _, static, _ = train(run_config(method="static"))
    assert [layer["dropped"] for layer in static["layers"]] == [0, 0, 0]


def test_absolute_costs_are_those_of_the_layers() -> None:
    """LeNet-300-100 on 8×8 digits: 64·300 + 300·100 + 100·10 = 50,200 multiplications and as many additions."""
    training, result, _ = train(run_config(method="dense"))
    assert result["inference_flops"] == 2 * 50_200
    epochs = training.config.epochs
    assert result["train_flops"] == pytest.approx(3 * 2 * 50_200 * len(training.data.train) * epochs)
    _, sparse, _ = train(run_config(method="static"))
    assert sparse["train_flops"] == pytest.approx(result["train_flops"] * sparse["train_flops_ratio"])


def test_flops_are_counted_from_the_real_masks() -> None:
    _, static, _ = train(run_config(method="static", update_interval=1))
    assert static["inference_flops_ratio"] == pytest.approx(0.1, rel=1e-4)
    assert static["train_flops_ratio"] == pytest.approx(static["inference_flops_ratio"])
    _, gradient, _ = train(run_config(method="rigl-itop"))  # 22 steps, dense gradient at 4 of them
    f = gradient["inference_flops_ratio"]
    assert gradient["train_flops_ratio"] == pytest.approx((18 * 3 * f + 4 * (2 * f + 1)) / (22 * 3))
    _, dense, _ = train(run_config(method="dense"))
    assert dense["train_flops_ratio"] == dense["inference_flops_ratio"] == dense["exploration_rate"] == 1.0


def test_a_multiplier_stretches_training_and_its_cost_but_not_the_interval() -> None:
    _, result, events = train(run_config(training_multiplier=2.0, method="static"))
    assert result["epochs"] == 4
    assert result["steps"] == 44
    assert result["train_flops_ratio"] == pytest.approx(2 * result["inference_flops_ratio"])
    _, _, events = train(run_config(training_multiplier=2.0))
    assert [fields["step"] for name, fields in events if name == "topology"][:3] == [5, 10, 15]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("at", [1, 7, 22])
def test_a_loss_that_is_not_finite_names_its_step_and_the_last_good_value(
    bad: float, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0
    real = torch.nn.functional.cross_entropy

    def poisoned(*arguments: Any, **options: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        loss = real(*arguments, **options)
        return loss * bad if count == at else loss

    monkeypatch.setattr(loop.functional, "cross_entropy", poisoned)
    training = Training(run_config(epochs=3), DATA, lambda *_: None)
    with pytest.raises(TrainingDivergedError, match=f"at step {at}") as caught:
        training.run()
    assert caught.value.step == at
    assert (caught.value.last_good is None) == (at == 1)
    if at > 1:
        assert caught.value.last_good is not None and math.isfinite(caught.value.last_good)
        assert f"{caught.value.last_good:.4g}" in str(caught.value)


def test_a_learning_rate_that_is_far_too_large_is_reported_as_divergence() -> None:
    config = run_config(optimizer={"name": "sgd", "lr": 1e6}, method="dense", epochs=20)
    with pytest.raises(TrainingDivergedError, match="smaller learning rate"):
        train(config)


@pytest.mark.parametrize(
    ("interval", "choice", "steps"),
    [
        (6, "auto", [6, 12, 18]),
        (5, "auto", [10, 20]),  # 504 images > ¼ · 3 · 5 · 128
        (5, "never", []),
        (1, "auto", [6, 12, 18]),  # 504 images ≤ ¼ · 3 · 6 · 128
        (1, "always", list(range(1, 22))),
    ],
)
def test_accuracy_at_updates_costs_at_most_a_quarter_of_training(interval: int, choice: str, steps: list[int]) -> None:
    _, _, events = train(run_config(update_interval=interval, evaluate_updates=choice))
    measured = [f["step"] for name, f in events if name == "topology" and f["test_accuracy"] is not None]
    assert measured == steps


def test_measuring_more_often_does_not_change_the_run() -> None:
    often, _, _ = train(run_config(evaluate_updates="always", update_interval=1))
    never, _, _ = train(run_config(evaluate_updates="never", update_interval=1))
    for name, tensor in often.model.state_dict().items():
        assert torch.equal(tensor, never.model.state_dict()[name])


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "bf16"},
        {"precision": "fp16", "model": "lenet-300-100"},  # convolutions in fp16 take half a minute on a CPU
        {"channels_last": True},
    ],
)
def test_other_precisions_and_layouts_train(settings: dict[str, Any]) -> None:
    training, result, _ = train(run_config(**{"model": "lenet-5", "epochs": 6, "sparsity": 0.5, **settings}))
    assert result["test_accuracy"] > 0.5
    for layer in training.sparse._layers:
        assert not layer.weight[~layer.active].any()


@pytest.mark.slow
def test_a_compiled_model_trains() -> None:
    _, result, _ = train(run_config(compile=True, epochs=8))
    assert result["test_accuracy"] > 0.3


@pytest.mark.parametrize("model", ["resnet18", "vgg16-c", "wrn-22-2"])
def test_networks_with_batch_norm_train(model: str) -> None:
    _, result, events = train(run_config(model=model, epochs=1, batch_size=431, update_interval=1))
    assert result["steps"] == 3
    assert result["topology_updates"] == 2
    assert all(math.isfinite(f["train_loss"]) for name, f in events if name == "evaluated")


def test_a_users_own_model_is_built_for_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_model_for_test.py").write_text(
        "import torch\n"
        "def make_model(input_shape, classes):\n"
        "    n = input_shape[0] * input_shape[1] * input_shape[2]\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(n, classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    _, result, _ = train(run_config(model="own_model_for_test:make_model"))
    assert result["maskable"] == 640


@pytest.mark.rotates
@pytest.mark.slow
@pytest.mark.parametrize("method", ["set-itop", "rigl-itop"])
def test_a_network_at_95_percent_sparsity_reaches_87_percent_on_fashion_mnist(method: str) -> None:
    need_fashion_mnist()
    config = run_config(
        dataset="fashion_mnist", method=method, sparsity=0.95, epochs=10, update_interval=200,
        lr_schedule={"name": "milestones", "milestones": [5, 8]},
    )  # fmt: skip
    _, result, _ = train(config)
    assert result["density"] == pytest.approx(0.05, abs=1e-5)
    assert result["test_accuracy"] >= 0.87


def test_a_checkpoint_by_interval_is_told_and_leads_to_the_same_end() -> None:
    config = run_config(epochs=3, checkpoint_minutes=1e-9)
    _, result, _ = train(config)
    saved: list[dict[str, Any]] = []
    events: list[tuple[str, int]] = []
    Training(
        config, DATA, lambda name, fields: events.append((name, fields["step"])),
        checkpoint=lambda state: saved.append(copy.deepcopy(state)),
    ).run()  # fmt: skip
    assert [step for name, step in events if name == "checkpoint"] == list(range(1, 34))
    for state in (saved[4], saved[10], saved[21], saved[32]):  # within an epoch, and at the ends of all three
        resumed = Training(config, DATA, lambda *_: None)
        resumed.load_state_dict(state)
        assert numbers(resumed.run()) == numbers(result)
