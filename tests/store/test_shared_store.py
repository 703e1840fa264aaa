"""A store that several results folders share, those of a team: what one folder lacks may lie in another."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from itopctl.store.database import open_store
from itopctl.store.files import write_json
from itopctl.store.journal import JournalWriter
from itopctl.store.queries import attempt_counts, run_states, select_runs, sweep_names
from itopctl.store.rundir import Results
from tests.store.builders import STARTED, Lab, config, evaluated, result, run_id

A, B, C = (run_id(number) for number in range(10, 13))


@pytest.fixture
def ours(shared_lab: Lab) -> Lab:
    return shared_lab


@pytest.fixture
def theirs(shared_lab: Lab, store_url: str, tmp_path: Path) -> Iterator[Lab]:
    """Another folder with the same store."""
    folder = Results(tmp_path / "their results")
    folder.runs.mkdir(parents=True)
    made = Lab(folder, open_store(folder.database, store_url))
    yield made
    made.store.close()


def states(lab: Lab) -> dict[str, str]:
    return {run_id_: state for run_id_, (state, _) in run_states(lab.store, [A, B, C]).items()}


def test_each_folder_adds_what_it_has(ours: Lab, theirs: Lab) -> None:
    ours.sweep("ours", {A: config()})
    ours.done(A)
    theirs.sweep("theirs", {B: config(seed=1)})
    theirs.failed(B, seed=1)
    ours.ingest()
    theirs.ingest()
    for lab in (ours, theirs):
        assert states(lab) == {A: "done", B: "failed"}
        assert sweep_names(lab.store) == ["ours", "theirs"]
        assert [record["sweep"] for record in select_runs(lab.store)] == ["ours", "theirs"]


def test_what_lies_in_another_folder_is_not_taken_for_deleted(ours: Lab, theirs: Lab) -> None:
    ours.sweep("one", {A: config()})
    ours.done(A)
    ours.ingest()
    before = ours.everything()
    theirs.ingest()
    assert theirs.everything() == before


def test_a_run_that_is_finished_in_one_folder_is_finished_for_all(ours: Lab, theirs: Lab) -> None:
    ours.done(A)
    ours.ingest()
    theirs.sweep("one", {A: config()})
    theirs.ingest()
    assert states(theirs) == {A: "done"}
    theirs.failed(A)
    theirs.ingest()
    assert states(theirs) == {A: "done"}


def test_a_deleted_folder_does_not_take_its_runs_from_a_shared_store(ours: Lab) -> None:
    run = ours.done(A)
    ours.ingest()
    shutil.rmtree(run.path)
    ours.ingest()
    assert states(ours) == {A: "done"}


def test_a_submission_of_another_folder_is_not_taken_for_damaged(ours: Lab, theirs: Lab) -> None:
    ours.sweep("one", {A: config()})
    ours.submitted("one-x", (A,))
    ours.ingest()
    theirs.ingest()
    assert states(ours) == states(theirs) == {A: "pending"}
    assert theirs.row(A)["job_id"] == "77_0"


def test_a_run_that_failed_in_one_folder_and_succeeds_in_another_is_done(ours: Lab, theirs: Lab) -> None:
    ours.failed(A)
    ours.ingest()
    run = theirs.folder(A)
    journal = JournalWriter(run.journal)
    journal.write("started", STARTED)
    for epoch in range(1, 5):
        journal.write("evaluated", evaluated(epoch))
        theirs.ingest()
    write_json(run.result, result())
    journal.write("finished", {"step": 80, "epoch": 4.0, "cause": "finished"})
    journal.close()
    theirs.ingest()
    row = theirs.row(A)
    assert (row["state"], row["test_accuracy"], row["damaged_lines"]) == ("done", 0.95, 0)
    ours.ingest()
    assert states(ours) == {A: "done"}


def test_journals_of_one_run_in_two_folders_are_not_read_as_one(ours: Lab, theirs: Lab) -> None:
    """Each is read from where that journal was left, not from where the other was."""
    ours.failed(A, message="ours is the longer story by far, since it says so much about what became of it")
    ours.ingest()
    theirs.failed(A, message="theirs")
    for _ in range(2):
        theirs.ingest()
        ours.ingest()
    assert ours.row(A)["damaged_lines"] == 0
    assert states(ours) == {A: "failed"}
    assert attempt_counts(ours.store, [A]) == {A: 1}
