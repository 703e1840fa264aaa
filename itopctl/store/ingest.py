"""Run directories, sweep manifests and submissions → database. Idempotent, and incremental by byte offset in
each journal.

A run that is `done` in the database is never looked at again; so a command over ten thousand finished runs costs
one listing of a folder.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.errors import EnvironmentUnfitError
from itopctl.store import tables
from itopctl.store.checkpoints import remove_checkpoints
from itopctl.store.database import Store, upsert
from itopctl.store.files import flush_folder, read_json, remove
from itopctl.store.journal import mark_at
from itopctl.store.locks import is_held, release_lock_of_the_dead, remove_leftovers
from itopctl.store.manifests import is_config, points_of
from itopctl.store.run_update import OF_JOB, RunUpdate, config_columns, new_run_row
from itopctl.store.rundir import Results, RunDirectory
from itopctl.store.submissions import Submission, SubmissionDirectory, directories, load

_RUNS_AT_ONCE = 200  # in one transaction, so that other writers get their turn


def ingest(store: Store, results: Results) -> None:
    """Bring the database up to date with the results folder."""
    ingest_sweeps(store, results)
    ingest_submissions(store, results)
    if store.indexes(results.database):
        _forget_damaged(store, results)
        _forget_deleted(store, results)
        _forget_unnamed(store, set(results.run_ids()))
    with store.read() as connection:
        open_attempts = sa.select(tables.attempts.c.run_id).where(tables.attempts.c.state == "running")
        settled = sa.select(tables.runs.c.run_id).where(
            tables.runs.c.state == "done", tables.runs.c.run_id.not_in(open_attempts)
        )
        skipped = set(connection.execute(settled).scalars())
    ingest_runs(store, results, [run_id for run_id in results.run_ids() if run_id not in skipped])


def _forget_deleted(store: Store, results: Results) -> None:
    """Runs whose directory somebody deleted are as if they had never begun."""
    with store.read() as connection:
        ever_started = sa.or_(tables.runs.c.state.in_(("running", "done")), tables.runs.c.attempts > 0)
        started = connection.execute(sa.select(tables.runs.c.run_id).where(ever_started)).scalars().all()
    there = set(results.run_ids())  # looked at last: a run that the database knows has had its directory
    gone = set(started) - there
    if gone:
        with store.write() as connection:
            rows = [dict(row) for row in connection.execute(sa.select(tables.runs)).mappings() if row["run_id"] in gone]
            upsert(connection, tables.runs, [_forgotten(connection, row) for row in rows])
            ingest_runs(store, results, gone)


def _forgotten(connection: Connection, row: dict[str, Any]) -> dict[str, Any]:
    """Remove what is known of a run's attempts; returns its row as if there had been none."""
    for table in (tables.attempts, tables.evaluations, tables.layers):
        connection.execute(sa.delete(table).where(table.c.run_id == row["run_id"]))
    return new_run_row(row["run_id"], row["config"]) | {name: row[name] for name in OF_JOB}


def _tidy(run: RunDirectory) -> None:
    """Remove what a process that was killed just after the end of a run could not remove any more."""
    config = (read_json(run.config) or {}).get("config")
    if is_held(run) or (isinstance(config, dict) and config.get("keep_checkpoints")):
        return
    with contextlib.suppress(OSError, EnvironmentUnfitError):
        release_lock_of_the_dead(run)
        remove_leftovers(run)
        remove_checkpoints(run)
        remove(run.reserve)


def _is_another(journal: Path, row: dict[str, Any]) -> bool:
    """Whether a journal does not go on from what was read of it: begun anew, cut off, or another folder's."""
    offset, mark = row["journal_offset"], row["journal_mark"]
    if offset == 0:
        return False
    found = mark_at(journal, offset)
    return found is None or (mark is not None and found != mark)


def ingest_runs(store: Store, results: Results, run_ids: Iterable[str]) -> None:
    """Bring the rows of these runs up to date."""
    ids = list(run_ids)
    for start in range(0, len(ids), _RUNS_AT_ONCE):
        _ingest_some(store, results, ids[start : start + _RUNS_AT_ONCE])


