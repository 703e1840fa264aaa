"""A worker process (`worker.py`) as the pool sees it: what it is told and reports, and how it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from typing import Any

from itopctl.dispatch.slots import Slot
from itopctl.dispatch.start import same_package
from itopctl.store.locks import is_alive_here, process_here

_DYING_SECONDS = 10.0


class WorkerProcess:
    """A worker process, and the run it is at.

    Args:
        slot: its place.
        scheduler: what starts it.
        forking: whether it is to make several runs that call functions of the user's own.

    Attributes:
        slot: its place.
        run_id, began: the run that was given to it last, until that ends; and when, by the monotonic clock.
        ready: whether it has said that it is.
        runner: the process that it said makes its runs (`itopctl.store.locks.process_here`), the last one.
    """

    def __init__(self, slot: Slot, scheduler: str, forking: bool = False) -> None:
        self.slot = slot
        self.run_id: str | None = None
        self.began = 0.0
        self.ready = False
        self.output = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker; what it prints outside a run
        self.report, write_end = os.pipe()
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(slot.threads),
            "MKL_NUM_THREADS": str(slot.threads),
        }
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # or threads that wait spin, and starve whoever else runs
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.gpu
        self.process = subprocess.Popen(
            [*same_package("itopctl.dispatch.worker"), str(write_end), str(slot.threads), scheduler,
             str(int(forking))],
            stdin=subprocess.PIPE, stdout=self.output, stderr=self.output, pass_fds=(write_end,),
            start_new_session=True, env=environment,
        )  # fmt: skip
        self.runner = process_here(self.process.pid)
        os.close(write_end)
        os.set_blocking(self.report, False)
        self.pending = b""

    def send(self, command: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(command).encode() + b"\n")
            self.process.stdin.flush()

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """Whole messages that have come, and whether more may come."""
        open_ended = True
        while True:
            try:
                chunk = os.read(self.report, 1 << 16)
            except BlockingIOError:
                break
            if not chunk:
                open_ended = False
                break
            self.pending += chunk
        *lines, self.pending = self.pending.split(b"\n")
        return [json.loads(line) for line in lines], open_ended

    def kill(self) -> None:
        """End the process and whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._kill_runner()

    def last_words(self) -> str:
        """The end of what it printed outside a run."""
        self.output.seek(0)
        return self.output.read()[-2000:].decode(errors="replace").strip()

    def close(self) -> None:
        with contextlib.suppress(BrokenPipeError):
            if self.process.stdin is not None:
                self.process.stdin.close()
        self.process.wait()
        self._kill_runner()
        os.close(self.report)
        self.output.close()

    def _kill_runner(self) -> None:
        """End what still makes a run where the worker alone was killed: its attempt is about to be ended for it."""
        until = time.monotonic() + _DYING_SECONDS
        while is_alive_here(self.runner) and time.monotonic() < until:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.runner["pid"], signal.SIGKILL)
            time.sleep(0.01)
