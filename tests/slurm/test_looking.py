"""What can be seen of jobs from the user's machine."""

from __future__ import annotations

import signal

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import DIVERGES, LONG, Place

pytestmark = pytest.mark.slurm


def test_a_log_is_followed_from_before_its_job_starts_until_its_run_ends(place: Place, cluster: Cluster) -> None:
    place.slow()
    place.submit(place.spec(slurm={"additional_parameters": {"hold": True}}))
    (run_id,) = place.submitted_runs
    assert "has not started yet" in place.itopctl("logs", run_id, code=3)
    assert "has printed nothing yet" in place.itopctl("logs", run_id, "--job", code=3)
    following = place.start("logs", run_id, "--follow")
    cluster.run("scontrol", "release", place.submissions[0].state.job_id or "")
    output, errors = following.communicate(timeout=60)
    assert following.returncode == 0, errors
    assert "its log follows when it begins" in errors
    assert "33 steps, 3 epochs, from step 0" in output
    assert output.rstrip().endswith("finished after 33 steps")
    assert output == (place.results.run(run_id).log).read_text()
    said = place.itopctl("logs", run_id, "--job")
    assert f"run {run_id} started" in said
    assert f"run {run_id} done" in said


def test_doctor_looks_from_a_node(place: Place) -> None:
    findings = {found["subject"]: found for found in place.json("doctor", place.spec(), "--probe")}
    assert {found["kind"] for found in findings.values()} <= {"ok", "note"}
    assert "cluster itoptest" in findings["SLURM"]["answer"]
    assert "at most 51 jobs" in findings["arrays"]["answer"]
    (node,) = [subject for subject in findings if subject.startswith("node") and ":" not in subject]
    assert "writes the results folder" in findings[node]["answer"]
    assert findings[f"{node}: data set digits"]["answer"] == "built in"
    assert place.json("status", "--runs") == []


def test_waiting_ends_with_an_exit_code_that_tells_how_it_went(place: Place) -> None:
    output = place.itopctl(
        "sweep", place.spec(seeds=2), place.spec(name="bad", **DIVERGES), "--cluster", "slurm", "--wait",
        code=1,
    )  # fmt: skip
    assert "2 of 3 runs done, 1 failed." in output
    assert "user-error" in output
    assert sorted(place.states()) == [("done", "finished"), ("done", "finished"), ("failed", "user-error")]


def test_who_waits_can_let_go_and_the_jobs_run_on(place: Place) -> None:
    place.slow()
    waiting = place.start("sweep", place.spec(epochs=LONG), "--cluster", "slurm", "--wait")
    place.wait(lambda: any(place.is_training(run_id) for run_id in place.submitted_runs))
    waiting.send_signal(signal.SIGINT)
    output, errors = waiting.communicate(timeout=30)
    assert waiting.returncode == 0, errors
    assert "Follow them: itopctl status trial --watch" in output
    assert place.states() == [("running", None)]
    place.fast()
    place.wait(place.done)
    assert [(run["state"], run["attempts"]) for run in place.runs()] == [("done", 1)]
