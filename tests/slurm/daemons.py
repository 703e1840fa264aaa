"""The daemons of one cluster by name: starting, ending, waiting for an answer. Where each runs is kept in files.

The folder has `run` for those files and `log` for what they print.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.slurm.processes import Process, descendants, end, launch

PATIENCE = 30
"""Seconds that a daemon has to answer or to end, on a machine with much else to do."""


class ClusterError(Exception):
    """The cluster cannot be made, or does not do what it was told to."""


class Daemons:
    """Whatever daemons were started in this folder, by this process or another."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def process(self, name: str) -> Process | None:
        """The daemon's process, if it runs."""
        try:
            process = Process(*json.loads(self._file(name).read_text()))
        except (FileNotFoundError, ValueError):
            return None
        return process if process.alive() else None

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str]) -> None:
        """Start it, unless it runs."""
        if self.process(name) is None:
            process = launch(command, self._output(name), env)
            self._file(name).write_text(json.dumps([process.pid, process.started]))

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End it if it runs: it may tidy up first, unless it is killed."""
        process = self.process(name)
        if process is None:
            return
        if kill:
            end([process, *descendants([process])], first=signal.SIGKILL)
        else:
            end([process], patience=PATIENCE)

    def wait(self, name: str, answers: Callable[[], bool]) -> None:
        """Wait until it answers.

        Raises:
            ClusterError: it ended, or does not answer in time; with the last it printed.
        """
        deadline = time.monotonic() + PATIENCE
        while not answers():
            gone = self.process(name) is None
            if gone or time.monotonic() > deadline:
                what = "ended at once" if gone else f"does not answer after {PATIENCE} s"
                output = self._output(name)
                last = output.read_text(errors="replace")[-2000:] if output.exists() else ""
                raise ClusterError(f"{name} {what}. The end of {output}:\n{last}")
            time.sleep(0.1)

    def _file(self, name: str) -> Path:
        return self._folder / "run" / f"{name}.process"

    def _output(self, name: str) -> Path:
        return self._folder / "log" / f"{name}.out"
