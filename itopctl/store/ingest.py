"""Run directories and sweep manifests → database. Idempotent, and incremental by byte offset in each journal.

A run that is `done` in the database is never looked at again; so a command over ten thousand finished runs costs
one listing of a folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.store import tables
from itopctl.store.database import Store, upsert
from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results, RunDirectory, is_held, read_json

_ATTEMPT_COLUMNS = (
    "scheduler", "job_id", "host", "pid", "started_at", "ended_at", "state", "cause", "message", "resumed_from_step",
)  # fmt: skip


_LOST = {"state": "failed", "cause": "lost", "message": "its process is gone and left no result"}


@dataclass
class _Gathered:
    """Rows to write, collected over many runs."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    attempts: list[dict[str, Any]] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    layers: list[dict[str, Any]] = field(default_factory=list)


def ingest(store: Store, results: Results) -> None:
    """Bring the database up to date with the results folder."""
    ingest_sweeps(store, results)
    ids = results.run_ids()
    with store.read() as connection:
        open_attempts = sa.select(tables.attempts.c.run_id).where(tables.attempts.c.state == "running")
        settled = sa.select(tables.runs.c.run_id).where(
            tables.runs.c.state == "done", tables.runs.c.run_id.not_in(open_attempts)
        )
        skipped = set(connection.execute(settled).scalars())
    if store.indexes(results.database):
        _forget_deleted(store, set(ids))
    ingest_runs(store, results, [run_id for run_id in ids if run_id not in skipped])


def _forget_deleted(store: Store, there: set[str]) -> None:
    """Runs whose directory somebody deleted are queued again, with nothing known of them."""
    with store.read() as connection:
        started = tables.runs.c.state != "queued", tables.runs.c.attempts > 0
        known = connection.execute(sa.select(tables.runs.c.run_id, tables.runs.c.config).where(sa.or_(*started)))
        gone = {run_id: config for run_id, config in known if run_id not in there}
    if not gone:
        return
    with store.write() as connection:
        for table in (tables.attempts, tables.evaluations, tables.layers):
            for run_id in gone:
                connection.execute(sa.delete(table).where(table.c.run_id == run_id))
        upsert(connection, tables.runs, [_new_row(run_id, config) for run_id, config in gone.items()])


def ingest_runs(store: Store, results: Results, run_ids: Iterable[str]) -> None:
    """Bring the rows of these runs up to date."""
    ids = list(run_ids)
    if not ids:
        return
    gathered = _Gathered()
    with store.read() as connection:
        earlier = _rows(connection, ids)
        attempts = _attempt_rows(connection, ids)
    for run_id in ids:
        _gather(results.run(run_id), earlier.get(run_id), attempts.get(run_id, {}), gathered)
    with store.write() as connection:
        upsert(connection, tables.runs, gathered.runs)
        upsert(connection, tables.attempts, gathered.attempts)
        upsert(connection, tables.evaluations, gathered.evaluations)
        upsert(connection, tables.layers, gathered.layers)


def ingest_sweeps(store: Store, results: Results) -> None:
    """Take over the manifests that changed; their runs are `queued` until something is known of them."""
    with store.read() as connection:
        rows = connection.execute(sa.select(tables.sweeps.c.sweep, tables.sweeps.c.stamp))
        known = {row.sweep: row.stamp for row in rows}
    for path in results.manifests():
        stamp = _stamp(path)
        manifest = read_json(path) if known.get(path.stem) != stamp else None
        try:
            points = {str(point["run_id"]): dict(point["config"]) for point in (manifest or {})["runs"]}
            row = {key: (manifest or {})[key] for key in ("description", "specs", "slurm", "created_at", "updated_at")}
        except (KeyError, TypeError, ValueError):
            continue  # not changed, or not whole
        with store.write() as connection:
            upsert(connection, tables.sweeps, [{"sweep": path.stem, **row, "stamp": stamp}])
            connection.execute(sa.delete(tables.sweep_runs).where(tables.sweep_runs.c.sweep == path.stem))
            members = [{"sweep": path.stem, "run_id": id_, "position": n} for n, id_ in enumerate(points)]
            upsert(connection, tables.sweep_runs, members)
            there = set(connection.execute(sa.select(tables.runs.c.run_id)).scalars())
            upsert(connection, tables.runs, [_new_row(i, c) for i, c in points.items() if i not in there])


def _gather(
    run: RunDirectory, earlier: dict[str, Any] | None, attempts: dict[int, dict[str, Any]], out: _Gathered
) -> None:
    if earlier:
        row = dict(earlier)
    else:
        config = (read_json(run.config) or {}).get("config")
        if not isinstance(config, dict):
            return
        row = _new_row(run.run_id, config)
    if row["journal_offset"] > _size(run.journal):  # begun anew
        row.update(journal_offset=0, damaged_lines=0)
    part = read_journal(run.journal, row["journal_offset"])
    row["journal_offset"] = part.offset
    row["damaged_lines"] += part.damaged
    touched: dict[int, dict[str, Any]] = {}
    for event in part.events:
        if _is_sound(event):
            _apply(event, row, attempts, touched, out)
        else:
            row["damaged_lines"] += 1
    _settle(run, row, attempts, touched, out)
    row["attempts"] = max(attempts, default=0)
    if row != earlier:
        out.runs.append(row)
    out.attempts.extend(touched.values())


def _is_sound(event: dict[str, Any]) -> bool:
    """Whether an event has what its row needs."""
    step, needs_step = event.get("step"), event["event"] in ("evaluated", "topology", "started")
    return isinstance(event.get("attempt"), int) and (isinstance(step, int) if needs_step else True)


