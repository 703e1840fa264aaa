"""How long runs take and how much memory they need, from finished ones on the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from itopctl.spec.config import RunConfig

_SAME = ("dataset", "model", "batch_size", "precision", "compile", "channels_last")
"""Settings without which the time of a step is another one."""

_ALIKE = (("method", "growth", "update_interval", "sparsity"), ("method", "growth"), ("growth",), ())
"""What else runs should have in common, as far as there are such; the first that some have counts."""

_LONGEST_START = 10.0  # seconds; what a run takes beside its steps for longer than this is evaluation, above all


@dataclass(frozen=True)
class Pace:
    """What finished runs like a planned one took.

    Attributes:
        start_seconds: median of what they took beside their steps, up to `_LONGEST_START`: data and network are made
            once, however many steps follow.
        seconds_per_step: median of the rest of the wall time ÷ steps, evaluation included.
        memory_bytes: the most that any of them held; None where none says so.
        runs: how many they are.
    """

    start_seconds: float
    seconds_per_step: float
    memory_bytes: int | None
    runs: int

    def seconds(self, steps: int) -> float:
        """Wall time of a run of so many steps."""
        return self.start_seconds + steps * self.seconds_per_step


@dataclass(frozen=True)
class _Finished:
    """What one run took."""

    start_seconds: float
    seconds_per_step: float
    memory_bytes: int | None


class History:
    """Finished runs of one machine, to be asked about planned ones.

    Args:
        finished: records with `config` (plain data), `steps`, `steps_per_second` (without evaluation and start),
            `wall_seconds` and `peak_memory_bytes`, all of runs that were made on this machine.
        default_device: what a run with `device: auto` uses here: `cuda` or `cpu`.
    """

    def __init__(self, finished: Iterable[Mapping[str, Any]] = (), default_device: str = "cpu") -> None:
        self._default = default_device
        self._known: dict[tuple[Any, ...], list[_Finished]] = {}
        self._found: dict[tuple[Any, ...], Pace | None] = {}
        for run in finished:
            config, steps, seconds = run.get("config") or {}, run.get("steps"), run.get("wall_seconds")
            if not steps or not seconds:
                continue
            start = _start(steps, seconds, run.get("steps_per_second"))
            measured = _Finished(start, (seconds - start) / steps, run.get("peak_memory_bytes"))
            for level in range(len(_ALIKE)):
                self._known.setdefault(self._key(config, level), []).append(measured)

    def pace(self, config: RunConfig) -> Pace | None:
        """What runs like this one took; None where there are none."""
        settings = {name: getattr(config, name) for names in (_SAME, *_ALIKE) for name in names}
        settings["device"] = config.device
        key = self._key(settings, 0)
        if key not in self._found:
            known = (self._known.get(self._key(settings, level)) for level in range(len(_ALIKE)))
            self._found[key] = next((_pace(runs) for runs in known if runs), None)
        return self._found[key]

    def _key(self, config: Mapping[str, Any], level: int) -> tuple[Any, ...]:
        device = config.get("device") or "auto"
        device = self._default if device == "auto" else device
        return (level, device, *(config.get(name) for name in (*_SAME, *_ALIKE[level])))


def _start(steps: int, seconds: float, steps_per_second: float | None) -> float:
    """What a run took beside its steps, as far as that may be its start."""
    if not steps_per_second:
        return 0.0
    return min(max(0.0, seconds - steps / steps_per_second), _LONGEST_START)


def _pace(known: list[_Finished]) -> Pace:
    return Pace(
        median(run.start_seconds for run in known),
        median(run.seconds_per_step for run in known),
        max((run.memory_bytes for run in known if run.memory_bytes), default=None),
        len(known),
    )
