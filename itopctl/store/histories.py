"""Histories and layers of many runs at once, averaged over groups of them, as figures need them.

The database does the averaging: ten thousand runs of 250 epochs are 2.5 million rows, of which a figure needs the
means alone. Which runs belong together is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from itopctl.store import tables
from itopctl.store.database import Store

Record = dict[str, Any]

CURVES = ("train_loss", "validation_accuracy", "test_accuracy", "exploration_rate")
"""What is measured after every epoch."""

_RUNS_AT_ONCE = 5_000  # databases limit the parameters of a query


def mean_curves(
    store: Store, groups: Sequence[Sequence[str]], columns: Sequence[str] = CURVES
) -> list[list[Record]]:  # fmt: skip
    """Per group of runs: what they measured after each epoch, averaged over those that measured it.

    Args:
        groups: ids of the runs of each.
        columns: of `evaluations`, numbers.

    Returns:
        A list a group, in the order given, of records with `step`, `epoch`, and of each column `_mean`, `_std` (n − 1;
        None for one value) and `_n`, by step. What nobody measured at a step is None there, with n 0.
    """
    of = tables.evaluations.c
    with store.read() as connection:
        return [
            [
                {"step": step, "epoch": epoch, **_summaries(columns, sums)}
                for (step,), epoch, sums in _sums(connection, ids, [of.step], of.epoch, [of[name] for name in columns])
            ]
            for ids in groups
        ]


def mean_layers(store: Store, groups: Sequence[Sequence[str]]) -> list[list[Record]]:
    """Per group of finished runs: their layers, averaged.

    Args:
        groups: ids of the runs of each.

    Returns:
        A list a group, in the order given, of records with `position`, `name`, `size` (weights), and of `density` and
        `exploration_rate` `_mean`, `_std` (n − 1; None for one value) and `_n`, in the order of the network.
    """
    of, columns = tables.layers.c, ("density", "exploration_rate")
    with store.read() as connection:
        return [
            [
                {"position": position, "name": name, "size": round(size or 0), **_summaries(columns, sums)}
                for (position, name), size, sums in _sums(
                    connection, ids, [of.position, of.name], of.size, [of[column] for column in columns]
                )
            ]
            for ids in groups
        ]


def _sums(
    connection: Connection,
    run_ids: Sequence[str],
    keys: Sequence[sa.Column[Any]],
    also: sa.Column[Any],
    columns: Sequence[sa.Column[Any]],
) -> Iterator[tuple[tuple[Any, ...], float | None, list[float]]]:
    """Key → mean of `also`, and of every column the number of values, their sum and the sum of their squares."""
    table = keys[0].table
    wanted = [sa.func.count(also), sa.func.sum(sa.cast(also, sa.Float))]
    for column in columns:
        wanted += [sa.func.count(column), sa.func.sum(column), sa.func.sum(column * column)]
    found: dict[tuple[Any, ...], list[float]] = {}
    for start in range(0, len(run_ids), _RUNS_AT_ONCE):
        query = sa.select(*keys, *wanted).where(table.c.run_id.in_(list(run_ids[start : start + _RUNS_AT_ONCE])))
        if "kind" in table.c:
            query = query.where(table.c.kind == "epoch")
        for row in connection.execute(query.group_by(*keys)):
            key, sums = tuple(row[: len(keys)]), [value or 0 for value in row[len(keys) :]]
            found[key] = list(map(sum, zip(found[key], sums, strict=True))) if key in found else sums
    sound = (key for key in found if isinstance(key[0], int))  # SQLite would hold anything there
    for key in sorted(sound):
        count, total, *rest = found[key]
        yield key, total / count if count else None, rest


def _summaries(columns: Iterable[str], sums: Sequence[float]) -> Record:
    """Mean, sample standard deviation and number, from three sums a column."""
    record: Record = {}
    for index, name in enumerate(columns):
        n, total, squares = sums[3 * index : 3 * index + 3]
        mean = total / n if n and math.isfinite(squares) else None
        std = None
        if mean is not None and n > 1:
            std = math.sqrt(max(0.0, squares - total * mean) / (n - 1))
        record |= {f"{name}_mean": mean, f"{name}_std": std, f"{name}_n": int(n)}
    return record
