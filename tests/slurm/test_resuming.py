"""Jobs that end before their runs do: time limits, preemption, killed processes. The runs go on, to the same result."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import LONG, Place, a_place

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def limited(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A place with two sweeps on their way to a time limit, out of the way of other tests: one may go on after it.

    The runs of that one share a job, and go at the same time.
    """
    with a_place(tmp_path_factory.mktemp("limited"), cluster) as place:
        place.slow()
        limit = {"timeout_min": 2, "additional_parameters": {"nodelist": "n2"}}
        together = {"runs_per_job": 2, "runs_per_gpu": 2, "cpus_per_task": 2, "mem": "1G"}
        place.submit(place.spec(seeds=2, slurm={**limit, **together}, epochs=LONG, name="goes-on"))
        place.submit(place.spec(slurm={**limit, "max_timeouts": 0}, epochs=LONG + 1, name="ends"))
        yield place


@pytest.mark.alone  # whatever else ran on the node would be preempted, too
def test_preempted_runs_go_on_to_the_result_of_uninterrupted_ones(place: Place, cluster: Cluster) -> None:
    place.slow()
    spec = place.spec(seeds=2, epochs=LONG, slurm={"additional_parameters": {"nodelist": "n1"}})
    place.submit(spec)
    run_ids = place.submitted_runs
    place.wait(lambda: all(place.is_training(run_id, epochs=2) for run_id in run_ids))
    assert place.states() == [("running", None)] * 2
    urgent = cluster.run("sbatch", "--parsable", "-p", "urgent", "-w", "n1", "-c4", "--mem=100M", "-o", "/dev/null",
                         "--wrap", "sleep 2").stdout.strip()  # fmt: skip
    try:
        place.wait(lambda: all(place.events(run_id, "failed") for run_id in run_ids))
        place.fast()
        place.wait(lambda: [state for state, _ in place.states()] == ["pending"] * 2, seconds=5)
        place.wait(place.done)
    finally:
        cluster.run("scancel", "--quiet", urgent)
    for run in place.runs():
        assert (run["state"], run["attempts"]) == ("done", 2)
        first, second = place.attempts(run["run_id"])
        assert (first["cause"], second["cause"]) == ("preempted", "finished")
        assert first["job_id"] == second["job_id"]
        assert second["resumed_from_step"] >= 22
    place.assert_same_results(place.here(spec))


def test_a_killed_worker_is_replaced_and_a_killed_job_waits_to_be_tried_again(limited: Place, place: Place) -> None:
    place.slow()
    place.submit(place.spec(seeds=2, epochs=LONG))
    one, other = place.submitted_runs
    place.wait(lambda: place.is_training(one, epochs=3) and place.is_training(other, epochs=3))
    worker, _ = place.pids(one)
    _, main_process = place.pids(other)
    os.kill(worker, signal.SIGKILL)
    os.kill(main_process, signal.SIGKILL)
    place.wait(lambda: place.is_training(one, attempt=2))
    place.fast()
    place.wait(lambda: place.done(one) and ("failed", "killed") in place.states())
    assert place.causes(one) == ["killed", "finished"]
    first, second = place.attempts(one)
    assert first["job_id"] == second["job_id"]
    assert "SIGKILL" in first["message"]
    assert second["resumed_from_step"] >= 22
    assert place.causes(other) == ["killed"]
    place.itopctl("retry", "--trust", "--cause", "killed", "--wait")
    first, second = place.attempts(other)
    assert (second["cause"], second["resumed_from_step"] >= 22) == ("finished", True)
    assert first["job_id"] != second["job_id"]


def test_runs_whose_time_is_up_go_on_to_the_result_of_uninterrupted_ones(limited: Place) -> None:
    goes_on, ends = limited.submissions
    run_ids = goes_on.request.runs
    limited.wait(lambda: all(limited.events(run_id, "failed") for run_id in run_ids), seconds=180)
    limited.wait(lambda: bool(limited.events(ends.request.runs[0], "failed")))
    limited.fast()
    limited.wait(lambda: limited.done(*run_ids))
    for run in limited.runs("goes-on"):
        assert run["state"] == "done"
        *early, last = limited.attempts(run["run_id"])
        assert {attempt["cause"] for attempt in early} == {"timeout"}
        assert (last["cause"], last["resumed_from_step"] >= 22) == ("finished", True)
        assert {attempt["job_id"] for attempt in early} == {last["job_id"]}
    limited.assert_same_results(limited.here(limited.folder / "goes-on" / "spec.yaml"), run_ids)


def test_a_run_that_may_not_go_on_after_its_time_is_tried_again_on_demand(limited: Place) -> None:
    _, ends = limited.submissions[:2]
    (run_id,) = ends.request.runs
    limited.wait(lambda: bool(limited.events(run_id, "failed")), seconds=180)
    limited.fast()
    limited.wait(lambda: limited.states("ends") == [("failed", "timeout")])
    assert "0 runs to try again" in limited.itopctl("retry", "--trust", "ends", "--cause", "node-failure,killed")
    limited.itopctl("retry", "--trust", "ends", "--cause", "timeout,node-failure", "--slurm", "timeout_min=4", "--wait")
    first, second = limited.attempts(run_id)
    assert (first["cause"], second["cause"]) == ("timeout", "finished")
    assert first["job_id"] != second["job_id"]
    assert second["resumed_from_step"] >= 22  # an epoch; how far it came in its time is up to the machine
    assert limited.submissions[-1].request.options["timeout_min"] == 4
