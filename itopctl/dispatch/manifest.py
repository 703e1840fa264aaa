"""What a sweep leaves on disk before anything starts: its manifest, and the config of a run about to start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from itopctl.config.identity import SCHEMA_VERSION
from itopctl.config.run_config import RunConfig
from itopctl.config.slurm import SlurmOptions
from itopctl.plan import Plan, PlannedSweep
from itopctl.plan.versions import superseded
from itopctl.store.files import explained, leftovers, make_folder, read_json, remove, write_json
from itopctl.store.journal import utc_now
from itopctl.store.locks import is_held, one_at_a_time, without_the_lock
from itopctl.store.manifests import accepted_in, as_points, points_of
from itopctl.store.rundir import Results
from itopctl.store.submissions import claimed_runs, live_submissions

_Stays = Callable[[str, bool], bool]
"""From a run's id, and whether another version of it is planned: whether it stays in its sweep."""


class SweepRecords:
    """The manifests of the sweeps of one command, kept right while other commands write them, too.

    Args:
        results: the results folder.
        plan: the command's plan.
        cluster: where it runs them, `local` or `slurm`.
        slurm: sweep → what its jobs ask for, where that is more than the spec says.
    """

    def __init__(
        self, results: Results, plan: Plan, cluster: str = "local", slurm: Mapping[str, SlurmOptions] | None = None
    ) -> None:
        self.results, self.plan = results, plan
        self.cluster, self.slurm = cluster, slurm or {}
        self._written: dict[str, int] = {}

    def write(self) -> None:
        """Write every manifest. Runs that an earlier command gave a sweep stay in it if they were ever started.

        But unfinished ones by an earlier version of the user's own code, in whose place others are planned, leave it.
        """
        claimed = claimed_runs(live_submissions(self.results))

        def stays(run_id: str, replaced: bool) -> bool:
            run = self.results.run(run_id)
            started = run.result.exists() or is_held(run) if replaced else run.path.is_dir()
            return run_id in claimed or started

        for planned in self.plan.sweeps:
            self._write(planned, stays)

    def keep(self) -> None:
        """Put this command's runs back where another command wrote a manifest since, and take none of its out."""
        for planned in self.plan.sweeps:
            if self._written.get(planned.spec.name) != _changed_at(self.results.manifest(planned.spec.name)):
                self._write(planned, lambda run_id, replaced: True)

    def _write(self, planned: PlannedSweep, stays: _Stays) -> None:
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

    def _manifest(self, planned: PlannedSweep, earlier: dict[str, Any], stays: _Stays) -> dict[str, Any]:
        spec = planned.spec
        now = utc_now()
        runs = {run_id: config.model_dump(mode="json") for run_id, config in planned.expansion.runs.items()}
        others = {run_id: config for run_id, config in points_of(earlier).items() if run_id not in runs}
        replaced = superseded(planned, others)
        runs.update({run_id: config for run_id, config in others.items() if stays(run_id, run_id in replaced)})
        created_at = earlier.get("created_at")
        accepted = _together(accepted_in(earlier.get("specs")), planned.accepted)
        written: dict[str, Any] = {"path": spec.document.source, "text": spec.text, "set": list(planned.overrides)}
        return {
            "sweep": spec.name,
            "description": spec.description,
            "specs": [written | ({"accepted_code": accepted} if accepted else {})],
            "cluster": self.cluster,
            "slurm": self.slurm.get(spec.name, spec.slurm).model_dump(exclude_none=True),
            "created_at": created_at if isinstance(created_at, str) else now,
            "updated_at": now,
            "runs": as_points(runs),
        }


def _together(*accepted: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    modules = sorted({module for one in accepted for module in one})
    return {module: sorted({v for one in accepted for v in one.get(module, ())}) for module in modules}


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
    content = {"run_id": run_id, "schema": SCHEMA_VERSION, "config": config.model_dump(mode="json")}
    if read_json(run.config) == content:
        return
    with without_the_lock(run, run.path):
        write_json(run.config, content)