def _settle(
    run: RunDirectory,
    row: dict[str, Any],
    attempts: dict[int, dict[str, Any]],
    touched: dict[int, dict[str, Any]],
    out: _Gathered,
) -> None:
    """Say what the journal alone cannot: success, by our own result file; and loss, by the lock that nobody holds."""
    held = is_held(run)
    result = read_json(run.result)
    if result is not None:
        _apply_result(result, row, out)
    elif row["state"] in ("running", "lost") and not held:
        message = "its process is gone and left no result"
        if run.result.exists():
            message = "its result.json is damaged"
        row.update(state="lost", cause="lost", message=message)
    elif row["state"] == "lost" and held:
        row.update(state="running", cause=None, message=None)
    if held:
        return
    for number, attempt in attempts.items():
        if attempt["state"] != "running":
            continue
        if result is not None and number == result.get("attempt", number):
            attempt |= {"state": "done", "cause": "finished", "ended_at": result.get("finished_at")}
        else:
            attempt |= _LOST
        touched[number] = attempt


def _new_row(run_id: str, config: dict[str, Any]) -> dict[str, Any]:
    row: dict[str, Any] = {column.name: None for column in tables.runs.columns}
    row.update({name: config.get(name) for name in tables.CONFIG_COLUMNS})
    sparsity = config.get("sparsity")
    row.update(
        run_id=run_id, state="queued", attempts=0, journal_offset=0, damaged_lines=0, config=config,
        density=round(1.0 - sparsity, 12) if isinstance(sparsity, (int, float)) else None,
    )  # fmt: skip
    return row


def _apply(
    event: dict[str, Any], row: dict[str, Any], attempts: dict[int, dict[str, Any]],
    touched: dict[int, dict[str, Any]], out: _Gathered,
) -> None:  # fmt: skip
    kind, number = event["event"], event.get("attempt")
    for name in ("step", "epoch"):
        if event.get(name) is not None:
            row[name] = event[name]
    assert isinstance(number, int)
    if kind == "started":
        for earlier_number, earlier in attempts.items():
            if earlier["state"] == "running" and earlier_number != number:
                touched[earlier_number] = attempts[earlier_number] = earlier | _LOST
        row.update(state="running", cause=None, message=None, **_pick(event, ("total_steps", "total_epochs")))
        attempt = dict.fromkeys(_ATTEMPT_COLUMNS) | {"run_id": row["run_id"], "attempt": number}
        attempt |= {"state": "running", "started_at": event.get("at"), "resumed_from_step": event.get("step")}
        attempt |= _pick(event, ("scheduler", "job_id", "host", "pid"))
        attempts[number] = touched[number] = attempt
    elif kind in ("evaluated", "topology"):
        row["current_exploration_rate"] = event.get("exploration_rate")
        if event.get("test_accuracy") is not None:
            row["current_test_accuracy"] = event["test_accuracy"]
        out.evaluations.append({
            "run_id": row["run_id"], "kind": "epoch" if kind == "evaluated" else "update", "attempt": number,
            **{name: event.get(name) for name in tables.EVALUATION_COLUMNS},
        })  # fmt: skip
    elif kind in ("failed", "finished"):
        cause = event.get("cause", "finished" if kind == "finished" else None)
        ended = {"done": kind == "finished", "cancelled": cause == "cancelled"}
        state = next((name for name, yes in ended.items() if yes), "failed")
        attempt = attempts.get(number) or dict.fromkeys(_ATTEMPT_COLUMNS) | {
            "run_id": row["run_id"], "attempt": number, **_pick(event, ("scheduler", "job_id", "host", "pid")),
        }  # fmt: skip
        attempt |= {
            "state": state,
            "ended_at": event.get("at"),
            "cause": cause,
            "message": event.get("message"),
        }
        attempts[number] = touched[number] = attempt
        if kind == "failed":
            row.update(
                state="queued" if cause == "cancelled" else "failed",
                cause=cause,
                message=event.get("message"),
            )


def _apply_result(result: dict[str, Any], row: dict[str, Any], out: _Gathered) -> None:
    """Success is our own result file, never another's word."""
    row.update({name: result.get(name) for name in tables.RESULT_COLUMNS})
    row.update(
        state="done", cause="finished", message=None, final_density=result.get("density"),
        step=result.get("steps"), epoch=result.get("epochs"), current_test_accuracy=result.get("test_accuracy"),
        current_exploration_rate=result.get("exploration_rate"),
    )  # fmt: skip
    names = [column.name for column in tables.layers.columns if column.name not in ("run_id", "position")]
    layers = result.get("layers")
    for position, layer in enumerate(layers if isinstance(layers, list) else []):
        if isinstance(layer, dict) and all(layer.get(name) is not None for name in names):
            kept = {name: layer[name] for name in names}
            out.layers.append({"run_id": row["run_id"], "position": position, **kept})


def _pick(event: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: event.get(name) for name in names}


def _rows(connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]]:
    found = {}
    for start in range(0, len(ids), 500):
        query = sa.select(tables.runs).where(tables.runs.c.run_id.in_(ids[start : start + 500]))
        found.update({row["run_id"]: dict(row) for row in connection.execute(query).mappings()})
    return found


def _attempt_rows(connection: Connection, ids: list[str]) -> dict[str, dict[int, dict[str, Any]]]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for start in range(0, len(ids), 500):
        query = sa.select(tables.attempts).where(tables.attempts.c.run_id.in_(ids[start : start + 500]))
        for row in connection.execute(query).mappings():
            found.setdefault(row["run_id"], {})[row["attempt"]] = dict(row)
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
