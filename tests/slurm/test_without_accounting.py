"""A cluster that keeps no accounts, soon forgets the jobs that are over, and ends those that take too much memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from itopctl.store.submissions import save
from tests.slurm.cluster import Cluster, Settings
from tests.slurm.place import DIVERGES, LONG, Place, a_place

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.alone]

MEMORY = 1200
"""Megabytes that a job may have: more than the small network needs."""


@pytest.fixture(scope="module")
def forgetful(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Such a cluster; made only where there is the other one, so that its packages are there, too."""
    settings = Settings(
        accounting=False, nodes=("m1",), memory=6000, max_array_size=3, min_job_age=2, kill_over_memory=True
    )
    with Cluster(tmp_path_factory.mktemp("forgetful") / "cluster", settings) as made:
        yield made


@pytest.fixture
def place(forgetful: Cluster, tmp_path: Path) -> Iterator[Place]:
    """Where a test submits; its jobs end with it."""
    with a_place(tmp_path, forgetful, mem=f"{MEMORY}M") as made:
        yield made


def test_a_sweep_of_more_jobs_than_an_array_may_have_completes(place: Place) -> None:
    output = place.submit(place.spec(seeds=4), "--wait")
    assert output.count("Submitted 2 jobs") == 2
    assert place.states() == [("done", "finished")] * 4


def test_a_run_that_took_too_much_memory_is_tried_again_with_more(place: Place) -> None:
    greed = "        if not hasattr(self, 'hoard'):\n            self.hoard = torch.ones(300_000_000)\n"
    model = place.write_model()
    model.write_text(model.read_text().replace("        return super()", f"{greed}        return super()"))
    place.slow()
    place.submit(place.spec(epochs=20), "--wait", code=1)
    assert place.states() == [("failed", "out-of-memory")]
    place.fast()
    place.itopctl("retry", "--trust", "--cause", "out-of-memory", "--slurm", "mem=3G", "--wait")
    assert place.causes(place.submitted_runs[0]) == ["out-of-memory", "finished"]


def test_what_became_of_jobs_that_the_queue_has_forgotten_is_told_by_their_files(place: Place) -> None:
    place.submit(place.spec(name="good"))
    place.submit(place.spec(name="bad", **DIVERGES))
    place.submit(place.spec(name="called-off", epochs=4, slurm={"additional_parameters": {"hold": True}}))
    place.slow()
    place.submit(place.spec(name="killed", epochs=LONG, slurm={"array_parallelism": 1}, seeds=2))
    good, bad, called_off, killed, waiting = place.submitted_runs
    place.itopctl("cancel", "called-off", "--yes")
    place.wait(lambda: place.done(good) and bool(place.events(bad, "failed")) and place.is_training(killed))
    worker, main_process = place.pids(killed)
    os.kill(main_process, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    place.cluster.run("scancel", place.submissions[-1].state.job_id or "")
    place.wait(lambda: place.queue() == [], seconds=120)
    known = {run["run_id"]: (run["state"], run["cause"]) for run in place.runs("good", "bad", "called-off")}
    assert known == {
        good: ("done", "finished"),
        bad: ("failed", "user-error"),
        called_off: ("queued", "cancelled"),
    }
    assert place.states("killed") == [("pending", None)] * 2
    grow_older(place, seconds=150)
    assert place.states("killed") == [("pending", None)] * 2
    grow_older(place, seconds=60)
    assert place.states("killed") == [("lost", "lost")] * 2
    assert place.causes(killed) == ["lost"]
    assert place.attempts(waiting) == []
    assert place.attempts(called_off) == []


def grow_older(place: Place, seconds: float) -> None:
    """Let time pass for jobs of which the scheduler knows nothing."""
    for one in place.submissions:
        for index in one.live_jobs:
            since = one.state.jobs[index].unseen_since
            assert since is not None
            one = one.with_job(index, unseen_since=since - seconds)
        save(one)
