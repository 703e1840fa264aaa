"""Where results come from: the specs that asked for them, the attempts that made them, and what each was made with.

Files of a results folder may be somebody else's: what is not of the kind it should be is passed over.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa

from itopctl.store import tables
from itopctl.store.database import Store
from itopctl.store.files import read_json
from itopctl.store.manifests import accepted_in
from itopctl.store.rundir import Results

Record = dict[str, Any]

_RUNS_AT_ONCE = 5_000  # databases limit the parameters of a query
_WORDS = ("python", "platform", "device", "device_name", "host")


def recorded_specs(store: Store, sweeps: Sequence[str] = ()) -> list[Record]:
    """The specs of some sweeps, or of all, as they were when each sweep was started last.

    Returns:
        Records with `sweep, description, created_at, updated_at, path, text`, `set`, the arguments of `--set`, and
        `accepted_code`: module of the user's own → versions that count as the same (`--accept-code`); by name. A sweep
        of which no spec is recorded has the text and path "".
    """
    of = tables.sweeps.c
    query = sa.select(of.sweep, of.description, of.created_at, of.updated_at, of.specs)
    with store.read() as connection:
        rows = [dict(row) for row in connection.execute(query).mappings()]
    found = []
    for row in sorted(rows, key=lambda row: row["sweep"]):
        if sweeps and row["sweep"] not in sweeps:
            continue
        specs = row.pop("specs")
        sound = [spec for spec in specs if isinstance(spec, dict)] if isinstance(specs, list) else []
        for spec in sound or [{}]:
            texts = {name: spec[name] if isinstance(spec.get(name), str) else "" for name in ("path", "text")}
            given = spec.get("set")
            overrides = [one for one in given if isinstance(one, str)] if isinstance(given, list) else []
            found.append({**row, **texts, "set": overrides, "accepted_code": accepted_in([spec])})
    return found


def accepted_code(store: Store) -> dict[str, dict[str, list[str]]]:
    """Sweep → module of the user's own → versions that count as the same there; sweeps that accept any."""
    with store.read() as connection:
        rows = connection.execute(sa.select(tables.sweeps.c.sweep, tables.sweeps.c.specs)).all()
    return {sweep: accepted for sweep, specs in rows if (accepted := accepted_in(specs))}


def attempts_at(store: Store, run_ids: Collection[str]) -> dict[str, list[Record]]:
    """Run id → its attempts, in order (columns of `tables.attempts`); runs without any are not among them."""
    wanted = sorted(run_ids)
    found: dict[str, list[Record]] = {}
    with store.read() as connection:
        for start in range(0, len(wanted), _RUNS_AT_ONCE):
            some = tables.attempts.c.run_id.in_(wanted[start : start + _RUNS_AT_ONCE])
            query = sa.select(tables.attempts).where(some).order_by(tables.attempts.c.attempt)
            for row in connection.execute(query).mappings():
                found.setdefault(row["run_id"], []).append(dict(row))
    return found


def environments(results: Results, run_ids: Collection[str]) -> dict[str, Record]:
    """Run id → what its last attempt was made with, as far as its directory says so.

    Returns:
        Records with any of `python, platform, device, device_name, host` (words), `threads` (a number), `git_commit,
        code` (words), `git_dirty` (whether files differed from the commit) and `packages`: name → version.
    """
    found = {}
    for run_id in run_ids:
        said = read_json(results.run(run_id).environment)
        if said is not None:
            found[run_id] = _sound(said)
    return found


def _sound(said: Record) -> Record:
    packages, threads = said.get("packages"), said.get("threads")
    record: Record = {name: said[name] for name in (*_WORDS, "git_commit", "code") if isinstance(said.get(name), str)}
    if isinstance(threads, int) and not isinstance(threads, bool):
        record["threads"] = threads
    if isinstance(said.get("git_dirty"), bool):
        record["git_dirty"] = said["git_dirty"]
    versions = packages.items() if isinstance(packages, dict) else ()
    record["packages"] = {name: version for name, version in versions if isinstance(version, str)}
    return record
