"""Handing runs to a (pretended) SLURM: recorded first, each run at one job, whatever fails in between."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.reconcile import reconcile
from itopctl.dispatch.scheduler import SchedulerError
from itopctl.dispatch.slurm import Slurm
from itopctl.dispatch.snapshot import Code
from itopctl.dispatch.submitter import Order, Submitter
from itopctl.store.files import read_json, write_json
from itopctl.store.locks import locked, this_process
from itopctl.store.rundir import Results
from itopctl.store.submissions import Submission, claimed_runs, directories, live_submissions, load
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.told import fails, lab_at
from tests.helpers import run_config

CONFIGS: dict[str, RunConfig] = {run_id(config): config for config in (run_config(seed=n) for n in range(6))}
RUNS = tuple(CONFIGS)


@pytest.fixture
def results(tmp_path: Path, local_disk: None) -> Results:
    made = Results(tmp_path / "my results")
    made.runs.mkdir(parents=True)
    return made


def submitter(results: Results, **attempts: int) -> Submitter:
    scheduler = Slurm()
    code = Code("c0ffee", True, "d" * 12, None, str(results.path))
    return Submitter(results, Path("data"), scheduler, scheduler.cluster(), CONFIGS, attempts, code)


def submit(results: Results, runs: tuple[str, ...] = RUNS, first: int = 0, **options: object) -> list[Submission]:
    return submitter(results).submit(Order("one", runs, SlurmOptions(**options), first))


def died(submission: Submission) -> None:
    """The process that made a submission is gone."""
    request = read_json(submission.directory.request) or {}
    request["by"] = {**this_process(), "start": "0"}
    write_json(submission.directory.request, request)


def left_in(results: Results) -> list[str]:
    """Names of the submissions there are records of."""
    return [one.name for one in directories(results)]


# Well -------------------------------------------------------------------------------------------------------


def test_what_was_submitted_is_what_slurm_has(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, runs_per_job=2, array_parallelism=2, partition="urgent", mem="2G")
    ((array, about),) = fake.arrays.items()
    assert submission.state.job_id == array
    assert about["name"] == submission.name == submission.directory.name
    assert about["throttle"] == 2
    assert (about["asked"]["partition"], about["asked"]["mem"]) == ("urgent", "2G")
    assert len(about["tasks"]) == 3
    assert about["script"] == (submission.directory.path / "submission.sh").read_text()
    assert [job.phase for job in submission.state.jobs] == ["pending"] * 3


def test_a_job_finds_all_it_needs_in_its_submissions_folder(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, RUNS[:3], runs_per_job=2)
    request = read_json(submission.directory.request) or {}
    assert request["jobs"] == [list(RUNS[:2]), [RUNS[2]]]
    assert request["data_dir"] == str(Path("data").absolute())
    assert (request["cluster"], request["scheduler"]) == ("fake", "slurm")
    assert request["code"]["digest"] == "d" * 12
    configs = read_json(submission.directory.configs) or {}
    assert {id_: RunConfig.model_validate(config) for id_, config in configs.items()} == {
        id_: CONFIGS[id_] for id_ in RUNS[:3]
    }
    loaded = load(submission.directory)
    assert loaded is not None and loaded.state == submission.state


def test_nothing_of_submitit_is_left_but_the_script(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results)
    there = {path.name for path in submission.directory.path.iterdir()}
    assert there == {"request.json", "configs.json", "state.json", "submission.sh"}


def test_an_order_beyond_the_clusters_largest_array_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSlurm.installed(tmp_path / "fake", monkeypatch, max_array_size=4)
    submitted = submit(Results(tmp_path / "results"))
    assert [len(about["tasks"]) for about in fake.arrays.values()] == [3, 3]
    assert [run for one in submitted for run in one.request.runs] == list(RUNS)


def test_the_first_runs_are_an_array_that_the_others_depend_on(fake: FakeSlurm, results: Results) -> None:
    first, rest = submit(results, first=2)
    asked = fake.arrays[rest.state.job_id or ""]["asked"]
    assert asked["dependency"] == f"afterok:{first.state.job_id}"
    assert asked["kill-on-invalid-dep"] == "yes"
    assert "dependency" not in fake.arrays[first.state.job_id or ""]["asked"]


def test_a_later_submission_waits_for_the_places_of_an_earlier_one(fake: FakeSlurm, results: Results) -> None:
    (earlier,) = submit(results, RUNS[:3], array_parallelism=2)
    (later,) = submit(results, RUNS[3:], array_parallelism=2)
    asked = fake.arrays[later.state.job_id or ""]["asked"]
    assert asked["dependency"] == f"afterany:{earlier.state.job_id}"
    assert "kill-on-invalid-dep" not in asked


def test_attempts_made_before_are_remembered(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submitter(results, **{RUNS[0]: 3}).submit(Order("one", RUNS[:2], SlurmOptions()))
    assert submission.request.attempts == {RUNS[0]: 3}


def test_a_mark_that_called_a_run_off_does_not_outlive_its_submission(fake: FakeSlurm, results: Results) -> None:
    mark = results.run(RUNS[0]).cancel
    mark.parent.mkdir(parents=True)
    mark.touch()
    submit(results, RUNS[:1])
    assert not mark.exists()


def test_what_slurm_gave_the_process_that_submits_is_not_handed_on(
    fake: FakeSlurm, results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "5")
    monkeypatch.setenv("SBATCH_PARTITION", "nowhere")
    monkeypatch.setenv("SLURM_CONF", "/etc/its.conf")
    program = fake.folder / "bin" / "sbatch"
    program.write_text(program.read_text().replace("exec", f'env > "{fake.folder}/env"\nexec'))
    submit(results, RUNS[:1])
    given = (fake.folder / "env").read_text().splitlines()
    assert "SLURM_CONF=/etc/its.conf" in given
    assert not [line for line in given if line.startswith("SLURM_JOB_ID=")]
    assert os.environ["SLURM_JOB_ID"] == "5"


# No run twice -----------------------------------------------------------------------------------------------


def test_runs_that_are_at_a_job_finished_or_at_a_process_are_left_out(fake: FakeSlurm, results: Results) -> None:
    submit(results, RUNS[:1])
    write_json(results.run(RUNS[1]).result, {"steps": 1})
    results.run(RUNS[2]).path.mkdir()
    with locked(results.run(RUNS[2])):
        (submission,) = submit(results)
    assert submission.request.runs == list(RUNS[3:])


def test_where_nothing_is_left_to_submit_slurm_is_not_bothered(fake: FakeSlurm, results: Results) -> None:
    submit(results)
    assert submit(results) == []
    assert fake.count()["sbatch"] == 1


def test_a_run_whose_job_is_over_can_be_submitted_again(fake: FakeSlurm, results: Results) -> None:
    (submission,) = submit(results, RUNS[:1])
    fake.end(f"{submission.state.job_id}_0", "NODE_FAIL")
    reconcile(results, Slurm())
    (again,) = submit(results, RUNS[:1])
    assert again.name != submission.name


def test_a_run_that_failed_in_a_job_that_goes_on_with_others_can_be_submitted_again(
    fake: FakeSlurm, results: Results
) -> None:
    (submission,) = submit(results, RUNS[:2], runs_per_job=2)
    fails(lab_at(results.path), RUNS[0], "user-error", job=f"{submission.state.job_id}_0")
    (again,) = submit(results, RUNS[:2])
    assert again.request.runs == [RUNS[0]]


@pytest.mark.parametrize("cause", ["timeout", "preempted", "node-failure", "killed"])
def test_a_run_that_its_job_takes_up_again_is_not_submitted_again(
    fake: FakeSlurm, results: Results, cause: str
) -> None:
    (submission,) = submit(results, RUNS[:1])
    fails(lab_at(results.path), RUNS[0], cause, job=f"{submission.state.job_id}_0")
    assert submit(results, RUNS[:1]) == []


def test_of_many_that_submit_at_once_one_gets_each_run(fake: FakeSlurm, results: Results) -> None:
    forks = multiprocessing.get_context("fork")
    processes = [forks.Process(target=submit, args=(results, runs)) for runs in (RUNS, RUNS[::-1], RUNS[2:])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    submitted = [run for one in live_submissions(results) for run in one.request.runs]
    assert sorted(submitted) == sorted(RUNS)
    assert set(claimed_runs(live_submissions(results))) == set(RUNS)
    assert sum(len(about["tasks"]) for about in fake.arrays.values()) == len(RUNS)


# What fails -------------------------------------------------------------------------------------------------


def test_a_refusal_leaves_nothing_behind_and_says_what_slurm_said(fake: FakeSlurm, results: Results) -> None:
    with pytest.raises(SchedulerError, match=r"^SLURM refused the jobs: .*Invalid partition name specified$"):
        submit(results, partition="nowhere")
    assert left_in(results) == []
    assert submit(results) != []


def test_an_array_beyond_the_limit_is_refused_and_leaves_nothing(fake: FakeSlurm, results: Results) -> None:
    one = submitter(results)
    one.cluster = replace(one.cluster, largest_array=5000)
    configs = {f"{n:012x}": CONFIGS[RUNS[0]] for n in range(1002)}
    one.configs = configs
    with pytest.raises(SchedulerError, match="Invalid job array specification"):
        one.submit(Order("one", tuple(configs), SlurmOptions()))
    assert left_in(results) == []


def test_a_controller_that_dies_between_two_arrays_keeps_the_first_and_the_next_command_goes_on(
    fake: FakeSlurm, results: Results
) -> None:
    fake.break_controller_after("sbatch", 1)
    with pytest.raises(SchedulerError, match="is not known; the next command looks"):
        submit(results, first=2)
    fake.break_controller(False)
    first, unknown = sorted(live_submissions(results), key=lambda one: one.state.job_id is None)
    assert first.state.job_id in fake.arrays
    assert first.request.runs == list(RUNS[:2])
    assert unknown.state.job_id is None
    died(unknown)
    reconcile(results, Slurm(), lambda: 0.0)
    reconcile(results, Slurm(), lambda: 1000.0)
    (rest,) = submit(results)
    assert rest.request.runs == list(RUNS[2:])


def test_jobs_that_slurm_took_though_its_answer_was_lost_are_known_all_the_same(
    fake: FakeSlurm, results: Results
) -> None:
    fake.lose_answers()
    (submission,) = submit(results)
    assert [submission.state.job_id] == list(fake.arrays)
    assert len(live_submissions(results)) == 1


def test_jobs_that_slurm_took_before_it_died_are_adopted_by_the_next_command(fake: FakeSlurm, results: Results) -> None:
    fake.lose_answers()
    fake.break_controller_after("squeue", 0)
    with pytest.raises(SchedulerError, match="is not known; the next command looks"):
        submit(results)
    fake.break_controller(False)
    fake.lose_answers(False)
    assert submit(results) == [], "they may be there"
    news = reconcile(results, Slurm())
    (array,) = fake.arrays
    assert news.notes[0].endswith(f"were submitted, not recorded; adopted as {array}.")
    assert [one.state.job_id for one in live_submissions(results)] == [array]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_submitter_killed_around_sbatch_leaves_jobs_to_adopt_or_runs_that_come_free(
    fake: FakeSlurm, results: Results, moment: str
) -> None:
    kill = f"kill -9 {'$PPID'}\n"
    program = fake.folder / "bin" / "sbatch"
    real = program.read_text()
    command = real.splitlines()[1].removeprefix("exec ")
    program.write_text("#!/bin/sh\n" + (kill if moment == "before" else f"{command}\n{kill}"))
    process = multiprocessing.get_context("fork").Process(target=submit, args=(results,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    program.write_text(real)
    assert submit(results) == []
    reconcile(results, Slurm(), lambda: 0.0)
    assert (live_submissions(results)[0].state.job_id is None) == (moment == "before")
    reconcile(results, Slurm(), lambda: 1000.0)
    again = submit(results)
    assert [one.request.runs for one in again] == ([list(RUNS)] if moment == "before" else [])
    assert sum(len(about["tasks"]) for about in fake.arrays.values()) == len(RUNS)


@pytest.mark.parametrize("program", ["sbatch", "srun"])
def test_where_one_of_slurms_programs_is_missing_that_is_said_and_nothing_is_left(
    fake: FakeSlurm, results: Results, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    one = submitter(results)
    (fake.folder / "bin" / program).unlink()
    monkeypatch.setenv("PATH", str(fake.folder / "bin"))  # wherever another SLURM may be
    monkeypatch.setattr(Slurm, "queue", lambda self, names: [])
    with pytest.raises(SchedulerError, match=program):
        one.submit(Order("one", RUNS, SlurmOptions()))
    assert left_in(results) == []


def test_an_answer_that_makes_no_sense_is_an_error_and_the_jobs_are_looked_for(
    fake: FakeSlurm, results: Results
) -> None:
    program = fake.folder / "bin" / "sbatch"
    silent = program.read_text().replace("exec ", "").replace('"$@"', '"$@" > /dev/null')
    program.write_text(f"{silent}echo hello\n")
    (submission,) = submit(results)
    assert [submission.state.job_id] == list(fake.arrays)
