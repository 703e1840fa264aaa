"""What is said of an attempt: events into the journal, the log and the pool's display."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import itopctl
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.attempt_values import Ended, Job, Notify
from itopctl.dispatch.causes import STOPPED, Cause
from itopctl.dispatch.run_files import RunFiles
from itopctl.errors import plural
from itopctl.store.files import last_lines
from itopctl.store.journal import LOG_LINES, JournalWriter

_JOURNAL_PROGRESS_SECONDS = 10.0
_PACKAGE = f"{Path(itopctl.__file__).parent}{os.sep}"


class Recorder:
    """Events of an attempt: into the journal, the log and the pool's display."""

    def __init__(self, files: RunFiles, journal: JournalWriter, job: Job, notify: Notify) -> None:
        self.files, self.journal, self.job, self.notify = files, journal, job, notify
        self.threads = int(os.environ.get("OMP_NUM_THREADS") or 0) or None
        self.position: dict[str, Any] = {"step": 0, "epoch": 0.0}
        self.last_progress = 0.0
        self.steps_per_epoch = 1

    def __call__(self, event: str, fields: dict[str, Any]) -> None:
        self.position = {"step": fields["step"], "epoch": fields["epoch"]}
        if event != "progress" or self._progress_due():
            self.files.check()
            self.journal.write(event, fields)
        line = log_line(event, fields)
        if line:
            say(line)
        self.notify({"event": event, "run_id": self.files.run.run_id, **fields})

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
        log = last_lines(self.files.run.log, LOG_LINES)
        self("failed", {**at, "cause": cause, "message": message, "log": log})
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
        steps, epochs = (plural(fields[f"total_{kind}s"], kind) for kind in ("step", "epoch"))
        return f"{steps}, {epochs}, from step {fields['step']}"
    if event == "progress" and "maskable" in fields:
        weights = f"{fields['maskable']:,} maskable weights at density {fields['density']:.4g}"
        return f"training on {fields['device']}: {weights} ({fields['total_density']:.4g} of all weights)"
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


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def say(text: str) -> None:
    """Print to the log, where that is open: code of the user's may have closed it, and that changes no outcome."""
    with unheard():
        print(text, flush=True)


def unheard() -> contextlib.suppress:
    """Passes over what printing raises: on a full disk, where the stream is closed, and where its descriptor is."""
    return contextlib.suppress(OSError, ValueError)


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Print each warning as one line, as often as each run has it: a process that makes several runs forgets none."""
    with warnings.catch_warnings():
        warnings.showwarning = _say_warning
        yield


def _say_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, file: Any = None, line: Any = None
) -> None:
    own = filename.startswith(_PACKAGE)
    kind = "Warning" if own else category.__name__
    where = "" if own else f" ({filename}:{lineno})"
    say(f"{kind}: {' '.join(str(message).split())}{where}")


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Send what the process prints, C code included, to the end of a file."""
    for stream in (sys.stdout, sys.stderr):
        with unheard():
            stream.flush()
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    saved = os.dup(1), os.dup(2)
    try:
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with unheard():  # on a full disk, what was printed last is lost
                stream.flush()
        for number, was in zip((1, 2), saved, strict=True):
            os.dup2(was, number)
            os.close(was)
        os.close(handle)
