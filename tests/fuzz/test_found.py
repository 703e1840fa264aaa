"""What the fuzzer found, by hand and by name: each of these once ended in a traceback, a hang, or outside."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fuzz.archives import bomb, exported, member, packed
from tests.fuzz.bench import BEGUN, DONE, FAILED, QUEUED, Bench, patience
from tests.fuzz.databases import change_schema
from tests.fuzz.odd_files import put
from tests.fuzz.test_inputs import bench as bench  # the fixture
from tests.helpers import itopctl

COMMANDS = (
    ["status", "--runs"], ["status", "--json"], ["report"], ["report", "-t", "runs", "--json"], ["show", DONE],
    ["show", BEGUN, "--json"], ["logs", DONE], ["logs", QUEUED, "--job"], ["store", "check"], ["retry", "--dry-run"],
    ["cancel", "--yes"], ["store", "rebuild"],
)  # fmt: skip


def edit(path: Path, *place: Any, value: Any) -> None:
    """Put a value somewhere in a JSON file."""
    whole = json.loads(path.read_text())
    *above, key = place
    holder = whole
    for step in above:
        holder = holder[step]
    holder[key] = value
    path.write_text(json.dumps(whole))


def config(run_id: str, **values: Any) -> Callable[[Path, Path], None]:
    """Puts values into a run's config, and makes the store forget what it was."""

    def change(folder: Path, canary: Path) -> None:
        for name, value in values.items():
            edit(folder / "runs" / run_id / "config.json", "config", name, value=value)
        (folder / "itop.db").unlink()

    return change


def failed_by(**fields: Any) -> Callable[[Path, Path], None]:
    """Ends the begun run's journal with an event `failed` that has these fields."""

    def change(folder: Path, canary: Path) -> None:
        event = {"event": "failed", "seq": 9, "attempt": 1, "at": "2026-01-01T00:00:00.000+00:00", "step": 1, **fields}
        with (folder / "runs" / BEGUN / "journal.jsonl").open("a") as journal:
            journal.write(json.dumps(event) + "\n")

    return change


def sql(script: str) -> Callable[[Path, Path], None]:
    """Runs SQL on the store."""
    return lambda folder, canary: change_schema(folder / "itop.db", script)


def odd(name: str, what: str) -> Callable[[Path, Path], None]:
    """Puts something odd in the place of a file."""
    return lambda folder, canary: put(folder / name, what, canary)


def whole_config(folder: Path, canary: Path) -> None:
    edit(folder / "runs" / DONE / "config.json", "config", value="x")


def no_jobs(folder: Path, canary: Path) -> None:
    edit(folder / "submissions" / "one-x" / "request.json", "jobs", value={})
    edit(folder / "submissions" / "one-x" / "state.json", "jobs", value=[])


def as_bytes(folder: Path, canary: Path) -> None:
    data = (folder / "itop.db").read_bytes()
    (folder / "itop.db").write_bytes(data.replace(b"CREATE TABLE meta", b"CREATE TABLE m\xb1ta"))


FOLDERS: dict[str, Callable[[Path, Path], None]] = {
    "a config that is text": whole_config,
    "a list for a setting": config(DONE, redistribution=[0.5]),
    "an object for a setting": config(BEGUN, epochs={"a": {"b": []}}),
    "no data set and no method": config(DONE, dataset=None, method=["x"]),
    "no sparsity": config(DONE, sparsity=None),
    "text for a sparsity": config(DONE, sparsity="half"),
    "a cause that is a list": failed_by(cause=[]),
    "a cause that is an object": failed_by(cause={"a": 1}, message=[], log={"x": 1}),
    "a submission without jobs": no_jobs,
    "a version that is too long a number": sql("UPDATE meta SET value = '" + "9" * 5000 + "'"),
    "no version, and odd rows": sql("DELETE FROM meta; UPDATE runs SET test_accuracy = 'x', sparsity = 'x'"),
    "another key for the version": sql("UPDATE meta SET key = 'done'; UPDATE sweep_runs SET sweep = x'00ff'"),
    "a schema that is no UTF-8": as_bytes,
    "a log that is a link": odd(f"runs/{DONE}/log.txt", "link to a file"),
    "a log that is a device": odd(f"runs/{DONE}/log.txt", "device"),
    "a log that is a pipe": odd(f"runs/{DONE}/log.txt", "pipe"),
    "a log that is a folder": odd(f"runs/{DONE}/log.txt", "folder"),
    "a job's output that is a link": odd("submissions/one-x/77_0_0_log.out", "link to a file"),
    "a job's output that is a pipe": odd("submissions/one-x/77_0_0_log.out", "pipe"),
    "a job's output that is a device": odd("submissions/one-x/77_0_0_log.out", "device"),
    "a journal of one endless line": odd(f"runs/{FAILED}/journal.jsonl", "large file"),
}  # fmt: skip
"""What is wrong with a results folder → does it, with a folder outside."""


