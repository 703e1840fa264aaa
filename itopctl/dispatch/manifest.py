"""What a sweep leaves on disk before anything starts: its manifest, and the config of a run about to start."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from itopctl.plan import Plan, PlannedSweep
from itopctl.spec.config import RunConfig
from itopctl.spec.identity import SCHEMA_VERSION
from itopctl.store.journal import utc_now
from itopctl.store.rundir import Results, read_json, write_json


def record_sweeps(results: Results, plan: Plan, overrides: Sequence[str]) -> None:
    """Write the manifest of every sweep of a plan.

    Runs that an earlier command gave a sweep stay its members if they were ever started; points that no command
    asks for any more do not.
    """
    for planned in plan.sweeps:
        path = results.manifest(planned.spec.name)
        earlier = read_json(path) or {}
        manifest = _manifest(results, planned, overrides, earlier)
        if any(manifest[key] != earlier.get(key) for key in manifest if key != "updated_at"):
            write_json(path, manifest)


def _manifest(
    results: Results, planned: PlannedSweep, overrides: Sequence[str], earlier: dict[str, Any]
) -> dict[str, Any]:
    spec = planned.spec
    now = utc_now()
    runs = {run_id: config.model_dump(mode="json") for run_id, config in planned.expansion.runs.items()}
    for point in earlier.get("runs", []):
        if results.run(point["run_id"]).path.is_dir():
            runs.setdefault(point["run_id"], point["config"])
    return {
        "sweep": spec.name,
        "description": spec.description,
        "specs": [{"path": spec.document.source, "text": spec.text, "set": list(overrides)}],
        "slurm": spec.slurm.model_dump(exclude_none=True),
        "created_at": earlier.get("created_at", now),
        "updated_at": now,
        "runs": [{"run_id": run_id, "config": config} for run_id, config in runs.items()],
    }


def record_config(results: Results, run_id: str, config: RunConfig) -> None:
    """Write a run's `config.json`; settings that are no part of its identity may differ from an earlier attempt's."""
    path = results.run(run_id).config
    content = {"run_id": run_id, "schema": SCHEMA_VERSION, "config": config.model_dump(mode="json")}
    if read_json(path) != content:
        write_json(path, content)
