"""Jobs that end before their runs do: time limits, preemption, killed processes. The runs go on, to the same result."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import LONG, Place
from tests.slurm.processes import descendants, job_processes, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def timed_out(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place with two sweeps at their time limit: one may go on after it, the other may not."""
    place = Place(tmp_path_factory.mktemp("times out"), cluster)
    place.slow()
    one_minute = {"timeout_min": 1, "signal_delay_s": 20}
    place.submit(place.spec(seeds=2, slurm=one_minute, epochs=LONG, name="goes-on"))
    place.submit(place.spec(slurm={**one_minute, "max_timeouts": 0}, epochs=LONG + 1, name="does-not"))
    yield place
    place.end_jobs()


def test_preempted_runs_go_on_to_the_result_of_uninterrupted_ones(
    timed_out: Place, place: Place, cluster: Cluster
) -> None:
    place.slow()
    spec = place.spec(seeds=2, epochs=LONG)
    place.submit(spec)
    run_ids = place.submissions[0].request.runs
    place.wait(lambda: all(place.is_training(run_id, epochs=2) for run_id in run_ids))
    assert place.states() == [("running", None)] * 2
    urgent = cluster.run("sbatch", "--parsable", "-p", "urgent", "-N2", "-c4", "--mem=100M", "--wrap", "sleep 3")
    try:
        place.wait(lambda: all("failed" in [e["event"] for e in place.events(run_id)] for run_id in run_ids))
        place.fast()
        assert all(state in ("pending", "running", "done") for state, _ in place.states())
        place.wait(place.done)
    finally:
        cluster.run("scancel", urgent.stdout.strip())
    for run in place.runs():
        assert (run["state"], run["attempts"]) == ("done", 2)
        first, second = place.attempts(run["run_id"])
        assert (first["cause"], second["cause"]) == ("preempted", "finished")
        assert first["job_id"] == second["job_id"]
        assert second["resumed_from_step"] >= 22
    place.assert_same_results(place.here(spec))
