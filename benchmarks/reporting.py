"""Tables and figures over ten thousand finished runs with 250 epochs of history each: 2.5 million evaluations.

The store is filled directly: journals of that size would take minutes to write, and reading them is measured
elsewhere (`planning.py`). What is measured are whole commands, beside importing what they cannot do without.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from benchmarks.measure import Figure, command_seconds
from benchmarks.planning import plan_ten_thousand
from itopctl.dispatch.manifest import SweepRecords
from itopctl.plan import Plan
from itopctl.schema import Source
from itopctl.store import tables
from itopctl.store.database import Store, open_store, upsert
from itopctl.store.ingest import ingest
from itopctl.store.run_update import new_run_row
from itopctl.store.rundir import Results

EPOCHS = 250
STEPS_AN_EPOCH = 352
LAYERS = [(f"layer{block}.{n}.weight", [64 * block, 64 * block, 3, 3]) for block in range(1, 5) for n in range(9)]

_RUNS_AT_ONCE = 500
_EVALUATION = (
    "run_id, kind, step, epoch, attempt, train_loss, validation_accuracy, test_accuracy, exploration_rate, density, "
    "drop_fraction, lr, wall_seconds"
)
_LAYER = "run_id, position, name, shape, size, active, density, exploration_rate"


def reports_and_figures() -> list[Figure]:
    """`report --table paper` and each figure of `plot`, as commands."""
    from itopctl.report.figures.catalogue import FIGURES

    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder) / "results")
        fill(results)
        where = ["--results", str(results.path)]
        tabling = command_seconds(["-c", "import sqlalchemy, rich.table, typer"], repetitions=3)
        drawing = command_seconds(["-c", "import sqlalchemy, typer, matplotlib.backends.backend_svg"], repetitions=3)
        paper = command_seconds(["-m", "itopctl", "report", "--table", "paper", *where], repetitions=3)
        what = "over 10,000 runs of 250 epochs"
        figures = [
            Figure(
                f"`itopctl report --table paper` {what}", paper, 2.0,
                f"{paper / tabling:.1f} × importing sqlalchemy, rich and typer",
            )
        ]  # fmt: skip
        for name in FIGURES.names():
            out = str(Path(folder) / f"{name}.svg")
            seconds = command_seconds(["-m", "itopctl", "plot", name, "-o", out, *where], repetitions=3)
            beside = f"{seconds / drawing:.1f} × importing sqlalchemy, typer and matplotlib"
            figures.append(Figure(f"`itopctl plot {name}` {what}", seconds, 5.0, beside))
    return figures


def fill(results: Results) -> Plan:
    """A results folder whose store says that ten thousand runs are finished; their folders are empty."""
    plan = plan_ten_thousand()
    results.path.mkdir(parents=True, exist_ok=True)
    SweepRecords(results, plan).write()
    for run_id in plan.configs:
        results.run(run_id).path.mkdir(parents=True, exist_ok=True)
    store = open_store(results.database)
    ingest(store, results)
    _finish(store, {run_id: config.model_dump(mode="json") for run_id, config in plan.configs.items()})
    store.close()
    return plan


def _finish(store: Store, configs: Mapping[str, dict[str, Any]]) -> None:
    ids = list(configs)
    for start in range(0, len(ids), _RUNS_AT_ONCE):
        part = ids[start : start + _RUNS_AT_ONCE]
        with store.write() as connection:
            upsert(connection, tables.runs, [_run_row(run_id, configs[run_id]) for run_id in part])
            _insert(
                connection,
                "evaluations",
                _EVALUATION,
                (row for run_id in part for row in _evaluations(run_id, configs[run_id])),
            )
            _insert(connection, "layers", _LAYER, (row for run_id in part for row in _layers(run_id, configs[run_id])))


def _insert(connection: Connection, table: str, columns: str, rows: Iterator[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(columns.split(",")))
    connection.exec_driver_sql(f"INSERT INTO {table} ({columns}) VALUES ({marks})", list(rows))


def _explored(config: Mapping[str, Any], share: float) -> float:
    """Exploration rate after a share of training, as random growth has it."""
    density = 1 - float(config["sparsity"])
    updates = share * EPOCHS * STEPS_AN_EPOCH / float(config["update_interval"])
    return 1 - (1 - density) * math.exp(-0.25 * density * updates)


def _accuracy(config: Mapping[str, Any], share: float) -> float:
    return 0.76 - 0.05 * float(config["sparsity"]) ** 8 - 0.5 * math.exp(-5 * share) + 0.0001 * (config["seed"] % 17)


def _run_row(run_id: str, config: dict[str, Any]) -> dict[str, Any]:
    accuracy, explored = _accuracy(config, 1.0), _explored(config, 1.0)
    row = new_run_row(run_id, config) | dict.fromkeys(tables.columns_from(tables.runs, Source.RESULT), 0.5)
    steps = EPOCHS * STEPS_AN_EPOCH
    return row | {
        "state": "done", "cause": "finished", "attempts": 1, "step": steps, "steps": steps, "epoch": EPOCHS,
        "best_epoch": EPOCHS, "topology_updates": 9, "peak_memory_bytes": 10**9, "final_density": row["density"],
        "test_accuracy": accuracy, "test_accuracy_at_best_validation": accuracy,
        "exploration_rate": explored, "exploration_rate_at_best_validation": explored,
    }  # fmt: skip


def _evaluations(run_id: str, config: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    density = 1 - float(config["sparsity"])
    for epoch in range(1, EPOCHS + 1):
        share = epoch / EPOCHS
        accuracy = _accuracy(config, share)
        yield (
            run_id, "epoch", epoch * STEPS_AN_EPOCH, float(epoch), 1, 2 * math.exp(-5 * share), accuracy, accuracy,
            _explored(config, share), density, 0.1, 0.1, 14.0 * epoch,
        )  # fmt: skip


def _layers(run_id: str, config: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    density, explored = 1 - float(config["sparsity"]), _explored(config, 1.0)
    for position, (name, shape) in enumerate(LAYERS):
        size = math.prod(shape)
        yield (run_id, position, name, str(shape), size, round(density * size), density, explored)
