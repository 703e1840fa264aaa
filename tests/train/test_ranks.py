"""One run in several real processes on gloo: the same run as in one, on all of them, stopped, resumed and broken."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from itopctl.errors import EnvironmentUnfitError
from itopctl.train.data.tensors import load_images, share_of
from itopctl.train.ranks import ALONE, Rank, joined
from itopctl.train.setup import be_deterministic, choose_device
from tests.train.processes import (
    DATA,
    EQUAL,
    OWN_MODELS,
    STOPPED,
    TRAINED_ON,
    all_cases,
    compiled_case,
    config_of,
    of_own,
    one_that_fails,
    run_processes,
    start_processes,
    train,
)

Found = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    be_deterministic(1)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """What one process sees, by case; and what it saved when stopped after step 13, by `case, stopped`."""
    be_deterministic(1)
    found = {case: train(config_of(case)) for case in EQUAL}
    return found | {f"{case}, stopped": train(config_of(case), stop_at=13) for case in STOPPED}


@pytest.fixture(scope="module", params=[2, 3])
def found(request: pytest.FixtureRequest, alone: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What each of two or three processes saw, of all cases."""
    begun = {case: alone[f"{case}, stopped"]["saved"][0] for case in STOPPED}
    return run_processes(request.param, all_cases, tmp_path_factory.mktemp("several processes"), begun)


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def assert_processes_agree(found: Found, case: str) -> dict[str, Any]:
    """All see the same, but only the first tells and saves; what the first saw."""
    first = found[0][case]
    for process in found[1:]:
        other = process[case]
        assert other["ended"] == first["ended"]
        assert other["result"] == first["result"]
        assert same(other["weights"], first["weights"])
        assert same(other["explored"], first["explored"])
        assert len(other["masks"]) == len(first["masks"])
        assert all(map(same, other["masks"], first["masks"]))
        assert other["events"] == other["saved"] == []
    return first


def assert_same_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal to the bit: how it ended, and all that it left."""
    assert one["ended"] == other["ended"]
    assert one["result"] == other["result"]
    assert same(one["weights"], other["weights"])
    assert same(one["explored"], other["explored"])


def assert_nearly_same_run(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Equal but for round-off: masks (a tie or two apart), weights, and every number that is told."""
    assert one["ended"] == other["ended"]
    assert len(one["masks"]) == len(other["masks"])
    for these, those in zip(one["masks"], other["masks"], strict=True):
        if these and those:
            differ = sum(int((these[name] != those[name]).sum()) for name in these)
            assert differ <= 1e-4 * sum(mask.numel() for mask in these.values())
    for name, weight in one["weights"].items():
        near = torch.isclose(weight, other["weights"][name], rtol=1e-3, atol=1e-4)
        assert near.float().mean() > 0.9999, name
    assert numbers_in(one["result"]) == pytest.approx(numbers_in(other["result"]), rel=1e-3, abs=3e-3)


def numbers_in(fields: dict[str, Any]) -> dict[str, Any]:
    words = ("layers", "device_name", "left_dense")
    return {name: -1 if value is None else value for name, value in fields.items() if name not in words}


# The same run -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", EQUAL)
def test_several_processes_train_the_run_that_one_would(found: Found, alone: dict[str, Any], case: str) -> None:
    first = assert_processes_agree(found, case)
    assert_nearly_same_run(first, alone[case])
    assert [name for name, _ in first["events"]] == [name for name, _ in alone[case]["events"]]
    for (_, fields), (_, expected) in zip(first["events"], alone[case]["events"], strict=True):
        assert numbers_in(fields) == pytest.approx(numbers_in(expected), rel=1e-3, abs=3e-3)
    for name in ("train_flops_ratio", "inference_flops_ratio", "steps", "topology_updates", "density"):
        assert first["result"][name] == alone[case]["result"][name]


@pytest.mark.slow
def test_the_topology_of_several_processes_is_that_of_one(found: Found, alone: dict[str, Any]) -> None:
    first = assert_processes_agree(found, "plain")
    assert len(first["masks"]) == 4
    assert not same(first["masks"][0], first["masks"][-1])
    assert all(map(same, first["masks"], alone["plain"]["masks"]))
    assert same(first["explored"], alone["plain"]["explored"])


@pytest.mark.slow
def test_fewer_samples_than_processes_train(found: Found) -> None:
    first = assert_processes_agree(found, "batches of one")
    assert first["ended"] == ("stopped", 32)
    assert_nearly_same_run(first, train(config_of("batches of one"), stop_at=32))


