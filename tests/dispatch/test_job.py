"""What runs in a job: which of its runs it makes, how it takes signals, and, for real, runs that share a job."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from submitit.slurm.slurm import SlurmJobEnvironment

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch import job as job_module
from itopctl.dispatch.job import MAX_TIMEOUTS, JobProcess
from itopctl.dispatch.pool import Outcome
from itopctl.dispatch.reconcile import reconcile
from itopctl.dispatch.slurm import Slurm
from itopctl.dispatch.snapshot import Code, take
from itopctl.dispatch.submitter import Order, Submitter
from itopctl.store.checkpoints import checkpoints
from itopctl.store.files import read_json, write_json
from itopctl.store.journal import attempts_in, read_journal
from itopctl.store.locks import locked
from itopctl.store.rundir import Results
from itopctl.store.submissions import Submission
from tests.dispatch.fake_slurm import FakeSlurm, RunningJob
from tests.dispatch.told import fails, lab_at
from tests.helpers import run_config

CONFIGS: dict[str, RunConfig] = {run_id(config): config for config in (run_config(seed=n) for n in range(4))}
RUNS = tuple(CONFIGS)


class Place:
    """A results folder with one submission of one job, at a pretended SLURM."""

    def __init__(self, folder: Path, fake: FakeSlurm) -> None:
        self.fake, self.folder = fake, folder
        self.results = Results(folder / "my results")
        self.results.runs.mkdir(parents=True)
        self.submission: Submission | None = None

    def submit(self, runs: tuple[str, ...] = RUNS, configs: dict[str, RunConfig] = CONFIGS, **options: Any) -> str:
        """Submit one job with all these runs; returns its id."""
        code = take(self.results, self.folder, self.folder / "data", (), copy=False)
        options = {"runs_per_job": len(runs), "cpus_per_task": 2, **options}
        slurm = Slurm()
        submitter = Submitter(self.results, self.folder / "data", slurm, slurm.cluster(), configs, {}, code)
        (self.submission,) = submitter.submit(Order("one", runs, SlurmOptions(**options)))
        return self.submission.id_of(0) or ""

    def process(self, monkeypatch: pytest.MonkeyPatch, job: str, restarts: int = 0) -> JobProcess:
        """The job's process, here."""
        array, _, index = job.partition("_")
        for name, value in {
            "SLURM_JOB_ID": array, "SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index, "SLURM_NTASKS": "1",
            "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_RESTART_COUNT": str(restarts),
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        assert self.submission is not None
        return JobProcess(self.submission.directory, SlurmJobEnvironment())

    def attempts(self, id_: str) -> list[tuple[str | None, str | None]]:
        """Job and cause of each attempt at a run."""
        return [(one.job_id, one.cause) for one in attempts_in(self.results.run(id_).journal)]

    def printed(self) -> str:
        """What the processes of all jobs printed."""
        assert self.submission is not None
        return "".join(path.read_text() for path in sorted(self.submission.directory.path.glob("*_log.*")))


@pytest.fixture
def place(fake: FakeSlurm, tmp_path: Path, local_disk: None) -> Place:
    return Place(tmp_path / "a place", fake)


# Which runs -------------------------------------------------------------------------------------------------


def test_a_job_learns_from_its_folder_and_from_slurm_what_it_is_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submit(runs_per_job=3)
    assert place.process(monkeypatch, job).runs == RUNS[:3]
    second = place.process(monkeypatch, job.replace("_0", "_1"), restarts=2)
    assert (second.runs, second.job_id, second.start) == (RUNS[3:], job.replace("_0", "_1"), 2)
    assert second.configs == {RUNS[3]: CONFIGS[RUNS[3]]}


def test_a_run_that_is_finished_called_off_or_given_up_is_not_made(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = place.submit()
    write_json(place.results.run(RUNS[0]).result, {"steps": 1})
    place.results.run(RUNS[1]).path.mkdir()
    place.results.run(RUNS[1]).cancel.touch()
    fails(lab_at(place.results.path), RUNS[2], "user-error", job=job)
    assert place.process(monkeypatch, job)._runs_to_make() == [RUNS[3]]


@pytest.mark.parametrize("cause", ["timeout", "preempted", "node-failure", "killed"])
def test_another_start_goes_on_with_what_the_last_one_could_not_help(
    place: Place, monkeypatch: pytest.MonkeyPatch, cause: str
) -> None:
    job = place.submit(RUNS[:2])
    fails(lab_at(place.results.path), RUNS[0], cause, job=job)
    assert place.process(monkeypatch, job, 1)._runs_to_make() == [*RUNS[:2]]


def test_what_another_job_said_of_a_run_does_not_bind_this_one(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    job = place.submit(RUNS[:1])
    fails(lab_at(place.results.path), RUNS[0], "user-error", job="90_0")
    assert place.process(monkeypatch, job)._runs_to_make() == [RUNS[0]]


@pytest.mark.parametrize(("most", "allowed"), [(None, MAX_TIMEOUTS), (0, 0), (2, 2)])
def test_a_run_may_reach_the_time_limit_so_often_and_no_more(
    place: Place, monkeypatch: pytest.MonkeyPatch, most: int | None, allowed: int
) -> None:
    job = place.submit(RUNS[:1], max_timeouts=most)
    lab = lab_at(place.results.path)
    for _ in range(allowed):
        fails(lab, RUNS[0], "timeout", job=job)
        fails(lab, RUNS[0], "preempted", job=job)
        fails(lab, RUNS[0], "timeout", job="90_0")
    assert place.process(monkeypatch, job, 9)._runs_to_make() == [RUNS[0]]
    fails(lab, RUNS[0], "timeout", job=job)
    assert place.process(monkeypatch, job, 9)._runs_to_make() == []


# Places for workers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "gpus", "slots"),
    [
        ({}, "", [(2, None)]),
        ({"cpus_per_task": 6, "runs_per_gpu": 3}, "", [(2, None)] * 3),
        ({"cpus_per_task": 1, "runs_per_gpu": 3}, "", [(1, None)] * 3),
        ({"cpus_per_task": 8, "gpus_per_node": 2}, "0,3", [(4, "0"), (4, "3")]),
        ({"cpus_per_task": 8, "gpus_per_node": 2, "runs_per_gpu": 2}, "0,3", [(2, "0"), (2, "3")] * 2),
        ({"cpus_per_task": 4, "gpus_per_node": 1}, "", [(4, None)]),
        ({"cpus_per_task": 4}, "0,1", [(4, None)]),
    ],
)
def test_a_job_has_a_place_for_each_run_that_goes_at_one_time(
    place: Place, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], gpus: str, slots: list[tuple[int, str]]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    process = place.process(monkeypatch, place.submit(**options))
    assert [(slot.threads, slot.gpu) for slot in process._slots()] == slots


def test_where_no_cores_were_asked_for_the_job_has_what_slurm_gave_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = place.process(monkeypatch, place.submit(cpus_per_task=None))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "12")
    assert [slot.threads for slot in process._slots()] == [12]


# Signals ----------------------------------------------------------------------------------------------------

USR2, TERM = signal.SIGUSR2, signal.SIGTERM
HOUR = {"TimeLimit": "01:00:00", "RunTime": "00:10:00"}


@pytest.mark.parametrize(
    ("number", "shown", "cause", "goes_on"),
    [
        (USR2, {"TimeLimit": "01:00:00", "RunTime": "00:58:30"}, "timeout", True),
        (USR2, {"TimeLimit": "01:00:00", "RunTime": "00:57:30"}, "timeout", True),
        (USR2, {"TimeLimit": "UNLIMITED"}, "timeout", True),
        (TERM, {**HOUR, "PreemptTime": "2026-01-01T00:00:00"}, "preempted", True),
        (TERM, {**HOUR, "JobState": "PENDING", "Restarts": 1}, "preempted", False),
        (TERM, {**HOUR, "JobState": "COMPLETING", "Restarts": 1}, "preempted", False),
        (TERM, {**HOUR, "JobState": "CANCELLED"}, "cancelled", False),
        (TERM, {**HOUR, "JobState": "COMPLETING"}, "cancelled", False),
        (TERM, {"TimeLimit": "01:00:00", "RunTime": "01:00:05"}, "timeout", False),
        (TERM, {**HOUR, "JobState": "TIMEOUT"}, "timeout", False),
    ],
)  # fmt: skip
def test_a_signal_means_what_slurm_says_of_the_job(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, shown: dict[str, Any], cause: str,
    goes_on: bool,
) -> None:  # fmt: skip
    job = place.submit(timeout_min=60)
    place.fake.start(job)
    place.fake.show(job, **{"JobState": "RUNNING", "Restarts": 0, "PreemptTime": "None", **shown})
    process = place.process(monkeypatch, job)
    said, why = process._reason(number)
    assert (said, process.to_requeue) == (cause, goes_on)
    assert why.startswith(f"job {job} was told to end ({number.name})")


@pytest.mark.parametrize(("number", "cause", "goes_on"), [(USR2, "timeout", True), (TERM, "preempted", False)])
def test_where_slurm_does_not_answer_the_signal_itself_has_to_do(
    place: Place, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, cause: str, goes_on: bool
) -> None:
    process = place.process(monkeypatch, place.submit())
    place.fake.break_controller()
    assert process._reason(number)[0] == cause
    assert process.to_requeue == goes_on


class PretendedPool:
    """Makes runs end as it is told, without any worker."""

    ends: dict[str, str]

    def __init__(self, results: Results, *_: Any) -> None:
        self.results, self.told = results, None

    def stop(self, why: Any) -> None:
        self.told = why

    def run(self, runs: list[str]) -> Outcome:
        outcome = Outcome()
        for id_ in runs:
            outcome.states[id_] = self.ends.get(id_, "done")
            if outcome.states[id_] == "done":
                write_json(self.results.run(id_).result, {})
        return outcome


@pytest.mark.parametrize(
    ("ends", "code"),
    [({}, 0), ({RUNS[1]: "failed"}, 1), ({RUNS[1]: "cancelled"}, 1), ({RUNS[1]: "elsewhere"}, 0)],
)
def test_a_job_ends_well_where_all_its_runs_do_or_somebody_else_has_them(
    place: Place, monkeypatch: pytest.MonkeyPatch, ends: dict[str, str], code: int
) -> None:
    process = place.process(monkeypatch, place.submit(RUNS[:3]))
    write_json(place.results.run(RUNS[2]).result, {})
    pretended = type("P", (PretendedPool,), {"ends": ends})
    monkeypatch.setattr(job_module, "Pool", pretended)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert process.run() == code


def test_a_job_whose_runs_are_all_done_already_ends_well_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = place.process(monkeypatch, place.submit(RUNS[:2]))
    for id_ in RUNS[:2]:
        write_json(place.results.run(id_).result, {})
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert process.run() == 0
    assert "0 of 2 runs to make" in capsys.readouterr().out


@pytest.mark.parametrize(("to_requeue", "left", "asks"), [(True, True, 1), (True, False, 0), (False, True, 0)])
def test_another_start_is_asked_for_where_one_is_wanted_and_something_is_left(
    place: Place, monkeypatch: pytest.MonkeyPatch, to_requeue: bool, left: bool, asks: int
) -> None:
    job = place.submit(RUNS[:1])
    process = place.process(monkeypatch, job)
    process.to_requeue = to_requeue
    pretended = type("P", (PretendedPool,), {"ends": {RUNS[0]: "cancelled" if left else "done"}})
    monkeypatch.setattr(job_module, "Pool", pretended)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    place.fake.start(job)
    process.run()
    assert len([call for call in place.fake.calls("scontrol") if call[1] == "requeue"]) == asks


def test_code_that_changed_since_it_was_submitted_is_told_of_and_recorded(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    process = place.process(monkeypatch, place.submit())
    here = Code("c0ffee", True, "b" * 12, None, "/w")
    monkeypatch.setattr(job_module, "code_here", lambda *_: here)
    then = process.request.code["digest"]
    assert process._code() == {**here.of_attempt(), "submitted_code": then}
    assert f"the code has changed since it was submitted: {then} then, {'b' * 12} now" in capsys.readouterr().out
    process.request.code["digest"] = "b" * 12
    assert process._code() == here.of_attempt()


# For real ---------------------------------------------------------------------------------------------------


def wait_until(true: Callable[[], Any], running: RunningJob) -> None:
    until = time.monotonic() + 90
    while not true():
        assert time.monotonic() < until
        assert running.process.poll() is None
        time.sleep(0.05)


def test_runs_share_a_job_and_go_at_one_time_and_what_is_not_theirs_is_left(place: Place) -> None:
    job = place.submit(runs_per_gpu=2, cpus_per_task=2)
    write_json(place.results.run(RUNS[0]).result, {"run_id": RUNS[0], "steps": 1})
    place.results.run(RUNS[3]).path.mkdir()
    with locked(place.results.run(RUNS[3])):
        assert place.fake.run(job) == 0, place.printed()
    assert read_json(place.results.run(RUNS[0]).result) == {"run_id": RUNS[0], "steps": 1}
    for id_ in RUNS[1:3]:
        assert place.attempts(id_) == [(job, "finished")]
        (started, *_) = read_journal(place.results.run(id_).journal).events
        assert (started["scheduler"], started["threads"]) == ("slurm", 1)
        assert started["code"] == place.submission.request.code["digest"]  # type: ignore[union-attr]
        assert not place.results.run(id_).lock.exists()
    assert place.attempts(RUNS[3]) == []
    pids = {json.loads(place.results.run(id_).journal.read_text().splitlines()[0])["pid"] for id_ in RUNS[1:3]}
    assert len(pids) == 2
    assert f"run {RUNS[3]} elsewhere" in place.printed()
    reconcile(place.results, Slurm())
    lab = lab_at(place.results.path)
    assert [lab.row(id_)["state"] for id_ in RUNS[1:3]] == ["done", "done"]


LONG = run_config(epochs=4000, update_interval=50)


def test_a_job_whose_time_is_nearly_up_saves_its_run_asks_for_another_start_and_goes_on_from_there(
    place: Place,
) -> None:
    id_ = run_id(LONG)
    job = place.submit((id_,), {id_: LONG}, timeout_min=1)
    run = place.results.run(id_)
    place.fake.show(job, TimeLimit="00:01:00", RunTime="00:00:40", JobState="RUNNING", Restarts=0)
    running = place.fake.launch(job)
    wait_until(lambda: run.journal.exists() and "evaluated" in run.journal.read_text(), running)
    running.send(signal.SIGUSR2)
    running.wait()
    assert place.fake.word(job) == "PENDING"
    assert place.attempts(id_) == [(job, "timeout")]
    assert checkpoints(run) and not run.lock.exists() and not run.result.exists()
    stopped_at = read_journal(run.journal).events[-1]["step"]
    reconcile(place.results, Slurm())
    assert lab_at(place.results.path).row(id_)["state"] == "pending"

    running = place.fake.launch(job)
    wait_until(lambda: len(attempts_in(run.journal)) == 2, running)
    started = [event for event in read_journal(run.journal).events if event["event"] == "started"][1]
    assert started["step"] == stopped_at > 0
    place.fake.show(job, JobState="CANCELLED", Restarts=1)
    wait_until(lambda: '"evaluated"' in run.journal.read_text().rpartition('"started"')[2], running)
    running.send(signal.SIGTERM)
    assert running.wait() == 1
    assert place.attempts(id_) == [(job, "timeout"), (job, "cancelled")]
    assert len([call for call in place.fake.calls("scontrol") if call[1] == "requeue"]) == 1
    reconcile(place.results, Slurm())
    assert lab_at(place.results.path).row(id_)["state"] == "queued"