def _ingest_some(store: Store, results: Results, ids: list[str]) -> None:
    with store.write() as connection:  # from the first look, so that no process overwrites newer rows with older ones
        earlier = _rows(connection, ids)
        for run_id, row in earlier.items():
            if _is_another(results.run(run_id).journal, row):
                earlier[run_id] = _forgotten(connection, row)
                upsert(connection, tables.runs, [earlier[run_id]])
        attempts = _attempt_rows(connection, ids)
        updates = [RunUpdate(results.run(run_id), earlier.get(run_id), attempts.get(run_id, {})) for run_id in ids]
        for run in updates:
            if run.unsaid and not store.in_memory:  # the result may be seen before it is on disk
                with contextlib.suppress(OSError):
                    flush_folder(run.run.path)
        upsert(connection, tables.runs, [run.row for run in updates if run.row is not None and run.changed])
        upsert(connection, tables.attempts, [row for run in updates for row in run.attempts])
        upsert(connection, tables.evaluations, [row for run in updates for row in run.evaluations])
        upsert(connection, tables.layers, [row for run in updates for row in run.layers])
    for run in updates:
        if run.just_done and not store.in_memory:
            _tidy(run.run)


def ingest_sweeps(store: Store, results: Results) -> None:
    """Take over the manifests that changed; their runs are `queued` until something is known of them."""
    with store.read() as connection:
        rows = connection.execute(sa.select(tables.sweeps.c.sweep, tables.sweeps.c.stamp))
        known = {row.sweep: row.stamp for row in rows}
    paths = results.manifests()
    changed = []
    for path in paths:
        with contextlib.suppress(OSError):
            stamp = _stamp(path)
            found = _read_manifest(path, stamp) if known.get(path.stem) != stamp else None
            if found is not None:
                changed.append(found)
    for row, points in sorted(changed, key=lambda one: (one[0]["updated_at"], one[0]["sweep"])):  # the newest counts
        with store.write() as connection:
            upsert(connection, tables.sweeps, [row])
            connection.execute(sa.delete(tables.sweep_runs).where(tables.sweep_runs.c.sweep == row["sweep"]))
            members = [{"sweep": row["sweep"], "run_id": id_, "position": n} for n, id_ in enumerate(points)]
            upsert(connection, tables.sweep_runs, members)
            _take_over_points(connection, points)
    if store.indexes(results.database):
        gone = set(known) - {path.stem for path in paths}
        if gone:
            with store.write() as connection:
                forget_sweeps(connection, gone)


def is_whole_manifest(path: Path) -> bool:
    """Whether a file is the manifest of a sweep."""
    return _read_manifest(path, "") is not None


