"""The checks of what a sweep left behind find each thing that may be wrong, and nothing where nothing is."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from itopctl.store import tables
from itopctl.store.database import open_store
from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests.chaos.check import different_files, different_stores, different_when_rebuilt, left_behind, wrong_journals
from tests.chaos.harness import Kill
from tests.conftest import FinishedSweep

Event = dict[str, Any]


@pytest.fixture
def pair(finished_sweep: FinishedSweep, tmp_path: Path) -> tuple[Results, Results]:
    """A copy to be spoilt, and what it was copied from."""
    shutil.copytree(finished_sweep.results, tmp_path / "copy")
    return Results(tmp_path / "copy"), Results(finished_sweep.results)


def next_float(value: float) -> float:
    """The smallest difference there is."""
    return math.nextafter(value, math.inf)


def rewrite(results: Results, change: Callable[[list[Event]], list[Event]]) -> None:
    """Change the journal of a run that updates its topology."""
    for run_id in results.run_ids():
        path = results.run(run_id).journal
        events = read_journal(path).events
        if any(event["event"] == "topology" for event in events):
            path.write_text("".join(json.dumps(event) + "\n" for event in change(events)))
            return


def test_nothing_is_wrong_with_a_sweep_that_nothing_happened_to(pair: tuple[Results, Results], tmp_path: Path) -> None:
    copy, reference = pair
    wrong = [*different_stores(copy, reference), *different_files(copy, reference), *left_behind(copy),
             *wrong_journals(copy, reference, []), *different_when_rebuilt(copy, tmp_path)]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (tables.runs, "test_accuracy"), (tables.runs, "train_flops_ratio"), (tables.evaluations, "train_loss"),
        (tables.evaluations, "exploration_rate"), (tables.layers, "exploration_rate"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.name,
)  # fmt: skip
def test_a_number_that_differs_in_its_last_bit_is_found(
    table: sa.Table, column: str, pair: tuple[Results, Results], tmp_path: Path
) -> None:
    copy, reference = pair
    store = open_store(copy.database)
    with store.write() as connection:
        row = connection.execute(sa.select(table).where(table.c[column].is_not(None))).mappings().first()
        assert row is not None
        key = [table.c[one.name] == row[one.name] for one in table.primary_key.columns]
        connection.execute(sa.update(table).where(*key).values({column: next_float(row[column])}))
    store.close()
    (what,) = different_stores(copy, reference)
    assert column in what
    assert row["run_id"] in what
    (what,) = different_when_rebuilt(copy, tmp_path)
    assert column in what


@pytest.mark.parametrize("table", [tables.runs, tables.evaluations, tables.layers], ids=lambda table: table.name)
def test_a_row_that_is_missing_is_found(table: sa.Table, pair: tuple[Results, Results]) -> None:
    copy, reference = pair
    store = open_store(copy.database)
    with store.write() as connection:
        row = connection.execute(sa.select(table)).mappings().first()
        assert row is not None
        key = [table.c[one.name] == row[one.name] for one in table.primary_key.columns]
        connection.execute(sa.delete(table).where(*key))
    store.close()
    (what,) = different_stores(copy, reference)
    assert what.endswith("is not there")


def test_a_result_that_differs_or_is_not_whole_is_found(pair: tuple[Results, Results]) -> None:
    copy, reference = pair
    first, second = (copy.run(run_id).result for run_id in copy.run_ids()[:2])
    result = json.loads(first.read_text())
    first.write_text(json.dumps({**result, "train_loss": next_float(result["train_loss"])}))
    second.write_text(second.read_text()[:40])
    wrong = list(different_files(copy, reference))
    assert any("train_loss" in what and first.parent.name in what for what in wrong)
    assert any("JSONDecodeError" in what and second.parent.name in what for what in wrong)


def test_a_network_that_differs_in_a_bit_is_found(pair: tuple[Results, Results]) -> None:
    copy, reference = pair
    network = copy.run(copy.run_ids()[0]).network
    data = bytearray(network.read_bytes())
    data[len(data) // 2] ^= 1
    network.write_bytes(bytes(data))
    assert list(different_files(copy, reference)) == [f"run {network.parent.name}: its network differs"]


@pytest.mark.parametrize("name", [".result.json.ab12", "lock", "checkpoint.pt", "checkpoint-000000000012-ab.pt"])
def test_a_file_that_is_left_behind_is_found(name: str, pair: tuple[Results, Results]) -> None:
    copy, _ = pair
    run = copy.run(copy.run_ids()[0])
    (run.path / name).touch()
    run.environment.unlink()
    assert sorted(left_behind(copy)) == sorted(
        [f"run {run.run_id}: {name} lies there still", f"run {run.run_id}: environment.json is missing"]
    )


def first(events: list[Event], name: str) -> int:
    return next(n for n, event in enumerate(events) if event["event"] == name)


def renumbered(events: list[Event]) -> list[Event]:
    return [{**event, "seq": seq} for seq, event in enumerate(events, 1)]


def finished_twice(events: list[Event]) -> list[Event]:
    return renumbered([*events, events[-1]])


def same_seq(events: list[Event]) -> list[Event]:
    return [*events[:5], {**events[5], "seq": events[4]["seq"]}, *events[6:]]


def a_gap(events: list[Event]) -> list[Event]:
    return [{**event, "attempt": 2} for event in events]


def told_twice(events: list[Event]) -> list[Event]:
    at = first(events, "evaluated")
    return renumbered([*events[: at + 1], *events[at:]])


def another_number(events: list[Event]) -> list[Event]:
    at = first(events, "topology")
    return [*events[:at], {**events[at], "train_loss": next_float(events[at]["train_loss"])}, *events[at + 1 :]]


def untold(events: list[Event]) -> list[Event]:
    at = first(events, "topology")
    return renumbered([*events[:at], *events[at + 1 :]])


def no_end(events: list[Event]) -> list[Event]:
    return events[:-1]


def lost(events: list[Event]) -> list[Event]:
    return [*events[:-1], {**events[-1], "event": "failed", "cause": "lost", "message": "its process is gone"}]


def user_error(events: list[Event]) -> list[Event]:
    return [*events[:-1], {**events[-1], "event": "failed", "cause": "user-error", "message": "oh"}]


def another_writes(events: list[Event]) -> list[Event]:
    """The first attempt goes on though the second has begun."""
    at = first(events, "evaluated")
    second = [{**event, "attempt": 2} for event in (events[0], *events[at + 1 :])]
    return renumbered([*events[:at], second[0], events[at], *second[1:]])


def too_early(events: list[Event]) -> list[Event]:
    """The second attempt begins before the first has ended, by the clock."""
    end = {**events[0], "event": "failed", "cause": "killed", "message": "", "at": events[-1]["at"]}
    return renumbered([events[0], end, *({**event, "attempt": 2} for event in events)])


def forgotten(events: list[Event]) -> list[Event]:
    """The second attempt begins anew though a checkpoint was saved."""
    began = events[0]
    saved = {**began, "event": "checkpoint", "step": 9}
    end = {**began, "event": "failed", "cause": "killed", "message": ""}
    return renumbered([began, saved, end, *({**event, "attempt": 2} for event in events)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (finished_twice, "it finished more than once"), (same_seq, "follows"), (a_gap, "attempts are numbered [2]"),
        (told_twice, "tells twice of evaluated"), (another_number, "train_loss is"), (untold, "nothing is told of"),
        (no_end, "has no end of its own"), (lost, "has no end of its own"), (user_error, "failed: user-error: oh"),
        (another_writes, "after attempt 2 began"), (too_early, "before the end of the one before it"),
        (forgotten, "goes on from step 0, though 9 were saved"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)  # fmt: skip
def test_a_journal_that_tells_something_wrong_is_found(
    change: Callable[[list[Event]], list[Event]], words: str, pair: tuple[Results, Results]
) -> None:
    copy, reference = pair
    rewrite(copy, change)
    assert any(words in what for what in wrong_journals(copy, reference, []))


def test_an_attempt_without_an_end_is_right_if_its_process_was_killed(pair: tuple[Results, Results]) -> None:
    copy, reference = pair
    rewrite(copy, no_end)
    started = [read_journal(copy.run(run_id).journal).events for run_id in copy.run_ids()]
    pid = next(events[0]["pid"] for events in started if events[-1]["event"] != "finished")
    assert not list(wrong_journals(copy, reference, [Kill(4e9, 4e9, pid, "worker")]))
    assert list(
        wrong_journals(copy, reference, [Kill(0.0, 0.0, pid, "worker")])
    )  # long before: another of the same pid
