"""A worker process: it starts the processes that make runs (`runner.py`), one at a time.

The worker itself computes nothing, uses no GPU, starts no thread and runs no code of the user's. A runner is a fork of
it, and so finds a process that nothing has changed. A run that calls functions of the user's own has a runner to
itself; runs that call none share a runner until one comes that does.

Where several runs with code of the user's own are to be made, the worker imports torch, so that each of their runners
starts in milliseconds. Else it leaves that to the one runner, and stays small: schedulers that add up the memory of a
job's processes count twice what two of them share.

Started with REPORT_FD THREADS SCHEDULER FORKING as its arguments (`start.py`), by the local pool and in a scheduler's
jobs; FORKING: 1 where it is to import torch at once, else 0.

Commands come as JSON lines on standard input: `{"run": path of a run directory, "data_dir": …, "job": …, "more": …}`
(more: whether other runs with code of the user's own wait), or `{"stop": cause, "message": why}`: stop after the
current step. The end of the input means stop, too, so no worker outlives its pool. Reports go as JSON lines to the file
descriptor: `{"ready": …}`, `{"runner": process}` before the first run of a runner, then from the runner `{"gpu": …}`
and events of the run, and `{"ended": …}`.

Where a runner dies with a run in hand, the worker ends in the same way: by the same signal, or with the same exit code.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from importlib import import_module
from typing import Any, NoReturn

from itopctl.config.run_config import user_functions
from itopctl.dispatch.runner import config_of, import_for, report, serve
from itopctl.forking import fork
from itopctl.store.locks import process_here

_POLL_SECONDS = 0.2
_CLOSED_SECONDS = 0.002  # between two looks at a process that has closed its descriptors, and so is about to end
_ENDING_SECONDS = 30.0  # for what a runner does after its last run, such as `atexit` functions of the user's

_IMPORTS = (
    "itopctl.dispatch.distributed",
    "itopctl.train.loop",
    "itopctl.train.export.network",
    "itopctl.train.models",
)


def main(report_fd: int, threads: int, scheduler: str, forking: bool) -> None:
    """Serve commands from standard input until it ends or says stop; `forking`: as the argument above."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.set_inheritable(report_fd, False)  # or a process that the user's code starts would keep the pool waiting
    if scheduler != "local":
        for number in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # it signals all processes of a job; the pool tells us to stop
    inbox = _Inbox(_take_over_standard_input())

    def new_runner() -> _Runner:
        made = _Runner(inbox, report_fd, threads, scheduler, prepare=None if forking else _be_ready)
        report(report_fd, {"runner": process_here(made.pid)})
        if not made.is_ready():
            _end_like(made.exit_code or 1)
        return made

    runner: _Runner | None = None
    if forking:
        _be_ready()
    else:
        runner = new_runner()
    report(report_fd, {"ready": os.getpid()})
    while (command := inbox.next()) is not None and "run" in command:
        config = config_of(command)
        by_itself = config is None or bool(user_functions(config))
        if runner is not None and by_itself and runner.used:
            runner.end()
            runner = None
        if runner is None:
            if by_itself and command["more"] and not forking:
                _be_ready()
                forking = True
            if forking:
                import_for(config or {})
            runner = new_runner()
        ended = runner.make(command | {"alone": by_itself}, inbox)
        if ended is None:
            _end_like(runner.exit_code or 0)
        if ended.pop("last"):
            runner.end()
            runner = None
        report(report_fd, ended)
    if runner is not None:
        runner.end()


def _be_ready() -> None:
    """Import what every run needs, and choose the settings of every run that start no thread and touch no GPU."""
    for module in _IMPORTS:
        import_module(module)
    from itopctl.train.setup import choose_exact_arithmetic

    choose_exact_arithmetic()  # imports much


def _take_over_standard_input() -> int:
    """The descriptor of commands; the user's code, and what it starts, reads an empty standard input instead."""
    commands = os.dup(0)  # not inherited by what is started from here
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return commands


def _end_like(exit_code: int) -> NoReturn:
    """End this process as its runner ended."""
    if exit_code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # one memory dump, that of the runner, is enough
        with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
            signal.signal(-exit_code, signal.SIG_DFL)
        os.kill(os.getpid(), -exit_code)
        time.sleep(_ENDING_SECONDS)
    os._exit(exit_code)


