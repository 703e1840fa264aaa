"""What stands in the manifest of a sweep, `RESULTS/sweeps/<name>.json`: its runs, as far as they make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from itopctl.store.rundir import is_run_id


def points_of(manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Run id → config, as written; without what is no run."""
    runs = manifest.get("runs")
    return {
        point["run_id"]: point["config"]
        for point in (runs if isinstance(runs, list) else [])
        if isinstance(point, dict) and isinstance(point.get("config"), dict) and is_run_id(str(point.get("run_id")))
    }


def as_points(runs: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Inverse of `points_of`."""
    return [{"run_id": run_id, "config": config} for run_id, config in runs.items()]
