"""Where inputs are tried: a small results folder, made anew for each, and commands on it in this process, watched.

A command must end with a designed exit code and no traceback, in time; it must write, remove and connect to nothing
outside of the results folder, start no program but SLURM's, signal no process and import nothing that lies about.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import typer

from itopctl.cli import app
from itopctl.errors import ItopctlError
from itopctl.store.journal import JournalWriter
from tests.store import builders
from tests.store.builders import Lab

CPU_SECONDS, SECONDS = 5, 30  # after which a command hangs: by the processor's clock; by the wall's, on a slow machine
MOST_BYTES = 3 << 30  # of memory, beyond what was taken before
EXIT_CODES = (0, 1, 2, 3)
SECRET = "what stands outside of the results folder"
OLD = Path(__file__).parents[1] / "store" / "databases" / "v2"  # real runs: two done, one failed
DONE, SPARSE, FAILED = "eb84d5a71aa6", "527d7f6d850c", "71c0dc811ea0"
BEGUN, QUEUED = builders.run_id(7), builders.run_id(8)
SLURM = {"sbatch", "squeue", "sacct", "scontrol", "sinfo", "scancel", "sacctmgr", "sbcast", "srun"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {  # audit event → which of its arguments are paths that change
    "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.mkdir": (0,), "os.symlink": (1,), "os.link": (1,),
    "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,), "os.utime": (0,), "os.setxattr": (0,), "os.mkfifo": (0,),
}  # fmt: skip
_PROGRAMS = {"os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "os.startfile"}


class Hung(BaseException):
    """A command took too long."""


class Watch:
    """Sees what this process does to the world, while it is on. Audit hooks stay for ever, so there is one."""

    def __init__(self) -> None:
        self.root: str | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    @contextlib.contextmanager
    def on(self, root: Path) -> Iterator[list[str]]:
        """A list that grows by what is done outside of `root`."""
        self.seen = []
        self.root = os.path.realpath(root)
        try:
            yield self.seen
        finally:
            self.root = None

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.root is None:
            return
        root, self.root = self.root, None  # what is done here is not looked at
        try:
            wrong = self._wrong(event, arguments, root)
            if wrong:
                self.seen.append(f"{event} {wrong}")
        finally:
            self.root = root

    def _wrong(self, event: str, arguments: tuple[Any, ...], root: str) -> str | None:
        if event == "open":
            path, _, flags = arguments
            if isinstance(path, int) or not isinstance(flags, int) or not flags & _WRITES:
                return None
            return self._outside(path, root, follows=not flags & os.O_NOFOLLOW)
        if event in _CHANGES:
            found = [self._outside(arguments[n], root, follows=False) for n in _CHANGES[event]]
            return next(filter(None, found), None)
        if event == "sqlite3.connect":
            name = str(arguments[0])
            return None if name == ":memory:" else self._outside(name.removeprefix("file:"), root, follows=True)
        if event == "subprocess.Popen":
            return None if Path(str(arguments[1][0])).name in SLURM else str(arguments[1])
        if event in ("os.kill", "os.killpg", "signal.pthread_kill"):
            return None if arguments[1] == 0 else str(arguments)
        return str(arguments) if event in _PROGRAMS or event == "socket.connect" else None

    @staticmethod
    def _outside(path: Any, root: str, follows: bool) -> str | None:
        if isinstance(path, int):
            return None
        name = os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (links are looked at below)
        real = os.path.realpath(name if follows else Path(name).parent)
        inside = real == root or real.startswith(f"{root}/") or os.path.realpath(name) == root
        return None if inside or real == os.devnull else name


_watch: list[Watch] = []
_COMMAND = typer.main.get_command(app.app)  # made once: that takes longer than many a command


@dataclass
class Bench:
    """A place outside with a canary, and a results folder that is made anew for every input.

    Attributes:
        place: everything of it.
        name: of the input that is tried.
        tried: how many inputs were.
        wrong: what was not as it should be, by input.
    """

    place: Path
    name: str = ""
    tried: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not _watch:
            _watch.append(Watch())
        self.template, self.results = self.place / "template", self.place / "inside" / "results"
        self.canary = self.place / "canary"
        self.canary.mkdir(parents=True)
        (self.canary / "file").write_text(SECRET)
        (self.canary / "evil.py").write_text("def make(*_, **__):\n    return None\n")
        self.results.parent.mkdir()
        self.spec = self.results.parent / "old.yaml"
        self.spec.write_text(json.loads((OLD / "sweeps" / "old.json").read_text())["specs"][0]["text"])
        make_template(self.template)
        self.settle()

    def fresh(self, known: bool = False) -> Path:
        """The results folder as it was at first; `known`: to its store, which need not read these files again."""
        if self.results.is_symlink() or self.results.is_file():
            self.results.unlink()
        shutil.rmtree(self.results, ignore_errors=True)
        shutil.copytree(self.template, self.results, symlinks=True)
        if known:
            lab = Lab.at(self.results)
            lab.ingest()
            lab.store.close()
        return self.results

    def judge(self, asked: Iterable[Sequence[str]], inputs: int = 1) -> None:
        """Count inputs, and see what commands make of them."""
        for command in asked:
            for problem in self.call(command):
                self.wrong.append(f"{self.name}: itopctl {' '.join(command)}: {problem}")
        self._count(inputs)

    def judge_call(self, call: Callable[[], Any], allowed: type[Exception]) -> None:
        """Count an input, and see what a function makes of it: a value, or an error of its own."""
        with _watch[0].on(self.results.parent) as seen:
            try:
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                call()
            except allowed:
                pass
            except BaseException as error:
                self.wrong.append(f"{self.name}: {_where(error)}")
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
        self.wrong += [f"{self.name}: outside of the results folder: {what}" for what in seen]
        self._count(1)

    def _count(self, inputs: int) -> None:
        if (self.tried + inputs) // 50 > self.tried // 50:
            gc.collect()  # engines that commands left open
        self.tried += inputs

    def call(self, command: Sequence[str]) -> list[str]:
        """Run a command; says what is wrong with how that went."""
        out = io.StringIO()
        words = ["", *command]
        folder = Path(words[words.index("--results") + 1]) if "--results" in words else self.results
        with _watch[0].on(folder) as seen:
            end = _run(command, out)
        problems = [end] if isinstance(end, str) else []
        if isinstance(end, int) and end not in EXIT_CODES:
            problems.append(f"exit code {end}")
        text = out.getvalue()
        if "Traceback (most recent call last)" in text:
            problems.append(f"a traceback: {text[-2000:]}")
        if SECRET in text:
            problems.append("shows what stands outside")
        problems += [f"outside of the results folder: {what}" for what in dict.fromkeys(seen)]
        if self.outside() != self._untouched:
            problems.append("changed the canary")
            self.settle()
        if "evil" in sys.modules:
            problems.append("imported what lies about")
            del sys.modules["evil"]
        return problems

    def settle(self) -> None:
        """Take what lies outside now for what must stay."""
        self._untouched = self.outside()

    def outside(self) -> list[tuple[str, int, bytes]]:
        """All that lies outside: names, kinds and contents."""
        files = sorted(self.canary.rglob("*"))
        return [(str(path), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"") for path in files]


def _run(command: Sequence[str], out: io.StringIO) -> int | str:
    """The exit code, or what else came of it."""
    sys.argv = ["itopctl", *command]
    try:
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out), mock.patch.object(app, "app", _COMMAND):
            return app.run()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Hung as hung:
        return f"hangs: {_where(hung)}"
    except ItopctlError as error:
        return error.exit_code
    except BaseException as error:
        return f"raises {_where(error)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _where(error: BaseException) -> str:
    """What was raised, and the places of this package that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/itopctl/" in frame.filename]
    ways = [f"{frame.filename.rpartition('/itopctl/')[2]}:{frame.lineno} {frame.name}" for frame in frames[-7:]]
    return f"{type(error).__name__}: {str(error)[:300]} at {' > '.join(ways)}"


