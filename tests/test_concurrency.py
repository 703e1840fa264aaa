"""Sixteen people at one results folder: whatever they type at the same time, nothing is lost, doubled or wrong."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from itopctl.store.database import open_store
from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests.helpers import started, write_spec
from tests.store.builders import Lab, contents

PEOPLE, SECONDS = 16, 60
RUNS = 24  # and one that diverges
DESIGNED = {  # what a command may end with, whatever the others do
    "sweep": (0, 1), "retry": (0, 1), "cancel": (0,), "status": (0,), "report": (0,), "show": (0,), "rebuild": (0,),
    "check": (0,),
}  # fmt: skip
OFTEN = {"sweep": 4, "retry": 2, "cancel": 2, "status": 5, "report": 3, "show": 2, "rebuild": 2, "check": 2}


@dataclass(frozen=True)
class Answer:
    """A command that somebody typed, and what came of it."""

    verb: str
    code: int
    out: str
    errors: str


def command(verb: str, spec: Path, rng: random.Random, run_ids: list[str]) -> list[str]:
    some = rng.sample(run_ids, 4)
    return {
        "sweep": ["sweep", str(spec), "--workers", "1"],
        "retry": ["retry", "--workers", "1"],
        "cancel": ["cancel", "--yes", *(some if rng.random() < 0.7 else [])],
        "status": ["status", "--json", *rng.choice(([], ["--runs"]))],
        "report": ["report", "--json"],
        "show": ["show", some[0], "--json"],
        "rebuild": ["store", "rebuild"],
        "check": ["store", "check"],
    }[verb]


def somebody(number: int, spec: Path, results: Path, run_ids: list[str], until: float) -> list[Answer]:
    """Type one command after the other."""
    rng = random.Random(number)
    answers = []
    while time.monotonic() < until:
        verb = rng.choices(list(OFTEN), list(OFTEN.values()))[0]
        done = started(*command(verb, spec, rng, run_ids), "--results", results)
        answers.append(Answer(verb, done.returncode, done.stdout, done.stderr))
    return answers


@dataclass(frozen=True)
class Crowd:
    """A results folder that many were at, and all that they were told."""

    spec: Path
    results: Results
    answers: list[Answer]


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Crowd:
    folder = tmp_path_factory.mktemp("a crowd")
    spec = write_spec(
        folder,
        base={"dataset": "digits", "model": "lenet-300-100", "epochs": 15, "method": "set-itop", "sparsity": 0.9,
              "update_interval": 10, "checkpoint_minutes": 0.01},
        grid={"seed": RUNS},
        include=[{"base": {"optimizer.lr": 1e20, "method": "dense"}}],
    )  # fmt: skip
    results = folder / "results"
    plan = json.loads(started("sweep", spec, "--dry-run", "--format", "json", "--results", results).stdout)
    run_ids = [row["run_id"] for row in plan]
    assert len(run_ids) == RUNS + 1
    begun = [
        sys.executable,
        "-m",
        "itopctl",
        *command("sweep", spec, random.Random(0), run_ids),
        "--results",
        str(results),
    ]
    with subprocess.Popen(begun, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        answers = everybody(spec, results, run_ids)
    return Crowd(spec, Results(results), answers)


def everybody(spec: Path, results: Path, run_ids: list[str]) -> list[Answer]:
    """What all are told, from when the runs are known on: nobody may find one unknown after that."""
    while not (results / "sweeps" / "trial.json").exists():
        time.sleep(0.05)
    until = time.monotonic() + SECONDS
    with ThreadPoolExecutor(PEOPLE) as pool:
        told = pool.map(lambda number: somebody(number, spec, results, run_ids, until), range(PEOPLE))
        return [answer for answers in told for answer in answers]


def events_of(results: Results, run_id: str) -> list[dict[str, Any]]:
    part = read_journal(results.run(run_id).journal)
    assert (part.damaged, part.torn) == (0, False)
    return part.events


def attempts_of(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """When each attempt started, and when it last said something."""
    times: dict[int, list[str]] = {}
    for event in events:
        times.setdefault(event["attempt"], []).append(event["at"])
    return [(min(one), max(one)) for _, one in sorted(times.items())]


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
class TestCrowd:
    """In this order: the last ones bring the sweep to its end."""

    def test_everybody_got_an_answer_that_was_designed(self, crowd: Crowd) -> None:
        assert {answer.verb for answer in crowd.answers} == set(OFTEN)
        odd = [answer for answer in crowd.answers if answer.code not in DESIGNED[answer.verb]]
        assert odd == [], "\n".join(map(str, odd))
        assert [answer for answer in crowd.answers if "Traceback" in answer.out + answer.errors] == []

    def test_no_run_was_tried_twice_at_one_time(self, crowd: Crowd) -> None:
        for run_id in crowd.results.run_ids():
            events = events_of(crowd.results, run_id)
            assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
            spans = attempts_of(events)
            assert all(end <= start for (_, end), (start, _) in pairwise(spans)), (run_id, spans)

    def test_no_run_was_finished_twice(self, crowd: Crowd) -> None:
        for run_id in crowd.results.run_ids():
            assert [event["event"] for event in events_of(crowd.results, run_id)].count("finished") <= 1

    def test_one_more_sweep_brings_all_to_an_end(self, crowd: Crowd) -> None:
        last = started("sweep", crowd.spec, "--results", crowd.results.path)
        assert last.returncode == 1 and last.stderr == ""
        (row,) = json.loads(started("status", "--json", "--results", crowd.results.path).stdout)
        assert (row["total"], row["done"], row["failed"], row["running"]) == (RUNS + 1, RUNS, 1, 0)
        finished = [events_of(crowd.results, run_id) for run_id in crowd.results.run_ids()]
        assert sorted([event["event"] for event in one].count("finished") for one in finished) == [0] + [1] * RUNS

    def test_nothing_is_wrong_with_what_is_left(self, crowd: Crowd) -> None:
        checked = started("store", "check", "--json", "--results", crowd.results.path)
        assert (checked.returncode, json.loads(checked.stdout)) == (0, [])

    def test_the_store_says_what_a_store_made_anew_says(self, crowd: Crowd) -> None:
        lab = Lab(crowd.results, open_store(crowd.results.database))
        assert lab.rebuilt() == contents(lab.store)
