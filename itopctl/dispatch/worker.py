"""One process that trains run after run: torch is imported once. Used by the local pool, and by jobs of a scheduler.

Started as `python -m itopctl.dispatch.worker REPORT_FD THREADS`. Commands come as JSON lines on standard input:
`{"run": path of a run directory, "data_dir": …}`, or `{"stop": true}`: stop after the current step. The end of the
input means stop, too, so no worker outlives its pool. Reports go as JSON lines to the file descriptor:
`{"ready": …}`, events of the run, and `{"ended": …}`. What the training prints goes to the run's log.
"""

from __future__ import annotations

import contextlib
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itopctl.dispatch.causes import Cause, cause_of_exception
from itopctl.errors import ItopctlError
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
    """How an attempt ended: state `done`, `failed`, `cancelled` or `elsewhere` (another process has the run)."""

    state: str
    cause: Cause | None = None
    message: str | None = None


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
                return Ended("done", "finished")
            remove_leftovers(run)
            with _output_to(run.log):
                return _attempt(run, data_dir, job, should_stop, notify)
    except RunLockedError as error:
        return Ended("elsewhere", message=str(error))


def _attempt(run: RunDirectory, data_dir: Path, job: Job, should_stop: Callable[[], bool], notify: Notify) -> Ended:
    from itopctl.train.loop import Training, TrainingDivergedError, TrainingStoppedError

    journal = JournalWriter(run.journal)
    record = _Recorder(run, journal, job, notify)
    print(f"{utc_now()} attempt {journal.attempt} of run {run.run_id}", flush=True)
    try:
        config = load_config(run)
        training = Training(config, data_dir, record, should_stop, lambda state: _save_checkpoint(run, state))
        _write_environment(run, training.device)
        _load_checkpoint(run, training)
        result = training.run()
        write_json(run.result, {"run_id": run.run_id, "attempt": journal.attempt, "finished_at": utc_now(), **result})
        record("finished", {"step": result["steps"], "epoch": result["epochs"], "cause": "finished"})
        run.checkpoint.unlink(missing_ok=True)
        return Ended("done", "finished")
    except TrainingStoppedError as error:
        return record.failed("cancelled", str(error))
    except TrainingDivergedError as error:
        return record.failed("user-error", str(error))
    except ItopctlError as error:
        return record.failed(cause_of_exception(error), str(error))
    except Exception as error:
        traceback.print_exc()
        return record.failed(cause_of_exception(error), _one_line(error))
    finally:
        journal.close()


class _Recorder:
    """Events of an attempt: into the journal, the log and the pool's display."""

    def __init__(self, run: RunDirectory, journal: JournalWriter, job: Job, notify: Notify) -> None:
        self.run, self.journal, self.job, self.notify = run, journal, job, notify
        self.position: dict[str, Any] = {"step": 0, "epoch": 0.0}
        self.last_progress = time.monotonic()

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.position = {"step": fields["step"], "epoch": fields["epoch"]}
        if event == "started":
            fields = {
                **fields, "scheduler": self.job.scheduler, "job_id": self.job.job_id,
                "host": socket.gethostname(), "pid": os.getpid(),
            }  # fmt: skip
        if event != "progress" or self._progress_due():
            self.journal.write(event, fields)
        line = log_line(event, fields)
        if line:
            print(line, flush=True)
        self.notify({"event": event, "run_id": self.run.run_id, **fields})

    def failed(self, cause: Cause, message: str) -> Ended:
        self("failed", {**self.position, "cause": cause, "message": message})
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
        return (
            f"training on {fields['device']}: {fields['total_steps']} steps, {fields['total_epochs']} epochs, "
            f"{fields['maskable']:,} maskable weights at density {fields['density']:.4g}, from step {fields['step']}"
        )
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
        torch.save(state, aside)


def _load_checkpoint(run: RunDirectory, training: Any) -> None:
    import torch

    if run.checkpoint.exists():
        training.load_state_dict(torch.load(run.checkpoint, map_location="cpu", weights_only=True))


def _write_environment(run: RunDirectory, device: Any) -> None:
    from itopctl.train.measure import environment

    write_json(run.environment, environment(device))


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
    stop = threading.Event()
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(commands, stop), daemon=True).start()

    from itopctl.train.loop import be_deterministic

    be_deterministic(threads)
    _report(report_fd, {"ready": os.getpid()})
    while (command := commands.get()) is not None and not stop.is_set():
        run = RunDirectory(Path(command["run"]))
        job = Job("local", None, threads)
        ended = execute(run, Path(command["data_dir"]), job, stop.is_set, lambda event: _report(report_fd, event))
        _report(report_fd, {"ended": run.run_id, **ended.__dict__})


def _listen(commands: queue.Queue[dict[str, Any] | None], stop: threading.Event) -> None:
    for line in sys.stdin:
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
