"""What is likely a mistake in a plan is said in sentences with numbers, each with what to do about it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from itopctl.config.run_config import RunConfig
from itopctl.plan.forecast import Forecast, forecast
from itopctl.plan.totals import Expected, Machine, Totals
from itopctl.plan.warnings import HANDFUL, memory_of, warnings_on_all, warnings_on_runs
from itopctl.train.model_outline import outline_of
from tests.helpers import run_config

ROOMY = Machine(memory_bytes=10**15, free_disk_bytes=10**15)


def foreseen(config: RunConfig) -> Forecast:
    return forecast(config, outline_of(config))


def warned(*configs: RunConfig, machine: Machine = ROOMY, memory: int = 10**9) -> list[str]:
    by_id = {str(number): config for number, config in enumerate(configs)}
    made = {run_id: foreseen(config) for run_id, config in by_id.items()}
    return warnings_on_runs(by_id, made, dict.fromkeys(by_id, memory), machine)


def totals(seconds: float | None, runs: int = 1, machine: Machine = ROOMY, **changed: Any) -> list[str]:
    one = dataclasses.replace(foreseen(run_config()), **changed)
    return warnings_on_all(Totals.of([Expected(one, seconds)] * runs, machine), machine)


def test_a_sound_plan_has_no_warnings() -> None:
    assert warned(run_config(epochs=60), run_config(method="dense"), run_config(method="static")) == []
    assert totals(20.0, 66) == []


def test_fewer_updates_than_a_handful_are_counted_and_the_interval_named_that_gives_one() -> None:
    assert warned(run_config(update_interval=10)) == [
        "1 run (set-itop, lenet-300-100 on digits) will hardly explore (R_s 0.13): an update interval of 10 steps "
        "makes 2 topology updates in 22 steps; 4 steps or fewer give 5."
    ]


@pytest.mark.parametrize("stop", [1.0, 0.6])
@pytest.mark.parametrize("epochs", [2, 7])
def test_the_interval_that_is_named_is_the_largest_that_gives_a_handful(stop: float, epochs: int) -> None:
    schedule = {"name": "linear", "stop": stop}
    few = run_config(epochs=epochs, update_interval=math.ceil(11 * epochs * stop / 3), drop_schedule=schedule)
    (said,) = warned(few)
    named = int(said.rsplit("; ", 1)[1].split()[0])
    updates = [
        foreseen(run_config(epochs=epochs, update_interval=n, drop_schedule=schedule)).updates
        for n in (named, named + 1)
    ]
    assert updates[0] >= HANDFUL > updates[1]


def test_no_update_at_all_is_told_by_the_expansion_alone() -> None:
    assert warned(run_config(update_interval=10_000)) == []


def test_a_drop_fraction_that_rounds_down_to_nothing_makes_a_static_network() -> None:
    (said,) = warned(
        run_config(epochs=9, drop_fraction=1e-5, drop_schedule={"name": "constant"}, replace_rounding="floor")
    )
    assert said.startswith(
        "1 run (set-itop, lenet-300-100 on digits) will never change a weight's place, like a static network: "
    )
    assert "at each of 19 topology updates; replace_rounding: ceil, or a larger drop_fraction" in said


def test_layers_that_get_no_weight_are_named() -> None:
    (said,) = warned(run_config(sparsity=0.9995, allocation="uniform", epochs=60))
    assert said == (
        "1 run (set-itop, lenet-300-100 on digits) would starve layers: at sparsity 99.95 % the allocation 'uniform' "
        "gives less than one weight to 5.weight; each keeps one. A smaller sparsity, another allocation, or "
        "layer_density for them avoids it."
    )


@pytest.mark.parametrize(
    ("machine", "memory", "words"),
    [
        (Machine("cuda", 2, 1, 10**10), 11 * 10**9, "11 GB where the GPU has 10 GB; a smaller batch_size helps."),
        (
            Machine("cuda", 6, 3, 10**10),
            4 * 10**9,
            "4 GB a run, 3 runs at one time where the GPU has 10 GB; --runs-per-gpu 2 helps.",
        ),
        (
            Machine("cpu", 8, 8, 10**10),
            3 * 10**9,
            "3 GB a run, 8 runs at one time where this machine has 10 GB; --workers 3 helps.",
        ),
    ],
)  # fmt: skip
def test_memory_that_will_not_do_is_weighed_against_what_there_is(machine: Machine, memory: int, words: str) -> None:
    (said,) = warned(run_config(epochs=60), machine=machine, memory=memory)
    assert said.startswith(f"1 run (set-itop, lenet-300-100 on digits) will not fit in memory: about {words}")
    assert warned(run_config(epochs=60), machine=machine, memory=10**9) == []
    assert warned(run_config(epochs=60), machine=dataclasses.replace(machine, memory_bytes=None), memory=memory) == []


def test_memory_is_what_was_measured_else_what_is_estimated_and_on_cpus_the_process_too() -> None:
    one = foreseen(run_config())
    assert memory_of(one, 123, Machine("cpu")) == 123
    assert memory_of(one, None, Machine("cuda")) == one.memory_bytes
    assert memory_of(one, None, Machine("cpu")) > one.memory_bytes + 10**8


def test_alike_runs_share_a_sentence() -> None:
    runs = [run_config(update_interval=10, seed=seed) for seed in range(3)]
    (said,) = warned(*runs)
    assert said.startswith("3 runs (set-itop, lenet-300-100 on digits)")
    assert len(warned(*runs, run_config(update_interval=11))) == 2


def test_thousands_of_hours_are_told_by_what_runs_took_here() -> None:
    gpus = Machine("cuda", 8, 1, None, None)
    assert totals(3600.0, 4000, gpus) == [
        "4,000 runs take about 4,000 hours of a GPU, by what such runs took here: 20 d 20 h with 8 at one time. Plan "
        "fewer seeds or grid points, or time one run before the others by `itopctl sweep --first 1`."
    ]
    assert totals(3600.0, 900, gpus) == []


def test_thousands_of_hours_are_guessed_from_flops_where_nothing_was_run() -> None:
    (said,) = totals(None, 100, Machine("cuda", 1), macs=5e18)
    assert "100 runs take about 28,000 hours of a GPU, at 10 TFLOP/s where nothing like it was run" in said
    assert totals(None, 1, Machine("cuda", 1), macs=5e18) == []


def test_a_disk_that_will_not_do_is_told() -> None:
    small = Machine(free_disk_bytes=10**9)
    (said,) = totals(1.0, 10, small, journal_bytes=2 * 10**8)
    assert said.startswith("Results will take 2 GB where 1 GB are free")


def test_totals_add_up() -> None:
    one = foreseen(run_config())
    found = Totals.of([Expected(one, 10.0), Expected(one, 40.0), Expected(one, None)], Machine(at_once=2))
    assert (found.runs, found.timed, found.steps, found.updates) == (3, 2, 3 * one.steps, 3 * one.updates)
    assert (found.device_seconds, found.wall_seconds) == (50.0, 40.0)  # the longest run is longer than half of all
    assert (found.flops, found.untimed_flops) == (6 * one.macs, 2 * one.macs)
    kept = 2 * one.kept_bytes(None) + one.kept_bytes(10.0) + one.kept_bytes(40.0) - one.kept_bytes(None)
    assert found.kept_bytes == kept
    assert found.disk_bytes == kept + 2 * 3 * one.checkpoint_bytes
    nothing = Totals.of([], Machine())
    assert (nothing.runs, nothing.wall_seconds, nothing.disk_bytes) == (0, None, 0)
