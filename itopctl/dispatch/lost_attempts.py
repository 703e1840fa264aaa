"""How an attempt ended, where its own process cannot say it any more."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from itopctl.dispatch.causes import Cause
from itopctl.store import GOES_ON
from itopctl.store.files import last_lines
from itopctl.store.journal import LOG_LINES, JournalWriter, attempts_in, open_attempt
from itopctl.store.locks import drop_lock_of_the_dead, lock_holder, one_at_a_time
from itopctl.store.run_update import LOST
from itopctl.store.rundir import RunDirectory


def end_for_the_dead(
    run: RunDirectory, is_theirs: Callable[[dict[str, Any]], bool], cause: Cause, message: str,
    ended_job: str | None = None,
) -> bool:  # fmt: skip
    """Write the end of an attempt whose process is gone, and let go of its lock; whether there was one to end.

    Where it cannot be written, the run counts as lost.

    Args:
        run: its directory.
        is_theirs: tells from the lock, or else from the attempt's first event, whether the attempt was the dead one's.
        cause, message: why it ended.
        ended_job: the lock's name for a job of which the scheduler says that it is over.
    """
    ended = False
    with contextlib.suppress(OSError), one_at_a_time(run.path):  # so that nobody takes it over in the meantime
        owner = lock_holder(run) or open_attempt(run.journal)
        if owner is None or not is_theirs(owner):
            return False  # it had not begun, or was through with it; the journal is nobody's, or another's
        if open_attempt(run.journal) is not None:
            _write_end(run, cause, message)
            ended = True
        drop_lock_of_the_dead(run, ended_job)
    return ended


def has_given_up(run: RunDirectory, job_id: str | None) -> bool:
    """Whether a job has tried a run and, though it may be started again, will not try it any more."""
    own = [attempt for attempt in attempts_in(run.journal) if attempt.job_id == job_id]
    return job_id is not None and bool(own) and own[-1].cause is not None and own[-1].cause not in GOES_ON


def close_forgotten_attempt(run: RunDirectory, job_id: str | None) -> None:
    """End an attempt that reported no end; only for the holder of the run's lock.

    Where a scheduler preempts a job, or its time is up, the job is told and says so itself. What it starts again
    without that was lost with its node.
    """
    left = open_attempt(run.journal)
    if left is None:
        return
    if job_id is None or left.get("job_id") != job_id:
        _write_end(run, "lost", LOST["message"])
        return
    _write_end(run, "node-failure", f"the scheduler started the job again, without a word from {left.get('host')}")


def _write_end(run: RunDirectory, cause: Cause, message: str) -> None:
    journal = JournalWriter(run.journal, continuing=True, reserve=run.reserve)
    try:
        log = last_lines(run.log, LOG_LINES)
        journal.write("failed", {"step": None, "epoch": None, "cause": cause, "message": message, "log": log})
    finally:
        journal.close()