# Stopping and resuming ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("case", STOPPED)
def test_a_run_that_was_stopped_goes_on_to_the_same_bits(found: Found, case: str) -> None:
    stopped = assert_processes_agree(found, f"{case}, stopped")
    assert stopped["ended"] == ("stopped", 16)
    assert [state["progress"]["step"] for state in stopped["saved"]] == [16]
    assert_same_run(assert_processes_agree(found, f"{case}, resumed"), found[0][case])
    resumed = found[0][f"{case}, resumed"]
    told = [event for event in stopped["events"] + resumed["events"] if event[0] != "checkpoint"]
    assert told == found[0][case]["events"]


@pytest.mark.slow
@pytest.mark.parametrize("case", STOPPED)
def test_what_one_process_began_several_go_on_with(found: Found, alone: dict[str, Any], case: str) -> None:
    assert_nearly_same_run(assert_processes_agree(found, f"{case}, begun alone"), alone[case])


@pytest.mark.slow
@pytest.mark.parametrize("case", STOPPED)
def test_what_several_processes_began_one_goes_on_with(found: Found, alone: dict[str, Any], case: str) -> None:
    assert_nearly_same_run(train(config_of(case), state=found[0][f"{case}, stopped"]["saved"][0]), alone[case])


@pytest.mark.slow
def test_a_stop_that_one_process_is_told_of_stops_all_after_the_same_step(found: Found) -> None:
    first = assert_processes_agree(found, "a stop in one process")
    assert first["ended"] == ("stopped", 8)
    assert [state["progress"]["step"] for state in first["saved"]] == [8]
    assert [name for name, _ in first["events"]][-1] == "checkpoint"


@pytest.mark.slow
def test_a_stop_too_late_to_be_agreed_upon_lets_the_run_finish(found: Found) -> None:
    assert_same_run(assert_processes_agree(found, "a stop too late"), found[0]["plain"])


# What goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("bad", ["nan", "inf"])
def test_a_loss_that_is_not_finite_in_one_process_ends_all_with_the_same_numbers(found: Found, bad: str) -> None:
    ended = [process[f"loss, {bad}"]["ended"] for process in found]
    assert ended == [ended[0]] * len(found)
    kind, step, last_good = ended[0]
    assert (kind, step) == ("diverged", 7)
    assert math.isfinite(last_good)


@pytest.mark.slow
def test_a_weight_that_is_not_finite_in_one_process_ends_all(found: Found) -> None:
    assert [process["a broken weight"]["ended"][:2] for process in found] == [("diverged", 5)] * len(found)


@pytest.mark.slow
def test_a_process_that_fails_does_not_leave_the_others_waiting(tmp_path: Path) -> None:
    began = time.monotonic()
    processes = start_processes(2, one_that_fails, tmp_path).processes
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [1, 1]
    assert time.monotonic() - began < 120
    assert not list(tmp_path.glob("rank*.pt"))


# Models of other kinds ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [TRAINED_ON - 2, TRAINED_ON - 3, 128])
def test_batch_norm_trains_even_where_a_share_is_one_sample_or_none(found: Found, size: int) -> None:
    first = assert_processes_agree(found, f"batch norm, {size}")
    assert first["ended"] == ("done",)
    assert all(math.isfinite(f["train_loss"]) for name, f in first["events"] if name == "evaluated")


@pytest.mark.slow
def test_statistics_of_batch_norm_are_those_of_the_first_process_and_resume(found: Found) -> None:
    first = assert_processes_agree(found, "batch norm, resumed")
    assert_same_run(first, found[0]["batch norm, 128"])
    assert found[0]["batch norm, saved"]["saved"][0]["model"]["1.num_batches_tracked"] == 16


@pytest.mark.slow
def test_dropout_draws_otherwise_in_each_process_and_each_step_and_resumes(found: Found) -> None:
    assert_same_run(assert_processes_agree(found, "dropout, resumed"), assert_processes_agree(found, "dropout"))
    draws = [drawn for process in found for drawn in process["dropout, passed"]]
    assert len({drawn.numpy().tobytes() for drawn in draws}) == len(draws) == 22 * len(found)


