"""A run of a plan with all that is known of it before it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from itopctl.config.run_config import RunConfig
from itopctl.plan.forecast import Forecast, Impossible
from itopctl.plan.history import History, Pace
from itopctl.plan.runs import Plan
from itopctl.plan.totals import Machine
from itopctl.plan.warnings import memory_of

Record = dict[str, Any]


@dataclass(frozen=True)
class PlannedRun:
    """A run of a plan with all that is known before it."""

    run_id: str
    state: str
    config: RunConfig
    forecast: Forecast | Impossible
    pace: Pace | None
    memory: int

    @property
    def to_run(self) -> bool:
        return self.state in ("new", "failed")

    @property
    def seconds(self) -> float | None:
        """Wall time that it is expected to take."""
        known = self.pace is not None and isinstance(self.forecast, Forecast)
        return self.pace.seconds_per_step * self.forecast.steps if known else None  # type: ignore[union-attr]

    def record(self) -> Record:
        """Its forecast for programs; field names are stable."""
        forecast = self.forecast
        if isinstance(forecast, Impossible):
            return {**dict.fromkeys(_FIELDS), "problem": forecast.reason}
        return {
            **{name: getattr(forecast, name) for name in _FORECAST_FIELDS},
            "seconds": self.seconds,
            "seconds_from_runs": self.pace.runs if self.pace else 0,
            "memory_bytes": self.memory,
            "disk_bytes": forecast.disk_bytes(self.seconds),
            "kept_bytes": forecast.kept_bytes(self.seconds),
            "problem": None,
        }


_FORECAST_FIELDS = (
    "steps", "updates", "exploration_rate", "exploration_known", "maskable", "trainable", "density", "total_density",
    "left_dense", "train_flops_ratio", "inference_flops_ratio",
)  # fmt: skip
_FIELDS = (
    *_FORECAST_FIELDS, "seconds", "seconds_from_runs", "memory_bytes", "disk_bytes", "kept_bytes", "problem",
)  # fmt: skip


def planned_runs(
    plan: Plan, forecasts: Mapping[str, Forecast | Impossible], history: History, machine: Machine
) -> list[PlannedRun]:
    """Every run of a plan, in the order of the specs."""
    kinds = ("new", "done", "pending", "running", "failed")
    states = {run_id: kind for kind in kinds for run_id in getattr(plan, kind)}
    found = []
    for run_id, config in plan.configs.items():
        forecast, pace = forecasts[run_id], history.pace(config)
        measured = pace.memory_bytes if pace else None
        memory = memory_of(forecast, measured, machine) if isinstance(forecast, Forecast) else 0
        found.append(PlannedRun(run_id, states[run_id], config, forecast, pace, memory))
    return found
