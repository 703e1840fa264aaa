"""A store of an earlier schema that was named by a URL is migrated when it is opened, and what is in it stays."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from itopctl.schema import Source
from itopctl.store import tables
from itopctl.store.database import Store, upsert
from itopctl.store.ingest import ingest
from itopctl.store.queries import run_details, select_runs, sweep_summaries
from tests.store import builders
from tests.store.builders import Lab, broken_off_at, contents, run_id

# The tables as version 1 made them, column by column; LARGE are integers of eight bytes.
VERSION_1 = """
CREATE TABLE meta ("key" VARCHAR NOT NULL, value VARCHAR NOT NULL, PRIMARY KEY ("key"));
CREATE TABLE sweeps (
    sweep VARCHAR NOT NULL, description VARCHAR NOT NULL, specs JSON NOT NULL, slurm JSON NOT NULL,
    created_at VARCHAR NOT NULL, updated_at VARCHAR NOT NULL, stamp VARCHAR NOT NULL, PRIMARY KEY (sweep)
);
CREATE TABLE sweep_runs (
    sweep VARCHAR NOT NULL, run_id VARCHAR NOT NULL, position INTEGER NOT NULL, PRIMARY KEY (sweep, run_id)
);
CREATE INDEX ix_sweep_runs_run_id ON sweep_runs (run_id);
CREATE INDEX sweep_runs_by_position ON sweep_runs (sweep, position);
CREATE TABLE runs (
    run_id VARCHAR NOT NULL, state VARCHAR NOT NULL, cause VARCHAR, message VARCHAR, attempts INTEGER NOT NULL,
    dataset VARCHAR, model VARCHAR, method VARCHAR, growth VARCHAR, "drop" VARCHAR, allocation VARCHAR, sparsity FLOAT,
    density FLOAT, update_interval LARGE, drop_fraction FLOAT, seed LARGE, epochs INTEGER, config JSON NOT NULL,
    step LARGE, epoch FLOAT, total_steps LARGE, total_epochs INTEGER, current_test_accuracy FLOAT,
    current_exploration_rate FLOAT, test_accuracy FLOAT, test_accuracy_at_best_validation FLOAT,
    validation_accuracy FLOAT, best_validation_accuracy FLOAT, best_epoch INTEGER, exploration_rate FLOAT,
    exploration_rate_at_best_validation FLOAT, final_density FLOAT, train_loss FLOAT, train_flops_ratio FLOAT,
    inference_flops_ratio FLOAT, topology_updates INTEGER, steps LARGE, steps_per_second FLOAT, wall_seconds FLOAT,
    peak_memory_bytes LARGE, journal_offset LARGE NOT NULL, damaged_lines INTEGER NOT NULL, PRIMARY KEY (run_id)
);
CREATE INDEX ix_runs_state ON runs (state);
CREATE TABLE attempts (
    run_id VARCHAR NOT NULL, attempt INTEGER NOT NULL, scheduler VARCHAR, job_id VARCHAR, host VARCHAR, pid INTEGER,
    started_at VARCHAR, ended_at VARCHAR, state VARCHAR NOT NULL, cause VARCHAR, message VARCHAR,
    resumed_from_step LARGE, PRIMARY KEY (run_id, attempt)
);
CREATE TABLE evaluations (
    run_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, step LARGE NOT NULL, epoch FLOAT, attempt INTEGER,
    train_loss FLOAT, validation_accuracy FLOAT, test_accuracy FLOAT, exploration_rate FLOAT, density FLOAT,
    drop_fraction FLOAT, lr FLOAT, replaced LARGE, moved LARGE, new LARGE, skipped BOOLEAN, wall_seconds FLOAT,
    PRIMARY KEY (run_id, kind, step)
);
CREATE TABLE layers (
    run_id VARCHAR NOT NULL, position INTEGER NOT NULL, name VARCHAR NOT NULL, shape JSON NOT NULL,
    size LARGE NOT NULL, active LARGE NOT NULL, density FLOAT NOT NULL, exploration_rate FLOAT NOT NULL,
    PRIMARY KEY (run_id, position)
);
INSERT INTO meta VALUES ('schema_version', '1');
"""
DONE, FAILED, QUEUED = (run_id(number) for number in range(3))


@dataclass(frozen=True)
class Old:
    """A database as version 1 had it, and the results folder that it indexes."""

    url: str
    folder: Path

    def open(self) -> Store:
        return Store(self.url)

    def lab(self) -> Lab:
        return Lab.at(self.folder, self.url)

    def columns(self) -> dict[str, set[str]]:
        """Columns of every table."""
        engine = sa.create_engine(self.url)
        inspector = sa.inspect(engine)
        found = {name: {c["name"] for c in inspector.get_columns(name)} for name in inspector.get_table_names()}
        engine.dispose()
        return found


def built(url: str) -> dict[str, Any]:
    """Columns with types, keys and indexes of every table."""
    engine = sa.create_engine(url)
    inspector = sa.inspect(engine)
    found = {
        name: {
            "columns": {c["name"]: (str(c["type"]), c["nullable"]) for c in inspector.get_columns(name)},
            "key": inspector.get_pk_constraint(name)["constrained_columns"],
            "indexes": {i["name"]: i["column_names"] for i in inspector.get_indexes(name)},
        }
        for name in inspector.get_table_names()
    }
    engine.dispose()
    return found


@pytest.fixture
def old(kind: str, store_url: str, own_lab: Lab) -> Old:
    """With every row that version 1 would have of a finished, a failed and a queued run."""
    own_lab.sweep("one", {id_: builders.config() for id_ in (DONE, FAILED, QUEUED)})
    own_lab.done(DONE, builders.result_of_old())
    own_lab.failed(FAILED)
    own_lab.ingest()
    made = Old(store_url, own_lab.results.path)
    engine = sa.create_engine(store_url)
    with engine.begin() as connection:
        for statement in VERSION_1.replace("LARGE", "INTEGER" if kind == "sqlite" else "BIGINT").split(";\n")[:-1]:
            connection.exec_driver_sql(statement)
    there = made.columns()
    with own_lab.store.read() as today, engine.begin() as connection:
        for table in tables.metadata.sorted_tables:
            kept = [column for column in table.columns if column.name in there.get(table.name, ())]
            if kept and table is not tables.meta:
                rows = today.execute(sa.select(*kept)).mappings()
                connection.execute(sa.insert(table), [dict(row) for row in rows])
    engine.dispose()
    return made


def test_version_1_is_what_its_tables_were(old: Old) -> None:
    later = {"journal_mark", *builders.MEASURED_SINCE_VERSION_1, *tables.columns_from(tables.runs, Source.JOB)}
    assert old.columns()["runs"] == {c.name for c in tables.runs.columns} - later
    assert "submissions" not in old.columns()


def test_an_old_database_gets_every_table_and_column_and_the_new_version(old: Old) -> None:
    old.open().close()
    assert old.columns() == {name: {c.name for c in table.columns} for name, table in tables.metadata.tables.items()}
    with old.open().read() as connection:
        assert connection.execute(sa.select(tables.meta)).all() == [("schema_version", str(tables.SCHEMA_VERSION))]


def test_a_database_that_was_brought_forward_is_built_as_a_new_one_is(old: Old, new_url: Callable[[], str]) -> None:
    new = new_url()
    for url in (old.url, new):
        Store(url).close()
    assert built(old.url) == built(new)


def test_what_was_in_it_stays_and_is_what_a_database_made_anew_would_say(old: Old) -> None:
    lab = old.lab()
    kept = contents(lab.store)
    assert len(kept["runs"]) == 3 and len(kept["attempts"]) == 2 and kept["evaluations"] and kept["layers"]
    lab.ingest()
    marks = [column.name for column in tables.runs.columns].index("journal_mark")  # made when a journal is looked at
    without = [(*row[:marks], None, *row[marks + 1 :]) for row in contents(lab.store)["runs"]]
    assert without == kept["runs"]
    assert lab.rebuilt() == contents(lab.store)


def test_an_old_database_can_be_asked_and_written_to_at_once(old: Old) -> None:
    lab = old.lab()
    (summary,) = sweep_summaries(lab.store)
    assert {state: summary[state] for state in ("done", "failed", "queued")} == {"done": 1, "failed": 1, "queued": 1}
    assert len(select_runs(lab.store)) == 3
    assert run_details(lab.store, DONE)["job_id"] is None
    lab.submitted("one-x", (QUEUED,))
    assert lab.row(QUEUED)["state"] == "pending"


def test_opening_it_again_changes_nothing(old: Old) -> None:
    old.open().close()
    before = contents(old.open())
    assert contents(old.open()) == before


def test_several_that_open_it_at_once_bring_it_forward_once(old: Old) -> None:
    with ThreadPoolExecutor(6) as pool:
        stores = list(pool.map(lambda _: old.open(), range(6)))
    first, *others = (contents(store) for store in stores)
    assert all(other == first for other in others)


def test_a_migration_that_is_killed_leaves_the_old_database_as_it_was(old: Old) -> None:
    before = old.columns()
    with broken_off_at("INSERT INTO meta"), pytest.raises(KeyboardInterrupt):
        old.open()
    assert old.columns() == before
    assert contents(old.open())["meta"] == [("schema_version", str(tables.SCHEMA_VERSION))]


def test_a_column_that_is_there_already_is_not_added(old: Old) -> None:
    engine = sa.create_engine(old.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE attempts ADD COLUMN code VARCHAR")
    engine.dispose()
    old.open().close()
    assert old.columns()["attempts"] == {column.name for column in tables.attempts.columns}


def test_the_version_is_raised_when_a_column_is_added() -> None:
    """A new column without a new version would not be made in the databases that are there: raise both numbers."""
    assert (tables.SCHEMA_VERSION, sum(len(table.columns) for table in tables.metadata.tables.values())) == (6, 117)


def test_a_database_from_memory_takes_rows_of_today(tmp_path: Path) -> None:
    store = Store("sqlite://")
    row = {"run_id": DONE, "attempt": 1, "state": "running", "git_dirty": True, "code": "abc"}
    with store.write() as connection:
        upsert(connection, tables.attempts, [row])
    ingest(store, Lab.at(tmp_path).results)
    assert contents(store)["attempts"][0][0] == DONE
