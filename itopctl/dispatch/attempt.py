"""One attempt at one run, whoever asked for it: all that happens is in the run's directory.

The worker process of the local pool and of a scheduler's job is `worker.py`.
"""

from __future__ import annotations

import contextlib
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from itopctl.config.own_code import OwnCode
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.attempt_values import CANCELLED, Ended, Job, Notify, Stop
from itopctl.dispatch.causes import Cause, cause_of_exception
from itopctl.dispatch.lost_attempts import close_forgotten_attempt
from itopctl.dispatch.recorder import Recorder, one_line, output_to, say, unheard, warnings_as_lines
from itopctl.dispatch.run_files import RunFiles, load_config
from itopctl.errors import ItopctlError, UserError
from itopctl.store.checkpoints import Checkpoint
from itopctl.store.files import read_json_surely, write_json
from itopctl.store.journal import JournalWriter, utc_now
from itopctl.store.locks import RunLockedError, locked, remove_leftovers
from itopctl.store.rundir import RunDirectory

_CANCEL_SECONDS = 2.0

State = dict[str, Any]


class UnusableCheckpointError(Exception):
    """A checkpoint is whole, and yet no state that this run can go on from."""

    def __init__(self, checkpoint: Checkpoint, error: BaseException) -> None:
        self.checkpoint = checkpoint
        super().__init__(f"{checkpoint.path.name} does not fit this run ({one_line(error)}); it is set aside")


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
            remove_leftovers(run)
            files = RunFiles(run, still_locked)
            if read_json_surely(run.result) is not None:
                files.clear()
                return Ended("done", "finished")
            if run.cancel.exists():
                return Ended("cancelled", *CANCELLED)
            with output_to(run.log), warnings_as_lines():
                make = _Maker(files, data_dir, rank, before_training, blame)
                while True:
                    try:
                        return _attempt(files, make, job, _or_cancelled(run, asked_to_stop), notify)
                    except UnusableCheckpointError as error:
                        if rank is not None:  # the others have left
                            return Ended("failed", "environment", str(error))
    except RunLockedError as error:
        return Ended("elsewhere", message=str(error))
    except (ItopctlError, OSError) as error:  # its directory cannot be used: there is no journal to say so in
        return Ended("failed", cause_of_exception(error), one_line(error))


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
    files: RunFiles, make: _Maker, job: Job, asked_to_stop: Callable[[], Stop | None], notify: Notify
) -> Ended:
    from itopctl.train.loop import TrainingDivergedError, TrainingStoppedError

    run = files.run
    close_forgotten_attempt(run, job.job_id)
    journal = JournalWriter(run.journal, reserve=run.reserve)
    record = Recorder(files, journal, job, notify)
    say(f"{utc_now()} attempt {journal.attempt} of run {run.run_id}")
    try:
        config = load_config(run)
        saved = files.newest_state()
        record.started(config, saved[1] if saved else None)
        OwnCode().check(config)  # before anything of the user's is imported
        result = make.training(config, saved, record, lambda: asked_to_stop() is not None)
        told = {"run_id": run.run_id, "attempt": journal.attempt, "finished_at": utc_now()}
        files.write_result({**told, **result}, journal)
        with contextlib.suppress(OSError):  # the result is there: nothing that follows can take the success away
            record("finished", {"step": result["steps"], "epoch": result["epochs"], "cause": "finished"})
            files.clear()
        return Ended("done", "finished")
    except UnusableCheckpointError as error:
        record.failed("environment", str(error))
        files.set_aside(error.checkpoint, str(error.__cause__))
        raise
    except TrainingStoppedError as error:
        cause, why = asked_to_stop() or ("cancelled", "")
        return record.failed(cause, f"{why}, {error}" if why else str(error), error.step)
    except RunLockedError as error:  # the journal is another's
        say(f"{utc_now()} {error}")
        return Ended("elsewhere", message=str(error))
    except TrainingDivergedError as error:
        return replace(record.failed("user-error", str(error), error.step), alone=True)
    except ItopctlError as error:
        return record.failed(cause_of_exception(error), str(error))
    except BaseException as error:  # the user's code may raise anything, SystemExit and KeyboardInterrupt included
        with unheard():
            traceback.print_exc()
        return record.failed(*(make.blame() or (cause_of_exception(error), one_line(error))))
    finally:
        journal.close()


@dataclass(frozen=True)
class _Maker:
    """What a training needs beside its config; see `execute`."""

    files: RunFiles
    data_dir: Path
    rank: Any
    before_training: Callable[[State | None], None]
    blame: Callable[[], tuple[Cause, str] | None]

    def training(
        self, config: RunConfig, saved: tuple[Checkpoint, State] | None, record: Recorder,
        should_stop: Callable[[], bool],
    ) -> dict[str, Any]:  # fmt: skip
        """Train from a checkpoint's state, or from the start; returns the result."""
        from itopctl.train.checkpoint import OtherWeightsError
        from itopctl.train.export.network import kept_of
        from itopctl.train.loop import Training
        from itopctl.train.measure import environment
        from itopctl.train.process_settings import changed_since, process_settings
        from itopctl.train.ranks import ALONE

        def save(state: State) -> None:
            self.files.save_checkpoint(state, record.journal)

        self.before_training(saved[1] if saved else None)
        before = process_settings()
        training = Training(config, self.data_dir, record, should_stop, save, self.rank or ALONE)
        found = {**environment(training.device), **record.job.code}
        changed = self._record_environment(found, before)
        if saved is not None:
            try:
                training.load_state_dict(saved[1])
            except OtherWeightsError as error:
                raise UserError(f"{error}; delete {self.files.run.path} to train it anew.") from None
            except Exception as error:
                if cause_of_exception(error) == "user-error":  # not for want of memory, say
                    raise UnusableCheckpointError(saved[0], error) from error
                raise
        result = training.run()
        if changed_since(before) != changed:  # by a step
            self._record_environment(found, before)
        if config.keep_network:
            of_images = training.data.mean, training.data.std
            of_training = training.model, training.optimizer, training.sparse
            self.files.keep_network(lambda: kept_of(self.files.run.run_id, *of_training, of_images))
        return result

    def _record_environment(self, found: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        """Record what the run is made with, and the settings that its own code changed, which are returned."""
        from itopctl.train.process_settings import changed_since

        self.files.check()
        changed = changed_since(before)
        write_json(self.files.run.environment, {**found, "settings": changed} if changed else found)
        return changed
