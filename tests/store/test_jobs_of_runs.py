"""What the database says of runs that jobs of a scheduler are to make, and that it says the same when made anew."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.schema import Source
from itopctl.store import submissions, tables
from itopctl.store.database import Store
from itopctl.store.files import write_json
from itopctl.store.journal import JournalWriter
from itopctl.store.rundir import Results
from itopctl.store.submissions import Submission
from tests.store import builders
from tests.store.builders import Lab, run_id

ID, OTHER = run_id(1), run_id(2)


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000+00:00"


def saved(submission: Submission, index: int = 0, **state: object) -> Submission:
    changed = submission.with_job(index, **state)
    submissions.save(changed)
    return changed


def attempt(lab: Lab, id_: str, job: str | None, cause: str | None) -> None:
    """An attempt of a job, or of a local pool, with its end if there is one."""
    run = lab.folder(id_)
    journal = JournalWriter(run.journal)
    journal.write("started", {**builders.STARTED, "job_id": job, "scheduler": "slurm" if job else "local"})
    if cause is not None:
        journal.write("failed", {"step": 4, "epoch": 0.5, "cause": cause, "message": f"by {job}"})
    journal.close()


def state(lab: Lab, id_: str = ID) -> tuple[str, str | None, str | None]:
    row = lab.row(id_)
    return row["state"], row["cause"], row["message"]


@pytest.fixture
def swept(lab: Lab) -> Lab:
    """With a sweep of two runs."""
    lab.sweep("one", {ID: builders.config(), OTHER: builders.config(seed=1)})
    return lab


# States -----------------------------------------------------------------------------------------------------


def test_a_submitted_run_is_pending_and_says_why_it_waits(swept: Lab) -> None:
    submission = swept.submitted("one-x", (ID,), (OTHER,))
    saved(submission, reason="job 77_0: Priority")
    assert state(swept) == ("pending", None, "job 77_0: Priority")
    row = swept.row(ID)
    assert (row["job_name"], row["job_id"], row["job_phase"]) == ("one-x", "77_0", "pending")
    assert swept.row(OTHER)["job_id"] == "77_1"


def test_a_run_that_was_never_submitted_is_queued_and_has_no_job(swept: Lab) -> None:
    assert state(swept) == ("queued", None, None)
    assert {swept.row(ID)[name] for name in tables.columns_from(tables.runs, Source.JOB)} == {None}


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        (None, "queued"), ("cancelled", "queued"), ("lost", "lost"), ("timeout", "failed"), ("node-failure", "failed"),
        ("environment", "failed"), ("out-of-memory", "failed"), ("preempted", "failed"),
    ],
)  # fmt: skip
def test_a_run_whose_job_ended_before_it_began_ends_as_its_job_did(
    swept: Lab, cause: str | None, expected: str
) -> None:
    submission = swept.submitted("one-x", (ID,))
    swept.ingest()
    saved(submission, phase="ended", cause=cause, message="so says SLURM")
    found = state(swept)
    assert found[:2] == (expected, cause)
    assert found[2] == (None if cause is None else "so says SLURM")


@pytest.mark.parametrize(
    ("cause", "expected"),
    [
        ("timeout", "pending"), ("preempted", "pending"), ("node-failure", "pending"), ("killed", "pending"),
        ("user-error", "failed"), ("out-of-memory", "failed"), ("environment", "failed"), ("cancelled", "queued"),
    ],
)  # fmt: skip
def test_between_two_starts_of_its_job_a_run_waits_unless_it_ended_for_good(
    swept: Lab, cause: str, expected: str
) -> None:
    swept.submitted("one-x", (ID,))
    attempt(swept, ID, "77_0", cause)
    assert state(swept)[0] == expected


def test_what_an_earlier_job_said_does_not_count_for_a_later_one(swept: Lab) -> None:
    swept.submitted("one-x", (ID,), created_at=at(1))
    attempt(swept, ID, "77_0", "user-error")
    assert state(swept)[:2] == ("failed", "user-error")
    swept.submitted("one-y", (ID,), created_at=at(2), attempts={ID: 1})
    assert state(swept)[:2] == ("pending", None)
    assert len(swept.attempts(ID)) == 1


def test_a_job_that_did_nothing_leaves_a_run_as_its_last_attempt_did(swept: Lab) -> None:
    swept.submitted("one-x", (ID,), created_at=at(1))
    attempt(swept, ID, "77_0", "user-error")
    second = swept.submitted("one-y", (ID,), created_at=at(2), attempts={ID: 1})
    swept.ingest()
    saved(second, phase="ended")
    assert state(swept)[:2] == ("failed", "user-error")


def test_a_finished_run_stays_done_whatever_becomes_of_its_job(swept: Lab) -> None:
    submission = swept.submitted("one-x", (ID,))
    swept.done(ID)
    for phase, cause in (("running", None), ("ended", "node-failure")):
        saved(submission, phase=phase, cause=cause)
        assert state(swept) == ("done", "finished", None)


def test_a_run_whose_folder_was_deleted_while_its_job_waits_is_pending(own_lab: Lab) -> None:
    own_lab.sweep("one", {ID: builders.config()})
    own_lab.submitted("one-x", (ID,), attempts={ID: 1}, created_at=at(2))
    run = own_lab.failed(ID)
    assert state(own_lab)[0] == "pending"
    for path in run.path.iterdir():
        path.unlink()
    run.path.rmdir()
    own_lab.ingest()
    assert state(own_lab)[0] == "pending"
    assert own_lab.attempts(ID) == []


def test_a_run_that_no_manifest_names_any_more_is_known_by_its_submission(lab: Lab) -> None:
    submission = lab.submitted("one-x", (ID,))
    write_json(submission.directory.configs, {ID: builders.config(sparsity=0.75)})
    submissions.save(replace(submission, state=replace(submission.state, job_id="78")))
    row = lab.row(ID)
    assert (row["state"], row["job_id"], row["sparsity"]) == ("pending", "78_0", 0.75)


# Which submission counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_newest_submission_of_a_run_counts_whatever_is_read_first(lab: Lab, order: tuple[int, ...]) -> None:
    lab.sweep("one", {ID: builders.config()})
    for second in order:
        submission = lab.submitted(f"one-{second}", (ID,), created_at=at(second))
        saved(submission, reason=f"of {second}")
        lab.ingest()
    assert lab.row(ID)["job_name"] == "one-2"
    assert state(lab)[2] == "of 2"
    saved(submissions.load(submissions.directories(lab.results)[0]), phase="ended", cause="lost")  # type: ignore[arg-type]
    assert state(lab)[2] == "of 2", "what becomes of an older one is no news"


def test_a_change_of_a_submission_is_seen_and_no_change_costs_nothing(swept: Lab) -> None:
    submission = swept.submitted("one-x", (ID,))
    swept.ingest()
    with swept.store.read() as connection:
        (before,) = connection.execute(sa.select(tables.submissions.c.stamp)).scalars()
    submission.directory.configs.unlink()  # never looked at again, since the state is as it was
    assert state(swept)[0] == "pending"
    with swept.store.read() as connection:
        assert list(connection.execute(sa.select(tables.submissions.c.stamp)).scalars()) == [before]


@pytest.mark.parametrize("damaged", ["request", "state"])
def test_a_damaged_submission_stops_nothing(swept: Lab, damaged: str) -> None:
    submission = swept.submitted("one-x", (ID,))
    getattr(submission.directory, damaged).write_text('{"jobs": 3')
    swept.submitted("one-y", (OTHER,))
    assert state(swept, OTHER)[0] == "pending"
    assert state(swept)[0] == "queued"


# Made anew --------------------------------------------------------------------------------------------------

CAUSES = st.sampled_from(["timeout", "preempted", "node-failure", "user-error", "cancelled", "killed", "lost"])
STEPS = st.one_of(
    st.tuples(st.just("submit")),
    st.tuples(st.just("job"), st.sampled_from(["pending", "running"]), st.none()),
    st.tuples(st.just("job"), st.just("ended"), st.none() | CAUSES),
    st.tuples(st.just("attempt"), st.booleans(), st.none() | CAUSES),
    st.tuples(st.just("look")),
)


def everything(lab: Lab) -> dict[str, Any]:
    lab.ingest()
    return lab.everything()


def empty(store: Store) -> None:
    with store.write() as connection:
        for table in tables.metadata.sorted_tables:
            if table is not tables.meta:
                connection.execute(sa.delete(table))


def carry_out(lab: Lab, steps: list[tuple[Any, ...]]) -> None:
    made: list[Submission] = []
    tries = 0
    for second, (what, *how) in enumerate(steps):
        if what == "submit":
            made.append(lab.submitted(f"one-{second}", (ID,), created_at=at(second), attempts={ID: tries}))
            submissions.save(replace(made[-1], state=replace(made[-1].state, job_id=str(70 + second))))
            made[-1] = submissions.load(made[-1].directory) or made[-1]
        elif what == "job" and made and not made[-1].state.over:
            made[-1] = saved(made[-1], phase=how[0], cause=how[1], message=f"at {second}")
        elif what == "attempt":
            by_job = how[0] and made and not made[-1].state.over
            attempt(lab, ID, made[-1].id_of(0) if by_job else None, how[1])
            tries += 1
        elif what == "look":
            lab.ingest()


def test_whatever_happened_a_database_made_anew_says_what_the_old_one_does(
    kind: str, new_url: Callable[[], str]
) -> None:
    store, anew = (Store("sqlite://" if kind == "sqlite" else new_url()) for _ in range(2))

    @settings(derandomize=True, deadline=None, max_examples=60)
    @given(st.lists(STEPS, min_size=1, max_size=9), st.booleans())
    def they_agree(steps: list[tuple[Any, ...]], finishes: bool) -> None:
        for each in (store, anew):
            empty(each)
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: None)
            lab = Lab(Results(Path(folder)), store)
            lab.results.runs.mkdir()
            lab.sweep("one", {ID: builders.config()})
            carry_out(lab, steps)
            if finishes:
                lab.done(ID)
            assert everything(lab) == everything(Lab(lab.results, anew))

    they_agree()