@pytest.mark.slow
def test_parameters_without_a_part_in_the_loss_stay_as_they_are(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_models_of_ranks.py").write_text(OWN_MODELS)
    monkeypatch.chdir(tmp_path)
    first = assert_processes_agree(found, "parameters left out")
    assert_nearly_same_run(first, train(of_own("leaving_out")))
    assert_same_run(assert_processes_agree(found, "parameters left out, resumed"), first)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["fp16", "bf16", "channels last"])
def test_other_precisions_and_layouts_train(found: Found, case: str) -> None:
    first = assert_processes_agree(found, case)
    assert first["result"]["test_accuracy"] > 0.5
    for name, mask in first["masks"][-1].items():
        assert not first["weights"][name][~mask].any()


@pytest.mark.slow
def test_a_compiled_model_trains(tmp_path: Path, alone: dict[str, Any]) -> None:
    found = run_processes(2, compiled_case, tmp_path)
    assert_nearly_same_run(assert_processes_agree(found, "compiled"), alone["plain"])


def test_batch_norm_of_one_process_would_refuse_a_lone_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_models_of_ranks.py").write_text(OWN_MODELS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        train(of_own("norm", batch_size=1))


# Pieces -------------------------------------------------------------------------------------------------------


@given(samples=st.integers(0, 300), count=st.integers(1, 40))
def test_shares_are_in_order_whole_and_at_most_one_apart(samples: int, count: int) -> None:
    rows = [list(range(samples))[share_of(samples, index, count)] for index in range(count)]
    assert [row for share in rows for row in share] == list(range(samples))
    assert max(map(len, rows)) - min(map(len, rows)) <= 1


@pytest.mark.parametrize("augment", ["none", "crop-flip"])
@pytest.mark.parametrize("batch_size", [600, TRAINED_ON - 2, TRAINED_ON - 3])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_shares_of_a_batch_are_the_batch(augment: str, batch_size: int, count: int) -> None:
    data = load_images("digits", 0.1, DATA.resolve(), torch.device("cpu"))
    whole = list(data.train_batches(batch_size, augment, 3, 1, 1))
    shares = [list(data.train_batches(batch_size, augment, 3, 1, 1, (index, count))) for index in range(count)]
    for number, (images, labels) in enumerate(whole):
        own = []
        for index, share in enumerate(shares):
            theirs, all_labels = share[number]
            rows = share_of(len(labels), index, count)
            own.append(theirs[: rows.stop - rows.start])
            assert torch.equal(all_labels, labels)
            assert len(theirs) == max(len(own[-1]), 2)
            for image in theirs:  # those that fill up a small share are of the batch, too
                assert (images == image).flatten(1).all(1).any()
        assert torch.equal(torch.cat(own), images)


@pytest.mark.parametrize(
    ("name", "local", "visible", "chosen"),
    [
        ("auto", 1, 4, "cuda:1"),
        ("cuda", 3, 4, "cuda:3"),
        ("auto", 3, 1, "cuda:0"),  # the scheduler shows each process its own
        ("auto", 0, 1, "cuda:0"),
        ("auto", 2, 0, "cpu"),
        ("cpu", 2, 4, "cpu"),
        ("cuda:1", 0, 4, "cuda:1"),
    ],
)
def test_each_process_takes_its_own_gpu(
    name: str, local: int, visible: int, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: visible > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    assert choose_device(name, Rank(local, 4, local, "here:1")) == torch.device(chosen)
    assert choose_device("auto") == torch.device("cuda" if visible else "cpu")


def test_too_few_gpus_for_the_processes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(EnvironmentUnfitError, match="finds 2 GPUs"):
        choose_device("auto", Rank(6, 8, 2, "here:1"))


@pytest.mark.parametrize(("index", "count", "local"), [(2, 2, 0), (-1, 2, 0), (0, 0, 0), (0, 2, 1), (1, 2, -1)])
def test_a_process_that_cannot_be_is_refused(index: int, count: int, local: int) -> None:
    with pytest.raises(ValueError, match="there is none such"):
        Rank(index, count, local, "here:1")


def test_several_processes_need_an_address() -> None:
    with pytest.raises(ValueError, match="address"):
        Rank(0, 2, 0)


def test_one_process_needs_no_group_and_communicates_nothing() -> None:
    with joined(ALONE, torch.device("cpu")):
        assert not torch.distributed.is_initialized()
        tensor = torch.tensor([1.0, 2.0])
        assert ALONE.mean(tensor) is tensor
        assert tensor.tolist() == [1.0, 2.0]
        assert ALONE.most(2, tensor.device) == 2
        assert ALONE.first("this") == "this"
