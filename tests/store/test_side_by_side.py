"""Sixteen that take in one results folder at once, while it changes: threads and processes, in an empty database."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from itopctl.store.database import Store
from itopctl.store.files import write_json
from itopctl.store.ingest import ingest
from itopctl.store.journal import JournalWriter
from itopctl.store.locks import locked
from itopctl.store.queries import run_states
from itopctl.store.rundir import Results
from tests.store.builders import STARTED, Lab, config, contents, evaluated, result, run_id

MANY = 16
RUNS = [run_id(number) for number in range(12)]


@pytest.fixture
def folder(tmp_path: Path) -> Results:
    """With two sweeps, runs in every state, and a submission; its own database is not used."""
    made = Lab(Results(tmp_path / "my results"), Store("sqlite://"))
    made.results.runs.mkdir(parents=True)
    made.sweep("one", {id_: config(seed=seed) for seed, id_ in enumerate(RUNS)})
    made.sweep("two", {id_: config(seed=seed) for seed, id_ in enumerate(RUNS[:3])})
    made.done(RUNS[0], seed=0)
    made.failed(RUNS[1], seed=1)
    made.submitted("one-x", (RUNS[11],))
    return made.results


@contextmanager
def training(folder: Results) -> Iterator[None]:
    """Meanwhile the other runs are made, one after the other, again and again a line of a journal at a time."""
    over = threading.Event()

    def train() -> None:
        for id_ in RUNS[2:11]:
            run = Lab(folder, Store("sqlite://")).folder(id_)
            with locked(run):
                journal = JournalWriter(run.journal)
                journal.write("started", STARTED)
                for epoch in range(1, 5):
                    journal.write("evaluated", evaluated(epoch))
                    over.wait(0.01)
                write_json(run.result, result())
                journal.write("finished", {"step": 80, "epoch": 4.0, "cause": "finished"})
                journal.close()

    thread = threading.Thread(target=train)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def is_what_the_files_say(url: str, folder: Results) -> None:
    store, anew = Store(url), Store("sqlite://")
    for each in (store, anew):
        ingest(each, folder)
    assert contents(store) == contents(anew)
    states = run_states(store, RUNS)
    assert [states[id_][0] for id_ in RUNS] == ["done", "failed", *["done"] * 9, "pending"]
    store.close()


def test_threads_that_take_in_one_folder_at_once_make_one_store(store_url: str, folder: Results) -> None:
    together = threading.Barrier(MANY)

    def take_in(_: int) -> None:
        together.wait(60)
        store = Store(store_url)
        done: set[str] = set()
        for _ in range(3):
            ingest(store, folder)
            now = {id_ for id_, (state, _) in run_states(store, RUNS).items() if state == "done"}
            assert done <= now, "what was finished stays so"
            done = now
        store.close()

    with training(folder), ThreadPoolExecutor(MANY) as pool:
        list(pool.map(take_in, range(MANY)))
    is_what_the_files_say(store_url, folder)


_TAKE_IN = """
import json, sys
from multiprocessing import get_context
from pathlib import Path
from itopctl.store.database import Store
from itopctl.store.ingest import ingest
from itopctl.store.queries import select_runs
from itopctl.store.rundir import Results

folder, url, many = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
processes = get_context("fork")
together = processes.Barrier(many)

def take_in(_):
    together.wait(60)
    store = Store(url)
    seen = []
    for _ in range(3):
        ingest(store, Results(folder))
        seen.append([row["run_id"] for row in select_runs(store, states=["done"])])
    return seen

with processes.Pool(many) as pool:
    print("there", flush=True)
    sys.stdin.readline()
    print(json.dumps(pool.map(take_in, range(many), chunksize=1)))
"""


def test_processes_that_take_in_one_folder_at_once_make_one_store(store_url: str, folder: Results) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _TAKE_IN, str(folder.path), store_url, str(MANY)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    with training(folder):
        out, errors = process.communicate("go\n", timeout=120)
    assert process.returncode == 0, errors
    for seen in json.loads(out):
        first, second, third = map(set, seen)
        assert first <= second <= third, "what was finished stays so"
    is_what_the_files_say(store_url, folder)
