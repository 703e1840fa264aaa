"""What the runs of a plan take together, on one machine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from itopctl.plan.forecast import Forecast


@dataclass(frozen=True)
class Machine:
    """Where runs would be made.

    Attributes:
        device: `cuda` or `cpu`.
        at_once: runs at one time.
        sharing: of these, how many share a memory: those on one GPU, or all that are on CPUs.
        memory_bytes: of that memory; None where it is not known.
        free_disk_bytes: room for results; None where it is not known.
    """

    device: str = "cpu"
    at_once: int = 1
    sharing: int = 1
    memory_bytes: int | None = None
    free_disk_bytes: int | None = None


@dataclass(frozen=True)
class Expected:
    """A run to be made: what is known of it, and how long it takes, where that is known."""

    forecast: Forecast
    seconds: float | None


@dataclass(frozen=True)
class Totals:
    """Of all runs that are to be made.

    Attributes:
        runs: how many.
        timed: of these, how many whose time is known.
        steps, updates: of all.
        device_seconds: time of those whose time is known, one after the other.
        wall_seconds: the same with as many at one time as the machine takes; None where no time is known.
        flops: of dense arithmetic: two a multiply-accumulate. Masks save none, sparse layers do.
        untimed_flops: of the runs whose time is not known.
        disk_bytes: the most on the disk at one time.
        kept_bytes: on the disk in the end.
    """

    runs: int
    timed: int
    steps: int
    updates: int
    device_seconds: float
    wall_seconds: float | None
    flops: float
    untimed_flops: float
    disk_bytes: int
    kept_bytes: int

    @classmethod
    def of(cls, runs: Iterable[Expected], machine: Machine) -> Totals:
        """Totals of some runs."""
        all_runs = list(runs)
        times = [run.seconds for run in all_runs if run.seconds is not None]
        untimed = [run.forecast for run in all_runs if run.seconds is None]
        kept = [run.forecast.kept_bytes(run.seconds) for run in all_runs]
        extra = [run.forecast.disk_bytes(run.seconds) - own for run, own in zip(all_runs, kept, strict=True)]
        return cls(
            runs=len(all_runs),
            timed=len(times),
            steps=sum(run.forecast.steps for run in all_runs),
            updates=sum(run.forecast.updates for run in all_runs),
            device_seconds=sum(times),
            wall_seconds=max(sum(times) / machine.at_once, max(times)) if times else None,
            flops=2 * sum(run.forecast.macs for run in all_runs),
            untimed_flops=2 * sum(forecast.macs for forecast in untimed),
            disk_bytes=sum(kept) + _largest(extra, machine.at_once),
            kept_bytes=sum(kept),
        )


def _largest(values: Sequence[int], count: int) -> int:
    return sum(sorted(values, reverse=True)[:count])
