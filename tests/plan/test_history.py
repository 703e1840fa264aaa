"""Time and memory of planned runs, from finished ones like them."""

from __future__ import annotations

from typing import Any

import pytest

from itopctl.plan.history import History
from tests.helpers import run_config


def finished(seconds: float, steps: int = 100, memory: int | None = 10, **settings: Any) -> dict[str, Any]:
    config = run_config(**settings).model_dump(mode="json")
    return {"config": config, "steps": steps, "wall_seconds": seconds, "peak_memory_bytes": memory}


def seconds_per_step(history: History, **settings: Any) -> float | None:
    pace = history.pace(run_config(**settings))
    return None if pace is None else pace.seconds_per_step


def test_nothing_is_known_where_nothing_was_run() -> None:
    assert History().pace(run_config()) is None


@pytest.mark.parametrize(
    "other",
    [{"model": "lenet-5"}, {"dataset": "mnist"}, {"batch_size": 64}, {"precision": "bf16"}, {"compile": True},
     {"channels_last": True}, {"device": "cuda"}],
    ids=str,
)  # fmt: skip
def test_runs_whose_steps_take_another_time_say_nothing(other: dict[str, Any]) -> None:
    assert History([finished(5.0, **other)]).pace(run_config()) is None
    assert History([finished(5.0)]).pace(run_config(**other)) is None


@pytest.mark.parametrize("same", [{"seed": 5}, {"epochs": 90}, {"optimizer": {"lr": 0.7}}, {"checkpoint_minutes": 3.0}])
def test_runs_whose_steps_take_the_same_time_do(same: dict[str, Any]) -> None:
    assert seconds_per_step(History([finished(5.0, **same)])) == 0.05


def test_the_closest_runs_count_and_of_them_the_median() -> None:
    far = [finished(900.0, method="dense"), finished(800.0, method="static")]
    assert seconds_per_step(History(far), method="rigl-itop") == 8.5
    nearer = [*far, finished(70.0, method="rigl", sparsity=0.5)]  # its growth is the same
    assert seconds_per_step(History(nearer), method="rigl-itop") == 0.7
    near = [*nearer, finished(6.0, method="rigl-itop", sparsity=0.5)]
    assert seconds_per_step(History(near), method="rigl-itop") == 0.06
    same = [*near, *(finished(s, method="rigl-itop", seed=n) for n, s in enumerate([1.0, 2.0, 30.0]))]
    assert seconds_per_step(History(same), method="rigl-itop") == 0.02


def test_the_most_memory_counts() -> None:
    pace = History([finished(5.0, memory=7), finished(5.0, memory=None), finished(5.0, memory=9)]).pace(run_config())
    assert pace is not None and (pace.memory_bytes, pace.runs) == (9, 3)


def test_runs_that_do_not_say_what_they_took_are_passed_over() -> None:
    broken = [{**finished(5.0), "wall_seconds": None}, {**finished(5.0), "steps": 0}, {"config": None}]
    assert History(broken).pace(run_config()) is None


def test_auto_is_the_device_that_this_machine_has() -> None:
    on_gpu = History([finished(5.0, device="cuda")], default_device="cuda")
    assert seconds_per_step(on_gpu) == 0.05
    assert seconds_per_step(on_gpu, device="cpu") is None
    assert seconds_per_step(History([finished(5.0, device="cuda")])) is None
