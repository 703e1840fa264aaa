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


def accepted_in(specs: Any) -> dict[str, list[str]]:
    """Module of the user's own → versions that count as the same, as the `specs` of a manifest record them."""
    found: dict[str, dict[str, None]] = {}
    for spec in specs if isinstance(specs, list) else []:
        accepted = spec.get("accepted_code") if isinstance(spec, dict) else None
        for module, versions in accepted.items() if isinstance(accepted, dict) else ():
            if isinstance(versions, list):
                texts = [version for version in versions if isinstance(version, str)]
                found.setdefault(module, {}).update(dict.fromkeys(texts))
    return {module: list(versions) for module, versions in found.items()}