class _Inbox:
    """Commands from a file descriptor, each a line.

    Attributes:
        descriptor: where they come from.
        open: whether more may come.
        waiting: commands that came and are not taken yet.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.open = True
        self.waiting: deque[bytes] = deque()
        self._begun = b""

    def next(self) -> dict[str, Any] | None:
        """Wait for the next command; None where no more will come."""
        while self.open and not self.waiting:
            self.read()
        command: dict[str, Any] | None = json.loads(self.waiting.popleft()) if self.waiting else None
        return command

    def read(self) -> list[bytes]:
        """Take in what comes, waiting for it; returns it, as far as it is whole."""
        chunk = os.read(self.descriptor, 1 << 16)
        self.open = bool(chunk)
        *lines, self._begun = (self._begun + chunk).split(b"\n")
        self.waiting.extend(lines)
        return lines


class _Runner:
    """A process that makes runs, as the worker sees it.

    Args:
        inbox: where commands for the worker come from; not for the runner.
        report_fd, threads, scheduler: of the worker.
        prepare: what it does first, where the worker has not done it.

    Attributes:
        pid: its process.
        used: whether a run was given to it.
        exit_code: how the process ended, as in `subprocess`; None while it is alive.
    """

    _told_of_gpu = False

    def __init__(
        self, inbox: _Inbox, report_fd: int, threads: int, scheduler: str, prepare: Callable[[], None] | None
    ) -> None:
        self.exit_code: int | None = None
        self.used = False
        self._commands: int | None
        commands, self._commands = os.pipe()
        self._answers, answers = os.pipe()
        tell_of_gpu, _Runner._told_of_gpu = not _Runner._told_of_gpu, True

        def be_runner() -> None:
            os.close(inbox.descriptor)
            os.close(self._answers)
            self._hang_up()
            if prepare is not None:
                prepare()
            report(answers, {"ready": True})
            serve(commands, answers, report_fd, threads, scheduler, tell_of_gpu)

        gc.freeze()  # or the first collection in the runner would copy all memory that the two processes share
        self.pid = fork(be_runner)
        os.close(commands)
        os.close(answers)

    def is_ready(self) -> bool:
        """Wait until it is prepared; False where the process died over that."""
        answer = b""
        while not answer.endswith(b"\n"):
            gone = self._is_gone()
            found = select.select([self._answers], [], [], 0.0 if gone else _POLL_SECONDS)[0]
            chunk = os.read(self._answers, 1 << 16) if found else b""
            answer += chunk
            if gone and not chunk:
                return False
            if found and not chunk:
                time.sleep(_CLOSED_SECONDS)
        return True

    def make(self, command: dict[str, Any], inbox: _Inbox) -> dict[str, Any] | None:
        """Have a run made, and hand on what comes in meanwhile.

        Returns:
            How it ended, and whether it was the `last` that the process makes; None where the process died.
        """
        self.used = True
        self._send([json.dumps(command).encode(), *inbox.waiting])
        answer = b""
        while not answer.endswith(b"\n"):
            gone = self._is_gone()  # looked at first: what it said before it went is read below
            if not inbox.open:
                self._hang_up()
            watched = [self._answers, *([inbox.descriptor] if inbox.open else [])]
            ready, _, _ = select.select(watched, [], [], 0.0 if gone else _POLL_SECONDS)
            if inbox.descriptor in ready:
                self._send(inbox.read())
            chunk = os.read(self._answers, 1 << 16) if self._answers in ready else b""
            answer += chunk
            if gone and not chunk:
                return None
            if self._answers in ready and not chunk:
                time.sleep(_CLOSED_SECONDS)
        ended: dict[str, Any] = json.loads(answer)
        return ended

    def end(self) -> None:
        """Let the process end, which has no run in hand; kill it where it does not."""
        self._hang_up()
        until = time.monotonic() + _ENDING_SECONDS
        while not self._is_gone():
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
            if select.select([self._answers], [], [], _POLL_SECONDS)[0]:
                time.sleep(_CLOSED_SECONDS)
        os.close(self._answers)

    def _send(self, lines: Iterable[bytes]) -> None:
        with contextlib.suppress(BrokenPipeError):
            for line in lines:
                assert self._commands is not None
                os.write(self._commands, line + b"\n")

    def _hang_up(self) -> None:
        if self._commands is not None:
            os.close(self._commands)
            self._commands = None

    def _is_gone(self) -> bool:
        if self.exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.exit_code = os.waitstatus_to_exitcode(status) if pid else None
        return self.exit_code is not None


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1")
