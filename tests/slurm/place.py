"""A results folder of one test, with the real command line and a real cluster; its jobs end with the test.

Its path has a space in it. What is trained is small and real; it goes slowly, without work for the CPU, as long as the
file `slowly` is there: a test decides so how long a run lasts, and its result stays what it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from itopctl.store.submissions import Submission, directories, load
from tests.helpers import itopctl, write_spec
from tests.slurm.cluster import Cluster
from tests.slurm.processes import wait_until

PATIENCE = 120.0
"""Seconds for what takes a few, on a machine with much else to do."""

STEP_SECONDS = 0.1
"""Of a training that goes slowly."""

LONG = 100
"""Epochs of digits that last two minutes if they go slowly, and one second otherwise."""

DIVERGES: dict[str, Any] = {"optimizer.lr": 1e20}
"""Of a training that fails at once."""

OPTIONS: dict[str, Any] = {"mem": "700M", "cpus_per_task": 1, "timeout_min": 5}

_MODEL = '''\
"""A small network that goes slowly while a file is there."""

import time
from pathlib import Path

import torch

SLOWLY = Path({slowly!r})


class Network(torch.nn.Sequential):
    def forward(self, batch):
        if self.training and SLOWLY.exists():
            time.sleep({seconds})
        return super().forward(batch)


def make(input_shape, classes):
    width = {width}
    inputs = input_shape[0] * input_shape[1] * input_shape[2]
    layers = [torch.nn.Linear(inputs, width), torch.nn.ReLU(), torch.nn.Linear(width, classes)]
    return Network(torch.nn.Flatten(), *layers)
'''

_TIMES = ("finished_at", "attempt", "steps_per_second", "wall_seconds", "peak_memory_bytes", "energy_joules")
_TIMES_OF_EVENTS = ("seq", "at", "attempt", "wall_seconds", "steps_per_second")


def _parent(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("PPid:")))


class Place:
    """Where one test submits and looks.

    Args:
        folder: everything of it lies there.
        cluster: where jobs go.
        options: what jobs ask for, where that is not `OPTIONS`.
    """

    def __init__(self, folder: Path, cluster: Cluster, **options: Any) -> None:
        self.folder, self.cluster, self.options = folder / "a place", cluster, {**OPTIONS, **options}
        self.folder.mkdir()
        self.results = Results(self.folder / "its results")
        self.write_model()

    # What is run

    def write_model(self, width: int = 64) -> Path:
        """The user's module `small`, with its function `make`."""
        text = _MODEL.format(slowly=str(self._slowly), seconds=STEP_SECONDS, width=width)
        path = self.folder / "small.py"
        path.write_text(text)
        return path

    def spec(self, seeds: int = 1, slurm: dict[str, Any] | None = None, name: str = "trial", **base: Any) -> Path:
        """A spec of the small network on digits: SET-ITOP, three epochs, saved every second, unless told otherwise."""
        settings = {
            "dataset": "digits", "model": "small:make", "method": "set-itop", "sparsity": 0.9, "epochs": 3,
            "update_interval": 5, "checkpoint_minutes": 1 / 60,
        }  # fmt: skip
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        return write_spec(
            folder, name=name, base={**settings, **base}, grid={"seed": seeds},
            slurm={**self.options, **(slurm or {})},
        )  # fmt: skip

    @property
    def _slowly(self) -> Path:
        return self.folder / "slowly"

    def slow(self) -> None:
        """Let all trainings of this place go slowly from now on."""
        self._slowly.touch()

    def fast(self) -> None:
        """Let them go as fast as they can."""
        self._slowly.unlink(missing_ok=True)

    # The command line

    @property
    def environment(self) -> dict[str, str]:
        """Of a command typed here."""
        return {
            **os.environ, **self.cluster.env, "ITOPCTL_RESULTS": str(self.results.path), "COLUMNS": "200",
            "ITOPCTL_SLURM": "/dev/null",
        }  # fmt: skip

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        """Start a command of itopctl's."""
        return subprocess.Popen(
            [sys.executable, "-m", "itopctl", *map(str, arguments)], cwd=self.folder, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**self.environment, **environment},
        )  # fmt: skip

    def _carry_out(self, arguments: tuple[str | Path, ...], code: int | None, **environment: str) -> tuple[str, str]:
        done = itopctl(*arguments, cwd=self.folder, **{**self.environment, **environment})
        assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout, done.stderr

    def itopctl(self, *arguments: str | Path, code: int | None = 0, **environment: str) -> str:
        """Carry out a command; returns all that it printed. Its exit code must be `code`, unless that is None."""
        return "".join(self._carry_out(arguments, code, **environment))

    def json(self, *arguments: str | Path, code: int | None = 0) -> Any:
        """What a command prints as JSON."""
        return json.loads(self._carry_out((*arguments, "--json"), code)[0])

    def submit(self, spec: Path, *arguments: str | Path, code: int = 0) -> str:
        """`itopctl sweep SPEC --cluster slurm …`; returns what it printed."""
        return self.itopctl("sweep", spec, "--cluster", "slurm", *arguments, code=code)

    def runs(self, *arguments: str, code: int | None = 0) -> list[dict[str, Any]]:
        """The runs as the store has them after another look at the cluster."""
        found: list[dict[str, Any]] = self.json("status", "--runs", *arguments, code=code)
        return found

    def states(self, *arguments: str, code: int | None = 0) -> list[tuple[str, str | None]]:
        """State and cause of each run."""
        return [(run["state"], run["cause"]) for run in self.runs(*arguments, code=code)]

    def show(self, run_id: str) -> dict[str, Any]:
        """Everything that the store knows of a run."""
        shown: dict[str, Any] = self.json("show", run_id)
        return shown

    def attempts(self, run_id: str) -> list[dict[str, Any]]:
        """The attempts at a run, by the store."""
        history: list[dict[str, Any]] = self.show(run_id)["attempt_history"]
        return history

    def causes(self, run_id: str) -> list[str | None]:
        """Why each attempt at a run ended, by the store."""
        return [attempt["cause"] for attempt in self.attempts(run_id)]

    # The files, without a command: for waiting

    @property
    def submitted_runs(self) -> list[str]:
        """Every run that was submitted, in order."""
        return [run_id for one in self.submissions for run_id in one.request.runs]

    @property
    def submissions(self) -> list[Submission]:
        """What was submitted, oldest first."""
        found = [one for one in map(load, directories(self.results)) if one is not None]
        return sorted(found, key=lambda one: one.request.created_at)

    def events(self, run_id: str, kind: str | None = None) -> list[dict[str, Any]]:
        """What a run's journal says."""
        events = read_journal(self.results.run(run_id).journal).events
        return [event for event in events if kind in (None, event["event"])]

    def is_training(self, run_id: str, attempt: int = 1, epochs: int = 1) -> bool:
        """Whether an attempt has seen so many epochs."""
        seen = [event for event in self.events(run_id, "evaluated") if event["attempt"] == attempt]
        return len(seen) >= epochs

    def pids(self, run_id: str) -> tuple[int, int]:
        """The process that made the newest attempt at a run, and the main process of its job."""
        runner = self.events(run_id, "started")[-1]["pid"]
        return runner, _parent(_parent(runner))  # a worker of the main process started the runner

    def done(self, *run_ids: str) -> bool:
        """Whether there are results of these runs, or of all that were submitted."""
        return all(self.results.run(run_id).result.exists() for run_id in run_ids or self.submitted_runs)

    def wait(self, true: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait until something is true; fail with what the queue and the logs say otherwise."""
        assert wait_until(true, seconds, every=0.2), self.picture()

    def picture(self) -> str:
        """The queue, and what jobs printed, for a person who reads why a test failed."""
        queue = self.cluster.run("squeue", "--array", "--states=all", f"--name={','.join(self._names)}").stdout
        logs = sorted(self.results.submissions.glob("*/*_log.*"))
        said = [f"--- {log.name}\n{log.read_text(errors='replace')[-1500:]}" for log in logs[:8]]
        return "\n".join([queue, *said])

    # The jobs

    @property
    def _names(self) -> list[str]:
        return [directory.name for directory in directories(self.results)]

    def queue(self, *states: str) -> list[tuple[str, str]]:
        """Job id and state of the jobs submitted here that SLURM shows."""
        if not self._names:
            return []
        wanted = f"--states={','.join(states) or 'all'}"
        names = ",".join(self._names)
        answer = self.cluster.run("squeue", "--noheader", "--array", wanted, f"--name={names}", "--format=%F_%K %T")
        return [(line.split()[0], line.split()[1]) for line in answer.stdout.splitlines()]

    def end_jobs(self) -> None:
        """End what is left of the jobs submitted here, and wait until it is gone."""
        self.fast()
        left = self.queue("PENDING", "RUNNING", "SUSPENDED", "CONFIGURING", "COMPLETING", "REQUEUED")
        waiting = {job_id for job_id, state in left if state != "COMPLETING"}
        if waiting:
            self.cluster.run("scancel", "--quiet", *sorted({job_id.partition("_")[0] for job_id in waiting}))
        if left:
            wait_until(lambda: not self.queue("PENDING", "RUNNING", "COMPLETING", "REQUEUED"), PATIENCE, every=0.2)

    # What has to be equal

    def here(self, spec: Path) -> Results:
        """The results of the same runs on this machine, uninterrupted, with one thread each, in another folder."""
        self.fast()
        results = Results(self.folder / "results of this machine")
        cores = len(os.sched_getaffinity(0))
        self.itopctl("sweep", spec, "--results", results.path, "--workers", str(cores))
        return results

    def assert_same_results(self, others: Results, run_ids: Iterable[str] = ()) -> None:
        """These runs, or all, have the result and the journal that they have elsewhere; times apart."""
        for run_id in run_ids or self.submitted_runs:
            assert outcome(self.results, run_id) == outcome(others, run_id)
            assert course(self.results, run_id) == course(others, run_id)


@contextlib.contextmanager
def a_place(folder: Path, cluster: Cluster, alone: bool = False, **options: Any) -> Iterator[Place]:
    """A place on a cluster that nobody breaks meanwhile, or, `alone`, that nobody else uses: for who breaks it."""
    with using(cluster, alone):
        place = Place(folder, cluster, **options)
        try:
            yield place
        finally:
            place.end_jobs()


@contextlib.contextmanager
def using(cluster: Cluster, alone: bool = False) -> Iterator[None]:
    """Use a cluster with others, or alone, over all processes that run tests."""
    with (cluster.folder / "tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        yield


def sbatch_that_kills_who_asks(folder: Path, cluster: Cluster, submits: bool = True) -> str:
    """A PATH whose sbatch submits, or does not, and kills the process that asked before it has the answer."""
    real = shutil.which("sbatch", path=cluster.env["PATH"])
    script = folder / "sbatch"
    folder.mkdir()
    script.write_text("#!/bin/sh\n" + f'{real} "$@" || exit $?\n' * submits + "kill -KILL $PPID\n")
    script.chmod(0o755)
    return f"{folder}:{cluster.env['PATH']}"


def outcome(results: Results, run_id: str) -> dict[str, Any]:
    """A run's result without times."""
    result: dict[str, Any] = json.loads(results.run(run_id).result.read_text())
    return {name: value for name, value in result.items() if name not in _TIMES}


def course(results: Results, run_id: str) -> list[dict[str, Any]]:
    """What was measured on the way, without times, and once where a step was made twice."""
    events = read_journal(results.run(run_id).journal).events
    measured = {
        (event["event"], event["step"]): {k: v for k, v in event.items() if k not in _TIMES_OF_EVENTS}
        for event in events
        if event["event"] in ("evaluated", "topology")
    }
    return [measured[key] for key in sorted(measured, key=lambda key: (key[1], key[0]))]