@contextlib.contextmanager
def patience() -> Iterator[Callable[[], None]]:
    """Within, commands that take too long end; call what it yields before each input."""

    def give_up(number: int, frame: Any) -> None:
        raise Hung

    left, _ = signal.getitimer(signal.ITIMER_REAL)  # of whoever else waits for this test
    began = time.monotonic()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    before = {number: signal.signal(number, give_up) for number in (signal.SIGPROF, signal.SIGALRM)}
    try:
        yield lambda: signal.setitimer(signal.ITIMER_REAL, SECONDS) and None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in before.items():
            signal.signal(number, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(1.0, left - (time.monotonic() - began)))


def make_template(folder: Path) -> None:
    """Finished, failed, begun and queued runs, one at a job, with everything that can lie in a results folder."""
    shutil.copytree(OLD, folder)
    with mock.patch("itopctl.store.journal.utc_now", lambda: "2026-01-02T00:00:00.000+00:00"):  # the same every time
        _fill(folder)


def _fill(folder: Path) -> None:
    lab = Lab.at(folder)
    lab.sweep("one", {id_: builders.config() for id_ in (BEGUN, QUEUED)})
    run, journal = lab.begun(BEGUN)
    journal.close()
    (run.path / "lock").write_text('{"host": "elsewhere", "pid": 1, "start": "1", "job_id": null, "job_start": 0}')
    (run.path / "log.txt").write_text("training\n" * 3)
    (run.path / f"checkpoint-{20:012d}-{'0' * 16}.pt").write_bytes(b"PK\x03\x04" + bytes(200))
    (run.path / "cancel").write_text("")
    lab.submitted("one-x", (QUEUED,))
    failed = lab.results.run(FAILED)
    continued = JournalWriter(failed.journal)
    continued.write("started", {**builders.STARTED, "attempt": 2})
    continued.write("failed", {"step": 3, "epoch": 0.3, "cause": "timeout", "message": "too slow"})
    continued.close()
    lab.ingest()
    lab.store.close()


def commands(results: Path, rng: random.Random, spec: Path | None = None) -> list[str]:
    """One command that looks at a results folder, or puts it right."""
    run = rng.choice((DONE, SPARSE, FAILED, BEGUN, QUEUED))
    looks = [
        ["status"], ["status", "--runs"], ["status", "--json"], ["status", "--runs", "--json"], ["report"],
        ["report", "-t", "runs"], ["report", "-t", "runs", "--json"], ["report", "-f", "csv"], ["show", run],
        ["show", run, "--json"], ["logs", run], ["logs", run, "--job"], ["store", "check"],
        ["store", "check", "--json"], ["store", "rebuild"], ["retry", "--dry-run"], ["cancel", "--yes"],
        ["list", "sweeps"],
    ]  # fmt: skip
    if spec is not None:
        looks.append(["sweep", str(spec), "--dry-run"])
    return [*rng.choice(looks), "--results", str(results)]
