"""How long runs take and how much memory they need, from finished ones on the same machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

from itopctl.config.run_config import RunConfig

_SAME = ("dataset", "model", "batch_size", "precision", "compile", "channels_last")
"""Settings without which the time of a step is another one."""

_ALIKE = (("method", "growth", "update_interval", "sparsity"), ("method", "growth"), ("growth",), ())
"""What else runs should have in common, as far as there are such; the first that some have counts."""


@dataclass(frozen=True)
class Pace:
    """What finished runs like a planned one took.

    Attributes:
        seconds_per_step: median of wall time ÷ steps, evaluation and start included.
        memory_bytes: the most that any of them held; None where none says so.
        runs: how many they are.
    """

    seconds_per_step: float
    memory_bytes: int | None
    runs: int


class History:
    """Finished runs of one machine, to be asked about planned ones.

    Args:
        finished: records with `config` (plain data), `steps`, `wall_seconds` and `peak_memory_bytes`, all of runs that
            were made on this machine.
        default_device: what a run with `device: auto` uses here: `cuda` or `cpu`.
    """

    def __init__(self, finished: Iterable[Mapping[str, Any]] = (), default_device: str = "cpu") -> None:
        self._default = default_device
        self._known: dict[tuple[Any, ...], list[tuple[float, int | None]]] = {}
        self._found: dict[tuple[Any, ...], Pace | None] = {}
        for run in finished:
            config, steps, seconds = run.get("config") or {}, run.get("steps"), run.get("wall_seconds")
            if not steps or not seconds:
                continue
            for level in range(len(_ALIKE)):
                measured = (seconds / steps, run.get("peak_memory_bytes"))
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


def _pace(known: list[tuple[float, int | None]]) -> Pace:
    memory = [most for _, most in known if most]
    return Pace(median(seconds for seconds, _ in known), max(memory, default=None), len(known))
