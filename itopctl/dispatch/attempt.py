"""One attempt at one run, whoever asked for it: all that happens is in the run's directory.

The worker process of the local pool and of a scheduler's job is `worker.py`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from itopctl.dispatch.causes import STOPPED, Cause, cause_of_exception
from itopctl.dispatch.endings import close_forgotten_attempt
from itopctl.errors import EnvironmentUnfitError, ItopctlError
from itopctl.spec.config import RunConfig
from itopctl.spec.identity import run_id
from itopctl.store.journal import JournalWriter, utc_now
from itopctl.store.rundir import (
    RunDirectory,
    RunLockedError,
    locked,
    read_json,
    remove_leftovers,
    replacing,
    write_json,
)

_JOURNAL_PROGRESS_SECONDS = 10.0
_CANCEL_SECONDS = 2.0

Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """Who runs this, for the record of the attempt.

    Attributes:
        scheduler: `local` or the scheduler's name.
        job_id, cluster: the scheduler's job, and where; None where there is no scheduler.
        start: how many times the scheduler has started that job before.
        code: `git_commit`, `git_dirty` and `code` (a digest) of what runs, and `submitted_code` where it differs.
        rank: `index`, `count` and `local` of `itopctl.train.ranks.Rank`, where several processes train a run together.
    """

    scheduler: str = "local"
    job_id: str | None = None
    cluster: str | None = None
    start: int = 0
    code: dict[str, Any] = field(default_factory=dict)
    rank: dict[str, Any] | None = None

    @property
    def lock_id(self) -> str | None:
        """What makes the job unique."""
        return None if self.job_id is None else f"{self.scheduler}:{self.cluster}:{self.job_id}"


Stop = tuple[Cause, str]
"""Why a training is to stop."""

CANCELLED: Stop = ("cancelled", "cancelled on request")


@dataclass(frozen=True)
class Ended:
    """How an attempt ended.

    Attributes:
        state: `done`, `failed`, `cancelled` or `elsewhere` (another process has the run).
        cause, message: why.
        alone: whether a failure says nothing about other runs (a training that diverged).
    """

    state: str
    cause: Cause | None = None
    message: str | None = None
    alone: bool = False


def execute(
    run: RunDirectory,
    data_dir: Path,
    job: Job,
    asked_to_stop: Callable[[], Stop | None],
    notify: Notify = lambda event: None,
    rank: Any = None,
    before_training: Callable[[dict[str, Any] | None], None] = lambda state: None,
    blame: Callable[[], tuple[Cause, str] | None] = lambda: None,
) -> Ended:
    """Make one attempt at a run, from its newest checkpoint if it has one; all that happens is in its directory.

    Args:
        run: its directory, with a `config.json`.
        data_dir: where data sets lie.
        job: who runs it.
        asked_to_stop: asked after every step; the run stops where there is a reason.
        notify: gets a copy of every event.
        rank: this process's, where several train together.
        before_training: called with the state to go on from, when all is ready.
        blame: asked for the true cause of an error, which may lie in another process.
    """
    try:
        with locked(run, job.lock_id, job.start) as still_locked:
            if read_json(run.result) is not None:
                run.checkpoint.unlink(missing_ok=True)
                return Ended("done", "finished")
            if run.cancel.exists():
                return Ended("cancelled", *CANCELLED)
            remove_leftovers(run)
            with output_to(run.log):
                guarded = _Guarded(run, still_locked)
                make = _Maker(guarded, data_dir, rank, before_training, blame)
                return _attempt(guarded, make, job, _or_cancelled(run, asked_to_stop), notify)
    except RunLockedError as error:
        return Ended("elsewhere", message=str(error))
    except (ItopctlError, OSError) as error:  # its directory cannot be used: there is no journal to say so in
        return Ended("failed", "environment", one_line(error))


class _Guarded:
    """A run's files as long as they are this process's to write."""

    def __init__(self, run: RunDirectory, still_locked: Callable[[], bool]) -> None:
        self.run, self.still_locked = run, still_locked

    def check(self) -> None:
        """Raise RunLockedError where somebody else has the run by now."""
        if not self.still_locked():
            raise RunLockedError(f"run {self.run.run_id} was given to another process while this one was at it.")

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        self.check()
        _save_checkpoint(self.run, state)

    def write_result(self, result: dict[str, Any]) -> None:
        self.check()
        write_json(self.run.result, result)


def _or_cancelled(run: RunDirectory, asked_to_stop: Callable[[], Stop | None]) -> Callable[[], Stop | None]:
    """Also stops where somebody asks for this run's end; looked up every other second."""
    looked_at = 0.0

    def why() -> Stop | None:
        nonlocal looked_at
        asked = asked_to_stop()
        if asked is not None:
            return CANCELLED if run.cancel.exists() else asked
        if time.monotonic() - looked_at >= _CANCEL_SECONDS:
            looked_at = time.monotonic()
            asked = CANCELLED if run.cancel.exists() else None
        return asked

    return why


