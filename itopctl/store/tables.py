"""The database's tables. Column names are the field names of every machine-readable output; they are stable."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

SCHEMA_VERSION = 6

metadata = MetaData()

Large = BigInteger().with_variant(Integer, "sqlite")  # SQLite's own integers are large

meta = Table("meta", metadata, Column("key", String, primary_key=True), Column("value", String, nullable=False))

sweeps = Table(
    "sweeps",
    metadata,
    Column("sweep", String, primary_key=True),
    Column("description", String, nullable=False),
    Column("specs", JSON, nullable=False),  # [{path, text}] of the last command, and its --set
    Column("slurm", JSON, nullable=False),
    Column("created_at", String, nullable=False),
    Column("updated_at", String, nullable=False),
    Column("stamp", String, nullable=False),  # of the manifest file, to see that it changed
)

sweep_runs = Table(
    "sweep_runs",
    metadata,
    Column("sweep", String, primary_key=True),
    Column("run_id", String, primary_key=True, index=True),
    Column("position", Integer, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("state", String, nullable=False, index=True),  # itopctl.store.STATES
    Column("cause", String),
    Column("message", String),
    Column("attempts", Integer, nullable=False, default=0),
    # From the config.
    Column("dataset", String),
    Column("model", String),
    Column("method", String),
    Column("growth", String),
    Column("drop", String),
    Column("allocation", String),
    Column("sparsity", Float),
    Column("density", Float),
    Column("update_interval", Large),
    Column("drop_fraction", Float),
    Column("seed", Large),
    Column("epochs", Integer),
    Column("config", JSON, nullable=False),
    # How far it is.
    Column("step", Large),
    Column("epoch", Float),
    Column("total_steps", Large),
    Column("total_epochs", Integer),
    Column("current_test_accuracy", Float),
    Column("current_exploration_rate", Float),
    # From the result; accuracies and rates are fractions.
    Column("test_accuracy", Float),
    Column("test_accuracy_at_best_validation", Float),
    Column("validation_accuracy", Float),
    Column("best_validation_accuracy", Float),
    Column("best_epoch", Integer),
    Column("exploration_rate", Float),
    Column("exploration_rate_at_best_validation", Float),
    Column("final_density", Float),  # over maskable weights
    Column("total_density", Float),  # over all weights
    Column("trainable", Large),
    Column("left_dense", JSON(none_as_null=True)),  # name → size of parameters of two or more dimensions
    Column("train_loss", Float),
    Column("train_flops_ratio", Float),
    Column("inference_flops_ratio", Float),
    Column("topology_updates", Integer),
    Column("steps", Large),
    Column("steps_per_second", Float),
    Column("wall_seconds", Float),
    Column("peak_memory_bytes", Large),
    Column("train_flops", Float),  # of the whole training
    Column("inference_flops", Float),  # of one sample
    Column("energy_joules", Float),
    Column("device_name", String),
    Column("threads", Integer),
    # Of the newest job that a scheduler was given for it.
    Column("job_name", String),
    Column("job_id", String),
    Column("job_phase", String),  # pending, running, ended
    Column("job_reason", String),  # why it waits
    Column("job_cause", String),  # why it ended, where it did not by itself
    Column("job_message", String),
    Column("job_after", Integer),  # attempts at the run before it was submitted
    Column("submitted_at", String),
    # Of the journal.
    Column("journal_offset", Large, nullable=False, default=0),
    Column("journal_mark", String),  # of the bytes before that, to see that they are still the same
    Column("damaged_lines", Integer, nullable=False, default=0),
)

attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("scheduler", String),
    Column("job_id", String),
    Column("host", String),
    Column("pid", Integer),
    Column("started_at", String),
    Column("ended_at", String),
    Column("state", String, nullable=False),  # running, done, failed, cancelled
    Column("cause", String),
    Column("message", String),
    Column("resumed_from_step", Large),
    Column("git_commit", String),
    Column("git_dirty", Boolean),
    Column("code", String),  # digest of the code that ran
    Column("submitted_code", String),  # digest of the code that was submitted
    Column("log", Text),  # last lines of the run's log when the attempt ended, where it failed
)

submissions = Table(
    "submissions",
    metadata,
    Column("name", String, primary_key=True),
    Column("stamp", String, nullable=False),  # of the state file, to see that it changed
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("kind", String, primary_key=True),  # epoch or update
    Column("step", Large, primary_key=True),
    Column("epoch", Float),
    Column("attempt", Integer),
    Column("train_loss", Float),
    Column("validation_accuracy", Float),
    Column("test_accuracy", Float),
    Column("exploration_rate", Float),
    Column("density", Float),
    Column("drop_fraction", Float),
    Column("lr", Float),
    Column("replaced", Large),
    Column("moved", Large),
    Column("new", Large),
    Column("skipped", Boolean),
    Column("wall_seconds", Float),
)

layers = Table(
    "layers",
    metadata,
    Column("run_id", String, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("name", String, nullable=False),
    Column("shape", JSON, nullable=False),
    Column("size", Large, nullable=False),
    Column("active", Large, nullable=False),
    Column("density", Float, nullable=False),
    Column("exploration_rate", Float, nullable=False),
    Column("dropped", Large),
    Column("backend", String),
)

Index("sweep_runs_by_position", sweep_runs.c.sweep, sweep_runs.c.position)

JOB_COLUMNS = ("job_name", "job_id", "job_phase", "job_reason", "job_cause", "job_message", "job_after", "submitted_at")
CONFIG_COLUMNS = (
    "dataset", "model", "method", "growth", "drop", "allocation", "sparsity", "update_interval", "drop_fraction",
    "seed", "epochs",
)  # fmt: skip
RESULT_COLUMNS = (
    "test_accuracy", "test_accuracy_at_best_validation", "validation_accuracy", "best_validation_accuracy",
    "best_epoch", "exploration_rate", "exploration_rate_at_best_validation", "train_loss", "train_flops_ratio",
    "inference_flops_ratio", "topology_updates", "steps", "steps_per_second", "wall_seconds", "peak_memory_bytes",
    "train_flops", "inference_flops", "energy_joules", "device_name", "threads", "total_density", "trainable",
)  # fmt: skip
EVALUATION_COLUMNS = tuple(
    column.name for column in evaluations.columns if column.name not in ("run_id", "kind", "attempt")
)

ADDED: dict[int, tuple[tuple[Table, tuple[str, ...]], ...]] = {
    2: (
        (runs, JOB_COLUMNS),
        (attempts, ("git_commit", "git_dirty", "code", "submitted_code")),
    ),
    3: ((runs, ("journal_mark",)), (attempts, ("log",))),
    4: (
        (runs, ("train_flops", "inference_flops", "energy_joules", "device_name", "threads")),
        (layers, ("dropped",)),
    ),
    5: ((layers, ("backend",)),),
    6: ((runs, ("total_density", "trainable", "left_dense")),),
}
"""Schema version → columns that tables of the version before lack. Whole tables are made where they are missing."""

_LARGEST_INT, _LARGEST = 2**31 - 1, 2**63 - 1


def fitting(table: Table, row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row as every kind of database can hold it: files may say anything, and one must not stop the others.

    What a column cannot hold becomes NULL; characters that a text cannot hold are replaced. None where a column that
    must have a value has none.
    """
    fitted = {name: _fitting(table.columns[name], value) for name, value in row.items()}
    if any(value is None and not table.columns[name].nullable for name, value in fitted.items()):
        return None
    return fitted


def _fitting(column: Column[Any], value: Any) -> Any:
    kind = column.type
    if value is None:
        return None
    if isinstance(kind, JSON):
        return value if _is_json(value) else None
    if isinstance(kind, Boolean):
        return value if isinstance(value, bool) else None
    if isinstance(kind, String):
        return _text(value) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if isinstance(kind, Float):
        return value if abs(value) < 1e300 and math.isfinite(value) else None
    most = _LARGEST if isinstance(kind, BigInteger) else _LARGEST_INT
    return value if isinstance(value, int) and abs(value) <= most else None


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _text(value: str) -> str:
    return value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
