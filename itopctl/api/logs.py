"""What runs and their jobs print: where it is, and whether more may come."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from itopctl.errors import EnvironmentUnfitError

if TYPE_CHECKING:
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results, RunDirectory
    from itopctl.store.submissions import Submission


def not_started(store: Store, run: RunDirectory) -> EnvironmentUnfitError:
    """The error to raise where a run has no log yet, with what it waits for."""
    from itopctl.store.queries import run_details

    details = run_details(store, run.run_id)
    why = f" It waits: {details['message']}." if details["state"] == "pending" and details["message"] else ""
    if not why and details["job_id"]:
        why = " `itopctl logs --job` shows what its job printed."
    return EnvironmentUnfitError(f"run {run.run_id} has not started yet: there is no log.{why}")


def may_begin(folder: Results, run: RunDirectory) -> bool:
    """Whether a process is at the run, or some job waits to be."""
    from itopctl.dispatch.lost_attempts import has_given_up
    from itopctl.store.locks import is_held
    from itopctl.store.submissions import claimed_runs, live_submissions

    if run.result.exists():
        return False
    if is_held(run):
        return True
    if run.run_id not in claimed_runs(live_submissions(folder)):
        return False
    submission = newest_submission(folder, run.run_id)
    return submission is None or not has_given_up(run, submission.id_of(submission.index_of(run.run_id)))


def newest_submission(folder: Results, run_id: str) -> Submission | None:
    """The last submission that has a run."""
    from itopctl.store.submissions import directories, load

    found = [one for one in map(load, directories(folder)) if one is not None and run_id in one.request.runs]
    return max(found, key=lambda one: one.request.created_at, default=None)


def job_outputs(folder: Results, run_id: str) -> list[Path]:
    """Files with what the job of a run printed outside of runs, in all its attempts.

    Raises:
        EnvironmentUnfitError: there is no job, or nothing that it printed.
    """
    submission = newest_submission(folder, run_id)
    if submission is None:
        raise EnvironmentUnfitError(f"run {run_id} was never submitted to a cluster.")
    index = submission.index_of(run_id)
    outputs: list[Path] = submission.directory.outputs(index)
    if folder.run(run_id).result.exists() and not outputs:
        raise EnvironmentUnfitError(f"job {submission.id_of(index)} ended well, and what it printed was removed.")
    if not any(path.lstat().st_size for path in outputs):
        raise EnvironmentUnfitError(f"job {submission.id_of(index)} of run {run_id} has printed nothing yet.")
    return outputs
