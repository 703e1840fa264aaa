"""Looking after a store: what in it, or in the results folder, is not as it should be; and making it anew."""

from __future__ import annotations

import contextlib
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.store import submissions as records
from itopctl.store import tables
from itopctl.store.checkpoints import DamagedCheckpointError, checkpoints
from itopctl.store.database import Store, open_store
from itopctl.store.files import cannot_write, flush_folder, open_regular, read_json, rename
from itopctl.store.ingest import forget_sweeps, ingest, is_whole_manifest
from itopctl.store.integrity import COMPANIONS, DamagedStoreError, check_rows
from itopctl.store.journal import read_journal
from itopctl.store.locks import is_held, one_at_a_time
from itopctl.store.migration import make_empty
from itopctl.store.rundir import Results, RunDirectory

_LOOKS = 3
_BEFORE_IT_BEGINS = ("cancel", "lock")  # what the folder of a run may have without a config

Identity = Callable[[Any], str]
"""The run id that follows from a config. Raises ValueError where it is none."""


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        kind: `problem`: something is lost or wrong; `note`: something that costs nothing but room, or a part that
            readers pass over.
        where: a run's id, a table, or a path in the results folder.
        what: a sentence.
    """

    kind: str
    where: str
    what: str


# Checking ---------------------------------------------------------------------------------------------------


def check(store: Store, results: Results, identity: Identity) -> list[Finding]:
    """Everything that is wrong with a store, that is up to date, and with the results folder it indexes.

    The rows of every run, both ways: what the store has and the directories do not, and the other way round.

    Args:
        store: brought up to date.
        results: its results folder.
        identity: gives the id that follows from a config.
    """
    findings = [*_check_database(store), *_check_folder(results)]
    for run_id in results.run_ids():
        findings += _check_run(results.run(run_id), identity)
    return [*findings, *_lasting_differences(store, results)]


def _check_database(store: Store) -> Iterator[Finding]:
    if store.file is None:
        return
    with store.read() as connection:
        for (text,) in connection.exec_driver_sql("PRAGMA integrity_check(20)"):
            if text != "ok":
                yield Finding("problem", store.name, f"SQLite: {text}.")
        try:
            check_rows(connection, store.name, tables.metadata.sorted_tables)
        except DamagedStoreError as error:
            yield Finding("problem", store.name, str(error))


def _check_folder(results: Results) -> Iterator[Finding]:
    for path in results.manifests():
        if not is_whole_manifest(path):
            yield Finding("problem", f"sweeps/{path.name}", "is no whole manifest of a sweep; its runs are not lost.")
    for name in records.not_over(results)[1]:
        yield Finding("problem", f"submissions/{name}", "is no whole record of a submission.")
    there = {path.name for path in results.runs.iterdir()} if results.runs.is_dir() else set()
    for name in sorted(there.difference(results.run_ids())):  # listed later: a run may have begun since
        yield Finding("note", f"runs/{name}", "is no run's folder; it is passed over.")


def _check_run(run: RunDirectory, identity: Identity) -> Iterator[Finding]:
    id_ = run.run_id
    names = {path.name for path in run.path.glob("[!.]*")}  # before the config is read, which is there from the start
    begun, ended = not names.issubset(_BEFORE_IT_BEGINS), run.result.name in names
    stored, result = read_json(run.config), read_json(run.result)
    for wrong in (
        wrong_config(id_, stored, identity) if begun or stored is not None else None,
        wrong_result(id_, result) if ended or result is not None else None,
    ):
        if wrong is not None:
            yield Finding("problem", id_, f"{wrong}.")
    journal = read_journal(run.journal)
    if journal.damaged:
        yield Finding("note", id_, f"{journal.damaged} damaged lines in its journal are passed over.")
    if journal.torn and not is_held(run):
        yield Finding("note", id_, "the last line of its journal is torn; it is passed over.")
    for checkpoint in checkpoints(run):
        with contextlib.suppress(FileNotFoundError):
            try:
                checkpoint.read()
            except DamagedCheckpointError as error:
                if checkpoint.path.exists():
                    yield Finding("note", id_, f"{checkpoint.path.name} is damaged ({error}); the one before is used.")
    if run.network.exists() and not is_held(run) and not _is_whole_archive(run.network):
        yield Finding("note", id_, f"{run.network.name} is damaged: its network cannot be exported.")
    try:
        with one_at_a_time(run.path):  # as do those who take or leave the lock, and those who write without it
            if is_held(run):
                return
            locked, left = run.lock.exists(), sorted(path.name for path in run.path.glob(".*"))
    except OSError:
        return
    if locked:
        yield Finding("note", id_, "the lock of a process that is gone; the next one takes it over.")
    if left:
        yield Finding("note", id_, f"left aside by a process that was killed: {', '.join(left)}.")


def wrong_config(run_id: str, stored: dict[str, Any] | None, identity: Identity) -> str | None:
    """What is wrong with the content of a run's `config.json`, if anything is."""
    if stored is None:
        return "its config.json is missing or not whole"
    try:
        found = identity(stored.get("config"))
    except ValueError as error:
        return f"its config.json is no run's: {' '.join(str(error).split())[:200]}"
    return None if found == run_id else f"its config.json describes run {found}"


