"""What is likely a mistake in a plan, in sentences with numbers, each saying what to do about it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping

from itopctl.config.run_config import RunConfig
from itopctl.errors import plural
from itopctl.plan.forecast import PROCESS_BYTES, Forecast, Impossible
from itopctl.plan.totals import Machine, Totals
from itopctl.report.number_text import duration, size, sparsity

HANDFUL = 5
"""Fewer topology updates than this hardly change a network."""

LONG_HOURS = 1_000
"""Hours of a device from which on a plan is worth a second look."""

_FLOPS_PER_SECOND = {"cuda": 1e13, "cpu": 1e11}
"""Of one device, sustained in training; a guess that serves where nothing was ever run."""


def warnings_on_runs(
    configs: Mapping[str, RunConfig], forecasts: Mapping[str, Forecast | Impossible],
    memory: Mapping[str, int], machine: Machine,
) -> list[str]:  # fmt: skip
    """Warnings on single runs, one sentence for all that are alike.

    Args:
        configs: run id → config, of the runs that are to be made.
        forecasts: of the same; of what cannot be made, `itopctl.plan.unmade` tells.
        memory: run id → bytes that the run needs, as measured or estimated.
        machine: where they would be made.
    """
    found: dict[tuple[str, str], list[RunConfig]] = {}
    for run_id, config in configs.items():
        forecast = forecasts[run_id]
        if isinstance(forecast, Impossible):
            continue
        for about, said in _on_run(config, forecast, memory[run_id], machine):
            found.setdefault((about, said), []).append(config)
    return [f"{which_runs(runs)} {about}: {said}" for (about, said), runs in found.items()]


def _on_run(config: RunConfig, forecast: Forecast, memory: int, machine: Machine) -> Iterator[tuple[str, str]]:
    """Beginning and rest of a sentence on each thing that is odd about a run; the expansion tells of no update."""
    schedule, interval = config.drop_schedule, config.update_interval
    if schedule is not None and interval is not None and 0 < forecast.updates < HANDFUL:
        end = math.ceil(schedule.stop * config.total_steps)
        enough = (end - 1) // HANDFUL
        remedy = f"{enough:,} steps or fewer give {HANDFUL}" if enough else "train longer"
        explored = "" if forecast.exploration_rate is None else f" (R_s {forecast.exploration_rate:.2f})"
        yield (
            f"will hardly explore{explored}",
            f"an update interval of {interval:,} steps makes {plural(forecast.updates, 'topology update')} in "
            f"{end:,} steps; {remedy}.",
        )
    if forecast.updates and forecast.replaced == 0 and forecast.density < 1:
        yield (
            "will never change a weight's place, like a static network",
            f"ζ is so small that in every layer it rounds down to no weight at each of "
            f"{plural(forecast.updates, 'topology update')}; replace_rounding: ceil, or a larger drop_fraction, moves "
            "some.",
        )
    if forecast.starved:
        yield (
            "would starve layers",
            f"at sparsity {sparsity(config.sparsity)} the allocation {config.allocation!r} gives less than one weight "
            f"to {_some(forecast.starved)}; each keeps one. A smaller sparsity, another allocation, or layer_density "
            "for them avoids it.",
        )
    if machine.memory_bytes is not None and memory * machine.sharing > machine.memory_bytes:
        where = "the GPU" if machine.device == "cuda" else "this machine"
        each = f"{size(memory)} a run, {plural(machine.sharing, 'run')} at one time" if machine.sharing > 1 else ""
        remedy = "a smaller batch_size"
        if memory <= machine.memory_bytes:
            option = "--runs-per-gpu" if machine.device == "cuda" else "--workers"
            remedy = f"{option} {machine.memory_bytes // memory}"
        yield (
            "will not fit in memory",
            f"about {each or size(memory)} where {where} has {size(machine.memory_bytes)}; {remedy} helps.",
        )


def warnings_on_all(totals: Totals, machine: Machine) -> list[str]:
    """Warnings on what all runs take together."""
    return [*_time(totals, machine), *_disk(totals, machine)]


def _time(totals: Totals, machine: Machine) -> Iterator[str]:
    rate = _FLOPS_PER_SECOND[machine.device]
    known, guessed = totals.device_seconds / 3600, totals.untimed_flops / rate / 3600
    if known + guessed < LONG_HOURS:
        return
    device = "GPU" if machine.device == "cuda" else "CPU worker"
    how = "by what such runs took here" if not guessed else f"at {rate / 1e12:g} TFLOP/s where nothing like it was run"
    hours = f"{float(f'{known + guessed:.2g}'):,.0f} hours of a {device}"
    days = duration(3600 * (known + guessed) / machine.at_once)
    yield (
        f"{plural(totals.runs, 'run')} take about {hours}, {how}: {days} with {machine.at_once:,} at one time. Plan "
        "fewer seeds or grid points, or time one run before the others by `itopctl sweep --first 1`."
    )


def _disk(totals: Totals, machine: Machine) -> Iterator[str]:
    if machine.free_disk_bytes is not None and totals.disk_bytes > machine.free_disk_bytes:
        yield (
            f"Results will take {size(totals.disk_bytes)} where {size(machine.free_disk_bytes)} are free; another "
            "--results folder, keep_network: false or keep_checkpoints: false helps."
        )


def memory_of(forecast: Forecast, measured: int | None, machine: Machine) -> int:
    """Bytes that a run needs: what such runs held here, else the estimate and the process around it."""
    if measured is not None:
        return measured
    return forecast.memory_bytes + (PROCESS_BYTES if machine.device == "cpu" else 0)


def which_runs(runs: Iterable[RunConfig]) -> str:
    """How many runs, and of what kinds."""
    kinds = list(dict.fromkeys(f"{run.method}, {run.model} on {run.dataset}" for run in runs))
    return f"{plural(len(list(runs)), 'run')} ({_some(kinds, '; ')})"


def _some(words: Iterable[str], between: str = ", ", most: int = 4) -> str:
    all_words = list(words)
    hidden = len(all_words) - most
    return between.join(all_words[:most]) + (f" and {hidden:,} more" if hidden > 0 else "")