def _attempt(
    guarded: _Guarded, make: _Maker, job: Job, asked_to_stop: Callable[[], Stop | None], notify: Notify
) -> Ended:
    from itopctl.train.loop import TrainingDivergedError, TrainingStoppedError

    run = guarded.run
    close_forgotten_attempt(run, job.job_id)
    journal = JournalWriter(run.journal)
    record = _Recorder(guarded, journal, job, notify)
    print(f"{utc_now()} attempt {journal.attempt} of run {run.run_id}", flush=True)
    try:
        config = load_config(run)
        state = _read_checkpoint(run)
        record.started(config, state)
        result = make.training(config, state, record, lambda: asked_to_stop() is not None)
        told = {"run_id": run.run_id, "attempt": journal.attempt, "finished_at": utc_now()}
        guarded.write_result({**told, **result})
        with contextlib.suppress(OSError):  # the result is there: nothing that follows can take the success away
            record("finished", {"step": result["steps"], "epoch": result["epochs"], "cause": "finished"})
            run.checkpoint.unlink(missing_ok=True)
        return Ended("done", "finished")
    except TrainingStoppedError as error:
        cause, why = asked_to_stop() or ("cancelled", "")
        return record.failed(cause, f"{why}, {error}" if why else str(error), error.step)
    except RunLockedError as error:  # the journal is another's
        print(f"{utc_now()} {error}", flush=True)
        return Ended("elsewhere", message=str(error))
    except TrainingDivergedError as error:
        return replace(record.failed("user-error", str(error), error.step), alone=True)
    except ItopctlError as error:
        return record.failed(cause_of_exception(error), str(error))
    except BaseException as error:  # the user's code may raise anything, SystemExit and KeyboardInterrupt included
        traceback.print_exc()
        return record.failed(*(make.blame() or (cause_of_exception(error), one_line(error))))
    finally:
        journal.close()


@dataclass(frozen=True)
class _Maker:
    """What a training needs beside its config; see `execute`."""

    guarded: _Guarded
    data_dir: Path
    rank: Any
    before_training: Callable[[dict[str, Any] | None], None]
    blame: Callable[[], tuple[Cause, str] | None]

    def training(
        self, config: RunConfig, state: dict[str, Any] | None, record: _Recorder, should_stop: Callable[[], bool]
    ) -> dict[str, Any]:
        """Train from a checkpoint's state, or from the start; returns the result."""
        from itopctl.train.loop import Training
        from itopctl.train.measure import environment
        from itopctl.train.ranks import ALONE

        self.before_training(state)
        save, rank = self.guarded.save_checkpoint, self.rank or ALONE
        training = Training(config, self.data_dir, record, should_stop, save, rank)
        write_json(self.guarded.run.environment, {**environment(training.device), **record.job.code})
        if state is not None:
            training.load_state_dict(state)
        return training.run()


