"""The files of a run, for the process that holds its lock: what is saved comes after the events that led there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.store.checkpoints import Checkpoint, checkpoints, remove_checkpoints, save_checkpoint, set_aside
from itopctl.store.files import read_json, remove, write_json, write_whole
from itopctl.store.journal import JournalWriter, holds, maskable_before
from itopctl.store.locks import RunLockedError
from itopctl.store.rundir import RunDirectory


class RunFiles:
    """A run's files as long as they are this process's to write.

    Args:
        run: its directory.
        still_locked: tells whether they are.
    """

    def __init__(self, run: RunDirectory, still_locked: Callable[[], bool]) -> None:
        self.run, self.still_locked = run, still_locked

    def check(self) -> None:
        """Raise RunLockedError where somebody else has the run by now."""
        if not self.still_locked():
            raise RunLockedError(f"run {self.run.run_id} was given to another process while this one was at it.")

    def save_checkpoint(self, state: dict[str, Any], journal: JournalWriter) -> None:
        """Save a training's state, with the place in the journal that it goes on from."""
        from itopctl.train.checkpoint import encode

        self.check()
        journal.flush()
        save_checkpoint(self.run, state["progress"]["step"], encode({**state, "journal": journal.position}))

    def newest_state(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest state that can be gone on from; checkpoints that cannot be used are set aside."""
        from itopctl.train.checkpoint import decode

        for checkpoint in checkpoints(self.run):
            try:
                state = decode(checkpoint.read())
                if state["progress"]["step"] != checkpoint.step:
                    raise ValueError("it is of another step than its name says")
                if not holds(self.run.journal, state["journal"]):
                    raise ValueError("the journal lacks what happened before it")
                if (
                    "maskable" not in state
                    and (masked := maskable_before(self.run.journal, state["journal"])) is not None
                ):
                    state["maskable"] = masked  # older checkpoints do not say it
            except (ValueError, KeyError, TypeError, AttributeError, IndexError, RuntimeError) as error:
                self.set_aside(checkpoint, str(error))
            else:
                return checkpoint, state
        return None

    def set_aside(self, checkpoint: Checkpoint, why: str) -> None:
        """Take a checkpoint out of the way, and say so in the log."""
        self.check()
        aside = set_aside(self.run, checkpoint)
        with contextlib.suppress(OSError, ValueError):  # the log may be closed
            print(f"{checkpoint.path.name} cannot be used ({why}); set aside as {aside.name}", flush=True)

    def keep_network(self, network: Callable[[], dict[str, Any]]) -> None:
        """Keep the trained network. Where that cannot be, whyever, say so in the log: the result is worth more."""
        from itopctl.train.checkpoint import encode

        self.check()
        try:
            write_whole(self.run.network, encode(network()))
        except Exception as error:  # no room, or a user's model whose state cannot be written
            with contextlib.suppress(OSError, ValueError):  # the log may be closed
                print(f"the trained network is not kept: {type(error).__name__}: {error}", flush=True)

    def write_result(self, result: dict[str, Any], journal: JournalWriter) -> None:
        """Write the result, which makes the run a success."""
        self.check()
        journal.flush()
        write_json(self.run.result, result)

    def clear(self) -> None:
        """Remove what a finished run needs no more."""
        config = (read_json(self.run.config) or {}).get("config")
        if not (isinstance(config, dict) and config.get("keep_checkpoints")):
            remove_checkpoints(self.run)
        remove(self.run.reserve)


def load_config(run: RunDirectory) -> RunConfig:
    """The run's config; its identity must be the directory's name."""
    stored = read_json(run.config)
    if stored is None:
        raise ValueError(f"{run.config} is missing or not whole")
    config = RunConfig.model_validate(stored["config"])
    if run_id(config) != run.run_id:
        raise ValueError(f"{run.config} describes run {run_id(config)}, not {run.run_id}")
    return config
