"""A scheduler that shows what a test says, and a results folder as jobs of it leave it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from itopctl.dispatch.scheduler import Cluster, SchedulerError, SeenJob
from itopctl.store import submissions
from itopctl.store.database import Store
from itopctl.store.files import write_json
from itopctl.store.journal import JournalWriter
from itopctl.store.rundir import Results, RunDirectory
from itopctl.store.submissions import Submission
from tests.store import builders
from tests.store.builders import Lab

JOB, NODE = "77_0", "node1"
"""The job of a submission with one, and where it runs."""


@dataclass
class ToldScheduler:
    """What it is told is what it shows.

    Attributes:
        shown: jobs in its queue.
        kept: jobs in its accounts.
        keeps_accounts: whether the cluster has any.
        queue_fails, accounts_fail: whether asking is an error.
        refuses: jobs that it does not end, with its answer.
        asked: methods that were called.
    """

    shown: Sequence[SeenJob] = ()
    kept: Sequence[SeenJob] = ()
    keeps_accounts: bool = True
    queue_fails: bool = False
    accounts_fail: bool = False
    refuses: Mapping[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def cluster(self) -> Cluster:
        return Cluster("c", "u", 1001, self.keeps_accounts)

    def queue(self, names: Sequence[str]) -> list[SeenJob]:
        self.asked.append("queue")
        if self.queue_fails:
            raise SchedulerError("the queue is down.")
        return [job for job in self.shown if job.name in names]

    def accounts(self, names: Sequence[str], days: int) -> list[SeenJob]:
        self.asked.append("accounts")
        if self.accounts_fail:
            raise SchedulerError("the accounts are down.")
        return [job for job in self.kept if job.name in names]

    def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
        self.asked.append(f"cancel {' '.join(job_ids)}")
        refused = {job_id: why for job_id, why in self.refuses.items() if job_id in job_ids}
        self.shown = [job for job in self.shown if f"{job.array_id}_{job.index}" not in {*job_ids} - {*refused}]
        return refused


def lab_at(path: Path) -> Lab:
    """An empty results folder, with a database that no disk has to keep up with."""
    results = Results(path)
    results.runs.mkdir(parents=True, exist_ok=True)
    return Lab(results, Store("sqlite://"))


def made_anew(lab: Lab) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of a database made from the folders alone."""
    fresh = lab_at(lab.results.path)
    fresh.ingest()
    return fresh.everything()


def seen(word: str, name: str = "one-x", index: int = 0, array_id: str = "77", exit_code: str | None = None) -> SeenJob:
    """A job as the scheduler shows it."""
    return SeenJob(name, array_id, index, word, None, exit_code)


def known(submission: Submission, index: int = 0, **state: object) -> Submission:
    """The same submission, of which something was known before."""
    changed = submission.with_job(index, **state)
    submissions.save(changed)
    return changed


def unrecorded(submission: Submission) -> Submission:
    """The same submission, whose submitter died before it knew the id."""
    changed = replace(submission, state=replace(submission.state, job_id=None))
    submissions.save(changed)
    return changed


def begins(lab: Lab, id_: str, job: str = JOB, lock: bool = True) -> tuple[RunDirectory, JournalWriter]:
    """An attempt of a job at a node, which holds the run's lock."""
    run = lab.folder(id_)
    journal = JournalWriter(run.journal)
    journal.write("started", {**builders.STARTED, "scheduler": "slurm", "job_id": job, "host": NODE, "pid": 4})
    journal.write("evaluated", builders.evaluated(1))
    if lock:
        write_json(run.lock, {"host": NODE, "pid": 4, "start": "1", "job_id": f"slurm:c:{job}", "job_start": 0})
    return run, journal


def fails(lab: Lab, id_: str, cause: str, job: str = JOB, message: str = "as it said itself") -> RunDirectory:
    """An attempt of a job that says itself how it ended."""
    run, journal = begins(lab, id_, job, lock=False)
    journal.write("failed", {"step": 40, "epoch": 2.0, "cause": cause, "message": message})
    journal.close()
    return run


def finishes(lab: Lab, id_: str, job: str = JOB, said: bool = True) -> RunDirectory:
    """An attempt with a result; not `said`: its process died right after it wrote it."""
    run, journal = begins(lab, id_, job, lock=not said)
    write_json(run.result, {"run_id": id_, **builders.result()})
    if said:
        journal.write("finished", {"step": 80, "epoch": 4, "cause": "finished"})
    journal.close()
    return run


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file of a results folder but the database, with its bytes."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "itop.db")
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@contextlib.contextmanager
def nothing_changes(folder: Path) -> Iterator[None]:
    """Every file stays as it is."""
    before = files_of(folder)
    yield
    assert files_of(folder) == before


def causes_in(run: RunDirectory) -> list[str | None]:
    """Causes of the ends in a run's journal."""
    events = [json.loads(line) for line in run.journal.read_text().splitlines()]
    return [event["cause"] for event in events if event["event"] in ("failed", "finished")]


def on_local_disk(monkeypatch: pytest.MonkeyPatch, shared: bool = False) -> None:
    """What jobs write is seen at once; `shared`: or may be seen late."""
    monkeypatch.setattr("itopctl.dispatch.reconcile.is_shared", lambda path: shared)
