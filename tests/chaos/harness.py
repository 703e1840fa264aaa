"""A sweep under fire: its processes are killed at random moments, and its user types the commands again.

What is drawn (who is hit, after how long, what is typed next) follows from the seed. When a process really dies does
not: that is up to the machine.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from itopctl.store.rundir import Results
from tests.chaos.processes import Family, Process, kill_at_once, of_pid, wait_for

_TICK = 0.02
_SHARE = 0.85  # of the runs are done when the last kill falls: the rest end undisturbed
_PATIENCE = 120.0  # seconds for what takes a few on an idle machine

STRIKES = {
    "worker": 37, "worker as it writes": 12, "worker at the end": 9, "command": 11, "command and workers": 9,
    "other command": 22,
}  # fmt: skip
"""Whom a strike is meant for, and how often of a hundred times."""


@dataclass(frozen=True)
class Kill:
    """A SIGKILL that hit a live process: between which moments (Unix time) it died, who, and the run it had in hand."""

    at: float
    over: float
    pid: int
    whom: str
    run: str | None = None


@dataclass
class Command:
    """A command that somebody typed, and the file with what it printed."""

    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes]
    output: Path

    @property
    def name(self) -> str:
        return self.arguments[0]

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def kill(self) -> bool:
        """Whether SIGKILL ended it, and not something before."""
        if self.process.poll() is None:
            self.process.kill()
        return self.process.wait() == -9


@dataclass
class Chaos:
    """Carries a sweep out, kills what works on it `target` times on the way, and notes what must never be.

    Args:
        spec, name: the sweep, and how it is called.
        results: where to.
        run_ids: its runs.
        seed: of all that is drawn.
        target: so many SIGKILLs are to hit live processes.
    """

    spec: Path
    name: str
    results: Results
    run_ids: tuple[str, ...]
    seed: int
    target: int
    kills: list[Kill] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    typed: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.family = Family()
        self.commands: list[Command] = []
        self.first_results: dict[str, bytes] = {}
        self.most_done = 0

    # What the user does -----------------------------------------------------------------------------------

    def carry_out(self) -> None:
        """Until all kills have fallen, then to the end."""
        until = time.monotonic() + _PATIENCE + 5.0 * self.target
        try:
            while len(self.kills) < self.target and time.monotonic() < until:
                self._keep_going()
                self._watch_for(self._pause())
                self._strike()
            self._finish()
        finally:
            for command in self.commands:
                command.kill()
            self.family.end_all()
            self.family.end_all()  # what one of them was just starting

    def _keep_going(self) -> None:
        """Type the next command where none is at work; now and then one beside another, for the same runs."""
        self._take_note_of_ends()
        beside = self.random.random() < 0.08 or self.typed.total() == 1
        if self.commands and (len(self.commands) > 1 or not beside):
            return
        again = ("retry", self.name, "--cause", "killed,lost,cancelled")
        what = self.random.choices([("sweep", str(self.spec)), again], [3, 1])[0]
        self._type(*(what if self.results.run_ids() else ("sweep", str(self.spec))), "--workers", "2")

    def _finish(self) -> None:
        """Nobody is killed any more: the same command again, until it says that all is done."""
        for _ in range(8):
            if not self._wait_for_commands():
                return
            command = self._type("sweep", str(self.spec), "--workers", "2")
            if not self._wait_for_commands():
                return
            if command.process.returncode == 0 and self._done() == len(self.run_ids):
                return
        self.wrong.append(f"{self._done()} of {len(self.run_ids)} runs done after many quiet sweeps: {command.said()}")

    def _wait_for_commands(self) -> bool:
        def ended() -> bool:
            self._observe()
            return all(command.process.poll() is not None for command in self.commands)

        until = time.monotonic() + 4 * _PATIENCE
        while not ended():
            if time.monotonic() > until:
                self.wrong.append(f"{self.commands[0].name} does not end: {self.commands[0].said()}")
                return False
            time.sleep(_TICK)
        self._take_note_of_ends()
        return True

    def _type(self, *arguments: str) -> Command:
        self.typed[arguments[0]] += 1
        output = self.results.path.parent / f"output-{sum(self.typed.values()):04d}-{arguments[0]}.txt"
        command_line = [sys.executable, "-m", "itopctl", *arguments, "--results", str(self.results.path)]
        with output.open("wb") as file:
            process = subprocess.Popen(
                command_line, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
                env=self.family.environment, start_new_session=True,
            )  # fmt: skip
        command = Command(arguments, process, output)
        if arguments[0] in ("sweep", "retry"):
            self.commands.append(command)
        return command

    # What must never be -----------------------------------------------------------------------------------

    def _take_note_of_ends(self) -> None:
        """Commands that ended by themselves have an exit code, and words, that a user can make something of."""
        for command in [one for one in self.commands if one.process.poll() is not None]:
            self.commands.remove(command)
            self._judge(command)

    def _judge(self, command: Command) -> None:
        code, said = command.process.returncode, command.said()
        fit = code in (0, 1) or (code == 3 and "a worker process could not start: its process was killed" in said)
        if code == -9 or (fit and "Traceback" not in said):
            return
        self.wrong.append(f"{' '.join(command.arguments)} ended with exit code {code}: {said}")

    def _observe(self) -> list[tuple[Process, str]]:
        """Look at workers and results; returns the workers that have a run in hand."""
        at_work: list[tuple[Process, str]] = []
        for worker in (*self.family.workers(), *self.family.runners()):
            run_id = worker.run_in_hand()
            if run_id is None:
                continue
            # One may have ended, and another begun, between two looks: so look at the first again.
            also = [other for other, its in at_work if its == run_id and other.run_in_hand() == run_id]
            if also and worker.run_in_hand() == run_id:
                self.wrong.append(f"run {run_id} is at the processes {also[0].pid} and {worker.pid} at the same time")
            at_work.append((worker, run_id))
        self._look_at_results()
        return at_work

    def _look_at_results(self) -> None:
        """A result that was there stays as it was."""
        for run_id in self.run_ids:
            try:
                result = self.results.run(run_id).result.read_bytes()
            except FileNotFoundError:
                if run_id in self.first_results:
                    self.wrong.append(f"the result of run {run_id} is gone")
                continue
            if self.first_results.setdefault(run_id, result) != result:
                self.wrong.append(f"the result of run {run_id} was written again: {result!r}")

    def _done(self) -> int:
        return sum(self.results.run(run_id).result.exists() for run_id in self.run_ids)

    # Strikes ----------------------------------------------------------------------------------------------

    def _runs_are_ahead(self) -> bool:
        """Kills and finished runs keep step: where runs are ahead, strikes come soon, until none can finish."""
        return len(self.kills) / self.target < self._done() / (_SHARE * len(self.run_ids))

    def _pause(self) -> float:
        return self.random.uniform(0.0, 0.1 if self._runs_are_ahead() else 0.4)

    def _watch_for(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._observe()
            time.sleep(min(_TICK, left))

    def _strike(self) -> None:
        weights = {**STRIKES, "worker at the end": 0, "other command": 0} if self._runs_are_ahead() else STRIKES
        (whom,) = self.random.choices(list(weights), list(weights.values()))
        blow: dict[str, Callable[[], None]] = {
            "worker": self._kill_a_worker, "worker as it writes": self._kill_a_worker_as_it_writes,
            "worker at the end": self._kill_a_worker_as_it_ends_a_run,
            "command": self._kill_a_command, "command and workers": self._kill_a_command_and_its_workers,
            "other command": self._kill_another_command,
        }  # fmt: skip
        blow[whom]()

    def _await_training(self) -> list[tuple[Process, str]]:
        """Most of the time somewhere in a run, which takes seconds to begin; else now, whatever starts or ends."""
        mood = self.random.random()
        if mood < 0.2:
            return []
        saved = mood > 0.5  # only where a checkpoint is there to go on from
        wait_for(lambda: bool(self._training(saved)) or not self._is_working(), 5.0, _TICK)
        self._watch_for(self.random.uniform(0.0, 0.2 if self._runs_are_ahead() else 0.9 - 0.5 * saved))
        return self._training(saved)

    def _training(self, saved: bool) -> list[tuple[Process, str]]:
        """Workers and the runs they have in hand; with `saved` those that saved something."""
        at_work = self._observe()
        return [one for one in at_work if not saved or any(self.results.run(one[1]).path.glob("checkpoint*"))]

    def _hit(self, process: Process, whom: str) -> None:
        at, run_id = time.time(), process.run_in_hand()
        runner = self.family.runner_of(process)
        in_hand = runner.run_in_hand() if runner is not None else None
        if process.kill():
            wait_for(lambda: process.state is None, _PATIENCE)
            self.kills.append(Kill(at, time.time(), process.pid, whom, run_id))
            if runner is not None and in_hand is not None:  # the pool ends it
                wait_for(lambda: runner.state is None, _PATIENCE)
                self.kills.append(Kill(at, time.time(), runner.pid, f"{whom}, its runner", in_hand))

    def _kill_a_worker(self) -> None:
        victims = [runner for runner, _ in self._await_training()]
        if not victims or self.random.random() < 0.3:
            victims = self.family.workers()
        if victims:
            self._hit(self.random.choice(victims), "worker")

    def _kill_a_worker_as_it_ends_a_run(self) -> None:
        """In the moments between the result and the last word on it."""
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            at_work = [(worker, run_id) for worker, run_id in self._observe() if run_id not in self.first_results]
            for _ in range(100):  # looks are dear, and the moments short: many looks at results for one at processes
                for worker, run_id in at_work:
                    if self.results.run(run_id).result.exists():
                        time.sleep(self.random.choice([0.0, 0.0, 0.001, 0.003]))
                        self._hit(worker, "worker at the end")
                        return
                time.sleep(0.0003)

    def _kill_a_worker_as_it_writes(self) -> None:
        """While a file lies aside, not yet in its place."""
        for worker, run_id in self._await_training():
            folder = self.results.run(run_id).path
            if wait_for(lambda there=folder: any(there.glob(".*")), 0.5, 0.0):  # type: ignore[misc]
                self._hit(worker, "worker as it writes")
                return

    def _kill_a_command(self) -> None:
        """The pool's own process; its workers find themselves alone."""
        self._await_training()
        self._take_note_of_ends()
        if not self.commands:
            return
        command, at = self.random.choice(self.commands), time.time()
        if command.kill():
            self.kills.append(Kill(at, time.time(), command.process.pid, command.name))

    def _kill_a_command_and_its_workers(self) -> None:
        self._await_training()
        self._take_note_of_ends()
        if not self.commands:
            return
        command = self.random.choice(self.commands)
        head = of_pid(command.process.pid)
        if head is None:
            return
        workers = self.family.workers_of(head.pid)
        runs, at = {worker: worker.run_in_hand() for worker in workers}, time.time()
        hit = kill_at_once([head, *workers])
        if head in hit and command.process.wait() == -9:
            self.kills.append(Kill(at, time.time(), head.pid, f"{command.name} with its workers"))
        wait_for(lambda: all(one.state is None for one in hit), _PATIENCE)
        over = time.time()
        self.kills.extend(Kill(at, over, one.pid, "worker with its command", runs[one]) for one in hit if one in runs)

    def _kill_another_command(self) -> None:
        if not self.results.run_ids():
            return
        run_id = self.random.choice(self.run_ids)
        commands = [
            ("status", "--json"), ("report", self.name, "-t", "runs", "--json"), ("report", self.name, "--json"),
            ("show", run_id, "--json"), ("status", "--runs", "--json"), ("store", "check"), ("store", "rebuild"),
            ("store", "rebuild"),
        ]  # fmt: skip
        command = self._type(*self.random.choice(commands))
        wait_for(lambda: command.process.poll() is not None, self.random.uniform(0.0, 0.6))
        at = time.time()
        if command.kill():
            self.kills.append(
                Kill(at, time.time(), command.process.pid, " ".join(command.arguments[: 1 + (command.name == "store")]))
            )
        else:
            self._judge_answer(command)

    def _judge_answer(self, command: Command) -> None:
        """Such a command answers whatever dies beside it, and never knows less than before."""
        self._judge(command)
        if command.arguments == ("store", "check"):
            return  # while others write, files and store may differ; at the end they may not
        if command.process.returncode != 0:
            self.wrong.append(
                f"{' '.join(command.arguments[:2])} ended with {command.process.returncode}: {command.said()}"
            )
            return
        if command.arguments == ("status", "--json"):
            answer = json.loads(command.said())
            done, total = answer[0]["done"], answer[0]["total"]
            if total != len(self.run_ids) or done < self.most_done:
                self.wrong.append(f"status tells of {done} of {total} runs done, after {self.most_done}")
            self.most_done = done

    def _is_working(self) -> bool:
        return any(command.process.poll() is None for command in self.commands)
