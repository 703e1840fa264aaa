"""What was handed to a scheduler, and what is known of it. One folder for each array of jobs submitted together.

RESULTS/submissions/<name>/  request.json · configs.json · state.json · submission.sh · what the jobs print

`request.json` and `configs.json` are written before the scheduler is asked, and never changed: whoever finds a job of
that unique name can adopt it, and the job finds all it needs. `state.json` is what was last known; only commands on
the user's machine write it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from itopctl.store.files import explained, leftovers, make_folder, read_json, remove, write_json
from itopctl.store.locks import is_alive_here, one_at_a_time
from itopctl.store.rundir import Results, is_run_id

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

_reader = functools.cache(TypeAdapter)
_NOTHING_ELSE = ConfigDict(extra="forbid")

JobPhase = Literal["pending", "running", "ended"]


@dataclass(frozen=True)
class SubmissionDirectory:
    """Paths of one submission's files."""

    path: Path

    @property
    def name(self) -> str:
        """Name of its jobs, too; no other submission has it, whoever made it."""
        return self.path.name

    @property
    def results(self) -> Results:
        return Results(self.path.parent.parent)

    @property
    def request(self) -> Path:
        return self.path / "request.json"

    @property
    def configs(self) -> Path:
        return self.path / "configs.json"

    @property
    def state(self) -> Path:
        return self.path / "state.json"

    def last_words(self, job_id: str) -> Path:
        """What a job leaves when it ends by itself."""
        return self.path / f"ended-{job_id}.json"

    def outputs(self, index: int) -> list[Path]:
        """Files with what the processes of a job printed, all attempts."""
        return sorted(self.path.glob(f"*_{index}_*_log.*"))

    def remove_outputs(self, index: int) -> None:
        """Remove them: of a job whose runs are all finished, they tell nothing that the runs' own logs do not."""
        for path in self.outputs(index):
            remove(path)


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        name: of the submission and its jobs.
        sweep: the sweep it was made for.
        scheduler, cluster, user: whose jobs they are, and where.
        jobs: run ids of each job; the position is the job's index in the array.
        data_dir: where data sets lie, absolute.
        options: what the jobs ask of the scheduler.
        throttle: how many may run at one time, or None.
        attempts: run id → attempts at it before, where there were any.
        code: what the jobs run: commit, dirty flag, digest, and the snapshot's folder or None.
        by: the process that submits: host, pid, start.
        created_at: UTC.
    """

    __pydantic_config__: ClassVar = _NOTHING_ELSE

    name: str
    sweep: str
    scheduler: str
    cluster: str
    user: str
    jobs: tuple[tuple[str, ...], ...]
    data_dir: str
    options: dict[str, Any]
    throttle: int | None
    attempts: dict[str, int]
    code: dict[str, Any]
    by: dict[str, Any]
    created_at: str

    @property
    def runs(self) -> list[str]:
        """Every run of every job."""
        return [run_id for job in self.jobs for run_id in job]


@dataclass(frozen=True)
class JobState:
    """What is known of one job.

    Attributes:
        phase: waiting in the scheduler's queue, at a node, or over.
        word: the scheduler's own, such as `PENDING` or `NODE_FAIL`.
        reason: why it waits, by the scheduler.
        cause, message: why it ended; None where it ended by itself.
        unseen_since: seconds since the epoch, by the clock of `unseen_by`, since the scheduler knows nothing of it.
        unseen_by: the host that looked.
    """

    __pydantic_config__: ClassVar = _NOTHING_ELSE

    phase: JobPhase = "pending"
    word: str | None = None
    reason: str | None = None
    cause: str | None = None
    message: str | None = None
    unseen_since: float | None = None
    unseen_by: str | None = None


@dataclass(frozen=True)
class SubmissionState:
    """What is known of a submission: the scheduler's id (None: not known that it has one), and each job's state."""

    job_id: str | None
    jobs: tuple[JobState, ...]

    @property
    def over(self) -> bool:
        """Whether all its jobs are."""
        return all(job.phase == "ended" for job in self.jobs)


@dataclass(frozen=True)
class Submission:
    """A submission with what is known of it."""

    directory: SubmissionDirectory
    request: Request
    state: SubmissionState

    @property
    def name(self) -> str:
        return self.request.name

    def id_of(self, index: int) -> str | None:
        """The scheduler's id of a job."""
        return None if self.state.job_id is None else f"{self.state.job_id}_{index}"

    def index_of(self, run_id: str) -> int:
        """The job that has a run. Raises StopIteration where none has."""
        return next(n for n, runs in enumerate(self.request.jobs) if run_id in runs)

    @property
    def live_jobs(self) -> list[int]:
        """Indices of the jobs that are not over."""
        return [index for index, job in enumerate(self.state.jobs) if job.phase != "ended"]

    @property
    def live_runs(self) -> set[str]:
        """Runs of jobs that are not over."""
        return {run_id for index in self.live_jobs for run_id in self.request.jobs[index]}

    def with_job(self, index: int, **changes: Any) -> Submission:
        """The same with another state of one job."""
        jobs = list(self.state.jobs)
        jobs[index] = replace(jobs[index], **changes)
        return replace(self, state=replace(self.state, jobs=tuple(jobs)))


