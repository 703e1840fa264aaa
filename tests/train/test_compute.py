"""`compute`: how a run is computed changes no more than the last bits, is chosen by measurement, recorded, and kept."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from itopctl.config.run_config import RunConfig
from itopctl.dst.speed import LayerWork, faster, measure
from itopctl.errors import UserError
from itopctl.train import loop, timings
from itopctl.train.loop import Training, TrainingStoppedError
from itopctl.train.ranks import Rank
from itopctl.train.setup import be_deterministic, compute_of
from tests.helpers import run_config

DATA = Path("data")
LINEAR = LayerWork((32, 64), (300, 64), 2000, True, False, None, "cpu")
CONVOLUTION = LayerWork((4, 8, 6, 6), (8, 8, 3, 3), 60, False, True, ((1, 1), (1, 1), (1, 1), 1), "cpu")


@pytest.fixture(autouse=True)
def _deterministic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    be_deterministic(1)
    monkeypatch.setenv("ITOPCTL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(timings, "_measured", {})


def train(config: RunConfig) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Result of a run, and its evaluations and updates."""
    events: list[dict[str, Any]] = []
    result = Training(config, DATA, lambda name, fields: events.append({"event": name, **fields})).run()
    return result, [event for event in events if event["event"] in ("evaluated", "topology")]


def stopped_after(step: int, config: RunConfig) -> dict[str, Any]:
    """The state that a run saves where it is stopped."""
    saved: list[dict[str, Any]] = []
    training = Training(
        config, DATA, lambda *_: None, lambda: training.progress.step == step, lambda s: saved.append(copy.deepcopy(s))
    )
    with pytest.raises(TrainingStoppedError):
        training.run()
    return saved[0]


