"""What people ask of the database; every answer is plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.errors import UserError, meant, unknown
from itopctl.schema import Run, fields_of
from itopctl.store import STATES, tables
from itopctl.store.database import Store

RUN_COLUMNS = tuple(field.name for field in fields_of(Run).values() if field.listed)
"""Fields of a run in machine-readable output, in order. `sweep` names every sweep of the run, comma-separated."""

Record = dict[str, Any]

_MOST_NAMED = 500  # ids in a query; databases limit its parameters


def sweep_names(store: Store) -> list[str]:
    """Every recorded sweep, by name."""
    with store.read() as connection:
        return sorted(connection.execute(sa.select(tables.sweeps.c.sweep)).scalars())  # here: servers order otherwise


def check_sweeps(store: Store, names: Sequence[str]) -> None:
    """Raise UserError for a name that is no recorded sweep."""
    known = sweep_names(store)
    for name in names:
        if name not in known:
            if not known:
                raise UserError(f"there is no sweep {name!r}; nothing was run here yet.")
            raise UserError(unknown("sweep", name, known))


def sweep_summaries(store: Store, sweeps: Sequence[str] = ()) -> list[Record]:
    """Per sweep: counts by state, and an estimate of the seconds left (None where nothing runs)."""
    member = tables.sweep_runs.join(tables.runs, tables.sweep_runs.c.run_id == tables.runs.c.run_id, isouter=True)
    state = sa.func.coalesce(tables.runs.c.state, "queued")
    query = (
        sa.select(
            tables.sweep_runs.c.sweep, state, sa.func.count(), sa.func.avg(tables.runs.c.wall_seconds),
            sa.func.sum(tables.runs.c.epoch / sa.func.nullif(tables.runs.c.total_epochs, 0)),
        )
        .select_from(member)
        .group_by(tables.sweep_runs.c.sweep, state)
    )  # fmt: skip
    if sweeps:
        query = query.where(tables.sweep_runs.c.sweep.in_(list(sweeps)))
    summaries: dict[str, Record] = {}
    progress: dict[str, tuple[float | None, float]] = {}
    with store.read() as connection:
        for name, found_state, count, seconds, part_done in connection.execute(query):
            row = summaries.setdefault(name, {"sweep": name, "total": 0, **dict.fromkeys(STATES, 0)})
            row[found_state] += count
            row["total"] += count
            average, running_part = progress.get(name, (None, 0.0))
            if found_state == "done":
                average = seconds
            elif found_state == "running":
                running_part = part_done or 0.0
            progress[name] = (average, running_part)
    for name, row in summaries.items():
        row["seconds_left"] = _seconds_left(row, *progress[name])
    return [summaries[name] for name in sorted(summaries)]


def _seconds_left(row: Record, average: float | None, running_part: float) -> float | None:
    """Mean time of the finished runs × what is left of the others ÷ how many run at once."""
    if not row["running"] or average is None:
        return None
    remaining = row["queued"] + row["running"] - running_part
    return float(average * remaining / row["running"])


def select_runs(
    store: Store,
    sweeps: Sequence[str] = (),
    states: Sequence[str] = (),
    columns: Sequence[str] = RUN_COLUMNS,
) -> list[Record]:
    """Runs as records, in the order of their sweeps; those of no sweep come last, by id.

    Args:
        sweeps: only members of these; none given: every run.
        states: only these states.
        columns: names of `tables.runs`, or `sweep`.
    """
    chosen = [tables.runs.c[name] for name in columns if name != "sweep"]
    query = sa.select(tables.runs.c.run_id.label("_id"), *chosen).order_by(tables.runs.c.run_id)
    if states:
        query = query.where(tables.runs.c.state.in_(list(states)))
    with store.read() as connection:
        membership = _membership(connection)
        rows = connection.execute(query).mappings().all()
    order = {
        run_id: index
        for index, (run_id, names) in enumerate(membership.items())
        if not sweeps or not set(sweeps).isdisjoint(names)
    }
    records = []
    for row in rows:
        run_id = row["_id"]
        if sweeps and run_id not in order:
            continue
        names = ",".join(membership.get(run_id, ()))
        records.append((order.get(run_id, len(order)), {n: names if n == "sweep" else row[n] for n in columns}))
    records.sort(key=lambda item: item[0])
    return [record for _, record in records]


_PACE_COLUMNS = ("run_id", "dataset", "model", "method", "config", "steps", "wall_seconds", "peak_memory_bytes")


def finished_on(store: Store, host: str, models: Sequence[str]) -> list[Record]:
    """What finished runs of some models took, where the attempt that finished was made on this host.

    Args:
        host: as `attempts` names it.
        models: names of models.
    """
    runs, attempts = tables.runs.c, tables.attempts.c
    last = sa.and_(runs.run_id == attempts.run_id, runs.attempts == attempts.attempt)
    query = (
        sa.select(*(runs[name] for name in _PACE_COLUMNS), attempts.started_at)
        .join_from(tables.runs, tables.attempts, last)
        .where(runs.state == "done", attempts.host == host, runs.model.in_(list(models)))
        .order_by(runs.run_id)
    )
    with store.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]


def _membership(connection: Connection) -> dict[str, list[str]]:
    """Run id → names of its sweeps, in the order of the sweeps' points."""
    query = sa.select(tables.sweep_runs.c.sweep, tables.sweep_runs.c.position, tables.sweep_runs.c.run_id)
    found: dict[str, list[str]] = {}
    for sweep, _, run_id in sorted(tuple(row) for row in connection.execute(query)):
        found.setdefault(run_id, []).append(sweep)
    return found


