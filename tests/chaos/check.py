"""What a sweep left behind, held against what it should have: each function gives one line for every difference."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from itopctl.store import tables
from itopctl.store.database import open_store
from itopctl.store.ingest import ingest
from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests.chaos.harness import Kill

FILES = {"config.json", "journal.jsonl", "result.json", "environment.json", "log.txt", "network.pt"}
"""All that a finished run has in its directory."""

_CLOCK = {"wall_seconds", "steps_per_second", "peak_memory_bytes", "energy_joules", "at", "finished_at"}
_HISTORY = {"attempt", "attempts", "seq", "journal_offset", "damaged_lines"}
_SETTINGS = {"config"}  # a run's id is the hash of all in it that makes a difference
_IGNORED = _CLOCK | _HISTORY | _SETTINGS
_INTERRUPTED = {"killed", "cancelled", "lost"}
_TOLERANCE = 0.002  # seconds: journals count milliseconds

Rows = dict[tuple[Any, ...], dict[str, str]]


def rows_of(database: Path, table: sa.Table, ignored: set[str] = _IGNORED) -> Rows:
    """Key → what a table has there, spelled out: two floats are equal only if all their bits are."""
    keys = [column.name for column in table.primary_key.columns]
    store = open_store(database)
    try:
        with store.read() as connection:
            rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    finally:
        store.close()
    return {
        tuple(row[key] for key in keys): {name: repr(value) for name, value in row.items() if name not in ignored}
        for row in rows
    }


def different_stores(results: Results, reference: Results) -> Iterator[str]:
    """Every number that a run has, and should not have; nothing of clocks and attempts."""
    for table in (tables.runs, tables.evaluations, tables.layers, tables.sweep_runs):
        yield from _different(table.name, rows_of(results.database, table), rows_of(reference.database, table))


def different_when_rebuilt(results: Results, folder: Path) -> Iterator[str]:
    """What the store, that grew while all was in turmoil, says otherwise than one made anew from the files."""
    anew = folder / "anew.db"
    store = open_store(anew)
    try:
        ingest(store, results)
    finally:
        store.close()
    for table in (tables.runs, tables.attempts, tables.evaluations, tables.layers, tables.sweep_runs):
        grown, fresh = rows_of(results.database, table, set()), rows_of(anew, table, set())
        yield from _different(f"{table.name} (grown, not anew)", grown, fresh)


def different_files(results: Results, reference: Results) -> Iterator[str]:
    """Results of runs and their networks, as their files have them."""
    if results.run_ids() != reference.run_ids():
        yield f"runs: {sorted(set(results.run_ids()) ^ set(reference.run_ids()))} are not in both"
    for run_id in reference.run_ids():
        ours, theirs = (_result(folder, run_id) for folder in (results, reference))
        yield from _different("result.json", {(run_id,): ours}, {(run_id,): theirs})
        mine, others = (folder.run(run_id).network for folder in (results, reference))
        if mine.exists() and others.exists() and mine.read_bytes() != others.read_bytes():
            yield f"run {run_id}: its network differs"


def _result(results: Results, run_id: str) -> dict[str, str]:
    try:
        result = json.loads(results.run(run_id).result.read_text())
    except (OSError, ValueError) as error:
        return {"file": repr(error)}
    return {name: repr(value) for name, value in result.items() if name not in _IGNORED}


def left_behind(results: Results) -> Iterator[str]:
    """Files of a finished run that nobody needs any more, and those that it lacks."""
    for run_id in results.run_ids():
        there = {path.name for path in results.run(run_id).path.iterdir()}
        for name in sorted(there ^ FILES):
            yield f"run {run_id}: {name} {'lies there still' if name in there else 'is missing'}"
    for path in sorted(results.sweeps.glob(".*")):
        yield f"{path.name} lies in sweeps still"


def wrong_journals(results: Results, reference: Results, kills: Sequence[Kill]) -> Iterator[str]:
    """Journals that tell of anything but whole attempts, one after the other, each with the right numbers."""
    deaths: dict[int, list[Kill]] = defaultdict(list)
    for kill in kills:
        deaths[kill.pid].append(kill)
    for run_id in results.run_ids():
        events = read_journal(results.run(run_id).journal).events
        right = _measured(read_journal(reference.run(run_id).journal).events)
        for what in (*_wrong_order(events), *_wrong_numbers(events, right), *_wrong_attempts(events, deaths)):
            yield f"journal of run {run_id}: {what}"


def _wrong_order(events: list[dict[str, Any]]) -> Iterator[str]:
    for before, after in itertools.pairwise(events):
        if after["seq"] <= before["seq"]:
            yield f"seq {after['seq']} follows {before['seq']}"
        if after["attempt"] < before["attempt"]:
            yield f"attempt {after['attempt']} writes at seq {after['seq']}, after attempt {before['attempt']} began"
        if _time(after) < _time(before) - _TOLERANCE:
            yield f"seq {after['seq']} is older than seq {before['seq']}"
    if sum(event["event"] == "finished" for event in events) > 1:
        yield "it finished more than once"


def _measured(events: list[dict[str, Any]]) -> dict[tuple[str, int], dict[str, str]]:
    return {
        (event["event"], event["step"]): {name: repr(value) for name, value in event.items() if name not in _IGNORED}
        for event in events
        if event["event"] in ("evaluated", "topology")
    }


def _wrong_numbers(events: list[dict[str, Any]], right: Mapping[tuple[str, int], dict[str, str]]) -> Iterator[str]:
    """What any attempt measured, also one that was killed afterwards, is what an undisturbed run measures there."""
    seen: set[tuple[int, str, int]] = set()
    for event in events:
        if event["event"] not in ("evaluated", "topology"):
            continue
        key = (event["attempt"], event["event"], event["step"])
        if key in seen:
            yield f"attempt {key[0]} tells twice of {key[1]} at step {key[2]}"
        seen.add(key)
        for name, value in next(iter(_measured([event]).values())).items():
            should = right.get(key[1:], {}).get(name)
            if value != should:
                yield f"attempt {key[0]}, {key[1]} at step {key[2]}: {name} is {value}, not {should}"
    missing = set(right) - {key[1:] for key in seen}
    if missing:
        yield f"nothing is told of {sorted(missing)}"


def _wrong_attempts(events: list[dict[str, Any]], deaths: Mapping[int, list[Kill]]) -> Iterator[str]:
    """Attempts are numbered 1, 2, …; each ends in a known way, and the next goes on from what it saved."""
    begun = [event for event in events if event["event"] == "started"]
    if [event["attempt"] for event in begun] != list(range(1, len(begun) + 1)):
        yield f"attempts are numbered {[event['attempt'] for event in begun]}"
    before_ended, saved = float("-inf"), 0
    for start in begun:
        number = start["attempt"]
        own = [event for event in events if event["attempt"] == number]
        began, last = _time(start), own[-1]
        if began < before_ended - _TOLERANCE:
            yield f"attempt {number} began {before_ended - began:.3f} s before the end of the one before it"
        if start["step"] < saved:  # more is right: a checkpoint is there before the journal says so
            yield f"attempt {number} goes on from step {start['step']}, though {saved} were saved"
        saved = max([saved, *(event["step"] for event in own if event["event"] == "checkpoint")])
        its_deaths = [kill for kill in deaths.get(start["pid"], []) if kill.over >= began - _TOLERANCE]
        if not its_deaths and (last["event"] not in ("finished", "failed") or last.get("cause") in ("killed", "lost")):
            yield (
                f"attempt {number} of process {start['pid']}, from {began:.3f} to {last['event']} {last.get('cause')} "
                f"at {_time(last):.3f}, has no end of its own, and nobody killed it; {deaths.get(start['pid'], [])}"
            )
        if last["event"] == "failed" and last["cause"] not in _INTERRUPTED:
            yield f"attempt {number} failed: {last['cause']}: {last['message']}"
        ends = [
            *(max(kill.at, began) for kill in its_deaths),
            *([_time(last)] if last["event"] in ("finished", "failed") else []),
        ]
        before_ended = min(ends, default=_time(last))


def _different(what: str, ours: Mapping[tuple[Any, ...], dict[str, str]], theirs: Rows) -> Iterator[str]:
    for key in sorted(set(ours) | set(theirs), key=repr):
        name = f"{what} {' '.join(map(str, key))}"
        if key not in ours or key not in theirs:
            yield f"{name}: {'is not there' if key not in ours else 'should not be there'}"
            continue
        for column in sorted(set(ours[key]) | set(theirs[key])):
            found, should = ours[key].get(column, "missing"), theirs[key].get(column, "missing")
            if found != should:
                yield f"{name}: {column} is {found}, not {should}"


def _time(event: dict[str, Any]) -> float:
    return datetime.fromisoformat(event["at"]).timestamp()