def _read_manifest(path: Path, stamp: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """A sweep's row, and its runs' configs; None where the manifest is not whole."""
    manifest = read_json(path) or {}
    try:
        points = points_of(manifest)
        if len(points) != len(manifest["runs"]):
            return None
        columns = ("description", "specs", "slurm", "created_at", "updated_at")
        row = {"sweep": path.stem, **{name: manifest[name] for name in columns}, "stamp": stamp}
    except (KeyError, TypeError, ValueError):
        return None
    sound = isinstance(row["specs"], list) and isinstance(row["slurm"], dict)
    return (row, points) if sound and tables.fitting(tables.sweeps, row) is not None else None


def _take_over_points(connection: Connection, points: dict[str, Any]) -> None:
    """Make rows for runs that have none, and take over the configs of those that never began."""
    runs = tables.runs.c
    untouched = sa.and_(runs.attempts == 0, runs.journal_offset == 0)
    query = sa.select(runs.run_id, sa.case((untouched, runs.config), else_=None))
    there: dict[str, Any] = {row[0]: row[1] for row in connection.execute(query)}
    upsert(connection, tables.runs, [new_run_row(i, c) for i, c in points.items() if i not in there])
    for run_id, config in points.items():
        if there.get(run_id) not in (None, config):
            columns = tables.fitting(tables.runs, config_columns(config)) or {}
            connection.execute(sa.update(tables.runs).where(runs.run_id == run_id).values(columns))


def forget_sweeps(connection: Connection, names: Iterable[str]) -> None:
    """Remove all rows of sweeps, such as those whose manifest somebody deleted."""
    for name in names:
        for table in (tables.sweep_runs, tables.sweeps):
            connection.execute(sa.delete(table).where(table.c.sweep == name))


def _forget_unnamed(store: Store, directories: set[str]) -> None:
    """Runs that never began, and that no sweep and no job has any more, are no runs any more."""
    runs = tables.runs.c
    named = sa.select(tables.sweep_runs.c.run_id)
    query = sa.select(runs.run_id).where(runs.attempts == 0, runs.job_name.is_(None), runs.run_id.not_in(named))
    with store.read() as connection:
        gone = set(connection.execute(query).scalars()) - directories
    if gone:
        with store.write() as connection:
            for run_id in gone:
                connection.execute(sa.delete(tables.runs).where(runs.run_id == run_id))


def ingest_submissions(store: Store, results: Results) -> None:
    """Take over what became known of submissions, and what that means for their runs."""
    with store.read() as connection:
        rows = connection.execute(sa.select(tables.submissions.c.name, tables.submissions.c.stamp))
        known = {row.name: row.stamp for row in rows}
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
            if jobs := _job_rows(submission):
                connection.execute(_TAKE_OVER_JOB, jobs)
            ingest_runs(store, results, submission.request.runs)


def _forget_damaged(store: Store, results: Results) -> None:
    """Runs that are said to be at jobs of which no whole record is left are at none, as far as can be told."""
    runs = tables.runs.c
    with store.read() as connection:
        live = sa.select(runs.run_id, runs.job_name).where(runs.job_phase.in_(("pending", "running")))
        claimed = [(row.run_id, row.job_name) for row in connection.execute(live)]
    names = {name for _, name in claimed}
    damaged = {name for name in names if load(SubmissionDirectory(results.submissions / name)) is None}
    lost = [run_id for run_id, name in claimed if name in damaged]
    if lost:
        with store.write() as connection:
            for start in range(0, len(lost), _RUNS_AT_ONCE):
                some = runs.run_id.in_(lost[start : start + _RUNS_AT_ONCE])
                cleared = dict.fromkeys(OF_JOB) | {"job_phase": "ended"}
                connection.execute(sa.update(tables.runs).where(some).values(cleared))
            connection.execute(sa.delete(tables.submissions).where(tables.submissions.c.name.in_(damaged)))
            ingest_runs(store, results, lost)


def _make_missing_rows(connection: Connection, submission: Submission) -> None:
    """Rows for runs that no manifest names any more."""
    there = set(connection.execute(sa.select(tables.runs.c.run_id)).scalars())
    missing = [run_id for run_id in submission.request.runs if run_id not in there]
    configs = read_json(submission.directory.configs) or {} if missing else {}
    rows = [new_run_row(run_id, configs[run_id]) for run_id in missing if is_config(configs.get(run_id))]
    upsert(connection, tables.runs, rows)


_TAKE_OVER_JOB = (
    sa.update(tables.runs)
    .where(
        tables.runs.c.run_id == sa.bindparam("_run_id"),
        sa.func.coalesce(tables.runs.c.submitted_at, "") <= sa.bindparam("submitted_at"),
    )
    .values({name: sa.bindparam(name) for name in OF_JOB})
)


def _job_rows(submission: Submission) -> list[dict[str, Any]]:
    rows = [
        {
            "run_id": run_id, "job_name": submission.name, "job_id": submission.id_of(index), "job_phase": job.phase,
            "job_reason": job.reason, "job_cause": job.cause, "job_message": job.message,
            "job_after": submission.request.attempts.get(run_id, 0), "submitted_at": submission.request.created_at,
        }
        for index, job in enumerate(submission.state.jobs)
        for run_id in submission.request.jobs[index]
    ]  # fmt: skip
    fitted = (tables.fitting(tables.runs, row) for row in rows)
    return [{"_run_id": row.pop("run_id"), **row} for row in fitted if row is not None]


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