def run_states(store: Store, run_ids: Sequence[str] | None = None) -> dict[str, tuple[str, str | None]]:
    """Run id → (state, cause) of those of some runs that the database knows, or of all that it knows."""
    wanted = None if run_ids is None else set(run_ids)
    with store.read() as connection:
        query = sa.select(tables.runs.c.run_id, tables.runs.c.state, tables.runs.c.cause)
        found = connection.execute(query)
        return {id_: (state, cause) for id_, state, cause in found if wanted is None or id_ in wanted}


def runs_with_own_code(store: Store) -> list[tuple[str, str, dict[str, Any]]]:
    """Id, state and config of the runs that record a digest of the user's own code; the database picks them out."""
    runs = tables.runs.c
    recorded = runs.config["own_code"].as_string().is_not(None)
    with store.read() as connection:
        query = sa.select(runs.run_id, runs.state, runs.config).where(recorded).order_by(runs.run_id)
        return [(run_id, state, config) for run_id, state, config in connection.execute(query)]


def attempt_counts(store: Store, run_ids: Sequence[str]) -> dict[str, int]:
    """Run id → attempts at it, of those runs that had any."""
    wanted = set(run_ids)
    with store.read() as connection:
        query = sa.select(tables.runs.c.run_id, tables.runs.c.attempts).where(tables.runs.c.attempts > 0)
        return {run_id: count for run_id, count in connection.execute(query) if run_id in wanted}


def find_run(store: Store, prefix: str) -> str:
    """The id of the one run that starts with `prefix`. Raises UserError where there is none, or several."""
    prefix = prefix.lower()
    with store.read() as connection:
        query = sa.select(tables.runs.c.run_id).where(tables.runs.c.run_id.startswith(prefix, autoescape=True))
        found = list(connection.execute(query.limit(6)).scalars())
    if len(found) == 1 or prefix in found:
        return prefix if prefix in found else found[0]
    if not found:
        raise UserError(f"there is no run {prefix!r}; `itopctl status --runs` lists them.")
    raise UserError(f"{prefix!r} is the start of several runs: {', '.join(found)}. Give more digits.")


def named_runs(store: Store, names: Sequence[str]) -> list[str]:
    """Ids of the runs that are named: by a sweep they are in, or by their first digits; all if no name is given.

    Raises:
        UserError: a name is neither a sweep's nor the start of one run's id.
    """
    sweeps = set(sweep_names(store))
    if not names:
        return [record["run_id"] for record in select_runs(store, columns=("run_id",))]
    found: dict[str, None] = {}
    for name in names:
        if name in sweeps:
            found.update(dict.fromkeys(record["run_id"] for record in select_runs(store, [name], columns=("run_id",))))
            continue
        try:
            found[find_run(store, name)] = None
        except UserError as error:
            if "several runs" in str(error):
                raise
            raise UserError(
                f"there is no sweep or run {name!r}.{meant(name, sweeps)} The sweeps are "
                f"{', '.join(sorted(sweeps)) or 'none'}; the runs: itopctl status --runs"
            ) from None
    return list(found)