def record(results: Results, request: Request, configs: Mapping[str, Any]) -> Submission:
    """Write down what is about to be submitted, before it is: the state last, which makes it count."""
    directory = SubmissionDirectory(results.submissions / request.name)
    write_json(directory.configs, dict(configs))
    write_json(directory.request, asdict(request))
    submission = Submission(directory, request, SubmissionState(None, tuple(JobState() for _ in request.jobs)))
    save(submission)
    return submission


def save(submission: Submission) -> None:
    """Write what is known of a submission."""
    state = submission.state
    known = [{name: value for name, value in asdict(job).items() if value is not None} for job in state.jobs]
    write_json(submission.directory.state, {"job_id": state.job_id, "over": state.over, "jobs": known})


def load(directory: SubmissionDirectory) -> Submission | None:
    """A recorded submission; None where there is none, or none that is whole."""
    try:
        asked = load_request(directory)
        known = _reader(SubmissionState).validate_python(read_json(directory.state))
    except ValueError:
        return None
    return Submission(directory, asked, known) if len(known.jobs) == len(asked.jobs) else None


def load_request(directory: SubmissionDirectory) -> Request:
    """What was asked for. Raises ValueError where it is missing or not whole."""
    request = read_json(directory.request)
    if request is None or request.get("name") != directory.name:
        raise ValueError(f"{directory.request} is missing or not whole")
    try:
        asked = _reader(Request).validate_python(request)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{directory.request} is not whole: {first['loc'][0]}: {first['msg']}") from error
    if not all(map(is_run_id, asked.runs)):
        raise ValueError(f"{directory.request} is not whole: a run's id is none")
    return asked


def directories(results: Results) -> list[SubmissionDirectory]:
    """Every recorded submission, by name."""
    try:
        with os.scandir(results.submissions) as entries:
            names = sorted(entry.name for entry in entries if NAME.fullmatch(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []
    return [SubmissionDirectory(results.submissions / name) for name in names]


def not_over(results: Results) -> tuple[list[Submission], list[str]]:
    """Submissions that are not known to be over, oldest first; and names of those whose record is not whole."""
    whole, damaged = [], []
    for directory in directories(results):
        if (read_json(directory.state) or {}).get("over"):
            continue
        recorded = directory.state.exists()  # else it is about to be, or never was
        submission = load(directory)
        if submission is not None:
            whole.append(submission)
        elif recorded:
            damaged.append(directory.name)
    return sorted(whole, key=lambda submission: submission.request.created_at), damaged


def live_submissions(results: Results) -> list[Submission]:
    """Submissions with jobs that are not known to be over, oldest first."""
    return not_over(results)[0]


_UNRECORDED_SECONDS = 86_400.0


def remove_leftovers(results: Results) -> None:
    """Remove what commands that were killed while they recorded a submission left.

    What has no state was never handed to a scheduler.
    """
    found = [(one, [left for path in (one.state, one.request, one.configs) for left in leftovers(path)])
             for one in directories(results)]  # fmt: skip
    if all(one.state.exists() and not left for one, left in found):
        return
    with submitting(results):  # nobody writes them now
        for one, left in found:
            for path in left:
                with contextlib.suppress(OSError):
                    remove(path)
            if not one.state.exists() and _is_forgotten(one):
                shutil.rmtree(one.path, ignore_errors=True)


def _is_forgotten(directory: SubmissionDirectory) -> bool:
    """Whether who began to record a submission is gone; of another host that is believed after a day."""
    by = (read_json(directory.request) or {}).get("by")
    if isinstance(by, dict) and by.get("host") == socket.gethostname():
        return not is_alive_here(by)
    try:
        return time.time() - directory.path.stat().st_mtime > _UNRECORDED_SECONDS
    except OSError:
        return False


@contextlib.contextmanager
def submitting(results: Results) -> Iterator[None]:
    """Be the only process of this host that decides what to submit, or what became of it."""
    with explained(results.submissions):
        make_folder(results.submissions)
    with one_at_a_time(results.submissions):
        yield


def claimed_runs(submissions: Sequence[Submission]) -> dict[str, Submission]:
    """Run id → the submission that has it among its live jobs."""
    return {run_id: submission for submission in submissions for run_id in submission.live_runs}
