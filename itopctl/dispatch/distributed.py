"""An attempt that several processes make together, each on a GPU of its own: process 0 makes it, the others follow.

Process 0 alone reads and writes the run's files. Whether there is anything to train, and from which state, the others
hear from it; what goes wrong in one of them they leave in a file of their own, for it to find.
"""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from itopctl.config.own_code import OwnCode
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Ended, Job, Notify, Stop
from itopctl.dispatch.causes import Cause, cause_of_exception
from itopctl.dispatch.recorder import one_line, output_to
from itopctl.dispatch.run_files import load_config
from itopctl.errors import ItopctlError
from itopctl.store.files import read_json, remove, write_json
from itopctl.store.rundir import RunDirectory

_FIRST_PORT, _PORTS = 20_000, 12_000  # below those that systems give to whoever asks for any
_BLAME_SECONDS = 5.0
"""How long process 0 looks for what went wrong elsewhere, when the others are gone."""


def execute_together(
    run: RunDirectory, data_dir: Path, job: Job, asked_to_stop: Callable[[], Stop | None],
    notify: Notify = lambda event: None,
) -> Ended:  # fmt: skip
    """Make an attempt as one of the processes that make it; see `itopctl.dispatch.attempt.execute`.

    All processes of the job come here for the same runs, in the same order.
    """
    from itopctl.train.ranks import Rank, joined
    from itopctl.train.setup import choose_device

    rank = Rank(**(job.rank or {}), master=f"127.0.0.1:{_port(job, run)}")
    try:
        with joined(rank, choose_device(load_config(run).device, rank)):
            if rank.leads:
                return _lead(run, data_dir, job, asked_to_stop, notify, rank)
            return _follow(run, data_dir, asked_to_stop, rank)
    except (ItopctlError, OSError, RuntimeError) as error:
        return Ended("failed", "environment", f"the processes of the run lost each other: {one_line(error)}")


def _port(job: Job, run: RunDirectory) -> int:
    """Where the processes of a job, all of one node, meet for a run: elsewhere for every run and start.

    What is left of the meeting before would answer at the same place.
    """
    key = f"{job.lock_id} {job.start} {run.run_id}".encode()
    return _FIRST_PORT + int.from_bytes(hashlib.sha256(key).digest()[:4], "big") % _PORTS


def _lead(
    run: RunDirectory, data_dir: Path, job: Job, asked_to_stop: Callable[[], Stop | None], notify: Notify, rank: Any
) -> Ended:
    told = False

    def before_training(state: dict[str, Any] | None) -> None:
        nonlocal told
        for path in run.path.glob(_failure(run, "*").name):
            remove(path)
        told = True
        rank.first({"state": state})

    try:
        return execute(run, data_dir, job, asked_to_stop, notify, rank, before_training, lambda: _blame(run))
    finally:
        if not told:
            rank.first(None)


def _follow(run: RunDirectory, data_dir: Path, asked_to_stop: Callable[[], Stop | None], rank: Any) -> Ended:
    from itopctl.train.loop import Training, TrainingDivergedError, TrainingStoppedError

    told = rank.first(None)
    if told is None:
        return Ended("elsewhere", message="there is nothing to train")
    with output_to(run.path / f"log.{rank.index}.txt"):
        try:
            config = load_config(run)
            OwnCode().check(config)
            training = Training(config, data_dir, _tell_nobody, lambda: asked_to_stop() is not None, rank=rank)
            if told["state"] is not None:
                training.load_state_dict(told["state"])
            training.run()
            return Ended("done", "finished")
        except TrainingStoppedError as error:
            return Ended("cancelled", (asked_to_stop() or ("cancelled", ""))[0], str(error))
        except TrainingDivergedError as error:
            return Ended("failed", "user-error", str(error), alone=True)
        except BaseException as error:
            traceback.print_exc()
            cause = cause_of_exception(error)
            message = f"process {rank.index}: {one_line(error)}"
            write_json(_failure(run, rank.index), {"cause": cause, "message": message})
            return Ended("failed", cause, message)


def _tell_nobody(event: str, fields: dict[str, Any]) -> None:
    """Process 0 tells."""


def _blame(run: RunDirectory) -> tuple[Cause, str] | None:
    """What went wrong in another process, if it said so: all that process 0 sees is that it is gone."""
    until = time.monotonic() + _BLAME_SECONDS
    while time.monotonic() < until:
        for path in sorted(run.path.glob(_failure(run, "*").name)):
            said = read_json(path)
            if said is not None:
                return said["cause"], said["message"]
        time.sleep(0.2)
    return None


def _failure(run: RunDirectory, index: object) -> Path:
    return run.path / f"failure.{index}.json"
