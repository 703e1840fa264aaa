"""Commands of itopctl in processes that are forked: for tests that only ask what a command prints and does.

Importing torch takes seconds. One server process imports all that commands need once and forks a child for each
command. What the child starts by `itopctl.dispatch.start.same_package` (worker processes, trials) is forked too. A
child has its own working directory, environment, standard streams and exit code, as a started process has. What
differs: modules are already imported, and variables that Python, OpenMP or a library reads when it starts have no
effect. Tests of those, and of the process itself, use `tests.helpers.started`.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).parents[1]
_READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "OMP_", "MKL_", "TERM", "FORCE_COLOR", "PY_COLORS", "CUDA", "LD_")
_NEEDED = (
    "torch.distributed", "torchvision", "sklearn.datasets", "scipy.stats", "pandas", "jinja2", "psycopg",
    "matplotlib.backends.backend_agg", "matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg",
    "onnx", "onnxruntime", "onnxscript", "safetensors.torch",
)  # fmt: skip


class Server:
    """The process that forks. One command at a time: threads that share it wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._environment = dict(os.environ)

    def can(self, environment: Mapping[str, str]) -> bool:
        """Whether a command with this environment would be the same as one that is started."""
        names = {name for name in self._environment.keys() | environment.keys() if name.startswith(_READ_AT_THE_START)}
        names.discard("PYTHONPATH")
        return all(environment.get(name) == self._environment.get(name) for name in names)

    def __call__(
        self, arguments: list[str], cwd: Path, environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """Type a command, and wait until it ends.

        Raises:
            subprocess.TimeoutExpired: it did not; it was killed.
        """
        with self._lock, tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            asked = {
                "arguments": arguments, "cwd": str(cwd), "environment": dict(environment), "timeout": timeout,
                "out": str(out), "err": str(err),
            }  # fmt: skip
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            code = json.loads(process.stdout.readline())
            if code is None:
                raise subprocess.TimeoutExpired(["itopctl", *arguments], timeout, out.read_text(), err.read_text())
            return subprocess.CompletedProcess(["itopctl", *arguments], code, out.read_text(), err.read_text())

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            environment = {**self._environment, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked"], cwd=ROOT, env=environment, stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            atexit.register(self._end)
        return self._process

    def _end(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                self._process.stdin.close()
                self._process.wait(timeout=10)


# In the server ------------------------------------------------------------------------------------------------------


def _serve() -> None:
    import itopctl

    for module in pkgutil.walk_packages(itopctl.__path__, "itopctl."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in _NEEDED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import_what_workers_need()
    known = os.environ["PYTHONPATH"].split(os.pathsep)
    paths = [path for path in sys.path[1:] if path not in known]
    gc.collect()
    gc.freeze()  # or each child would walk through all that is imported, and so copy it
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line), paths)), file=answers, flush=True)


def import_what_workers_need() -> None:
    """So that none that is forked from here has to."""
    from itopctl.train import loop, measure, models  # noqa: F401
    from itopctl.train.data.files import read_digits
    from itopctl.train.setup import choose_exact_arithmetic

    read_digits()
    choose_exact_arithmetic()  # imports much


def _run(asked: dict[str, Any], paths: list[str]) -> int | None:
    """Exit code of the command, as in `subprocess`; None where it did not end in time."""
    child = os.fork()
    if child == 0:
        _be(lambda: _command(asked, paths))
    handle = os.pidfd_open(child)
    ended = select.select([handle], [], [], asked["timeout"])[0]
    os.close(handle)
    if not ended:
        os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code if ended else None


def _command(asked: dict[str, Any], paths: list[str]) -> None:
    """The life of a command, up to its end."""
    writing = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    _streams(os.open(os.devnull, os.O_RDONLY), os.open(asked["out"], writing), os.open(asked["err"], writing))
    os.chdir(asked["cwd"])
    _environment(asked["environment"])
    own = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [asked["cwd"], *own, *paths]
    importlib.invalidate_caches()
    sys.argv = ["itopctl", *asked["arguments"]]
    fork_modules()
    from itopctl.__main__ import main

    main()


def _be(life: Callable[[], None]) -> NoReturn:
    """Live in a child, and end as an interpreter does."""
    code: Any = 1
    atexit._clear()
    try:
        life()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            threading._shutdown()  # type: ignore[attr-defined]  # waits for threads
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code & 0xFF)


def _streams(*handles: int) -> None:
    """Make these the standard streams."""
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        if handle > 2:
            os.close(handle)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115


def _environment(values: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(values)


_execute: Callable[..., None] = subprocess.Popen._execute_child  # type: ignore[attr-defined]


def fork_modules(patch: Callable[[Any, str, Any], None] = setattr) -> None:
    """From now on, this process forks the modules of itopctl that it would start as programs."""
    patch(subprocess.Popen, "_execute_child", _fork_or_execute)


def _fork_or_execute(self: Any, args: Any, executable: Any, preexec: Any, close_fds: Any, *rest: Any) -> None:
    """In place of `Popen._execute_child`, whose other arguments are in `rest`, by position."""
    from itopctl.dispatch.start import same_package

    module = args[3] if isinstance(args, list) and len(args) > 3 else ""
    if not (isinstance(module, str) and module.startswith("itopctl.") and args[:4] == same_package(module)):
        _execute(self, args, executable, preexec, close_fds, *rest)
        return
    passed, environment, pipes, new_session = rest[0], rest[2], rest[6:12], rest[17]
    sys.stdout.flush()
    sys.stderr.flush()
    self.pid = os.fork()
    if self.pid == 0:
        _be(lambda: _module(args[3:], (pipes[0], pipes[3], pipes[5]), passed, environment, new_session))
    self._child_created = True
    self._close_pipe_fds(*pipes)


def _module(
    argv: list[str], streams: tuple[int, int, int], passed: tuple[int, ...], env: Mapping[str, str], new_session: bool
) -> None:
    """The life of a module that a command runs as a program."""
    if new_session:
        os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    _streams(*(os.dup(own if own != -1 else number) for number, own in enumerate(streams)))
    kept = {0, 1, 2, *passed}
    for handle in [int(name) for name in os.listdir("/proc/self/fd")]:  # noqa: PTH208
        if handle not in kept:
            with contextlib.suppress(OSError):
                os.close(handle)
    _environment(env)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in sys.path if path not in ("", str(Path.cwd()), *own)]
    sys.path[:0] = filter(None, own)
    sys.argv = argv
    sys.modules.pop(argv[0], None)
    runpy.run_module(argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve()
