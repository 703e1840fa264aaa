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
    """One measured figure: seconds, the goal if there is one, and what it is compared with.

    Where the goal is a ratio within the run, `reached` is to be at least `least`, and `wanted` says so in words.
    """

    what: str
    seconds: float
    goal: float | None
    beside: str
    reached: float | None = None
    least: float | None = None
    wanted: str = ""

    @property
    def missed(self) -> bool:
        too_long = self.goal is not None and self.seconds > self.goal
        return too_long or (self.reached is not None and self.least is not None and self.reached < self.least)


def median_seconds(action: Callable[[], object], repetitions: int) -> float:
    """Median wall time of an action, after one that is not counted."""
    action()
    times = []
    for _ in range(repetitions):
        began = time.perf_counter()
        action()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def interleaved_seconds(actions: Sequence[Callable[[], object]], repetitions: int, twice: bool = False) -> list[float]:
    """Median wall time of each action, taken in turns, so that whatever slows the machine slows all of them.

    Args:
        actions: all are repeated alike, after a round that is not counted.
        repetitions: how often.
        twice: whether an action is done twice at each turn and the second one counts, which finds the caches as this
            action leaves them, and not as a larger one does.
    """
    times: list[list[float]] = [[] for _ in actions]
    for repetition in range(repetitions + 1):
        for action, taken in zip(actions, times, strict=True):
            if twice:
                action()
            began = time.perf_counter()
            action()
            if repetition:
                taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in times]


def run_python(*arguments: str) -> None:
    """Run this Python with arguments, quietly; an error ends the benchmark."""
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def command_seconds(arguments: Sequence[str], repetitions: int = 7) -> float:
    """Median wall time of `python …` as a whole process."""
    return median_seconds(lambda: run_python(*arguments), repetitions)
