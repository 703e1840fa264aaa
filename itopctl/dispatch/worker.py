"""One process that trains run after run: torch is imported once. Used by the local pool, and by jobs of a scheduler.

Started as `python -m itopctl.dispatch.worker REPORT_FD THREADS`. Commands come as JSON lines on standard input:
`{"run": path of a run directory, "data_dir": …}`, or `{"stop": true}`: stop after the current step. The end of the
input means stop, too, so no worker outlives its pool. Reports go as JSON lines to the file descriptor:
`{"ready": …}`, events of the run, and `{"ended": …}`. What the training prints goes to the run's log.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from itopctl.dispatch.causes import Cause, cause_of_exception
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

Notify = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Job:
    """Who runs this, for the record of the attempt."""

    scheduler: str
    job_id: str | None
    threads: int


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
    should_stop: Callable[[], bool],
    notify: Notify = lambda event: None,
) -> Ended:
    """Make one attempt at a run, from its newest checkpoint if it has one; all that happens is in its directory.

    Args:
        run: its directory, with a `config.json`.
        data_dir: where data sets lie.
        job: who runs it.
        should_stop: asked after every step.
        notify: gets a copy of every event.
    """
    try:
        with locked(run):
            if read_json(run.result) is not None:
                run.checkpoint.unlink(missing_ok=True)
                return Ended("done", "finished")
            remove_leftovers(run)
            with _output_to(run.log):
                return _attempt(run, data_dir, job, should_stop, notify)
    except RunLockedError as error:
        return Ended("elsewhere", message=str(error))
    except (ItopctlError, OSError) as error:  # its directory cannot be used: there is no journal to say so in
        return Ended("failed", "environment", _one_line(error))


def _attempt(run: RunDirectory, data_dir: Path, job: Job, should_stop: Callable[[], bool], notify: Notify) -> Ended:
    from itopctl.train.loop import TrainingDivergedError, TrainingStoppedError

    journal = JournalWriter(run.journal)
    record = _Recorder(run, journal, job, notify)
    print(f"{utc_now()} attempt {journal.attempt} of run {run.run_id}", flush=True)
    try:
        config = load_config(run)
        state = _read_checkpoint(run)
        record.started(config, state)
        result = _train(run, config, state, data_dir, record, should_stop)
        write_json(run.result, {"run_id": run.run_id, "attempt": journal.attempt, "finished_at": utc_now(), **result})
        with contextlib.suppress(OSError):  # the result is there: nothing that follows can take the success away
            record("finished", {"step": result["steps"], "epoch": result["epochs"], "cause": "finished"})
            run.checkpoint.unlink(missing_ok=True)
        return Ended("done", "finished")
    except TrainingStoppedError as error:
        return record.failed("cancelled", str(error), error.step)
    except TrainingDivergedError as error:
        return replace(record.failed("user-error", str(error), error.step), alone=True)
    except ItopctlError as error:
        return record.failed(cause_of_exception(error), str(error))
    except BaseException as error:  # the user's code may raise anything, SystemExit and KeyboardInterrupt included
        traceback.print_exc()
        return record.failed(cause_of_exception(error), _one_line(error))
    finally:
        journal.close()


def _train(
    run: RunDirectory,
    config: RunConfig,
    state: dict[str, Any] | None,
    data_dir: Path,
    record: _Recorder,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Train from a checkpoint's state, or from the start; returns the result."""
    from itopctl.train.loop import Training
    from itopctl.train.measure import environment

    training = Training(config, data_dir, record, should_stop, lambda saved: _save_checkpoint(run, saved))
    write_json(run.environment, environment(training.device))
    if state is not None:
        training.load_state_dict(state)
    return training.run()


class _Recorder:
    """Events of an attempt: into the journal, the log and the pool's display."""

    def __init__(self, run: RunDirectory, journal: JournalWriter, job: Job, notify: Notify) -> None:
        self.run, self.journal, self.job, self.notify = run, journal, job, notify
        self.position: dict[str, Any] = {"step": 0, "epoch": 0.0}
        self.last_progress = 0.0
        self.steps_per_epoch = 1

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.position = {"step": fields["step"], "epoch": fields["epoch"]}
        if event != "progress" or self._progress_due():
            self.journal.write(event, fields)
        line = log_line(event, fields)
        if line:
            print(line, flush=True)
        self.notify({"event": event, "run_id": self.run.run_id, **fields})

    def started(self, config: RunConfig, state: dict[str, Any] | None) -> None:
        """Say who begins what, and from which step, before anything that may take long or fail."""
        step = int(state["progress"]["step"]) if state is not None else 0
        self.steps_per_epoch = config.steps_per_epoch
        self("started", {
            "step": step, "epoch": round(step / config.steps_per_epoch, 6), "total_steps": config.total_steps,
            "total_epochs": config.total_epochs, "steps_per_epoch": config.steps_per_epoch,
            "scheduler": self.job.scheduler, "job_id": self.job.job_id, "host": socket.gethostname(),
            "pid": os.getpid(), "threads": self.job.threads,
        })  # fmt: skip

    def failed(self, cause: Cause, message: str, step: int | None = None) -> Ended:
        """Write the end of the attempt; `step` where it is known better than by the last event."""
        at = self.position if step is None else {"step": step, "epoch": round(step / self.steps_per_epoch, 6)}
        self("failed", {**at, "cause": cause, "message": message})
        return Ended("cancelled" if cause == "cancelled" else "failed", cause, message)

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
            raise EnvironmentUnfitError(f"{run.checkpoint} cannot be written: {_one_line(error)}.") from error


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
        print(f"{run.checkpoint.name} cannot be read ({_one_line(error)}); set aside as {aside.name}", flush=True)
        return None
    return state


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
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


# The process -------------------------------------------------------------------------------------------------


def main(report_fd: int, threads: int) -> None:
    """Serve commands from standard input until it ends or says stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(report_fd, False)  # or a process that the user's code starts would keep the pool waiting
    stop = threading.Event()
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(_take_over_standard_input(), commands, stop), daemon=True).start()

    import torch

    from itopctl.train.setup import be_deterministic

    be_deterministic(threads)
    _report(report_fd, {"ready": os.getpid(), "gpu": torch.cuda.is_available()})
    while (command := commands.get()) is not None and not stop.is_set():
        run = RunDirectory(Path(command["run"]))
        job = Job("local", None, threads)
        ended = execute(run, Path(command["data_dir"]), job, stop.is_set, lambda event: _report(report_fd, event))
        _report(report_fd, {"ended": run.run_id, **ended.__dict__})
        if torch.cuda.is_available():
            if ended.state == "failed":
                return  # an error may have left the GPU's context unusable: the pool starts another worker
            gc.collect()
            torch.cuda.empty_cache()


def _take_over_standard_input() -> TextIO:
    """The stream of commands; the user's code, and what it starts, reads an empty standard input instead."""
    stream = os.dup(0)  # not inherited by what is started from here
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return os.fdopen(stream)


def _listen(stream: TextIO, commands: queue.Queue[dict[str, Any] | None], stop: threading.Event) -> None:
    for line in stream:
        command = json.loads(line)
        if command.get("stop"):
            break
        commands.put(command)
    stop.set()
    commands.put(None)


def _report(report_fd: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(report_fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
