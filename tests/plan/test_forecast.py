"""What is foreseen of a run is what the run then does: real trainings, of every method, beside their forecasts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from itopctl.catalogue import METHODS
from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.dispatch.manifest import record_config
from itopctl.errors import UserError
from itopctl.forking import value_from_child
from itopctl.plan.forecast import Forecast, Impossible, forecast, forecasts
from itopctl.plan.predicted_exploration import predicted_exploration
from itopctl.plan.reach import interval_for, interval_reaching
from itopctl.store.checkpoints import KEPT
from itopctl.store.rundir import Results
from itopctl.train.checkpoint import encode
from itopctl.train.loop import Training
from itopctl.train.model_outline import outline_of
from itopctl.train.process_settings import process_settings
from itopctl.train.setup import be_deterministic
from tests.dispatch.hostile import HOSTILE, write_modules
from tests.helpers import run_config

SWAPS = {
    "random": {"method": "set-itop"},
    "unexplored": {"method": "set-itop", "growth": "random-unexplored"},
    "drop reads the gradient": {"method": "set-itop", "drop": "taylor"},
    "mean of batches": {"method": "rigl-itop", "gradient_batches": 3},
    "replaced steps": {"method": "rigl", "epochs": 4},
    "multiplied": {"method": "rigl-itop", "training_multiplier": 1.5},
    "stops early": {"method": "set-itop", "drop_schedule": {"name": "linear", "stop": 0.5}},
    "convolutions": {"method": "rigl-itop", "model": "lenet-5", "keep_dense": ["0"], "epochs": 1},
    "batch norm": {"method": "set-itop", "model": "wrn-22-2", "epochs": 1, "batch_size": 512, "update_interval": 1},
    "adam": {"method": "set-itop", "optimizer": {"name": "adam"}},
    "no momentum": {"method": "static", "optimizer": {"momentum": 0.0}},
    "nothing sparse": {"method": "rigl-itop", "sparsity": 0.0},
    **{method: {"method": method} for method in METHODS.names()},
}


def made(config: RunConfig) -> tuple[dict[str, Any], int]:
    """Result of a real run, and the bytes of its last checkpoint."""
    be_deterministic(1)
    training = Training(config, Path("data"), lambda name, fields: None)
    return training.run(), len(encode(training.state_dict()))


def foreseen(config: RunConfig) -> Forecast:
    return forecast(config, outline_of(config))


@pytest.mark.parametrize("settings", SWAPS.values(), ids=SWAPS)
def test_a_run_does_what_was_foreseen(settings: dict[str, Any]) -> None:
    config = run_config(**settings)
    before, (result, checkpoint) = foreseen(config), made(config)
    assert before.steps == result["steps"]
    assert before.updates == result["topology_updates"]
    assert before.density == result["density"]
    if before.flops_exact:
        assert before.train_flops_ratio == pytest.approx(result["train_flops_ratio"], rel=1e-9)
        assert before.inference_flops_ratio == pytest.approx(result["inference_flops_ratio"], rel=1e-9)
    else:
        assert config.redistribution != "none"
        assert before.train_flops_ratio == pytest.approx(result["train_flops_ratio"], rel=0.2)
    assert 0.8 < before.checkpoint_bytes / checkpoint < 1.25
    _check_exploration(before, result["exploration_rate"])
    replaced = sum(layer.get("dropped", 0) for layer in result["layers"])
    if "dropped" in result["layers"][0] and before.replaced is not None and before.flops_exact:
        assert before.replaced == replaced


def _check_exploration(before: Forecast, measured: float) -> None:
    predicted = before.exploration_rate
    assert predicted is not None
    if before.exploration_known == "exact":
        assert predicted == pytest.approx(measured, abs=1e-12)
    elif before.exploration_known == "expected":
        assert predicted == pytest.approx(measured, abs=0.02)
    else:
        assert before.exploration_known in ("upper", "bound")
        assert measured <= predicted + 0.02


@pytest.mark.parametrize("settings", SWAPS.values(), ids=SWAPS)
def test_a_finished_run_gives_the_prediction_that_was_made_before_it(settings: dict[str, Any]) -> None:
    config, before = run_config(**settings), foreseen(run_config(**settings))
    layers = [
        {"name": layer.name, "size": layer.size, "active": layer.active, "shape": [layer.size]}
        for layer in outline_of(config).layers
    ]
    found = predicted_exploration(config.model_dump(mode="json"), layers)
    assert found == (before.exploration_rate, before.exploration_known)


def test_a_run_with_rules_of_the_users_own_is_looked_at_without_importing_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exit_rules.py").write_text("raise SystemExit\ndef mine(layer): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = run_config(growth="exit_rules:mine", epochs=20).model_dump(mode="json")
    layers = [{"name": "a", "size": 1000, "active": 10}]
    most, known = predicted_exploration(config, layers)
    assert known == "bound" and most is not None and 0.01 < most <= 1
    (tmp_path / "exit_rules.py").unlink()  # nor need they be there
    assert predicted_exploration(config, layers) == (most, known)
    assert predicted_exploration({**config, "drop": "exit_rules:mine"}, layers) == (None, "unknown")
    assert predicted_exploration({**config, "redistribution": "exit_rules:mine"}, layers) == (None, "unknown")


def test_nothing_is_said_of_a_config_that_makes_no_sense() -> None:
    layers = [{"name": "a", "size": 1000, "active": 10}]
    config = run_config().model_dump(mode="json")
    assert predicted_exploration({}, layers) == (None, "unknown")
    assert predicted_exploration({**config, "dataset": "of-somebody-else"}, layers) == (None, "unknown")
    assert predicted_exploration(config, []) == (None, "unknown")


def test_runs_that_differ_in_the_seed_alone_are_foreseen_once() -> None:
    configs = {str(seed): run_config(seed=seed) for seed in range(50)}
    asked: list[RunConfig] = []

    def outline(config: RunConfig) -> Any:
        asked.append(config)
        return outline_of(config)

    found = forecasts(configs, outline)
    assert len(asked) == 1
    assert len(found) == 50 and len(set(map(id, found.values()))) == 1


def test_a_run_that_cannot_be_made_says_why_and_the_others_are_foreseen() -> None:
    configs = {"good": run_config(), "bad": run_config(sparsity=0.99999), "none": run_config(keep_dense=["conv9"])}
    found = forecasts(configs, outline_of)
    assert isinstance(found["good"], Forecast)
    assert isinstance(found["bad"], Impossible) and "largest reachable sparsity" in found["bad"].reason
    assert isinstance(found["none"], Impossible) and "'conv9' matches no layer" in found["none"].reason


def test_a_model_that_changes_all_it_can_changes_no_other_forecast_and_nothing_in_this_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_modules(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    others = {"tame": run_config(model="tame:make"), "shipped": run_config(model="wrn-22-2", dataset="synthetic")}
    alone, before = forecasts(others, outline_of), (process_settings(), list(sys.path), Path.cwd(), set(sys.modules))
    hostile = {model: run_config(model=model) for model in (*HOSTILE, "hostile:gradient", "hostile:exits")}
    found = forecasts({**hostile, **others}, outline_of)
    assert {name: found[name] for name in others} == alone
    assert (process_settings(), list(sys.path), Path.cwd(), set(sys.modules)) == before
    assert not [name for name in sys.modules if name in ("hostile", "tame")]
    exits = found["hostile:exits"]
    assert isinstance(exits, Impossible) and exits.reason.startswith("hostile:exits: the code could not be run")
    gradient = found["hostile:gradient"]
    assert isinstance(gradient, Impossible) and "gradients are switched off" in gradient.reason
    with pytest.raises(UserError, match="gradients are switched off"):
        interval_for(0.5, hostile["hostile:gradient"], outline_of)
    assert interval_for(0.3, others["tame"], outline_of) == interval_reaching(
        0.3, others["tame"], value_from_child(lambda: outline_of(others["tame"]))
    )
    assert process_settings() == before[0]


def test_an_error_that_is_nobodys_fault_is_not_taken_for_a_run_that_cannot_be_made() -> None:
    def outline(config: RunConfig) -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        forecasts({"a": run_config()}, outline)


def test_checkpoints_that_are_kept_stay_and_the_peak_is_one_more() -> None:
    passing, kept = foreseen(run_config()), foreseen(run_config(keep_checkpoints=True))
    size = passing.checkpoint_bytes
    assert kept.kept_bytes(None) - passing.kept_bytes(None) == KEPT * size
    assert passing.disk_bytes(None) == kept.disk_bytes(None) == passing.kept_bytes(None) + (KEPT + 1) * size
    assert passing.kept_bytes(3600.0) - passing.kept_bytes(None) > 1_000_000  # progress follows the clock


def test_the_network_that_a_run_keeps_is_its_nonzeros(tmp_path: Path) -> None:
    for config in (run_config(), run_config(method="dense"), run_config(seed=1, keep_network=False)):
        run = Results(tmp_path).run(run_id(config))
        record_config(Results(tmp_path), run.run_id, config)
        assert execute(run, tmp_path, Job(), lambda: None).state == "done"
        told = foreseen(config).network_bytes
        found = run.network.stat().st_size if config.keep_network else 0
        assert run.network.exists() == config.keep_network
        assert abs(told - found) <= 0.25 * found


def test_memory_grows_with_what_is_held() -> None:
    plain = foreseen(run_config(model="resnet18", dataset="cifar10", update_interval=100))
    larger = foreseen(run_config(model="resnet18", dataset="cifar10", update_interval=100, batch_size=1024))
    adam = foreseen(run_config(model="resnet18", dataset="cifar10", update_interval=100, optimizer={"name": "adam"}))
    half = foreseen(run_config(model="resnet18", dataset="cifar10", update_interval=100, precision="bf16"))
    momentum = foreseen(run_config(model="resnet18", dataset="cifar10", update_interval=100, method="snfs"))
    parameters = outline_of(run_config(model="resnet18", dataset="cifar10")).parameters
    assert larger.memory_bytes > 4 * plain.memory_bytes
    assert adam.memory_bytes - plain.memory_bytes == pytest.approx(4 * parameters, rel=0.01)
    assert half.memory_bytes < plain.memory_bytes < momentum.memory_bytes


def test_sparse_layers_take_memory_of_their_nonzeros() -> None:
    wide = {"model": "mlp-cifar", "dataset": "cifar10", "update_interval": 100, "batch_size": 2}
    masked, auto, sparse = (
        foreseen(run_config(**wide, sparsity=0.99, compute=compute)) for compute in ("masked", "auto", "sparse")
    )
    parameters = outline_of(run_config(**wide)).parameters
    images = 60_000 * 3072
    assert masked.memory_bytes == auto.memory_bytes > images + 12 * parameters
    assert 4 * parameters < sparse.memory_bytes - images < 0.4 * (masked.memory_bytes - images)


def test_what_a_device_computes_is_dense_whatever_the_masks() -> None:
    dense, sparse = foreseen(run_config(method="dense")), foreseen(run_config(sparsity=0.98))
    per_sample = 64 * 300 + 300 * 100 + 100 * 10
    assert dense.macs == sparse.macs == 3 * per_sample * (1437 - 144) * 2


def test_an_unknown_setting_of_rules_is_the_users_error() -> None:
    with pytest.raises(UserError):
        foreseen(run_config(keep_dense=["type:Conv2d"]))