MODELS: dict[str, dict[str, Any]] = {"mlp": {}, "cnn": {"model": "lenet-5", "epochs": 1}}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("method", ["set-itop", "rigl-itop", "rigl"])
def test_sparse_and_masked_runs_explore_alike_and_end_alike(method: str, model: str) -> None:
    settings = {"method": method, **MODELS[model]}
    (masked, masked_events), (sparse, sparse_events) = (
        train(run_config(compute=compute, **settings)) for compute in ("masked", "sparse")
    )
    assert {layer["backend"] for layer in masked["layers"]} <= {"masked", "dense"}
    assert {layer["backend"] for layer in sparse["layers"]} <= {"sparse", "dense"}
    assert sparse["exploration_rate"] == masked["exploration_rate"]
    assert [layer["dropped"] for layer in sparse["layers"]] == [layer["dropped"] for layer in masked["layers"]]
    assert sparse["train_flops"] == masked["train_flops"]
    assert sparse["test_accuracy"] == pytest.approx(masked["test_accuracy"], abs=0.01)
    assert len(sparse_events) == len(masked_events)
    for ours, theirs in zip(sparse_events, masked_events, strict=True):
        for name in ("step", "density", "exploration_rate", "drop_fraction"):
            assert ours[name] == theirs[name]
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-3)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rules", [{}, {"method": "rigl-itop", "redistribution": "magnitude"}], ids=str)
@pytest.mark.parametrize(("before", "after"), [("masked", "sparse"), ("sparse", "masked"), ("sparse", "sparse")])
def test_a_run_can_be_gone_on_with_by_the_other_backend(
    before: str, after: str, rules: dict[str, Any], model: str
) -> None:
    settings = {**MODELS[model], **rules, "optimizer": {"name": "adam"}}
    state = stopped_after(8, run_config(compute=before, **settings))
    resumed = Training(run_config(compute=after, **settings), DATA, lambda *_: None)
    resumed.load_state_dict(state)
    result = resumed.run()
    whole, _ = train(run_config(compute=after, **settings))
    assert result["exploration_rate"] == whole["exploration_rate"]
    assert {layer["backend"] for layer in result["layers"]} <= {after, "dense"}
    if before == after:
        assert result["train_loss"] == whole["train_loss"]
        assert result["test_accuracy"] == whole["test_accuracy"]
    else:
        assert result["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-2)
        assert result["test_accuracy"] == pytest.approx(whole["test_accuracy"], abs=0.015)


def test_checkpoints_are_the_same_for_both() -> None:
    """But for who made them, and the last bits of numbers."""
    ours, theirs = (stopped_after(7, run_config(compute=compute)) for compute in ("sparse", "masked"))
    assert ours["model"].keys() == theirs["model"].keys()
    for name, value in ours["model"].items():
        other = theirs["model"][name]
        assert isinstance(value, dict) == isinstance(other, dict)
        if isinstance(value, dict):
            torch.testing.assert_close(value["entries"], other["entries"], atol=1e-4, rtol=1e-3)
    assert set(ours["backends"].values()) == {"sparse"} and set(theirs["backends"].values()) == {"masked"}


def test_a_run_goes_on_as_it_was_computed_though_another_way_is_faster_now(monkeypatch: pytest.MonkeyPatch) -> None:
    config = run_config(compute="auto")
    monkeypatch.setattr(loop, "timed", lambda work: {"masked": 1.0, "sparse": 0.1})
    state, (whole, _) = stopped_after(8, config), train(config)
    assert "sparse" in state["backends"].values()
    monkeypatch.setattr(loop, "timed", lambda work: {"masked": 0.1, "sparse": 1.0})
    resumed = Training(config, DATA, lambda *_: None)
    assert set(resumed.sparse.backends.values()) == {"masked"}
    resumed.load_state_dict(state)
    result = resumed.run()
    assert (result["train_loss"], result["test_accuracy"]) == (whole["train_loss"], whole["test_accuracy"])


def test_a_state_of_old_goes_on_masked_as_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    state = stopped_after(8, run_config(compute="masked"))
    del state["backends"]
    monkeypatch.setattr(loop, "timed", lambda work: {"masked": 1.0, "sparse": 0.1})
    resumed = Training(run_config(compute="auto"), DATA, lambda *_: None)
    resumed.load_state_dict(state)
    assert set(resumed.sparse.backends.values()) == {"masked"}
    assert resumed.run()["train_loss"] == train(run_config(compute="masked"))[0]["train_loss"]


@pytest.mark.parametrize("length", [-1, 1])
def test_weights_that_do_not_fit_their_masks_are_refused(length: int) -> None:
    state = stopped_after(3, run_config(compute="sparse"))
    entries = state["model"]["1.weight"]["entries"]
    state["model"]["1.weight"] = torch.zeros(entries.numel() + length)
    with pytest.raises(ValueError, match="does not fit its mask"):
        Training(run_config(compute="sparse"), DATA, lambda *_: None).load_state_dict(state)


@pytest.mark.parametrize("backends", [{"nowhere.weight": "sparse"}, {"1.weight": "fast"}, {"1.weight": 3}], ids=str)
def test_a_state_with_backends_that_cannot_be_is_refused_or_of_no_effect(backends: dict[str, Any]) -> None:
    config = run_config(compute="auto")
    state = {**stopped_after(3, config), "backends": backends}
    training = Training(config, DATA, lambda *_: None)
    try:
        training.load_state_dict(state)
    except (UserError, ValueError):
        return
    assert "fast" not in training.sparse.backends.values()


def test_what_runs_with_code_of_the_users_own_measure_counts_for_the_same_code_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(timings, "measure", lambda work: {"masked": 9.0, "sparse": 1.0})
    slowed = timings.timed(LINEAR, {"mine": "0123456789ab"})  # what its module sets may slow down one way
    monkeypatch.setattr(timings, "_measured", {})
    monkeypatch.setattr(timings, "measure", lambda work: {"masked": 1.0, "sparse": 2.0})
    assert timings.timed(LINEAR, {"mine": "0123456789ab"}) == slowed
    assert timings.timed(LINEAR) == timings.timed(LINEAR, {"mine": "another"}) == {"masked": 1.0, "sparse": 2.0}


def test_what_was_measured_first_counts_in_every_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = timings.timed(LINEAR)
    monkeypatch.setattr(timings, "_measured", {})  # as another process
    monkeypatch.setattr(timings, "measure", lambda work: pytest.fail("measured again"))
    assert timings.timed(LINEAR) == first
    (file,) = (tmp_path / "cache" / "timings").iterdir()
    assert json.loads(file.read_text())["work"]["active"] == 2000


def test_of_two_that_measure_at_once_the_first_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(work: LayerWork) -> dict[str, float]:
        with monkeypatch.context() as other:  # another process is done first
            other.setattr(timings, "_measured", {})
            other.setattr(timings, "measure", lambda work: {"masked": 1.0, "sparse": 2.0})
            timings.timed(work)
        return {"masked": 9.0, "sparse": 9.0}

    monkeypatch.setattr(timings, "measure", slow)
    assert timings.timed(LINEAR) == {"masked": 1.0, "sparse": 2.0}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seconds": 3}', '{"seconds": {"masked": "x"}}'])
def test_a_damaged_file_is_measured_again_and_replaced(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timings.timed(LINEAR)
    (file,) = (tmp_path / "cache" / "timings").iterdir()
    file.write_text(content)
    monkeypatch.setattr(timings, "_measured", {})
    times = timings.timed(LINEAR)
    assert times["masked"] > 0
    assert json.loads(file.read_text())["seconds"] == times
    assert [*file.parent.iterdir()] == [file]


def test_a_folder_that_cannot_be_made_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ITOPCTL_CACHE", str(tmp_path / "file" / "cache"))
    assert timings.timed(LINEAR)["masked"] > 0


def test_measuring_leaves_the_random_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    times = measure(CONVOLUTION)
    assert torch.equal(torch.get_rng_state(), before)
    assert times.keys() == {"masked", "sparse", "turned"} and min(times.values()) > 0
    assert measure(LINEAR).keys() == {"masked", "sparse"}


def times(masked: float, sparse: float, turned: float | None = None) -> dict[str, float]:
    return {"masked": masked, "sparse": sparse, **({} if turned is None else {"turned": turned})}


def test_a_linear_layer_is_sparse_where_that_is_clearly_faster() -> None:
    works = dict.fromkeys("abc", LINEAR)
    assert faster(works, {"a": times(2, 1), "b": times(1, 0.95), "c": {"masked": 1.0}}) == {"a"}


def test_convolutions_are_sparse_where_that_pays_for_turning_the_masked_ones() -> None:
    works = dict.fromkeys("ab", CONVOLUTION)
    assert faster(works, {"a": times(4, 1, 5), "b": times(1, 3, 2)}) == {"a"}
    assert faster(works, {"a": times(1.5, 1, 2), "b": times(1, 3, 2)}) == frozenset()


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"compile": True}, {"method": "snfs"}], ids=str)
def test_a_spec_that_wants_sparse_layers_where_there_cannot_be_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="sparse is not possible where"):
        run_config(compute="sparse", **settings)
    assert run_config(compute="auto", **settings).compute == "auto"


def test_several_processes_train_masked() -> None:
    two = Rank(0, 2, 0, "localhost:1")
    assert compute_of(run_config(compute="auto"), two) == "masked"
    with pytest.raises(UserError, match="several processes"):
        compute_of(run_config(compute="sparse"), two)


def test_how_a_run_is_computed_is_no_part_of_its_identity() -> None:
    from itopctl.config.identity import run_id

    assert len({run_id(run_config(compute=compute)) for compute in ("masked", "sparse", "auto")}) == 1