def wrong_result(run_id: str, result: dict[str, Any] | None) -> str | None:
    """What is wrong with the content of a run's `result.json`, if anything is."""
    if result is None:
        return "its result.json is missing or not whole"
    found = result.get("run_id", run_id)
    return None if found == run_id else f"its result.json is of run {found}"


def _lasting_differences(store: Store, results: Results) -> Iterator[Finding]:
    """Differences that every look finds, the same each time: the store is brought up to date between the looks, so
    that those which come from what runs write in the meantime are other ones the next time.
    """
    lasting = list(_compare(store, results))
    for _ in range(_LOOKS - 1):
        if not lasting:
            return
        ingest(store, results)
        found = set(_compare(store, results))
        lasting = [difference for difference in lasting if difference in found]
    said: dict[str, list[str]] = {}
    for difference in lasting:
        said.setdefault(difference.where, []).append(difference.what)
    for where, what_is_wrong in said.items():
        yield Finding("problem", where, f"{'; '.join(what_is_wrong)}.")


class _Difference(NamedTuple):
    """Where a store differs from the files, how, and the values as they are."""

    where: str
    what: str
    values: str = ""


def _compare(store: Store, results: Results) -> Iterator[_Difference]:
    """Rows of the store against those of one made anew from the folders, in memory."""
    fresh = Store("sqlite://")
    try:
        ingest(fresh, results)
        with store.read() as ours, fresh.read() as theirs:
            mine = set(ours.execute(sa.select(tables.runs.c.run_id)).scalars())
            there = set(theirs.execute(sa.select(tables.runs.c.run_id)).scalars())
            for run_id in sorted(there - mine):
                yield _Difference(run_id, "has a folder, and no row in the store")
            if store.indexes(results.database):  # another may hold more than this folder's runs
                for run_id in sorted(mine - there):
                    yield _Difference(run_id, "has a row in the store, and neither a folder nor a sweep")
            both = (mine & there) - _taken_up_again(ours, results)
            for table in (tables.runs, tables.attempts, tables.evaluations, tables.layers):
                yield from _differences(table, _rows(ours, table, both), _rows(theirs, table, both))
            if store.indexes(results.database):
                for table in (tables.sweeps, tables.sweep_runs):
                    yield from _differences(table, _rows(ours, table), _rows(theirs, table))
    finally:
        fresh.close()


def _taken_up_again(connection: Connection, results: Results) -> set[str]:
    """Runs whose last attempt the store saw lost, and whose next one has not said yet that it begins.

    From the files alone the process that is at them is the one that is gone.
    """
    runs, attempts = tables.runs.c, tables.attempts.c
    last = sa.and_(attempts.run_id == runs.run_id, attempts.attempt == runs.attempts)
    lost = sa.select(runs.run_id).join_from(tables.runs, tables.attempts, last).where(attempts.cause == "lost")
    return {run_id for run_id in connection.execute(lost).scalars() if is_held(results.run(run_id))}


