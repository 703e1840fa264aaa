"""The harness sees its own processes and no others, and counts only what it really hit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.chaos.processes import Family, kill_at_once, need_proc, of_pid, wait_for

WAITS = "import time; time.sleep(60)"
FORKS = "import os, time; os.fork(); time.sleep(60)"


class Zoo:
    """Processes that look like workers."""

    def __init__(self) -> None:
        self.started: list[subprocess.Popen[bytes]] = []

    def __call__(self, family: Family, code: str = WAITS) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", code, "itopctl.dispatch.worker"]
        self.started.append(subprocess.Popen(command, env=family.environment))
        return self.started[-1]


@pytest.fixture
def zoo() -> Iterator[Zoo]:
    need_proc()
    zoo = Zoo()
    yield zoo
    for process in zoo.started:
        process.kill()
        process.wait()


def test_a_family_sees_its_own_processes_alone(zoo: Zoo) -> None:
    ours, others = Family(), Family()
    mine, theirs = zoo(ours), zoo(others)
    assert [process.pid for process in ours.workers()] == [mine.pid]
    ours.end_all()
    assert mine.wait() == -9
    assert theirs.poll() is None


def test_what_a_worker_starts_is_its_runner_and_no_worker(zoo: Zoo) -> None:
    family = Family()
    worker = zoo(family, FORKS)
    assert wait_for(lambda: len(family._living()) == 2, 20.0)
    assert [process.pid for process in family.workers()] == [worker.pid]
    (runner,) = family.runners()
    assert family.runner_of(family.workers()[0]) == runner
    assert [process.pid for process in family.workers_of(os.getpid())] == [worker.pid, runner.pid]
    family.end_all()


def test_only_a_live_process_counts_as_hit(zoo: Zoo) -> None:
    process = of_pid(zoo(Family()).pid)
    assert process is not None
    assert process.kill()
    assert wait_for(lambda: process.state is None, 20.0)  # a zombie: nobody has asked for its end yet
    assert not process.kill()
    assert not process.freeze()
    zoo.started[0].wait()
    assert not process.kill()


def test_processes_are_frozen_before_any_of_them_dies(zoo: Zoo) -> None:
    family = Family()
    first, second = zoo(family), zoo(family)
    both = family.workers()
    second.kill()
    second.wait()
    hit = kill_at_once(both)
    assert [process.pid for process in hit] == [first.pid]
    assert first.wait() == -9
