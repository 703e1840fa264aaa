"""What became of submitted jobs: our records against what the scheduler shows. One look at its queue for all of them.

The scheduler is believed about jobs, never about runs: whether a run succeeded is what its own `result.json` says.
Where a job is over and left a run without a word, its end is written into the run's journal here, with the cause that
the scheduler gives. An error of the scheduler changes nothing.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from itopctl.dispatch.causes import Cause
from itopctl.dispatch.lost_attempts import end_for_the_dead
from itopctl.dispatch.scheduler import Cluster, Scheduler, SchedulerError, SeenJob
from itopctl.dispatch.slurm_states import meaning_of
from itopctl.errors import plural
from itopctl.store.files import last_lines, read_json
from itopctl.store.filesystem import is_shared
from itopctl.store.journal import AttemptInJournal, attempts_in
from itopctl.store.locks import is_alive_here, lock_holder, this_process
from itopctl.store.rundir import Results
from itopctl.store.submissions import Submission, live_submissions, not_over, remove_leftovers, save, submitting

GRACE_SECONDS = 180.0
"""A job that the scheduler does not know is given up after so long."""

SETTLE_SECONDS = 60.0
"""On a shared file system, what a job wrote last may be seen so much later."""

_MEMORY_WORDS = ("oom-kill", "oom_kill", "out of memory", "exceeded memory limit", "exceeded job memory limit")


@dataclass
class News:
    """What a look at the scheduler brought.

    Attributes:
        error: why it could not be asked, or None.
        notes: sentences for a person.
        changed: whether anything is known that was not before.
        live: submissions with jobs that are not over, as known now.
    """

    error: str | None = None
    notes: list[str] = field(default_factory=list)
    changed: bool = False
    live: list[Submission] = field(default_factory=list)


def reconcile(results: Results, scheduler: Scheduler, now: Callable[[], float] = time.time) -> News:
    """Bring the records of submissions up to date, and end what their jobs left open in the journals of runs."""
    live, damaged = not_over(results)
    notes = [f"The record of {name} is damaged; if it has jobs, they are named so." for name in damaged]
    remove_leftovers(results)
    if not live:
        return News(notes=notes)
    with submitting(results):
        live = live_submissions(results)
        try:
            news = _Look(results, scheduler, now()).at(live)
        except SchedulerError as error:
            news = News(error=str(error), live=live)
    news.notes[:0] = notes
    return news


class _Look:
    def __init__(self, results: Results, scheduler: Scheduler, now: float) -> None:
        self.results, self.scheduler, self.now = results, scheduler, now
        self.news = News()
        self.host = socket.gethostname()
        self.accounts_answered = False
        self.held_before: dict[str, dict[str, Any]] = {}
        self.settle_seconds = SETTLE_SECONDS if is_shared(results.path) else 0.0

    def at(self, live: Sequence[Submission]) -> News:
        cluster = self.scheduler.cluster()
        ours = [one for one in live if (one.request.cluster, one.request.user) == (cluster.name, cluster.user)]
        foreign = len(live) - len(ours)
        if foreign:
            self.news.notes.append(
                f"{plural(foreign, 'submission is', 'submissions are')} of another cluster or user; left alone."
            )
        self.held_before = self._locks(ours)
        seen = {(job.name, job.index): job for job in self.scheduler.queue([one.name for one in ours])}
        unseen = [one.name for one in ours if self._asks_for_accounts(one, seen)]
        accounts = self._accounts(cluster, [one for one in ours if one.name in unseen])
        for one in live:
            if one not in ours:
                self.news.live.append(one)
                continue
            after = self._update(one, seen, accounts)
            if after.state != one.state:
                save(after)
                self.news.changed = True
            if not after.state.over:
                self.news.live.append(after)
        return self.news

    def _asks_for_accounts(self, one: Submission, seen: Mapping[tuple[str, int], SeenJob]) -> bool:
        return any((one.name, index) not in seen for index in one.live_jobs)

    def _accounts(self, cluster: Cluster, unseen: Sequence[Submission]) -> dict[tuple[str, int], SeenJob]:
        if not unseen or not cluster.accounts:
            return {}
        oldest = min(one.request.created_at for one in unseen)
        try:
            found = self.scheduler.accounts([one.name for one in unseen], days=_days_since(oldest) + 2)
        except SchedulerError as error:
            self.news.notes.append(f"The accounts could not be asked: {error}")
            return {}
        self.accounts_answered = True
        return {(job.name, job.index): job for job in found}

    # One submission ---------------------------------------------------------------------------------------

    def _update(
        self, one: Submission, seen: Mapping[tuple[str, int], SeenJob], accounts: Mapping[tuple[str, int], SeenJob]
    ) -> Submission:
        jobs = {index: seen.get((one.name, index)) or accounts.get((one.name, index)) for index in one.live_jobs}
        if one.state.job_id is None:
            found = next((job for job in jobs.values() if job is not None), None)
            if found is None:
                return self._not_there(one)
            one = replace(one, state=replace(one.state, job_id=found.array_id))
            self.news.notes.append(f"Jobs named {one.name} were submitted, not recorded; adopted as {found.array_id}.")
        for index, job in jobs.items():
            if job is not None and job.array_id != one.state.job_id:
                job = None  # of our name, and not ours
            one = self._unknown(one, index) if job is None else self._known(one, index, job)
        return one

    def _not_there(self, one: Submission) -> Submission:
        """A submission of which nobody knows whether it reached the scheduler."""
        if one.request.by != this_process() and is_alive_here(one.request.by):
            return one
        if not self._long_enough(one, one.live_jobs[0], GRACE_SECONDS):
            return self._unseen(one, one.live_jobs[0])
        for index in one.live_jobs:
            one = one.with_job(index, phase="ended", message="it was never submitted")
        self.news.notes.append(f"{one.name} never reached the scheduler; its runs are free again.")
        return one

    def _known(self, one: Submission, index: int, job: SeenJob) -> Submission:
        meaning = meaning_of(job.word)
        if meaning is None:
            self.news.notes.append(f"Job {one.id_of(index)} is in a state that itopctl does not know: {job.word}.")
            return one
        if meaning.phase != "ended":
            reason = f"job {one.id_of(index)}: {job.reason}" if job.reason else f"job {one.id_of(index)}"
            if job.word == "PENDING" and (not self.settle_seconds or one.state.jobs[index].phase == "pending"):
                self._end_what_waits_again(one, index)
            return one.with_job(
                index, phase=meaning.phase, word=job.word, reason=reason if meaning.phase == "pending" else None,
                unseen_since=None, unseen_by=None,
            )  # fmt: skip
        if not self._settled(one, index) and not self._long_enough(one, index, self.settle_seconds):
            return self._unseen(one, index)
        return self._end(one, index, job.word, meaning.cause, job.exit_code)

    def _end_what_waits_again(self, one: Submission, index: int) -> None:
        """A job that waits is at no node: what it left open, its node took with it."""
        for run_id in one.request.jobs[index]:
            holder = lock_holder(self.results.run(run_id))
            if holder is not None and holder == self.held_before.get(run_id):  # it may have started since we asked
                self._end_run(one, index, run_id, "node-failure", f"job {one.id_of(index)} waits to be started again")

    def _locks(self, ours: Sequence[Submission]) -> dict[str, dict[str, Any]]:
        """Who held which run before the queue was asked."""
        runs = (run_id for one in ours for run_id in one.live_runs)
        holders = {run_id: lock_holder(self.results.run(run_id)) for run_id in runs}
        return {run_id: holder for run_id, holder in holders.items() if holder is not None}

    def _unknown(self, one: Submission, index: int) -> Submission:
        """A job that the scheduler has forgotten, or never had."""
        if self._settled(one, index):
            return self._end(one, index, "forgotten", None, None)
        if self._called_off(one, index):
            return self._end(one, index, "CANCELLED", "cancelled", None)
        if not self._long_enough(one, index, GRACE_SECONDS):
            return self._unseen(one, index)
        # SLURM keeps no account of a job of an array that was cancelled while it waited; of all others it does.
        began = any(self._attempts(run_id, one.id_of(index)) for run_id in one.request.jobs[index])
        waited = self.accounts_answered and one.state.jobs[index].phase == "pending" and not began
        return self._end(one, index, "forgotten", "cancelled" if waited else "lost", None)

    def _called_off(self, one: Submission, index: int) -> bool:
        """Whether somebody asked for the end of every run of a job that has not ended."""
        runs = [self.results.run(run_id) for run_id in one.request.jobs[index]]
        left = [run for run in runs if not self._has_ended(run.run_id, one.id_of(index))]
        return bool(left) and all(run.cancel.exists() for run in left)

    def _unseen(self, one: Submission, index: int) -> Submission:
        job = one.state.jobs[index]
        if job.unseen_since is not None and job.unseen_by == self.host:
            return one
        return one.with_job(index, unseen_since=self.now, unseen_by=self.host)

    def _long_enough(self, one: Submission, index: int, seconds: float) -> bool:
        """By this host's clock alone: two are never compared."""
        job = one.state.jobs[index]
        if seconds <= 0:
            return True
        return job.unseen_since is not None and job.unseen_by == self.host and self.now - job.unseen_since >= seconds

    # Ends -------------------------------------------------------------------------------------------------

    def _end_run(self, one: Submission, index: int, run_id: str, cause: Cause, message: str) -> None:
        job_id = one.id_of(index)
        lock_id = f"{one.request.scheduler}:{one.request.cluster}:{job_id}"
        end_for_the_dead(
            self.results.run(run_id), lambda owner: owner.get("job_id") in (job_id, lock_id), cause, message, lock_id
        )

    def _settled(self, one: Submission, index: int) -> bool:
        """Whether every run of a job has said itself how it ended."""
        return all(self._has_ended(run_id, one.id_of(index)) for run_id in one.request.jobs[index])

    def _has_ended(self, run_id: str, job_id: str | None) -> bool:
        run = self.results.run(run_id)
        if read_json(run.result) is not None:
            return True
        own = self._attempts(run_id, job_id)
        return bool(own) and own[-1].cause is not None

    def _attempts(self, run_id: str, job_id: str | None) -> list[AttemptInJournal]:
        """What a job has tried of a run."""
        return [one for one in attempts_in(self.results.run(run_id).journal) if one.job_id == job_id]

    def _end(self, one: Submission, index: int, word: str, cause: Cause | None, exit_code: str | None) -> Submission:
        job_id = one.id_of(index)
        output = _complaints(one, index)
        if cause == "killed" and one.directory.last_words(str(job_id)).exists():
            cause = None  # it ended by itself, with what its runs say
        elif cause == "killed" and _tells_of_memory(output):
            cause = "out-of-memory"
        message = f"job {job_id}: {word}" + (f", exit code {exit_code}" if exit_code not in (None, "0:0") else "")
        began = False
        for run_id in one.request.jobs[index]:
            if read_json(self.results.run(run_id).result) is None:
                self._end_run(one, index, run_id, cause or "lost", message)
            began = began or self._has_ended(run_id, job_id)
        if all(read_json(self.results.run(run_id).result) is not None for run_id in one.request.jobs[index]):
            one.directory.remove_outputs(index)
        if cause == "killed" and not began:
            cause, message = "environment", "; ".join([message, *output[-1:]])
        return one.with_job(
            index,
            phase="ended",
            word=word,
            reason=None,
            cause=cause,
            message=message,
            unseen_since=None,
            unseen_by=None,
        )


def _complaints(one: Submission, index: int) -> list[str]:
    """The last things that a job's processes complained of."""
    for path in one.directory.outputs(index):
        if path.suffix == ".err":
            found = [line.strip() for line in last_lines(path, 20) if line.strip()]
            if found:
                return found
    return []


def _tells_of_memory(lines: Sequence[str]) -> bool:
    return any(word in line.lower() for line in lines for word in _MEMORY_WORDS)


def _days_since(stamp: str) -> int:
    try:
        return max(0, (datetime.now(timezone.utc) - datetime.fromisoformat(stamp)).days)
    except (TypeError, ValueError):
        return 30