def _rows(connection: Connection, table: sa.Table, runs: set[str] | None = None) -> dict[tuple[Any, ...], Any]:
    keys = [column.name for column in table.primary_key.columns]
    rows = (dict(row) for row in connection.execute(sa.select(table)).mappings())
    return {tuple(row[key] for key in keys): row for row in rows if runs is None or row["run_id"] in runs}


def _differences(table: sa.Table, mine: dict[Any, Any], theirs: dict[Any, Any]) -> Iterator[_Difference]:
    for key in sorted(mine.keys() | theirs.keys(), key=str):
        where = f"{table.name} {' '.join(map(str, key))}"
        if key not in mine or key not in theirs:
            yield _Difference(where, f"is {'not ' * (key not in mine)}in the store; the files say otherwise")
            continue
        for name, ours, files in _unequal(mine[key], theirs[key]):
            yield _Difference(where, f"{name} is {ours!r:.80}, by the files {files!r:.80}", repr((ours, files)))


def _unequal(mine: dict[str, Any], theirs: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Entries in which two objects differ: their names, and the value that each has; of what is within objects, too."""
    for name in [*theirs, *(name for name in mine if name not in theirs)]:
        ours, files = mine.get(name, "nothing"), theirs.get(name, "nothing")
        if isinstance(ours, dict) and isinstance(files, dict):
            yield from ((f"{name}.{within}", *values) for within, *values in _unequal(ours, files))
        elif ours != files:
            yield name, ours, files


# Making anew ------------------------------------------------------------------------------------------------


def rebuild(results: Results, url: str | None = None) -> tuple[Store, Path | None]:
    """Make a store anew from the folders, in one transaction; others see the old rows or the new ones.

    In a store that holds other folders' runs, too, those of this folder alone are made anew.

    Returns:
        The store, and where the old file was put if it was no database of ours any more.

    Raises:
        EnvironmentUnfitError: it cannot be written.
    """
    aside = None
    try:
        store = open_store(results.database, url)
    except DamagedStoreError:
        if url is not None:
            raise
        aside = _set_aside(results.database)
        store = open_store(results.database)
    with store.write() as connection:
        if store.indexes(results.database):
            make_empty(connection)
        else:
            forget_runs(connection, results.run_ids())
            forget_sweeps(connection, [path.stem for path in results.manifests()])
        ingest(store, results)
    return store, aside


def _set_aside(database: Path) -> Path:
    """Rename a file that is no database of ours, and what SQLite keeps beside it."""
    target = database.with_name(f"{database.name}.damaged-{secrets.token_hex(4)}")
    try:
        for suffix in (*COMPANIONS, ""):
            beside = database.with_name(database.name + suffix)
            with contextlib.suppress(FileNotFoundError):
                rename(beside, target.with_name(target.name + suffix))
        flush_folder(database.parent)
    except OSError as error:
        raise cannot_write(database, error) from error
    return target


def forget_runs(connection: Connection, run_ids: Iterable[str]) -> None:
    """Remove all rows of runs, to be made anew from their files."""
    for run_id in run_ids:
        for table in (tables.attempts, tables.evaluations, tables.layers, tables.runs):
            connection.execute(sa.delete(table).where(table.c.run_id == run_id))


def forget(store: Store, run_ids: Iterable[str], sweeps: Iterable[str], submissions: Iterable[str] = ()) -> None:
    """Remove all rows of runs, sweeps and submissions whose files are deleted."""
    ids = list(run_ids)
    with store.write() as connection:
        forget_runs(connection, ids)
        for run_id in ids:
            connection.execute(sa.delete(tables.sweep_runs).where(tables.sweep_runs.c.run_id == run_id))
        forget_sweeps(connection, sweeps)
        for name in submissions:
            connection.execute(sa.delete(tables.submissions).where(tables.submissions.c.name == name))


def _is_whole_archive(path: Path) -> bool:
    """Whether a zip file's parts are what their checksums say."""
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            stored = all(part.compress_type == zipfile.ZIP_STORED for part in archive.infolist())
            return stored and archive.testzip() is None
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, EOFError):  # encrypted, an unknown kind
        return False
