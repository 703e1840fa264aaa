"""What stands in the manifest of a sweep, `RESULTS/sweeps/<name>.json`: its runs, as far as they make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itopctl.store.rundir import is_run_id


def is_config(value: Any) -> bool:
    """Whether a value may be the config of a run: settings, not nested more deeply than ours."""
    return isinstance(value, dict) and all(_is_setting(setting, 2) for setting in value.values())


def _is_setting(value: Any, depth: int) -> bool:
    if isinstance(value, (dict, list)):
        inner = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_setting(one, depth - 1) for one in inner)
    return True


def points_of(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Run id → config, as written; without what is no run."""
    runs = manifest.get("runs")
    return {
        point["run_id"]: point["config"]
        for point in (runs if isinstance(runs, list) else [])
        if isinstance(point, dict) and is_config(point.get("config")) and is_run_id(str(point.get("run_id")))
    }


def as_points(runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Inverse of `points_of`."""
    return [{"run_id": run_id, "config": config} for run_id, config in runs.items()]