def slow_where(names: Iterable[str], words: str) -> list[Any]:
    """Parameters; those with one of these words in their names are slow."""
    heavy = set(words.split())
    return [pytest.param(name, marks=[pytest.mark.slow] if heavy & set(name.split()) else []) for name in names]


@pytest.mark.parametrize("what", slow_where(FOLDERS, "endless"))
def test_a_folder_that_was_once_too_much_is_looked_at_with_every_command(bench: Bench, what: str) -> None:
    problems = []
    with patience() as begin:
        for command in COMMANDS:
            begin()
            FOLDERS[what](bench.fresh(), bench.canary)
            problems += [f"{command}: {problem}" for problem in bench.call([*command, "--results", str(bench.results)])]
    assert problems == []


def broken(pack: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """An archive with a few bytes of its middle changed."""

    def make(path: Path) -> None:
        data = bytearray(pack(packed([member(name, data) for name, data in exported()])))
        middle = len(data) // 2
        data[middle : middle + 8] = b"\xff" * 8
        path.write_bytes(data)

    return make


def holding(*members: tuple[Any, bytes]) -> Callable[[Path], None]:
    """An archive of these members."""
    return lambda path: path.write_bytes(packed(list(members))) and None


ARCHIVES: dict[str, Callable[[Path], Any]] = {
    "damaged gzip": broken(gzip.compress),
    "damaged xz": broken(lzma.compress),
    "damaged bzip2": broken(bz2.compress),
    "a bomb in one file": lambda path: bomb(path, 300 << 20),
    "a bomb in a file that is left out": lambda path: bomb(path, 700 << 20),
    "a way out": holding(member("../canary/x", b"x"), member(f"runs/{DONE}/../../../canary/x", b"x")),
    "an absolute path": holding(member("/tmp/x", b"x")),
    "links and what goes through them": holding(
        member(f"runs/{DONE}", kind=b"2", target="../../canary"), member(f"runs/{DONE}/result.json", b"{}"),
        member(f"runs/{DONE}/log.txt", kind=b"1", target="/etc/passwd"), member("sweeps", kind=b"2", target="/tmp"),
    ),
    "devices and pipes": holding(*(member(f"runs/{DONE}/log.txt", kind=kind) for kind in (b"3", b"4", b"6"))),
}  # fmt: skip


@pytest.fixture
def archive(bench: Bench) -> Iterator[Path]:
    yield bench.results.parent / "in.tar"


@pytest.mark.parametrize("what", slow_where(ARCHIVES, "bomb"))
def test_nothing_comes_out_of_a_bad_archive(bench: Bench, archive: Path, what: str) -> None:
    folder = bench.fresh()
    before = sorted(folder.rglob("*"))
    ARCHIVES[what](archive)
    with patience() as begin:
        begin()
        assert bench.call(["store", "import", str(archive), "--results", str(folder)]) == []
    assert [path for path in sorted(folder.rglob("*")) if "itop.db" not in path.name] == [
        path for path in before if "itop.db" not in path.name
    ]


def test_a_pipe_beside_the_store_is_not_waited_for(bench: Bench) -> None:
    """In a process of its own: no signal but a kill ends one that waits there."""
    for name in ("itop.db-journal", "itop.db-wal", "itop.db-shm", "itop.db"):
        put(bench.fresh() / name, "pipe", bench.canary)
        for command in (["status"], ["store", "rebuild"]):
            done = itopctl(*command, "--results", bench.results)
            assert done.returncode in (0, 3) and "Traceback" not in done.stdout + done.stderr
