"""What a sweep leaves on disk before anything starts: its manifest, and the config of a run about to start."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from itopctl.plan import Plan, PlannedSweep
from itopctl.spec.config import RunConfig
from itopctl.spec.identity import SCHEMA_VERSION
from itopctl.spec.slurm import SlurmOptions
from itopctl.store.files import cannot_write, explained, leftovers, make_folder, read_json, remove, write_json
from itopctl.store.journal import utc_now
from itopctl.store.locks import one_at_a_time, without_the_lock
from itopctl.store.manifests import as_points, points_of
from itopctl.store.rundir import Results
from itopctl.store.submissions import claimed_runs, live_submissions


class SweepRecords:
    """The manifests of the sweeps of one command, kept right while other commands write them, too.

    Args:
        results: the results folder.
        plan: the command's plan.
        overrides: its `--set` arguments.
        cluster: where it runs them, `local` or `slurm`.
        slurm: sweep → what its jobs ask for, where that is more than the spec says.
    """

    def __init__(
        self, results: Results, plan: Plan, overrides: Sequence[str], cluster: str = "local",
        slurm: Mapping[str, SlurmOptions] | None = None,
    ) -> None:  # fmt: skip
        self.results, self.plan, self.overrides = results, plan, overrides
        self.cluster, self.slurm = cluster, slurm or {}
        self._written: dict[str, int] = {}

    def write(self) -> None:
        """Write every manifest. Runs that an earlier command gave a sweep stay in it if they were ever started."""
        claimed = claimed_runs(live_submissions(self.results))
        for planned in self.plan.sweeps:
            self._write(planned, lambda run_id: run_id in claimed or self.results.run(run_id).path.is_dir())

    def keep(self) -> None:
        """Put this command's runs back where another command wrote a manifest since, and take none of its out."""
        for planned in self.plan.sweeps:
            if self._written.get(planned.spec.name) != _changed_at(self.results.manifest(planned.spec.name)):
                self._write(planned, lambda run_id: True)

    def _write(self, planned: PlannedSweep, stays: Callable[[str], bool]) -> None:
        path = self.results.manifest(planned.spec.name)
        with explained(path):
            make_folder(path.parent)
        with one_at_a_time(path.parent):
            for left in leftovers(path):
                remove(left)  # of commands that were killed here
            earlier = read_json(path) or {}
            manifest = self._manifest(planned, earlier, stays)
            if any(manifest[key] != earlier.get(key) for key in manifest if key != "updated_at"):
                write_json(path, manifest)
            self._written[planned.spec.name] = _changed_at(path)

    def _manifest(self, planned: PlannedSweep, earlier: dict[str, Any], stays: Callable[[str], bool]) -> dict[str, Any]:
        spec = planned.spec
        now = utc_now()
        runs = {run_id: config.model_dump(mode="json") for run_id, config in planned.expansion.runs.items()}
        for run_id, config in points_of(earlier).items():
            if run_id not in runs and stays(run_id):
                runs[run_id] = config
        created_at = earlier.get("created_at")
        return {
            "sweep": spec.name,
            "description": spec.description,
            "specs": [{"path": spec.document.source, "text": spec.text, "set": list(self.overrides)}],
            "cluster": self.cluster,
            "slurm": self.slurm.get(spec.name, spec.slurm).model_dump(exclude_none=True),
            "created_at": created_at if isinstance(created_at, str) else now,
            "updated_at": now,
            "runs": as_points(runs),
        }


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def record_config(results: Results, run_id: str, config: RunConfig) -> None:
    """Write a run's `config.json`; settings that are no part of its identity may differ from an earlier attempt's.

    Raises:
        EnvironmentUnfitError: it cannot be written; also where the run's folder is a link to another place.
    """
    run = results.run(run_id)
    if run.path.is_symlink():
        raise cannot_write(run.path, OSError(errno.ELOOP, "it is a symbolic link"))
    content = {"run_id": run_id, "schema": SCHEMA_VERSION, "config": config.model_dump(mode="json")}
    if read_json(run.config) == content:
        return
    with without_the_lock(run, run.path):
        write_json(run.config, content)
