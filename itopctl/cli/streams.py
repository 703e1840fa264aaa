"""Standard output and error of a command, where whoever read them may be gone: `itopctl report | head -1`.

What nobody reads is dropped, quietly, and the command goes on: a sweep trains its runs to the end and its exit code
says how they ended. Commands that print without end ask `nobody_reads` and stop.
"""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys


class _Output(io.FileIO):
    """A descriptor that takes everything once its reader is gone."""

    def write(self, data) -> int | None:  # type: ignore[no-untyped-def, override]
        try:
            return super().write(data)
        except BrokenPipeError:
            _drop(self.fileno())
            return memoryview(data).nbytes


_dropped: set[int] = set()


def _drop(descriptor: int) -> None:
    """Lead a descriptor to nowhere: for this process, and for those that it starts."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, descriptor)
    os.close(nothing)
    _dropped.add(descriptor)


def survive_closed_pipes() -> None:
    """Let `sys.stdout` and `sys.stderr` drop what nobody reads; a stream that was closed from the start, too."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:  # or a file that is opened next would take its place, and get what is printed
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _open(1, sys.stdout)
    sys.stderr = _open(2, sys.stderr)


def _open(descriptor: int, before: object) -> io.TextIOWrapper:
    output = _Output(descriptor, "w", closefd=False)
    if not isinstance(before, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(output), encoding="utf-8", errors="replace", line_buffering=True)
    with contextlib.suppress(OSError):
        before.flush()
    unbuffered = before.write_through  # python -u
    return io.TextIOWrapper(
        output if unbuffered else io.BufferedWriter(output),
        encoding=before.encoding, errors="replace", line_buffering=before.line_buffering, write_through=unbuffered,
    )  # fmt: skip


def nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader is gone."""
    if 1 in _dropped:
        return True
    try:
        poll = select.poll()
        poll.register(1, 0)
        return any(event & select.POLLERR for _, event in poll.poll(0))
    except (OSError, AttributeError):
        return False
