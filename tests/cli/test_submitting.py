"""`sweep --cluster slurm` and `retry`, over a pretended SLURM: what they submit and say, and what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from itopctl.cli import cluster
from itopctl.store.submissions import live_submissions
from tests.cli.desk import Desk
from tests.dispatch.told import fails, finishes, lab_at
from tests.helpers import itopctl

# Submitting -------------------------------------------------------------------------------------------------


def test_a_sweep_is_submitted_and_the_user_told_its_ids_and_how_to_follow(desk: Desk) -> None:
    done = desk("sweep", desk.spec, "--cluster", "slurm")
    assert (done.code, done.err) == (0, "")
    (array,) = desk.fake.arrays
    name = desk.fake.arrays[array]["name"]
    snapshot = live_submissions(desk.results)[0].request.code["digest"]
    assert done.out.splitlines() == [
        "Plan: 3 new, 0 done, 0 running, 0 failed, 0 duplicate.",
        f"Submitted 3 jobs as {array} ({name}).",
        f"They run the code as it is now: snapshots/{snapshot}",
        "0 of 3 runs done, 3 pending.",
        "Follow them: itopctl status trial --watch",
    ]


def test_packed_runs_are_counted_as_jobs_and_as_runs(desk: Desk) -> None:
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--slurm", "runs_per_job=2")
    assert re.search(r"^Submitted 2 jobs for 3 runs as \d+ \(trial-\w+\)\.$", done.out, re.MULTILINE)


def test_the_same_command_again_submits_nothing_twice(desk: Desk) -> None:
    desk.submit()
    done = desk("sweep", desk.spec, "--cluster", "slurm")
    assert done.code == 0
    assert done.out.splitlines() == [
        "Plan: 0 new, 0 done, 3 pending, 0 running, 0 failed, 0 duplicate.",
        "0 of 3 runs done, 3 pending.",
    ]
    assert desk.fake.count()["sbatch"] == 1


def test_what_jobs_ask_for_comes_from_the_profile_the_spec_and_the_command_line(desk: Desk) -> None:
    profile = desk.folder / "itopctl/slurm.yaml"
    profile.parent.mkdir()
    profile.write_text("partition: urgent\nmem: 9G\naccount: lab\n")
    array = desk.submit("--slurm", "timeout_min=7", "--slurm", "account=other")
    asked = desk.fake.arrays[array]["asked"]
    assert {key: asked.get(key) for key in ("partition", "mem", "account", "time")} == {
        "partition": "urgent", "mem": "1G", "account": "other", "time": "7",
    }  # fmt: skip
    manifest = json.loads(desk.results.manifest("trial").read_text())
    assert manifest["cluster"] == "slurm"


def test_without_a_snapshot_jobs_run_what_is_installed_where_the_command_was_typed(desk: Desk) -> None:
    array = desk.submit("--no-snapshot")
    assert desk.fake.arrays[array]["asked"]["chdir"] == str(desk.folder)
    assert "PYTHONPATH" not in desk.fake.arrays[array]["script"]
    assert not desk.results.snapshots.exists()


def test_some_go_first_and_the_others_depend_on_them(desk: Desk) -> None:
    desk.submit("--first", "1")
    first, rest = desk.fake.arrays
    assert len(desk.fake.arrays[first]["tasks"]) == 1
    assert desk.fake.arrays[rest]["asked"]["dependency"] == f"afterok:{first}"


def test_a_sweep_can_wait_for_jobs_and_for_runs(desk: Desk) -> None:
    earlier = desk.submit()
    run = desk.runs[1]
    later = desk.submit("--set", "seed=9", "--after", run[:6], "--after", f"any:{earlier}")
    assert desk.fake.arrays[later]["asked"]["dependency"] == f"afterok:{earlier}_1,afterany:{earlier}"


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ("nobody", "there is no run 'nobody'"),
        ("4711", "4711"),
        ("ok:7", "--after ok:7: a run, a job's id, or any:JOB expected."),
    ],
)
def test_what_can_never_come_is_not_waited_for(desk: Desk, after: str, said: str) -> None:
    desk.submit()
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--set", "seed=9", "--after", after)
    assert done.code == 2
    assert said in done.err
    assert desk.fake.count()["sbatch"] == 1


def test_a_run_that_no_job_is_at_is_not_waited_for(desk: Desk) -> None:
    array = desk.submit()
    run = desk.runs[0]
    fails(lab_at(desk.results.path), run, "user-error", job=f"{array}_0")
    desk.fake.end(f"{array}_0", "FAILED", "1:0")
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--set", "seed=9", "--after", run)
    assert (done.code, done.err) == (2, f"itopctl: --after {run}: run {run} is failed; no job is at it.\n")


def test_a_dry_run_prints_the_very_scripts_and_leaves_nothing(desk: Desk) -> None:
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--dry-run", "--slurm", "array_parallelism=2", "--first", "1")
    assert done.code == 0
    assert not desk.results.path.exists()
    assert "sbatch" not in desk.fake.count()
    scripts = re.split(r"\n# (\d+ jobs?) for \d+ runs? of trial, as sbatch gets it:\n", done.out)[1:]
    assert len(scripts) == 4
    desk.submit("--slurm", "array_parallelism=2", "--first", "1")
    for printed, (array, about) in zip(scripts[1::2], desk.fake.arrays.items(), strict=True):
        name = re.search(r"--job-name=(\S+)", printed)[1]  # type: ignore[index]
        same = printed.strip().replace(name, about["name"])
        first = next(iter(desk.fake.arrays))
        same = re.sub(r"afterok:\S+", f"afterok:{first}", same)
        assert same == about["script"].strip(), array


def test_a_dry_run_without_slurm_prints_scripts_all_the_same(desk: Desk) -> None:
    desk.fake.break_controller()
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--dry-run")
    assert done.code == 0
    assert "Arrays are split as SLURM does by default, at 1,001 jobs." in done.err
    assert "#SBATCH --array=0-2%3" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--wait"], "--wait means nothing with --cluster local."),
        (["--slurm", "mem=1G"], "--slurm means nothing with --cluster local."),
        (["--after", "7"], "--after means nothing with --cluster local."),
        (["--cluster", "slurm", "--workers", "2"],
         "--workers (write --slurm runs_per_gpu=N) means nothing with --cluster slurm."),
        (["--cluster", "slurm", "--runs-per-gpu", "2"],
         "--runs-per-gpu (write --slurm runs_per_gpu=N) means nothing with --cluster slurm."),
        (["--cluster", "sulrm"], "--cluster: unknown cluster 'sulrm'. Did you mean 'slurm'? Allowed: local, slurm."),
        (["--cluster", "slurm", "--slurm", "distributed=true"],
         "slurm: distributed trains a run on each of gpus_per_node; give gpus_per_node, too."),
        (["--cluster", "slurm", "--slurm", "mem"], "--slurm mem: KEY=VALUE expected."),
    ],
)  # fmt: skip
def test_options_that_mean_nothing_or_exclude_each_other_are_refused_before_anything_is_done(
    desk: Desk, arguments: list[str], said: str
) -> None:
    done = desk("sweep", desk.spec, *arguments)
    assert (done.code, done.out, done.err) == (2, "", f"itopctl: {said}\n")
    assert not desk.results.path.exists()
    assert "sbatch" not in desk.fake.count()


def test_a_refusal_of_sbatch_is_one_clear_line_and_the_runs_stay_free(desk: Desk) -> None:
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--slurm", "partition=nowhere")
    assert done.code == 3
    (line,) = done.err.splitlines()
    assert line.startswith("itopctl: SLURM refused the jobs: ")
    assert line.endswith("Invalid partition name specified")
    assert set(desk.states().values()) == {"queued"}
    desk.submit()


def test_without_slurm_a_sweep_ends_with_one_clear_line(desk: Desk, tmp_path: Path) -> None:
    done = itopctl("sweep", desk.spec, "--cluster", "slurm", cwd=desk.folder, PATH=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr == "itopctl: SLURM is not there: no scontrol on the PATH of this machine.\n"
    assert not desk.results.path.exists(), "no sweep that nobody can cancel"


@pytest.mark.parametrize("after", ["zzz", "99", "any:99"])
def test_what_cannot_be_waited_for_leaves_nothing_behind(desk: Desk, after: str) -> None:
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--after", after)
    assert done.code == 2 and done.err.startswith(f"itopctl: --after {after}: ")
    assert not desk.results.path.exists()


def test_with_wait_a_sweep_ends_when_its_jobs_do_and_says_how(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def later(step: Any) -> bool:
        assert step() is not None, "all three wait"
        array = list(desk.fake.arrays)[-1]
        lab, runs = lab_at(desk.results.path), desk.runs
        finishes(lab, runs[0], f"{array}_0")
        fails(lab, runs[1], "out-of-memory", f"{array}_1")
        finishes(lab, runs[2], f"{array}_2")
        for job, word in zip(desk.fake.jobs(array), ("COMPLETED", "FAILED", "COMPLETED"), strict=True):
            desk.fake.end(job, word)
        assert step() is None
        return False

    monkeypatch.setattr(cluster, "until_interrupted", later)
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--wait")
    assert done.code == 1
    assert "3 pending" in done.out and "2 done, 1 failed" in done.out
    assert "2 of 3 runs done, 1 failed." in done.out
    assert "out-of-memory" in done.out


# Trying again -----------------------------------------------------------------------------------------------


@pytest.fixture
def ended(desk: Desk) -> tuple[Desk, list[str]]:
    """A sweep whose jobs ended: one for its time, one with its node, one by a mistake of the user's."""
    array = desk.submit()
    runs = desk.runs
    lab = lab_at(desk.results.path)
    for number, cause in enumerate(("timeout", "node-failure", "user-error")):
        fails(lab, runs[number], cause, job=f"{array}_{number}")
        desk.fake.end(f"{array}_{number}", "FAILED", "1:0")
    assert desk("status").code == 0
    assert set(desk.states().values()) == {"failed"}
    return desk, runs


