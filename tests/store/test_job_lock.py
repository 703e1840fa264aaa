"""The lock of a run that jobs of a scheduler work at: who may take it over, on any node, and who must stop then."""

from __future__ import annotations

from pathlib import Path

import pytest

from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.store.checkpoints import save_checkpoint
from itopctl.store.files import read_json, write_json
from itopctl.store.locks import RunLockedError, is_held, lock_holder, locked, release_lock_of_the_dead
from itopctl.store.rundir import RunDirectory

JOB = "slurm:c:77_0"
ELSEWHERE = {"host": "node1", "pid": 4, "start": "1"}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    path = tmp_path / "my results" / "runs" / "0123456789ab"
    path.mkdir(parents=True)
    return RunDirectory(path)


def held_by(run: RunDirectory, **fields: object) -> None:
    write_json(run.lock, {**ELSEWHERE, **fields})


@pytest.mark.parametrize("start", [1, 2, 7])
def test_a_later_start_of_a_job_takes_over_what_an_earlier_one_held_on_any_node(run: RunDirectory, start: int) -> None:
    held_by(run, job_id=JOB, job_start=0)
    with locked(run, JOB, start) as still_locked:
        assert still_locked()
        holder = lock_holder(run) or {}
        assert (holder["job_id"], holder["job_start"]) == (JOB, start)
    assert not run.lock.exists()


@pytest.mark.parametrize(
    ("holder", "asks"),
    [
        ({"job_id": JOB, "job_start": 1}, (JOB, 1)),  # the same start
        ({"job_id": JOB, "job_start": 2}, (JOB, 1)),  # a later one: we are the ghost
        ({"job_id": "slurm:c:77_1", "job_start": 0}, (JOB, 1)),  # another job
        ({"job_id": "slurm:d:77_0", "job_start": 0}, (JOB, 1)),  # the same id of another cluster
        ({"job_id": JOB, "job_start": 0}, (None, 0)),  # a local pool
        ({"job_id": None, "job_start": 0}, (None, 1)),
        ({}, (JOB, 1)),  # a lock of an itopctl without jobs
        ({"job_id": JOB}, (JOB, 1)),
        ({"job_id": JOB, "job_start": "0"}, (JOB, 1)),
    ],
)  # fmt: skip
def test_nobody_else_on_another_host_can_be_taken_for_dead(
    run: RunDirectory, holder: dict, asks: tuple[str | None, int]
) -> None:
    held_by(run, **holder)
    before = run.lock.read_bytes()
    with pytest.raises(RunLockedError, match=r"is being run by process 4 on node1"), locked(run, *asks):
        pass
    assert run.lock.read_bytes() == before


def test_who_was_taken_over_notices_and_leaves_the_others_lock_alone(run: RunDirectory) -> None:
    with locked(run, JOB, 0) as ghost:
        with locked(run, JOB, 1) as real:
            assert real() and not ghost()
        assert not ghost()
        held_by(run, job_id=JOB, job_start=2)
    assert (lock_holder(run) or {})["job_start"] == 2


def test_who_was_given_up_for_dead_notices(run: RunDirectory) -> None:
    with locked(run, JOB, 0) as ghost:
        release_lock_of_the_dead(run, JOB)
        assert not ghost()
        assert not is_held(run)


def test_a_job_that_is_over_lets_go_of_its_own_lock_alone(run: RunDirectory) -> None:
    held_by(run, job_id=JOB, job_start=0)
    for other in (None, "slurm:c:77_1", "slurm:d:77_0", "77_0"):
        release_lock_of_the_dead(run, other)
        assert is_held(run)
    release_lock_of_the_dead(run, JOB)
    assert not run.lock.exists()


@pytest.mark.parametrize(
    ("job", "lock_id"),
    [
        (Job(), None),
        (Job("slurm", "77_0", "c", 3), "slurm:c:77_0"),
        (Job("slurm", "77_0", "d"), "slurm:d:77_0"),
    ],
)
def test_a_job_is_known_by_its_scheduler_its_cluster_and_its_id(job: Job, lock_id: str | None) -> None:
    assert job.lock_id == lock_id


def test_a_run_that_another_has_is_left_without_a_trace(run: RunDirectory, tmp_path: Path) -> None:
    held_by(run, job_id=JOB, job_start=1)
    ended = execute(run, tmp_path, Job("slurm", "77_0", "c", 0), lambda: None)
    assert ended.state == "elsewhere"
    assert {path.name for path in run.path.iterdir()} == {"lock"}


def test_a_finished_run_is_not_run_again_and_needs_no_checkpoint_any_more(run: RunDirectory, tmp_path: Path) -> None:
    write_json(run.result, {"steps": 1})
    save_checkpoint(run, 1, b"x")
    ended = execute(run, tmp_path, Job("slurm", "77_0", "c", 1), lambda: None)
    assert (ended.state, ended.cause) == ("done", "finished")
    assert {path.name for path in run.path.iterdir()} == {"result.json"}
    assert read_json(run.result) == {"steps": 1}


def test_a_run_that_was_called_off_does_not_begin(run: RunDirectory, tmp_path: Path) -> None:
    run.cancel.touch()
    ended = execute(run, tmp_path, Job("slurm", "77_0", "c", 0), lambda: None)
    assert (ended.state, ended.cause) == ("cancelled", "cancelled")
    assert {path.name for path in run.path.iterdir()} == {"cancel"}
