"""A cluster of which a part is down. No other test may use the cluster meanwhile; each puts it right again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import LONG, Place, a_place, sbatch_that_kills_who_asks

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """Where a test submits, on a cluster that it has for itself and that is whole again afterwards."""
    with a_place(tmp_path, cluster, alone=True) as made:
        try:
            yield made
        finally:
            cluster.up()


def test_without_a_controller_nothing_changes_and_jobs_run_on(place: Place, cluster: Cluster) -> None:
    place.slow()
    place.submit(place.spec(seeds=2, epochs=LONG, slurm={"array_parallelism": 1}))
    first, second = place.submitted_runs
    place.wait(lambda: place.is_training(first))
    before = place.states()
    assert sorted(before) == [("pending", None), ("running", None)]
    try:
        cluster.stop_controller()  # killed, it may forget what began within the last seconds
        other = place.start(
            "sweep", place.spec(name="other"), "--cluster", "slurm", "--results", place.folder / "other results"
        )
        assert place.states(code=3) == before
        steps = len(place.events(first, "evaluated"))
        output = place.itopctl("status", code=3)
        assert "What is shown of jobs is what was known before." in output
        said, errors = other.communicate(timeout=120)
        assert other.returncode == 3, said
        assert errors.startswith("itopctl: SLURM: scontrol: ")
        assert not (place.folder / "other results").exists(), "a sweep that nobody can cancel"
    finally:
        cluster.up()
    assert place.states() == before
    assert len(place.events(first, "evaluated")) > steps
    place.fast()
    place.wait(place.done)
    assert [(run["state"], run["attempts"]) for run in place.runs()] == [("done", 1)] * 2
    assert place.causes(second) == ["finished"]


def test_without_accounts_the_queue_is_enough(place: Place, cluster: Cluster) -> None:
    try:
        cluster.stop_accounting()
        place.submit(place.spec(), "--wait")
        assert place.states() == [("done", "finished")]
        never = sbatch_that_kills_who_asks(place.folder / "bin", cluster, submits=False)
        place.itopctl("sweep", place.spec(epochs=4, name="never"), "--cluster", "slurm", code=-9, PATH=never)
        output = place.itopctl("status", "--runs")
        assert "The accounts could not be asked: SLURM: sacct: " in output
        assert place.states("never") == [("pending", None)]
        findings = {found["subject"]: found for found in place.json("doctor", code=3)}
        assert [name for name, found in findings.items() if found["kind"] == "problem"] == ["accounting"]
    finally:
        cluster.up()
    assert "accounts" not in place.itopctl("status")


def test_a_run_whose_node_went_down_goes_on_elsewhere_to_the_same_result(place: Place, cluster: Cluster) -> None:
    place.slow()
    spec = place.spec(epochs=LONG)
    place.submit(spec)
    (run_id,) = place.submitted_runs
    place.wait(lambda: place.is_training(run_id, epochs=3))
    job_id = place.submissions[0].state.job_id
    node = cluster.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%N").stdout.strip()
    try:
        cluster.stop_node(node, kill_jobs=True)
        seen: list[str] = []

        def is_back() -> bool:
            seen.extend(state for state, _ in place.states())
            return place.is_training(run_id, attempt=2)

        place.wait(is_back, seconds=90)
        assert set(seen) <= {"running", "pending"}
        elsewhere = cluster.run("squeue", "--noheader", f"--jobs={job_id}", "--format=%N").stdout.strip()
        assert elsewhere != node
        place.fast()
        place.wait(place.done)
    finally:
        cluster.up()
    assert place.states() == [("done", "finished")]
    first, second = place.attempts(run_id)
    assert (first["cause"], second["cause"]) == ("node-failure", "finished")
    assert first["job_id"] == second["job_id"] == f"{job_id}_0"
    assert second["resumed_from_step"] > 0
    place.assert_same_results(place.here(spec))
