"""What is submitted, how often, and in what order it runs."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests import share
from tests.slurm.cluster import Cluster
from tests.slurm.place import DIVERGES, LONG, Place, sbatch_that_kills_who_asks

pytestmark = pytest.mark.slurm


@pytest.mark.parametrize("next_command", ["sweep", "status", "cancel"])
def test_jobs_of_a_submitter_that_died_are_adopted_by_the_next_command(
    place: Place, cluster: Cluster, next_command: str
) -> None:
    place.slow()
    spec = place.spec(seeds=2, epochs=LONG, slurm={"runs_per_job": 2})
    path = sbatch_that_kills_who_asks(place.folder / "bin", cluster)
    place.itopctl("sweep", spec, "--cluster", "slurm", code=-9, PATH=path)
    (submission,) = place.submissions
    assert submission.state.job_id is None
    ((job_id, _),) = place.queue()
    adopted = f"adopted as {job_id.partition('_')[0]}"
    if next_command == "sweep":
        output = place.submit(spec)
        assert adopted in output
        assert "0 new" in output
    elif next_command == "status":
        assert adopted in place.itopctl("status")
    else:
        assert adopted in place.itopctl("cancel", "--yes")
        place.wait(lambda: place.states() == [("queued", "cancelled")] * 2)
        return
    assert {state for state, _ in place.states()} <= {"pending", "running"}
    place.fast()
    place.wait(place.done)
    assert [(run["state"], run["attempts"]) for run in place.runs()] == [("done", 1)] * 2
    assert len(place.submissions) == 1
    assert [attempt["job_id"] for attempt in place.attempts(place.submitted_runs[0])] == [job_id]


def test_two_submissions_of_a_sweep_at_once_run_nothing_twice(place: Place) -> None:
    spec = place.spec(seeds=4, slurm={"runs_per_job": 2})
    commands = [place.start("sweep", spec, "--cluster", "slurm", "--wait") for _ in range(3)]
    answers = [command.communicate(timeout=120) for command in commands]
    assert [command.returncode for command in commands] == [0, 0, 0], answers
    assert sorted(place.submitted_runs) == place.results.run_ids()
    assert len(place.submitted_runs) == 4
    assert [(run["state"], run["attempts"]) for run in place.runs()] == [("done", 1)] * 4
    assert all(len(place.events(run_id, "started")) == 1 for run_id in place.submitted_runs)


@pytest.mark.parametrize(
    ("option", "complaint"),
    [("partition=nowhere", "invalid partition specified: nowhere"), ("mem=900G", "Memory specification")],
)
def test_what_sbatch_refuses_is_said_and_nothing_waits(place: Place, option: str, complaint: str) -> None:
    output = place.submit(place.spec(seeds=2), "--slurm", option, code=3)
    assert "SLURM refused the jobs" in output
    assert complaint in output
    assert place.submissions == []
    assert [run["state"] for run in place.runs()] == ["queued"] * 2
    assert "2 new" in place.itopctl("sweep", place.spec(seeds=2), "--dry-run")


@pytest.mark.slow
def test_no_more_jobs_of_a_sweep_run_at_one_time_than_asked_for_over_all_its_submissions(place: Place) -> None:
    place.submit(place.spec(seeds=3, slurm={"array_parallelism": 2}))
    place.submit(place.spec(seeds=6, slurm={"array_parallelism": 2}))
    assert [len(one.request.jobs) for one in place.submissions] == [3, 3]
    seen = []
    until = time.monotonic() + 120
    while not place.done() and time.monotonic() < until:
        seen.append(len(place.queue("RUNNING")))
        time.sleep(0.1)
    assert max(seen) == 2
    assert place.states() == [("done", "finished")] * 6


@pytest.mark.slow
def test_a_sweep_of_more_jobs_than_an_array_may_have_is_split(place: Place, cluster: Cluster) -> None:
    """Of each array the first and the last job run, by the right id, or all of them where every case is asked for."""
    held = {"additional_parameters": {"hold": True}}
    output = place.submit(place.spec(seeds=52, epochs=1, slurm={"mem": "400M", **held}))
    assert output.count("Submitted 26 jobs") == 2
    assert [state for _, state in place.queue()] == ["PENDING"] * 52
    chosen = list(range(52)) if share.chosen() == "all" else [0, 25, 26, 51]
    jobs = [(one.id_of(index), run) for one in place.submissions for index, (run,) in enumerate(one.request.jobs)]
    assert len(jobs) == 52
    released = [jobs[number] for number in chosen]
    cluster.run("scontrol", "release", ",".join(str(job) for job, _ in released))
    runs = [run for _, run in released]
    place.wait(lambda: place.done(*runs), seconds=240)
    place.wait(lambda: sorted(place.states()).count(("done", "finished")) == len(runs), seconds=10)
    assert place.states().count(("pending", None)) == 52 - len(runs)
    for job, run in released:
        (attempt,) = place.attempts(run)
        assert attempt["job_id"] == job


@pytest.mark.slow
def test_many_runs_share_four_jobs_two_at_a_time(place: Place) -> None:
    each = 50 if share.chosen() == "all" else 10
    options = {"runs_per_job": each, "runs_per_gpu": 2, "cpus_per_task": 2, "mem": "1G"}
    submitted = place.submit(place.spec(seeds=4 * each, epochs=1, slurm=options), "--wait")
    assert f"Submitted 4 jobs for {4 * each} runs" in submitted
    assert place.states() == [("done", "finished")] * (4 * each)
    for job in place.submissions[0].request.jobs:
        started = [place.events(run_id, "started")[0] for run_id in job]
        finished = [place.events(run_id, "finished")[0] for run_id in job]
        assert len({event["pid"] for event in started}) == each  # the model is the user's own: a process for each run
        assert {event["threads"] for event in started} == {1}
        changes = sorted([*((e["at"], 1) for e in started), *((e["at"], -1) for e in finished)])
        assert max(sum(change for _, change in changes[:end]) for end in range(1, len(changes) + 1)) == 2


@pytest.mark.slow
def test_the_first_runs_go_alone_and_the_others_never_start_if_they_fail(place: Place) -> None:
    spec = place.spec(seeds=3, **DIVERGES)
    output = place.submit(spec, "--first", "1", "--wait", code=1)
    assert "user-error" in output
    first, *others = place.submitted_runs
    assert dict(zip(place.submitted_runs, place.states(), strict=True)) == {
        first: ("failed", "user-error"),
        **dict.fromkeys(others, ("queued", "cancelled")),
    }
    assert all(place.attempts(run_id) == [] for run_id in others)


@pytest.mark.slow
def test_runs_start_after_the_first_and_after_what_they_were_to_wait_for(place: Place, cluster: Cluster) -> None:
    place.slow()
    place.submit(place.spec(seeds=2, epochs=LONG), "--first", "1")
    first, second = place.submitted_runs
    place.wait(lambda: place.is_training(first))
    place.submit(place.spec(name="later"), "--after", first)
    later = place.submitted_runs[-1]
    place.submit(place.spec(name="anyway", epochs=4), "--after", f"any:{place.show(first)['job_id']}")
    anyway = place.submitted_runs[-1]
    waiting = (second, later, anyway)

    def all_say_why() -> bool:
        why = {run["run_id"]: (run["state"], run["message"] or "") for run in place.runs()}
        return all(why[run_id][0] == "pending" and "Dependency" in why[run_id][1] for run_id in waiting)

    place.wait(all_say_why, seconds=15)
    assert place.show(first)["state"] == "running"
    place.fast()
    place.wait(place.done)
    assert place.states() == [("done", "finished")] * 4
    (end,) = [event["at"] for event in place.events(first, "finished")]
    assert all(place.events(run_id, "started")[0]["at"] > end for run_id in waiting)


@pytest.mark.slow
def test_jobs_run_the_code_that_was_submitted_unless_told_otherwise(place: Place, cluster: Cluster) -> None:
    held: dict[str, Any] = {"additional_parameters": {"hold": True, "comment": "for the paper"}}
    setup = {**held, "setup": [f"echo set up on $SLURMD_NODENAME > '{place.folder}/said.txt'"]}
    place.submit(place.spec(slurm=setup, name="as-submitted"))
    place.submit(place.spec(slurm=held, name="as-found", epochs=4), "--no-snapshot")
    place.write_model(width=32)
    assert place.states() == [("pending", None)] * 2
    for one in place.submissions:
        job = cluster.run("scontrol", "show", "job", one.state.job_id or "").stdout
        assert "Reason=JobHeldUser" in job
        assert "Comment=for the paper" in job
        cluster.run("scontrol", "release", one.state.job_id or "")
    place.wait(lambda: sorted(place.states()) == [("done", "finished"), ("failed", "other-code")])
    submitted, found = place.submitted_runs
    assert place.events(submitted, "progress")[0]["maskable"] == 64 * 64 + 64 * 10
    (attempt,) = place.attempts(submitted)
    assert attempt["submitted_code"] is None
    assert attempt["code"] == place.submissions[0].request.code["digest"]
    (attempt,) = place.attempts(found)
    assert attempt["submitted_code"] == place.submissions[1].request.code["digest"]
    assert attempt["code"] != attempt["submitted_code"]
    assert (place.folder / "said.txt").read_text().startswith("set up on n")
    assert "the code has changed since it was submitted" in place.itopctl("logs", found, "--job")
