"""Run directories, sweep manifests and submissions → database. Idempotent, and incremental by byte offset in
each journal.

A run that is `done` in the database is never looked at again; so a command over ten thousand finished runs costs
one listing of a folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.store import tables
from itopctl.store.database import Store, upsert
from itopctl.store.files import read_json
from itopctl.store.run_news import RunNews, new_run_row
from itopctl.store.rundir import Results
from itopctl.store.submissions import Submission, SubmissionDirectory, directories, load

_RUNS_AT_ONCE = 200  # in one transaction, so that other writers get their turn


def ingest(store: Store, results: Results) -> None:
    """Bring the database up to date with the results folder."""
    ingest_sweeps(store, results)
    submitted = ingest_submissions(store, results)
    ids = sorted({*results.run_ids(), *submitted})
    with store.read() as connection:
        open_attempts = sa.select(tables.attempts.c.run_id).where(tables.attempts.c.state == "running")
        settled = sa.select(tables.runs.c.run_id).where(
            tables.runs.c.state == "done", tables.runs.c.run_id.not_in(open_attempts)
        )
        skipped = set(connection.execute(settled).scalars())
    forgotten = _forget_deleted(store, results) if store.indexes(results.database) else set()
    ingest_runs(store, results, [run_id for run_id in sorted({*ids, *forgotten}) if run_id not in skipped - forgotten])


def _forget_deleted(store: Store, results: Results) -> set[str]:
    """Runs whose directory somebody deleted are as if they had never begun; returns them."""
    with store.read() as connection:
        ever_started = sa.or_(tables.runs.c.state.in_(("running", "done")), tables.runs.c.attempts > 0)
        query = sa.select(tables.runs).where(ever_started)
        started = {row["run_id"]: dict(row) for row in connection.execute(query).mappings()}
    there = set(results.run_ids())  # looked at last: a run that the database knows has had its directory
    gone = {run_id: row for run_id, row in started.items() if run_id not in there}
    if not gone:
        return set()
    with store.write() as connection:
        for table in (tables.attempts, tables.evaluations, tables.layers):
            for run_id in gone:
                connection.execute(sa.delete(table).where(table.c.run_id == run_id))
        upsert(connection, tables.runs, [
            new_run_row(run_id, row["config"]) | {name: row[name] for name in tables.JOB_COLUMNS}
            for run_id, row in gone.items()
        ])  # fmt: skip
    return set(gone)


def ingest_runs(store: Store, results: Results, run_ids: Iterable[str]) -> None:
    """Bring the rows of these runs up to date."""
    ids = list(run_ids)
    for start in range(0, len(ids), _RUNS_AT_ONCE):
        _ingest_some(store, results, ids[start : start + _RUNS_AT_ONCE])


def _ingest_some(store: Store, results: Results, ids: list[str]) -> None:
    with store.write() as connection:  # from the first look, so that no other process writes older news over newer
        earlier = _rows(connection, ids)
        attempts = _attempt_rows(connection, ids)
        news = [RunNews(results.run(run_id), earlier.get(run_id), attempts.get(run_id, {})) for run_id in ids]
        upsert(connection, tables.runs, [run.row for run in news if run.row is not None and run.changed])
        upsert(connection, tables.attempts, [row for run in news for row in run.attempts])
        upsert(connection, tables.evaluations, [row for run in news for row in run.evaluations])
        upsert(connection, tables.layers, [row for run in news for row in run.layers])


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
            upsert(connection, tables.runs, [new_run_row(i, c) for i, c in points.items() if i not in there])


def ingest_submissions(store: Store, results: Results) -> set[str]:
    """Take over what became known of submissions; returns the runs of those that changed."""
    with store.read() as connection:
        rows = connection.execute(sa.select(tables.submissions.c.name, tables.submissions.c.stamp))
        known = {row.name: row.stamp for row in rows}
    changed: set[str] = set()
    for directory in directories(results):
        try:
            stamp = _stamp(directory.state)
        except FileNotFoundError:
            continue  # about to be recorded
        submission = load(directory) if known.get(directory.name) != stamp else None
        if submission is None:
            continue
        with store.write() as connection:
            upsert(connection, tables.submissions, [{"name": directory.name, "stamp": stamp}])
            _make_missing_rows(connection, submission)
            connection.execute(_TAKE_OVER_JOB, _job_rows(submission))
        changed.update(submission.request.runs)
    return changed | _forget_damaged(store, results)


def _forget_damaged(store: Store, results: Results) -> set[str]:
    """Runs that are said to be at jobs of which no whole record is left are at none, as far as can be told."""
    runs = tables.runs.c
    with store.read() as connection:
        live = sa.select(runs.run_id, runs.job_name).where(runs.job_phase.in_(("pending", "running")))
        claimed = [(row.run_id, row.job_name) for row in connection.execute(live)]
    names = {name for _, name in claimed}
    damaged = {name for name in names if load(SubmissionDirectory(results.submissions / name)) is None}
    lost = [run_id for run_id, name in claimed if name in damaged]
    if lost and store.indexes(results.database):
        with store.write() as connection:
            for start in range(0, len(lost), _RUNS_AT_ONCE):
                some = runs.run_id.in_(lost[start : start + _RUNS_AT_ONCE])
                cleared = dict.fromkeys(tables.JOB_COLUMNS) | {"job_phase": "ended"}
                connection.execute(sa.update(tables.runs).where(some).values(cleared))
            connection.execute(sa.delete(tables.submissions).where(tables.submissions.c.name.in_(damaged)))
        return set(lost)
    return set()


def _make_missing_rows(connection: Connection, submission: Submission) -> None:
    """Rows for runs that no manifest names any more."""
    there = set(connection.execute(sa.select(tables.runs.c.run_id)).scalars())
    missing = [run_id for run_id in submission.request.runs if run_id not in there]
    configs = read_json(submission.directory.configs) or {} if missing else {}
    rows = [new_run_row(run_id, configs[run_id]) for run_id in missing if isinstance(configs.get(run_id), dict)]
    upsert(connection, tables.runs, rows)


_TAKE_OVER_JOB = (
    sa.update(tables.runs)
    .where(
        tables.runs.c.run_id == sa.bindparam("_run_id"),
        sa.func.coalesce(tables.runs.c.submitted_at, "") <= sa.bindparam("submitted_at"),
    )
    .values({name: sa.bindparam(name) for name in tables.JOB_COLUMNS})
)


def _job_rows(submission: Submission) -> list[dict[str, Any]]:
    called_off = {
        run_id for run_id in submission.request.runs if submission.directory.results.run(run_id).cancel.exists()
    }
    return [
        {
            "_run_id": run_id, "job_name": submission.name, "job_id": submission.id_of(index), "job_phase": job.phase,
            "job_reason": job.reason, "job_cause": "cancelled" if run_id in called_off else job.cause,
            "job_message": job.message,
            "job_after": submission.request.attempts.get(run_id, 0), "submitted_at": submission.request.created_at,
        }
        for index, job in enumerate(submission.state.jobs)
        for run_id in submission.request.jobs[index]
    ]  # fmt: skip


def _rows(connection: Connection, ids: list[str]) -> dict[str, dict[str, Any]]:
    query = sa.select(tables.runs).where(tables.runs.c.run_id.in_(ids))
    return {row["run_id"]: dict(row) for row in connection.execute(query).mappings()}


def _attempt_rows(connection: Connection, ids: list[str]) -> dict[str, dict[int, dict[str, Any]]]:
    query = sa.select(tables.attempts).where(tables.attempts.c.run_id.in_(ids))
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in connection.execute(query).mappings():
        found.setdefault(row["run_id"], {})[row["attempt"]] = dict(row)
    return found


def _stamp(path: Path) -> str:
    stat = path.stat()
    return f"{stat.st_mtime_ns}-{stat.st_size}-{stat.st_ino}"
