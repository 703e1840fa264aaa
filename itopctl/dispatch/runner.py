"""The process that makes runs: a fork of a worker (`worker.py`), with its settings, and a listener for commands.

What the training prints goes to the run's log.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import json
import os
import queue
import threading
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from itopctl.catalogue import DATASETS
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job, Stop
from itopctl.dispatch.causes import Cause
from itopctl.dispatch.distributed import execute_together
from itopctl.store.files import read_json
from itopctl.store.rundir import RunDirectory


def serve(commands_fd: int, answers_fd: int, report_fd: int, threads: int, scheduler: str, tell_of_gpu: bool) -> None:
    """Make runs as commands come, until one is to be `alone`, there are no more, or one says stop.

    Args:
        commands_fd: the worker's commands, as JSON lines.
        answers_fd: is told how each run ended, and whether it was the `last` that this process makes.
        report_fd: is told the events of runs, and, where `tell_of_gpu`, whether PyTorch finds a GPU.
        threads: to compute with.
        scheduler: what started the worker.
    """
    import torch

    from itopctl.train.setup import be_deterministic

    stop = _StopBox()
    commands: queue.Queue[dict[str, Any] | None] = queue.Queue()
    alone: Stop = ("cancelled", "") if scheduler == "local" else ("killed", "the process that started it is gone")
    threading.Thread(target=_listen, args=(commands_fd, commands, stop, alone), daemon=True).start()
    be_deterministic(threads)
    if tell_of_gpu:
        report(report_fd, {"gpu": torch.cuda.is_available()})
    last = False
    while not last and (command := commands.get()) is not None and stop.why() is None:
        run = RunDirectory(Path(command["run"]))
        job = Job(**command["job"])
        import_for(config_of(command) or {})
        make = execute if job.rank is None else execute_together
        torch.set_num_threads(threads)  # a run that goes on from a checkpoint may have had others
        ended = make(run, Path(command["data_dir"]), job, stop.why, lambda event: report(report_fd, event))
        on_gpu = torch.cuda.is_initialized()
        last = command["alone"] or (
            on_gpu and ended.state == "failed"
        )  # an error may have left the GPU's context unusable
        if on_gpu and not last:
            gc.collect()
            torch.cuda.empty_cache()
        report(answers_fd, {"ended": run.run_id, **ended.__dict__, "last": last})
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()  # those of the user's code; threads that it left are not waited for


def config_of(command: Mapping[str, Any]) -> dict[str, Any] | None:
    """The config of the run to make, as it is written; None where it cannot be read, or not now."""
    config = (read_json(RunDirectory(Path(command["run"])).config) or {}).get("config")
    return config if isinstance(config, dict) else None


def import_for(config: Mapping[str, Any]) -> None:
    """Import what reading the run's data set imports: before the run, since that may change settings of the process."""
    name = config.get("dataset")
    if isinstance(name, str) and name in DATASETS:
        for module in DATASETS.get(name).options.get("imports", ()):
            with contextlib.suppress(ImportError):  # the run says so, where it needs the module
                import_module(module)


class _StopBox:
    """Why to stop, once somebody has said so."""

    def __init__(self) -> None:
        self._why: Stop | None = None

    def why(self) -> Stop | None:
        return self._why

    def set(self, cause: Cause, message: str) -> None:
        self._why = self._why or (cause, message)


def _listen(commands_fd: int, commands: queue.Queue[dict[str, Any] | None], stop: _StopBox, alone: Stop) -> None:
    with os.fdopen(commands_fd) as stream:
        for line in stream:
            command = json.loads(line)
            if "stop" in command:
                stop.set(command["stop"], command["message"])
                break
            commands.put(command)
    stop.set(*alone)
    commands.put(None)


def report(descriptor: int, message: dict[str, Any]) -> None:
    """Write a message as a line, where somebody still reads."""
    with contextlib.suppress(BrokenPipeError):
        os.write(descriptor, json.dumps(message).encode() + b"\n")