@pytest.mark.parametrize(
    ("cause", "chosen"),
    [(None, [0, 1, 2]), ("timeout", [0]), ("timeout,node-failure", [0, 1]), (" user-error , timeout ", [0, 2]),
     ("out-of-memory", []), ("cancelled", [])],
)  # fmt: skip
def test_what_failed_is_chosen_by_why_it_did(
    ended: tuple[Desk, list[str]], cause: str | None, chosen: list[int]
) -> None:
    desk, runs = ended
    causes = [] if cause is None else ["--cause", cause]
    listed = desk("retry", "trial", "--dry-run", "--format", "json", *causes)
    assert listed.code == 0
    found = [row["run_id"] for row in json.loads(listed.out)] if chosen else []
    assert found == [runs[number] for number in chosen]
    assert desk.fake.count()["sbatch"] == 1
    done = desk("retry", *causes)
    assert done.code == 0
    assert len(desk.fake.arrays) == (2 if chosen else 1)
    assert sorted(desk.runs) == sorted(runs[number] for number in chosen)


def test_a_retry_goes_where_the_sweep_was_with_what_it_asked_for_and_what_is_asked_now(
    ended: tuple[Desk, list[str]],
) -> None:
    desk, runs = ended
    done = desk("retry", "--cause", "timeout", "--slurm", "timeout_min=9", "--slurm", "mem=2G")
    assert done.code == 0
    asked = desk.fake.arrays[list(desk.fake.arrays)[-1]]["asked"]
    assert (asked["time"], asked["mem"]) == ("9", "2G")
    assert desk.states()[runs[0]] == "pending"
    (submission,) = live_submissions(desk.results)
    assert submission.request.attempts == {runs[0]: 1}


