"""A pretended SLURM, for tests that must be quick: its commands on the PATH, and what tests do with them.

Nothing is scheduled: a job starts, ends and is forgotten when a test says so. The commands are real programs, in
`fake_slurm_commands.py`; `test_scheduler_contract.py` holds them and the real ones to the same promises.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.dispatch import fake_slurm_commands as commands

NAMES = ("sbatch", "squeue", "sacct", "scancel", "scontrol", "sinfo", "srun")


class FakeSlurm:
    """A pretended cluster of two partitions, `main` and `urgent`.

    Args:
        folder: where all of it lies; made where it is missing.
        max_array_size: its MaxArraySize.
    """

    def __init__(self, folder: Path, max_array_size: int = 1001) -> None:
        self.folder = folder.absolute()
        (self.folder / "bin").mkdir(parents=True)
        (self.folder / "steps").mkdir()
        for name in NAMES:
            program = self.folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -E "{commands.__file__}" {name} "$@"\n')
            program.chmod(0o755)
        config = {
            "AccountingStorageType": "accounting_storage/slurmdbd", "ClusterName": "fake", "JobRequeue": 1,
            "MaxArraySize": max_array_size, "MinJobAge": "300 sec", "PreemptMode": "REQUEUE",
        }  # fmt: skip
        state = {
            "next_id": 100, "arrays": {}, "partitions": ["main", "urgent"], "config": config, "accounting": True,
            "accounts_down": False, "lag": False, "controller_down": False, "answers_lost": False, "breaks_after": {},
        }  # fmt: skip
        (self.folder / "state.json").write_text(json.dumps(state))

    @classmethod
    def installed(cls, folder: Path, monkeypatch: pytest.MonkeyPatch, **about: Any) -> FakeSlurm:
        """One that this process finds on its PATH."""
        made = cls(folder, **about)
        for name, value in made.env.items():
            monkeypatch.setenv(name, value)
        return made

    @property
    def env(self) -> dict[str, str]:
        """What a process needs in its environment to find this cluster."""
        return {"FAKE_SLURM": str(self.folder), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}

    # What happens to jobs

    def start(self, *jobs: str) -> None:
        """Jobs (`12_3`) begin."""
        with self._board() as state:
            for job in jobs:
                task = self._task(state, job)
                task["started"] = time.time()
                commands.set_word(state, task, "RUNNING")

    def end(self, job: str, state: str = "COMPLETED", exit_code: str = "0:0") -> None:
        """A job ends, in one of SLURM's states."""
        with self._board() as known:
            commands.set_word(known, self._task(known, job), state, exit_code)

    def say(self, job: str, word: str, reason: str = "None") -> None:
        """A job is in some state, in the queue."""
        with self._board() as known:
            commands.set_word(known, self._task(known, job), word, reason=reason)

    def requeue(self, job: str) -> None:
        """A job goes back to the queue, as after a preemption."""
        with self._board() as state:
            commands.requeue(state, self._task(state, job))

    def show(self, job: str, **fields: object) -> None:
        """What `scontrol show job` says of a job instead, such as `Restarts`."""
        with self._board() as state:
            self._task(state, job)["shown"] = fields

    def half_written(self, job: str, word: str) -> None:
        """The accounts have a job's state, and not its end."""
        with self._board() as state:
            self._task(state, job)["account"] = [word, "0:0", "Unknown"]

    def forget(self) -> None:
        """Ended jobs leave the queue (MinJobAge passed)."""
        with self._board() as state:
            for array in state["arrays"].values():
                for task in array["tasks"].values():
                    task["queued"] = task["queued"] and task["word"] not in commands.ENDED

    def lose(self, job: str) -> None:
        """A job is gone without a trace, as after a controller that lost its state."""
        with self._board() as state:
            self._task(state, job).update(queued=False, account=None)

    # What happens to the cluster

    def lag_accounts(self, lag: bool = True) -> None:
        """The accounts hear of nothing any more; with False they catch up."""
        with self._board() as state:
            state["lag"] = lag
            for array in state["arrays"].values() if not lag else ():
                for task in array["tasks"].values():
                    commands.account(task)

    def wrap(self, *names: str, before: str = "", after: str = "", code: str = "$?") -> None:
        """Commands are a site's own, which print something before and after SLURM's, to both streams.

        Args:
            names: of the commands; all of them where none is given.
            before, after: what they print, as it is.
            code: what they end with, as a shell has it; by default what SLURM's command ends with.
        """
        for name in names or NAMES[:-1]:
            program = self.folder / "bin" / name
            real = program.with_suffix(".real")
            if not real.exists():
                program.rename(real)
            for number, text in enumerate((before, after)):
                (self.folder / f"{name}-{number}").write_bytes(text.encode("latin-1"))
            first, last = (f'tee /dev/stderr < "{self.folder}/{name}-{number}"' for number in (0, 1))
            program.write_text(f'#!/bin/sh\n{first}\n"{real}" "$@"\ncode={code}\n{last}\nexit $code\n')
            program.chmod(0o755)

    def break_controller(self, broken: bool = True) -> None:
        """The controller does not answer."""
        self._set(controller_down=broken, breaks_after={})

    def break_controller_after(self, command: str, times: int) -> None:
        """The controller answers a command so many times more, and then dies."""
        self._set(breaks_after={command: times})

    def lose_answers(self, lost: bool = True) -> None:
        """What sbatch asks for arrives, and its answer does not."""
        self._set(answers_lost=lost)

    def break_accounts(self, broken: bool = True) -> None:
        """The database does not answer."""
        self._set(accounts_down=broken)

    def without_accounting(self) -> None:
        """There is no database."""
        with self._board() as state:
            state["accounting"] = False
            state["config"]["AccountingStorageType"] = "accounting_storage/none"

    # What there is

    @property
    def arrays(self) -> dict[str, dict[str, Any]]:
        """Every array by its id: name, what it asked for, throttle, script, tasks."""
        with self._board() as state:
            found: dict[str, dict[str, Any]] = state["arrays"]
        return found

    def jobs(self, array: str) -> list[str]:
        """Ids of the jobs of an array."""
        return [f"{array}_{index}" for index in self.arrays[array]["tasks"]]

    def word(self, job: str) -> str:
        """A job's state."""
        with self._board() as state:
            return str(self._task(state, job)["word"])

    def calls(self, *names: str) -> list[list[str]]:
        """Commands that were given, with their arguments; of these programs, or of all."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [call for call in map(json.loads, lines) if not names or call[0] in names]

    def count(self) -> dict[str, int]:
        """Calls by command."""
        names = [call[0] for call in self.calls()]
        return {name: names.count(name) for name in NAMES if name in names}

    def forget_calls(self) -> None:
        """Count from here."""
        (self.folder / "calls").unlink(missing_ok=True)

    # Running jobs

    def launch(self, job: str) -> RunningJob:
        """Really start a job's script, on this machine."""
        array, _, index = job.partition("_")
        self.start(job)
        about = self.arrays[array]
        asked, restarts = about["asked"], about["tasks"][index]["restarts"]
        given = {
            "SLURM_JOB_ID": str(int(array) + int(index)), "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index,
            "SLURM_JOB_NAME": about["name"], "SLURM_NTASKS": asked.get("ntasks-per-node", "1"),
            "SLURM_JOB_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
            "SLURM_JOB_NODELIST": "localhost", "SLURM_CPUS_ON_NODE": asked.get("cpus-per-task", "1"),
            **({"SLURM_RESTART_COUNT": str(restarts)} if restarts else {}),
        }  # fmt: skip
        script = self.folder / f"script-{job}"
        script.write_text(about["script"])
        script.chmod(0o755)
        with (self.folder / f"batch-{job}.out").open("ab") as output:
            process = subprocess.Popen(
                [script], cwd=asked.get("chdir", about["cwd"]), env={**os.environ, **self.env, **given},
                stdout=output, stderr=output, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        return RunningJob(self, job, process)

    def run(self, job: str) -> int:
        """Really run a job's script to its end; returns its exit code."""
        return self.launch(job).wait()

    def _board(self) -> contextlib.AbstractContextManager[dict[str, Any]]:
        return commands.board(str(self.folder))

    def _set(self, **values: object) -> None:
        with self._board() as state:
            state.update(values)

    @staticmethod
    def _task(state: dict[str, Any], job: str) -> dict[str, Any]:
        task = commands.task_of(state, job)
        assert task is not None, f"there is no job {job}"
        return task


class RunningJob:
    """A job whose script runs here."""

    def __init__(self, slurm: FakeSlurm, job: str, process: subprocess.Popen[bytes]) -> None:
        self.slurm, self.job, self.process = slurm, job, process

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the processes of its step, as SLURM does before a time limit and at a preemption."""
        for path in (self.slurm.folder / "steps").glob(f"{self.job}.*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(path.read_text()), number)

    def wait(self, seconds: float = 120.0) -> int:
        """Wait for its end, also by a requeue; SLURM hears how it ended. Returns its exit code."""
        until = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < until, f"job {self.job} does not end"
            if self.slurm.word(self.job) == "PENDING":  # requeued: SLURM ends what is left of it
                time.sleep(0.2)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
            time.sleep(0.05)
        for path in (self.slurm.folder / "steps").glob(f"{self.job}.*"):
            path.unlink()
        code = self.process.returncode
        if self.slurm.word(self.job) not in ("PENDING", *commands.ENDED):
            self.slurm.end(self.job, "FAILED" if code else "COMPLETED", f"{code}:0")
        return code
