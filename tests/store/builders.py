"""Results folders as workers leave them, for the tests of the store."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Engine

from itopctl.store import submissions, tables
from itopctl.store.database import Store, open_store
from itopctl.store.files import write_json
from itopctl.store.ingest import ingest
from itopctl.store.journal import JournalWriter
from itopctl.store.rundir import Results, RunDirectory
from itopctl.store.submissions import Request, Submission


def run_id(number: int) -> str:
    """An id of the right form."""
    return f"{number:012x}"


def config(**changed: Any) -> dict[str, Any]:
    """A run config as it stands in a file."""
    return {
        "dataset": "digits", "model": "lenet-5", "method": "set-itop", "sparsity": 0.9, "allocation": "erk",
        "growth": "random", "drop": "magnitude", "update_interval": 40, "drop_fraction": 0.5, "seed": 0, "epochs": 4,
        "optimizer": {"name": "sgd", "lr": 0.1}, **changed,
    }  # fmt: skip


def result(**changed: Any) -> dict[str, Any]:
    """What a worker writes at the end of a run."""
    return {
        "attempt": 1, "finished_at": "2026-01-01T00:00:09.000+00:00", "test_accuracy": 0.95,
        "validation_accuracy": 0.94, "exploration_rate": 0.31, "best_epoch": 3, "best_validation_accuracy": 0.96,
        "test_accuracy_at_best_validation": 0.945, "exploration_rate_at_best_validation": 0.29, "density": 0.1,
        "train_loss": 0.02, "train_flops_ratio": 0.12, "inference_flops_ratio": 0.1, "topology_updates": 1,
        "epochs": 4, "steps": 80, "steps_per_second": 10.0, "wall_seconds": 8.0, "peak_memory_bytes": 1000,
        "train_flops": 1.5e9, "inference_flops": 8.4e4, "energy_joules": 120.5, "device_name": "a CPU", "threads": 1,
        "total_density": 0.25, "trainable": 1188, "left_dense": {"embedding.weight": 90},
        "layers": [
            {"name": "conv.weight", "shape": [6, 1, 5, 5], "size": 150, "active": 60, "density": 0.4,
             "exploration_rate": 0.7, "dropped": 30, "backend": "masked"},
            {"name": "fc.weight", "shape": [10, 84], "size": 840, "active": 39, "density": 0.046428571428571430,
             "exploration_rate": 0.24, "dropped": 19, "backend": "sparse"},
        ],
        **changed,
    }  # fmt: skip


def result_of_old() -> dict[str, Any]:
    """What differs in a result as the first versions wrote it: what they did not measure is not there."""
    later = ("dropped", "backend")
    layers = [{name: value for name, value in layer.items() if name not in later} for layer in result()["layers"]]
    return {"layers": layers, **dict.fromkeys(MEASURED_SINCE_VERSION_1)}


MEASURED_SINCE_VERSION_1 = (
    "train_flops", "inference_flops", "energy_joules", "device_name", "threads", "total_density", "trainable",
    "left_dense",
)  # fmt: skip


STARTED = {
    "step": 0, "epoch": 0.0, "total_steps": 80, "total_epochs": 4, "scheduler": "local", "job_id": "7", "host": "here",
    "pid": 12,
}  # fmt: skip


def evaluated(epoch: int, **changed: Any) -> dict[str, Any]:
    """Fields of the evaluation after an epoch of 20 steps."""
    return {
        "step": 20 * epoch, "epoch": float(epoch), "train_loss": 1 / epoch, "validation_accuracy": 0.1 * epoch,
        "test_accuracy": 0.2 * epoch, "exploration_rate": 0.1 + 0.01 * epoch, "density": 0.1, "drop_fraction": 0.5,
        "lr": 0.1, "wall_seconds": 2.0 * epoch, **changed,
    }  # fmt: skip


@dataclass(frozen=True)
class Lab:
    """A results folder and the store beside it."""

    results: Results
    store: Store

    @classmethod
    def at(cls, path: Path, url: str | None = None) -> Lab:
        results = Results(path)
        results.runs.mkdir(parents=True, exist_ok=True)
        return cls(results, open_store(results.database, url))

    def sweep(self, name: str, points: dict[str, dict[str, Any]], **told: Any) -> None:
        """Write a sweep's manifest; `told` goes into it."""
        write_json(
            self.results.manifest(name),
            {
                "sweep": name, "description": "", "specs": [], "slurm": {}, "created_at": "2026-01-01",
                "updated_at": "2026-01-01",
                "runs": [{"run_id": id_, "config": point} for id_, point in points.items()], **told,
            },
        )  # fmt: skip

    def folder(self, id_: str, **changed: Any) -> RunDirectory:
        """A run's folder with its config."""
        run = self.results.run(id_)
        write_json(run.config, {"run_id": id_, "schema": 1, "config": config(**changed)})
        return run

    def begun(self, id_: str, **changed: Any) -> tuple[RunDirectory, JournalWriter]:
        """A run whose first attempt has started and evaluated two epochs."""
        run = self.folder(id_, **changed)
        journal = JournalWriter(run.journal)
        journal.write("started", STARTED)
        journal.write("evaluated", evaluated(1))
        journal.write("topology", evaluated(2, replaced=9, moved=8, new=5, skipped=False))
        journal.write("evaluated", evaluated(2))
        return run, journal

    def done(self, id_: str, measured: dict[str, Any] | None = None, **changed: Any) -> RunDirectory:
        """A finished run."""
        run, journal = self.begun(id_, **changed)
        write_json(run.result, {"run_id": id_, **result(), **(measured or {})})
        journal.write("finished", {"step": 80, "epoch": 4, "cause": "finished"})
        journal.close()
        return run

    def failed(self, id_: str, cause: str = "out-of-memory", message: str = "too big", **changed: Any) -> RunDirectory:
        """A run whose only attempt failed."""
        run, journal = self.begun(id_, **changed)
        journal.write("failed", {"step": 40, "epoch": 2.0, "cause": cause, "message": message})
        journal.close()
        return run

    def submitted(self, name: str, *jobs: tuple[str, ...], **about: Any) -> Submission:
        """A submission of jobs with these runs, known to the scheduler as 77; `about` goes into its request."""
        request = Request(**{
            "name": name, "sweep": "one", "scheduler": "slurm", "cluster": "c", "user": "u", "jobs": jobs,
            "data_dir": "/data", "options": {}, "throttle": None, "attempts": {}, "code": {}, "by": {},
            "created_at": "2026-01-01T00:00:00.000+00:00", **about,
        })  # fmt: skip
        submission = submissions.record(self.results, request, {})
        submission = replace(submission, state=replace(submission.state, job_id="77"))
        submissions.save(submission)
        return submission

    def ingest(self) -> None:
        ingest(self.store, self.results)

    def row(self, id_: str) -> dict[str, Any]:
        """A run's row, after ingest."""
        self.ingest()
        with self.store.read() as connection:
            query = sa.select(tables.runs).where(tables.runs.c.run_id == id_)
            return dict(connection.execute(query).mappings().one())

    def attempts(self, id_: str) -> list[dict[str, Any]]:
        """A run's attempts, after ingest."""
        self.ingest()
        with self.store.read() as connection:
            query = sa.select(tables.attempts).where(tables.attempts.c.run_id == id_)
            return [dict(row) for row in connection.execute(query.order_by(tables.attempts.c.attempt)).mappings()]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables."""
        return contents(self.store)

    def rebuilt(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of a database made anew from the folders alone: SQLite's, whatever holds this lab's own."""
        path = self.results.path / "rebuilt.db"
        path.unlink(missing_ok=True)
        store = open_store(path)
        try:
            ingest(store, self.results)
            return contents(store)
        finally:
            store.close()


def contents(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """All rows of all tables, in the order of their keys, which is not left to the database."""
    found = {}
    with store.read() as connection:
        for table in tables.metadata.sorted_tables:
            rows = connection.execute(sa.select(*table.primary_key.columns, table)).all()
            keys = len(table.primary_key.columns)
            found[table.name] = [tuple(row[keys:]) for row in sorted(rows, key=lambda row: tuple(row[:keys]))]
    return found


@contextlib.contextmanager
def broken_off_at(statement: str) -> Iterator[None]:
    """As if the process were killed just before it executes a statement that starts like this."""

    def break_off(connection: Any, cursor: Any, told: str, *_: Any) -> None:
        if told.lstrip().startswith(statement):
            raise KeyboardInterrupt

    sa.event.listen(Engine, "before_cursor_execute", break_off)
    try:
        yield
    finally:
        sa.event.remove(Engine, "before_cursor_execute", break_off)