def test_cancelled_runs_are_tried_again_only_if_that_is_said(desk: Desk) -> None:
    desk.submit()
    desk("cancel", "--yes")
    assert desk("retry").out == "0 runs to try again.\n"
    assert "3 runs to try again." in desk("retry", "--cause", "cancelled").out
    assert set(desk.states().values()) == {"pending"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--cause", "timout"], "itopctl: --cause: unknown cause 'timout'. Did you mean 'timeout'?"),
        (["--cause", "finished"], "itopctl: --cause: unknown cause 'finished'."),
        (["nowhere"], "itopctl: unknown sweep 'nowhere'."),
        (["--workers", "2"], "itopctl: --workers (write --slurm runs_per_gpu=N) means nothing with --cluster slurm."),
        (["--cluster", "local", "--slurm", "mem=1G"], "itopctl: --slurm means nothing with --cluster local."),
        (["--slurm", "mem=lots"], "itopctl: --slurm: mem: found 'lots'"),
        (["--cluster", "moon"], "itopctl: --cluster: unknown cluster 'moon'."),
    ],
)
def test_a_retry_that_makes_no_sense_is_refused(ended: tuple[Desk, list[str]], arguments: list[str], said: str) -> None:
    desk, _ = ended
    done = desk("retry", *arguments)
    assert done.code == 2
    assert done.err.startswith(said)
    assert desk.fake.count()["sbatch"] == 1


def test_where_nothing_was_run_there_is_nothing_to_try_again(desk: Desk) -> None:
    done = desk("retry")
    assert done.code == 3
    assert done.err.startswith("itopctl: no results in results: nothing was run here yet.")
