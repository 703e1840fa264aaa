"""Histories of many runs, averaged by the database, beside the same by hand."""

from __future__ import annotations

import itertools
import random
import statistics
from typing import Any

import pytest

from itopctl.store import histories, tables
from itopctl.store.database import Store, upsert
from itopctl.store.histories import CURVES, mean_curves, mean_layers
from tests.store.builders import Lab, evaluated, result, run_id

Row = dict[str, Any]

IDS = [run_id(number) for number in range(12)]
GROUPS = [IDS[0:5], IDS[5:6], IDS[6:11], []]  # one run is in none


@pytest.fixture
def store(lab: Lab) -> Store:
    return lab.store


def evaluations(seed: int = 1) -> list[Row]:
    """Rows of twelve runs, of unequal length, with holes, and with those of updates between them."""
    chance = random.Random(seed)
    empty = dict.fromkeys(column.name for column in tables.evaluations.columns)
    rows = []
    for number, one in enumerate(IDS):
        for epoch in range(1, 5 + number % 3):
            measured = {name: chance.random() if chance.random() < 0.8 else None for name in CURVES}
            about = {"run_id": one, "step": 20 * epoch, "epoch": float(epoch), "attempt": 1}
            rows.append({**empty, **about, "kind": "epoch", **measured})
            rows.append({**empty, **about, "kind": "update", "test_accuracy": 77.0, "exploration_rate": 77.0})
    return rows


def slowly(rows: list[Row], ids: list[str]) -> list[Row]:
    """The same by hand."""
    mine = [row for row in rows if row["run_id"] in ids and row["kind"] == "epoch"]
    found = []
    for step in sorted({row["step"] for row in mine}):
        at_step = [row for row in mine if row["step"] == step]
        record: Row = {"step": step, "epoch": at_step[0]["epoch"]}
        for name in CURVES:
            values = [row[name] for row in at_step if row[name] is not None]
            record |= {
                f"{name}_mean": statistics.mean(values) if values else None,
                f"{name}_std": statistics.stdev(values) if len(values) > 1 else None, f"{name}_n": len(values),
            }  # fmt: skip
        found.append(record)
    return found


@pytest.mark.parametrize("at_once", [5_000, 2])
def test_curves_are_means_and_deviations_of_what_each_epoch_measured(
    store: Store, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "_RUNS_AT_ONCE", at_once)
    rows = evaluations()
    with store.write() as connection:
        upsert(connection, tables.evaluations, rows)
    found = mean_curves(store, GROUPS)
    assert [len(curve) for curve in found] == [6, 6, 6, 0]
    for curve, ids in zip(found, GROUPS, strict=True):
        for got, wanted in itertools.zip_longest(curve, slowly(rows, ids)):
            assert got == pytest.approx(wanted)


def test_equal_values_have_no_deviation(store: Store) -> None:
    empty = dict.fromkeys(column.name for column in tables.evaluations.columns)
    same = {**empty, "kind": "epoch", "step": 1, "epoch": 1.0, "test_accuracy": 0.123456789, "train_loss": 1e9 / 3}
    with store.write() as connection:
        upsert(connection, tables.evaluations, [{**same, "run_id": one} for one in IDS])
    ((point,),) = mean_curves(store, [IDS], ("test_accuracy", "train_loss"))
    assert point["test_accuracy_std"] == pytest.approx(0, abs=1e-7)
    assert point["train_loss_std"] == pytest.approx(0, abs=1e2)  # of 3e8: seven digits of it


def test_only_the_columns_asked_for_are_given(store: Store) -> None:
    with store.write() as connection:
        upsert(connection, tables.evaluations, evaluations())
    point = mean_curves(store, [IDS], ("exploration_rate",))[0][0]
    assert set(point) == {"step", "epoch", *(f"exploration_rate_{part}" for part in ("mean", "std", "n"))}


def test_layers_are_averaged_in_the_order_of_the_network(lab: Lab) -> None:
    layers = result()["layers"]
    higher = [{**layer, "exploration_rate": layer["exploration_rate"] + 0.2} for layer in layers]
    lab.done(IDS[0])
    lab.done(IDS[1], {"layers": higher}, seed=1)
    lab.ingest()
    (found,) = mean_layers(lab.store, [IDS[:2]])
    assert [(layer["position"], layer["name"], layer["size"]) for layer in found] == [
        (0, "conv.weight", 150), (1, "fc.weight", 840)
    ]  # fmt: skip
    assert [layer["exploration_rate_mean"] for layer in found] == pytest.approx([0.8, 0.34])
    assert [layer["exploration_rate_std"] for layer in found] == pytest.approx([0.2 / 2**0.5] * 2)
    assert [layer["density_mean"] for layer in found] == pytest.approx([0.4, 0.0464285714])
    assert mean_layers(lab.store, [[IDS[5]]]) == [[]]


def test_what_a_run_really_wrote_is_read(lab: Lab) -> None:
    lab.done(IDS[0])
    lab.ingest()
    (curve,) = mean_curves(lab.store, [[IDS[0]]])
    assert [point["step"] for point in curve] == [evaluated(1)["step"], evaluated(2)["step"]]
    assert curve[0]["test_accuracy_mean"] == pytest.approx(0.2)


def test_what_no_worker_writes_is_passed_over(own_lab: Lab) -> None:
    """SQLite holds anything in any column, and a damaged or foreign file may."""
    with own_lab.store.write() as connection:
        upsert(connection, tables.evaluations, evaluations())
        connection.exec_driver_sql("UPDATE evaluations SET step = 'x' WHERE step = 20")
        connection.exec_driver_sql("UPDATE evaluations SET test_accuracy = 9e999, epoch = 'y' WHERE step = 40")
    curve = mean_curves(own_lab.store, [IDS])[0]
    assert [point["step"] for point in curve] == [40, 60, 80, 100, 120]
    assert (curve[0]["test_accuracy_mean"], curve[0]["test_accuracy_std"], curve[0]["epoch"]) == (None, None, 0.0)
