"""Jobs that are called off: by our command, and by somebody else's."""

from __future__ import annotations

import pytest

from itopctl.store.checkpoints import checkpoints
from tests.slurm.cluster import Cluster
from tests.slurm.place import LONG, Place

pytestmark = pytest.mark.slurm


def _one_runs_and_one_waits(place: Place) -> tuple[str, str]:
    place.slow()
    place.submit(place.spec(seeds=2, epochs=LONG, slurm={"array_parallelism": 1}))
    first, second = place.submitted_runs
    place.wait(lambda: place.is_training(first))
    assert dict(zip(place.submitted_runs, place.states(), strict=True)) == {
        first: ("running", None),
        second: ("pending", None),
    }
    return first, second


@pytest.mark.slow
def test_cancel_ends_what_runs_and_what_waits_and_nobody_elses_jobs(place: Place, cluster: Cluster) -> None:
    first, second = _one_runs_and_one_waits(place)
    name = place.submissions[0].name
    submit = ("sbatch", "--parsable", "--hold", "--mem=100M", "--output=/dev/null", "--wrap=true")
    others = [
        cluster.run(*submit, *arguments).stdout.strip()
        for arguments in (
            [f"--job-name={name}"],  # by chance of the same name
            [f"--job-name={name}", "--array=0-1", "--uid=nobody"],
            ["--job-name=trial-of-somebody", "--array=0-1"],
        )
    ]
    try:
        assert all(others)
        assert "Cancelled 2 runs (2 jobs of the cluster)" in place.itopctl("cancel", "trial", "--yes")
        place.wait(lambda: place.states() == [("queued", "cancelled")] * 2)
        left = cluster.run("squeue", "--noheader", f"--jobs={','.join(others)}", "--format=%F %T").stdout
        assert sorted(left.splitlines()) == [f"{job_id} PENDING" for job_id in sorted(others)]
    finally:
        cluster.run("scancel", *others)
    assert place.causes(first) == ["cancelled"]
    assert place.attempts(second) == []
    place.wait(lambda: "Nothing to cancel" in place.itopctl("cancel", "--yes"))
    place.fast()
    place.submit(place.folder / "trial" / "spec.yaml", "--wait")
    assert place.states() == [("done", "finished")] * 2
    assert [attempt["resumed_from_step"] > 0 for attempt in place.attempts(first)] == [False, True]


def test_jobs_that_scancel_ended_count_as_cancelled(place: Place, cluster: Cluster) -> None:
    first, second = _one_runs_and_one_waits(place)
    cluster.run("scancel", place.submissions[0].state.job_id or "")
    place.wait(lambda: place.states() == [("queued", "cancelled")] * 2)
    assert place.causes(first) == ["cancelled"]
    assert place.attempts(second) == []
    assert checkpoints(place.results.run(first))
    assert "2 new" in place.itopctl("sweep", place.folder / "trial" / "spec.yaml", "--dry-run")


def test_a_run_that_is_called_off_leaves_its_job_to_the_others(place: Place) -> None:
    place.slow()
    place.submit(place.spec(seeds=3, epochs=LONG, slurm={"runs_per_job": 3}))
    first, second, third = place.submitted_runs
    place.wait(lambda: place.is_training(first))
    assert "Cancelled 2 runs. What runs stops" in place.itopctl("cancel", first, third, "--yes")
    place.wait(lambda: place.is_training(second))
    place.fast()
    place.wait(lambda: place.done(second) and sorted(place.states()) == [
        ("done", "finished"), ("queued", "cancelled"), ("queued", "cancelled"),
    ])  # fmt: skip
    assert place.causes(first) == ["cancelled"]
    assert place.causes(second) == ["finished"]
    assert place.attempts(third) == []
    assert len(place.queue()) == 1