class _Recorder:
    """Events of an attempt: into the journal, the log and the pool's display."""

    def __init__(self, guarded: _Guarded, journal: JournalWriter, job: Job, notify: Notify) -> None:
        self.guarded, self.journal, self.job, self.notify = guarded, journal, job, notify
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or None
        self.position: dict[str, Any] = {"step": 0, "epoch": 0.0}
        self.last_progress = 0.0
        self.steps_per_epoch = 1

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.position = {"step": fields["step"], "epoch": fields["epoch"]}
        if event != "progress" or self._progress_due():
            self.guarded.check()
            self.journal.write(event, fields)
        line = log_line(event, fields)
        if line:
            print(line, flush=True)
        self.notify({"event": event, "run_id": self.guarded.run.run_id, **fields})

    def started(self, config: RunConfig, state: dict[str, Any] | None) -> None:
        """Say who begins what, and from which step, before anything that may take long or fail."""
        step = int(state["progress"]["step"]) if state is not None else 0
        self.steps_per_epoch = config.steps_per_epoch
        self("started", {
            "step": step, "epoch": round(step / config.steps_per_epoch, 6), "total_steps": config.total_steps,
            "total_epochs": config.total_epochs, "steps_per_epoch": config.steps_per_epoch,
            "scheduler": self.job.scheduler, "job_id": self.job.job_id, "host": socket.gethostname(),
            "pid": os.getpid(), "threads": self.threads, **self.job.code,
        })  # fmt: skip

    def failed(self, cause: Cause, message: str, step: int | None = None) -> Ended:
        """Write the end of the attempt; `step` where it is known better than by the last event."""
        at = self.position if step is None else {"step": step, "epoch": round(step / self.steps_per_epoch, 6)}
        self("failed", {**at, "cause": cause, "message": message})
        return Ended("cancelled" if cause in STOPPED else "failed", cause, message)

    def _progress_due(self) -> bool:
        due = time.monotonic() - self.last_progress >= _JOURNAL_PROGRESS_SECONDS
        if due:
            self.last_progress = time.monotonic()
        return due


def log_line(event: str, fields: dict[str, Any]) -> str | None:
    """An event as a line of the run's log; None for those that are not worth one."""

    def percent(name: str) -> str:
        value = fields.get(name)
        return "-" if value is None else f"{100 * value:.2f} %"

    if event == "started":
        return f"{fields['total_steps']} steps, {fields['total_epochs']} epochs, from step {fields['step']}"
    if event == "progress" and "maskable" in fields:
        weights = f"{fields['maskable']:,} maskable weights at density {fields['density']:.4g}"
        return f"training on {fields['device']}: {weights}"
    if event == "checkpoint":
        return f"checkpoint after step {fields['step']}"
    if event == "evaluated":
        return (
            f"epoch {fields['epoch']:g}  step {fields['step']}  loss {fields['train_loss']:.4f}  "
            f"validation {percent('validation_accuracy')}  test {percent('test_accuracy')}  "
            f"R_s {fields['exploration_rate']:.4f}"
        )
    if event == "topology":
        return (
            f"step {fields['step']}: topology update, ζ {fields['drop_fraction']:.4f}, {fields['replaced']} replaced, "
            f"{fields['new']} explored for the first time, R_s {fields['exploration_rate']:.4f}"
        )
    if event == "finished":
        return f"finished after {fields['step']} steps"
    if event == "failed":
        return f"ended: {fields['cause']}: {fields['message']}"
    return None


def load_config(run: RunDirectory) -> RunConfig:
    """The run's config; its identity must be the directory's name."""
    stored = read_json(run.config)
    if stored is None:
        raise ValueError(f"{run.config} is missing or not whole")
    config = RunConfig.model_validate(stored["config"])
    if run_id(config) != run.run_id:
        raise ValueError(f"{run.config} describes run {run_id(config)}, not {run.run_id}")
    return config


def _save_checkpoint(run: RunDirectory, state: dict[str, Any]) -> None:
    import torch

    with replacing(run.checkpoint) as aside:
        try:
            torch.save(state, aside)
        except RuntimeError as error:  # how PyTorch says that the disk is full
            raise EnvironmentUnfitError(f"{run.checkpoint} cannot be written: {one_line(error)}.") from error


def _read_checkpoint(run: RunDirectory) -> dict[str, Any] | None:
    """The state to go on from; None where there is no checkpoint, or none that can be read (it is set aside)."""
    import torch

    if not run.checkpoint.exists():
        return None
    try:
        state: dict[str, Any] = torch.load(run.checkpoint, map_location="cpu", weights_only=True)
        int(state["progress"]["step"])
    except Exception as error:
        aside = run.checkpoint.with_suffix(".damaged.pt")
        run.checkpoint.replace(aside)
        print(f"{run.checkpoint.name} cannot be read ({one_line(error)}); set aside as {aside.name}", flush=True)
        return None
    return state


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send what the process prints, C code included, to the end of a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, was in zip((1, 2), saved, strict=True):
            os.dup2(was, number)
            os.close(was)
        os.close(handle)
