"""Timing, and the value a benchmark returns."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure: seconds, the goal if there is one, and what it is compared with."""

    what: str
    seconds: float
    goal: float | None
    beside: str

    @property
    def missed(self) -> bool:
        return self.goal is not None and self.seconds > self.goal


def median_seconds(action: Callable[[], object], repetitions: int) -> float:
    """Median wall time of an action, after one that is not counted."""
    action()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def run_python(*arguments: str) -> None:
    """Run this Python with arguments, quietly; an error ends the benchmark."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def command_seconds(arguments: Sequence[str], repetitions: int = 7) -> float:
    """Median wall time of `python …` as a whole process."""
    return median_seconds(lambda: run_python(*arguments), repetitions)