def run_details(store: Store, run_id: str) -> Record:
    """Everything about one run: its record, config, attempts, evaluations, layers, and its `maskable` weights."""
    with store.read() as connection:

        def rows(table: sa.Table, *order: str) -> list[Record]:
            return _rows_of(connection, table, [run_id], *order).get(run_id, [])

        run = dict(connection.execute(sa.select(tables.runs).where(tables.runs.c.run_id == run_id)).mappings().one())
        membership = connection.execute(
            sa.select(tables.sweep_runs.c.sweep).where(tables.sweep_runs.c.run_id == run_id)
        ).scalars()
        return {
            "run_id": run_id,
            "sweeps": sorted(membership),
            **{name: value for name, value in run.items() if name not in ("run_id", "journal_offset")},
            "attempt_history": rows(tables.attempts, "attempt"),
            "evaluations": rows(tables.evaluations, "step", "kind"),
            "layers": (layers := rows(tables.layers, "position")),
            "maskable": sum(layer["size"] for layer in layers) or None,
        }


def layers_of(store: Store, run_ids: Sequence[str]) -> dict[str, list[Record]]:
    """Run id → layers in the order of the network, of those of these runs that have measured any."""
    with store.read() as connection:
        return _rows_of(connection, tables.layers, run_ids, "position")


def histories_of(store: Store, run_ids: Sequence[str]) -> dict[str, list[Record]]:
    """Run id → what it measured after each epoch and at each topology update, in order, of those that have any."""
    with store.read() as connection:
        return _rows_of(connection, tables.evaluations, run_ids, "step", "kind")


def _rows_of(connection: Connection, table: sa.Table, run_ids: Sequence[str], *order: str) -> dict[str, list[Record]]:
    """Run id → its rows in a table, in order, without their `run_id`; what a damaged database holds is left out."""
    wanted, found = set(run_ids), dict[str, list[Record]]()
    query = sa.select(table).order_by(table.c.run_id, *(table.c[name] for name in order))
    if len(wanted) <= _MOST_NAMED:
        query = query.where(table.c.run_id.in_(wanted))
    for any_row in connection.execute(query).mappings():
        row = tables.fitting(table, dict(any_row))
        if row is not None and row["run_id"] in wanted:
            found.setdefault(row.pop("run_id"), []).append(row)
    return found


def masked_weights(store: Store, run_ids: Sequence[str] | None = None) -> dict[str, int]:
    """Run id → number of maskable weights, masked or not, of finished runs with a model of the user's own.

    Only such a model, or what is maskable of it, can be another one today.

    Args:
        run_ids: of these runs; None: of all.
    """
    runs, layers = tables.runs.c, tables.layers.c
    query = (
        sa.select(runs.run_id, sa.func.sum(layers.size))
        .join_from(tables.runs, tables.layers, runs.run_id == layers.run_id)
        .where(runs.state == "done", runs.model.contains(":"))
        .group_by(runs.run_id)
    )
    wanted = None if run_ids is None else set(run_ids)
    with store.read() as connection:
        found = connection.execute(query)
        return {run_id: int(size) for run_id, size in found if wanted is None or run_id in wanted}


_FAILURE_COLUMNS = ("run_id", "state", "cause", "message", "method", "sparsity", "update_interval", "seed")


def failures(store: Store, run_ids: Sequence[str]) -> list[Record]:
    """Failed and lost runs among these: id, cause, message, and what they are."""
    wanted, rows = set(run_ids), select_runs(store, states=("failed", "lost"), columns=_FAILURE_COLUMNS)
    return [row for row in rows if row["run_id"] in wanted]


def with_last_lines(store: Store, failed: Sequence[Record]) -> list[Record]:
    """The same records with `log`: the last lines of the log of each run's last attempt, or None."""
    runs, attempts = tables.runs.c, tables.attempts.c
    same = sa.and_(runs.run_id == attempts.run_id, runs.attempts == attempts.attempt)
    wanted = runs.run_id.in_([run["run_id"] for run in failed])
    with store.read() as connection:
        query = sa.select(runs.run_id, attempts.log).join_from(tables.runs, tables.attempts, same).where(wanted)
        logs = {run_id: log for run_id, log in connection.execute(query)}  # noqa: C416
    return [{**run, "log": logs.get(run["run_id"])} for run in failed]


def ended_badly(store: Store, sweeps: Sequence[str], causes: Sequence[str]) -> list[Record]:
    """Failed and lost runs of some sweeps, or of all; with `causes` those alone, and cancelled ones if it is one."""
    states = ["failed", "lost", *(["queued"] if "cancelled" in causes else [])]
    rows = select_runs(store, sweeps, states, _FAILURE_COLUMNS)
    return [row for row in rows if row["cause"] in causes or (not causes and row["state"] != "queued")]
