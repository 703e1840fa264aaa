"""Somebody else's results folder, place by place: anything odd anywhere, every command in turn, and nothing happens."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.bench import BEGUN, DONE, EXIT_CODES, FAILED, QUEUED, Bench, patience
from tests.fuzz.odd_files import ODD, put
from tests.fuzz.test_inputs import bench as bench  # the fixture
from tests.helpers import itopctl
from tests.share import of_share

PLACES = (
    "runs", "sweeps", "submissions", "snapshots", "itop.db", "itop.db-wal", "itop.db-shm", "itop.db-journal",
    "sweeps/one.json", "sweeps/new.json", "submissions/one-x", "submissions/other", "submissions/one-x/state.json",
    "submissions/one-x/request.json", "submissions/one-x/configs.json", "submissions/one-x/77_0_0_log.out",
    "submissions/one-x/ended-77_0.json", f"runs/{QUEUED}", f"runs/{'a' * 12}", f"runs/{DONE}", f"runs/{BEGUN}",
    *(f"runs/{run}/{name}" for run in (DONE, BEGUN) for name in (
        "config.json", "journal.jsonl", "result.json", "log.txt", "environment.json", "lock", "cancel", "reserve",
        "network.pt",
        "checkpoint-000000000021-0123456789abcdef.pt", ".config.json.0123",
    )),
)  # fmt: skip
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status", "--runs"), ("report",), ("report", "-t", "runs", "--json"), ("show", DONE), ("show", BEGUN, "--json"),
    ("logs", DONE), ("logs", BEGUN), ("logs", QUEUED, "--job"), ("store", "check"), ("store", "rebuild"),
    ("retry", "--dry-run"), ("export", DONE), ("cancel", "--yes"), ("cancel", QUEUED, "--yes"), ("list", "sweeps"),
    ("status", FAILED),
)  # fmt: skip


def asked_at(bench: Bench, places: tuple[str, ...], asked: Iterator[tuple[str, ...]], each: int) -> list[str]:
    """What is wrong with commands in turn, `each` of them at everything odd in every place; of a share of all that."""
    problems = []
    odd = itertools.product(places, sorted(ODD))
    cases = [(place, what, command) for place, what in odd for command in itertools.islice(asked, each)]
    with patience() as begin:
        for place, what, command in of_share(cases, places[0]):
            begin()
            folder = bench.fresh()
            put(folder / place, what, bench.canary)
            told = bench.call([*command, "--results", str(folder)])
            problems += [f"{what} at {place}: {' '.join(command)}: {problem}" for problem in told]
    return problems


def test_odd_things_at_the_places_that_are_written_to(bench: Bench) -> None:
    writers = (("cancel", "--yes"), ("store", "rebuild"), ("status",), ("store", "check"))
    assert asked_at(bench, ("runs", "itop.db", f"runs/{BEGUN}"), itertools.cycle(writers), 2) == []


@pytest.mark.parametrize("name", ["config.json", "journal.jsonl", "result.json", "lock", "log.txt"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(bench: Bench, name: str) -> None:
    problems = []
    with patience() as begin:
        for command in (("status",), ("store", "check"), ("logs", BEGUN)):
            begin()
            folder = bench.fresh()
            put(folder / "runs" / BEGUN / name, "pipe", bench.canary)
            problems += bench.call([*command, "--results", str(folder)])
    assert problems == []


@pytest.mark.slow
@pytest.mark.parametrize("place", PLACES)
def test_odd_things_at_a_place_do_no_harm(bench: Bench, place: str) -> None:
    assert asked_at(bench, (place,), itertools.cycle(COMMANDS), len(COMMANDS) if place in PLACES[:5] else 3) == []


def linked(bench: Bench, name: str) -> Path:
    """A results folder of which a part is a link to the same part of another, outside."""
    folder = bench.fresh()
    outside = bench.canary / name.replace("/", "-")
    shutil.rmtree(outside) if outside.is_dir() else outside.unlink(missing_ok=True)
    shutil.move(folder / name, outside)
    (folder / name).symlink_to(outside)
    bench.settle()
    return folder


PARTS = ("runs", "sweeps", "submissions", "itop.db", f"runs/{BEGUN}", f"runs/{FAILED}")
WRITERS: tuple[tuple[str, ...], ...] = (
    ("cancel", "--yes"), ("store", "rebuild"), ("store", "check"), ("status",), ("store", "import", "theirs"),
)  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_a_part_that_lies_elsewhere_is_not_written_to(bench: Bench, part: str) -> None:
    """With sound content, as somebody may hand it to you to have their files written over."""
    problems = []
    with patience() as begin:
        for command in WRITERS:
            begin()
            theirs = bench.fresh().rename(bench.results.parent / "theirs")
            folder = linked(bench, part)
            named = [str(theirs) if word == "theirs" else word for word in command]
            problems += [f"{command}: {problem}" for problem in bench.call([*named, "--results", str(folder)])]
            shutil.rmtree(theirs)
    assert problems == []


@pytest.mark.slow
@pytest.mark.rotates
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("verb", ["sweep", "retry"])
def test_nor_is_it_by_those_who_train(bench: Bench, part: str, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # processes of their own need a PATH
    folder = linked(bench, part)
    before = bench.outside()
    arguments = [verb, *([bench.spec] if verb == "sweep" else []), "--workers", "1", "--results", folder]
    done = itopctl(*arguments, cwd=bench.results.parent)
    assert done.returncode in EXIT_CODES and "Traceback" not in done.stdout + done.stderr
    assert bench.outside() == before
