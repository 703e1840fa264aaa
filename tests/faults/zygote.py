"""A process that has imported all that a training needs, and forks one child for each call: a trial of a tenth of a
second, where a process of its own would take seconds to begin.

The children compute with one thread, as their parent does: a fork of a process whose threads are at work could hang.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_PATIENCE_SECONDS = 60.0  # a child that takes so long hangs


@dataclass(frozen=True)
class Fate:
    """How a child ended.

    Attributes:
        signal: that killed it, or 0.
        value: what its function returned; None where it was killed.
    """

    signal: int
    value: Any

    @property
    def killed(self) -> bool:
        return self.signal == signal.SIGKILL


class Zygote:
    """The process. Not for several threads at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        )  # fmt: skip

    def call(self, function: str, **arguments: Any) -> Fate:
        """Call `module:function` in a child. Arguments and what it returns are plain data.

        Raises:
            AssertionError: it raised, was ended by something else than SIGKILL or SIGALRM, or did not end.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"function": function, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert answer["error"] is None, answer["error"]
        assert answer["signal"] in (0, signal.SIGKILL, signal.SIGALRM), answer
        return Fate(answer["signal"], answer["value"])

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=_PATIENCE_SECONDS)


def _serve() -> None:
    from itopctl.train.data.files import read_digits
    from itopctl.train.setup import be_deterministic

    for module in ("trials", "submitting", "ingesting"):  # all that they need is imported before the first fork
        importlib.import_module(f"tests.faults.{module}")
    read_digits()  # and with it all that scikit-learn imports when it is needed
    be_deterministic(1)
    gc.collect()
    gc.freeze()  # or each child would walk through all that is imported, and so copy it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what children print is no answer
    for line in sys.stdin:
        print(json.dumps(_in_a_child(**json.loads(line))), file=answers, flush=True)


def _in_a_child(function: str, arguments: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _live(function, arguments, writing)
    os.close(writing)
    said = _all_of(reading, time.monotonic() + _PATIENCE_SECONDS)
    if said is None:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if said is None:
        return {"signal": number, "value": None, "error": f"{function} {arguments} does not end"}
    value, error = json.loads(said) if number == 0 and said else (None, None)
    if number == 0 and not said:
        error = f"{function} {arguments} left with status {status}"
    return {"signal": number, "value": value, "error": error}


def _live(function: str, arguments: dict[str, Any], writing: int) -> None:
    """A child's life."""
    module, _, name = function.partition(":")
    try:
        said = [getattr(importlib.import_module(module), name)(**arguments), None]
    except BaseException:
        said = [None, traceback.format_exc()]
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps(said).encode())
    os._exit(0)


def _all_of(handle: int, until: float) -> bytes | None:
    """All that comes out of a pipe; None where it is still open at that time."""
    said = b""
    with contextlib.closing(os.fdopen(handle, "rb", buffering=0)) as pipe:
        while select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
            piece = pipe.read(1 << 16)
            if not piece:
                return said
            said += piece
    return None


if __name__ == "__main__":
    _serve()
