"""Child processes that go on from where this one is: whatever happens in them, this process stays as it was.

A child begins with all that this process has imported, in milliseconds. Only the thread that forks lives on in it, so
a process that forks should have one thread of Python's, and must not have used a GPU. OpenMP's threads do not live on
either: where this process has computed with several threads, a child computes with one, or it hangs.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar

from itopctl.errors import ItopctlError, UserError, describe_exit

T = TypeVar("T")

_POLL_SECONDS = 0.2


def fork(body: Callable[[], None]) -> int:
    """Call `body` in a child process, which ends with it; returns the child's pid.

    The child ends with exit code 0, or with 1 and a traceback where `body` raises. Nothing else runs in it: neither
    what this process has still to do, nor its functions of `atexit`. Threads that `body` started end, too.
    """
    _flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        body()
        code = 0
    except KeyboardInterrupt:  # whoever pressed Ctrl-C interrupted this process's parent, too
        code = 130
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
    finally:
        _flush()
        os._exit(code)


def value_from_child(function: Callable[[], T]) -> T:
    """What `function` returns in a child process of its own. Nothing that it changes is changed in this process.

    Raises:
        ItopctlError: `function` raised it.
        UserError: the child process ended without a value, as by a crash or an exit.
    """
    readable, writable = os.pipe()

    def tell() -> None:
        os.close(readable)
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(1)  # this process may have computed with more
        try:
            answer = pickle.dumps((True, function()))
        except ItopctlError as error:
            kind = type(error) if type(error).__module__ == ItopctlError.__module__ else UserError
            answer = pickle.dumps((False, kind(str(error))))
        with os.fdopen(writable, "wb") as stream:
            stream.write(answer)

    pid = fork(tell)
    os.close(writable)
    try:
        told, code = _read_until_end(readable, pid)
    finally:
        os.close(readable)
    if code != 0:
        raise UserError(f"the code could not be run: {describe_exit(code)}.")
    well, value = pickle.loads(told)
    if not well:
        raise value
    answer: T = value
    return answer


def _read_until_end(readable: int, pid: int) -> tuple[bytes, int]:
    """What a child process writes to a pipe, and its exit code. What it started may hold the pipe open for long."""
    told, gone, status = b"", 0, 0
    while True:
        if not gone:  # looked at first: what the child wrote before its end is read below
            gone, status = os.waitpid(pid, os.WNOHANG)
        ready, _, _ = select.select([readable], [], [], 0.0 if gone else _POLL_SECONDS)
        chunk = os.read(readable, 1 << 16) if ready else b""
        told += chunk
        if not chunk and (ready or gone):
            status = status if gone else os.waitpid(pid, 0)[1]
            return told, os.waitstatus_to_exitcode(status)


def _flush() -> None:
    """Write out what is printed: what waits in a buffer at a fork would come twice."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # closed, on a full disk, or not there
            stream.flush()
