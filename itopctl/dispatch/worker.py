"""One process that trains run after run: torch is imported once. Used by the local pool, and by jobs of a scheduler.

Started with REPORT_FD THREADS SCHEDULER as its arguments (`start.py`). Commands come as JSON lines on standard
input: `{"run": path of a run directory, "data_dir": …, "job": …}`, or `{"stop": cause, "message": why}`: stop after the
current step. The end of the input means stop, too, so no worker outlives its pool. Reports go as JSON lines to the file
descriptor: `{"ready": …}`, events of the run, and `{"ended": …}`. What the training prints goes to the run's log.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import Any, TextIO

from itopctl.dispatch.attempt import execute
from itopctl.dispatch.causes import Cause
from itopctl.dispatch.records import Job, Stop
from itopctl.dispatch.together import execute_together
from itopctl.store.rundir import RunDirectory


def main(report_fd: int, threads: int, scheduler: str) -> None:
    """Serve commands from standard input until it ends or says stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(report_fd, False)  # or a process that the user's code starts would keep the pool waiting
    if scheduler != "local":
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it signals all processes of a job; the pool tells us to stop
    stop = _StopBox()
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
    alone: Stop = ("cancelled", "") if scheduler == "local" else ("killed", "the process that started it is gone")
    threading.Thread(target=_listen, args=(_take_over_standard_input(), commands, stop, alone), daemon=True).start()

    import torch

    from itopctl.train.setup import be_deterministic

    be_deterministic(threads)
    _report(report_fd, {"ready": os.getpid(), "gpu": torch.cuda.is_available()})
    while (command := commands.get()) is not None and stop.why() is None:
        run = RunDirectory(Path(command["run"]))
        job = Job(**command["job"])
        make = execute if job.rank is None else execute_together
        torch.set_num_threads(threads)  # a run that goes on from a checkpoint may have had others
        ended = make(run, Path(command["data_dir"]), job, stop.why, lambda event: _report(report_fd, event))
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


class _StopBox:
    """Why to stop, once somebody has said so."""

    def __init__(self) -> None:
        self._why: Stop | None = None

    def why(self) -> Stop | None:
        return self._why

    def set(self, cause: Cause, message: str) -> None:
        self._why = self._why or (cause, message)


def _listen(stream: TextIO, commands: queue.Queue[dict[str, Any] | None], stop: _StopBox, alone: Stop) -> None:
    for line in stream:
        command = json.loads(line)
        if "stop" in command:
            stop.set(command["stop"], command["message"])
            break
        commands.put(command)
    stop.set(*alone)
    commands.put(None)


def _report(report_fd: int, message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(report_fd, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
