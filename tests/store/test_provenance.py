from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from itopctl.store import tables
from itopctl.store.database import Store, open_store
from itopctl.store.files import write_json
from itopctl.store.provenance import attempts_at, environments, recorded_specs
from itopctl.store.rundir import Results
from tests.store.builders import run_id


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "itop.db", None)


def record_sweep(store: Store, name: str, specs: Any) -> None:
    row = {"sweep": name, "description": f"about {name}", "specs": specs, "slurm": {}, "stamp": "",
           "created_at": "2026-01-01", "updated_at": "2026-01-02"}  # fmt: skip
    with store.write() as connection:
        connection.execute(sa.insert(tables.sweeps), [row])


def test_specs_come_as_they_were_written_by_name_of_their_sweep(store: Store) -> None:
    record_sweep(store, "b", [{"path": "b.yaml", "text": "name: b\n", "set": ["epochs=3"]}])
    record_sweep(store, "a", [{"path": "a.yaml", "text": "name: a\n", "set": []}])
    assert recorded_specs(store, ["b"]) == [
        {"sweep": "b", "description": "about b", "created_at": "2026-01-01", "updated_at": "2026-01-02",
         "path": "b.yaml", "text": "name: b\n", "set": ["epochs=3"], "accepted_code": {}}
    ]  # fmt: skip
    assert [one["sweep"] for one in recorded_specs(store)] == ["a", "b"]


@pytest.mark.parametrize("specs", [[], {}, "text", 3, [None], ["text"], [{"path": 1, "text": None, "set": "epochs=3"}]])
def test_a_sweep_whose_spec_makes_no_sense_has_an_empty_one(store: Store, specs: Any) -> None:
    record_sweep(store, "odd", specs)
    (one,) = recorded_specs(store)
    assert (one["sweep"], one["path"], one["text"], one["set"]) == ("odd", "", "", [])


def test_attempts_come_in_order_and_only_of_the_runs_asked_for(store: Store) -> None:
    rows = [{"run_id": run_id(run), "attempt": attempt, "state": "failed"} for attempt in (2, 1) for run in range(3)]
    with store.write() as connection:
        connection.execute(sa.insert(tables.attempts), rows)
    found = attempts_at(store, [run_id(1), run_id(2), run_id(9)])
    assert {run: [one["attempt"] for one in attempts] for run, attempts in found.items()} == {
        run_id(1): [1, 2], run_id(2): [1, 2],
    }  # fmt: skip


def test_more_runs_than_a_query_may_name_are_looked_up_all_the_same(store: Store) -> None:
    with store.write() as connection:
        connection.execute(sa.insert(tables.attempts), [{"run_id": run_id(6000), "attempt": 1, "state": "done"}])
    assert list(attempts_at(store, [run_id(number) for number in range(40_000)])) == [run_id(6000)]


def test_an_environment_is_what_is_sound_of_its_file(tmp_path: Path) -> None:
    results = Results(tmp_path)
    contents: dict[int, Any] = {
        1: {"python": "3.11.7", "threads": 2, "git_commit": "abc", "git_dirty": True, "packages": {"torch": "2.9"},
            "pid": 3, "command": ["x"]},
        2: {"python": 3, "threads": True, "git_dirty": "yes", "packages": {"torch": None, "numpy": "2.0"}},
        3: {"packages": ["torch"]},
    }  # fmt: skip
    for number, content in contents.items():
        path = results.run(run_id(number)).environment
        path.parent.mkdir(parents=True)
        write_json(path, content)
    for number, text in ((4, "[1]"), (5, "{"), (6, "null")):
        results.run(run_id(number)).path.mkdir()
        results.run(run_id(number)).environment.write_text(text)
    results.run(run_id(7)).path.mkdir()
    (tmp_path / "elsewhere").write_text(json.dumps({"python": "2.7"}))
    results.run(run_id(7)).environment.symlink_to(tmp_path / "elsewhere")
    assert environments(results, [run_id(number) for number in range(9)]) == {
        run_id(1): {"python": "3.11.7", "threads": 2, "git_commit": "abc", "git_dirty": True,
                    "packages": {"torch": "2.9"}},
        run_id(2): {"packages": {"numpy": "2.0"}},
        run_id(3): {"packages": {}},
    }  # fmt: skip
