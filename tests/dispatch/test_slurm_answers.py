"""What SLURM's commands print, and what a site's banners, headings and own commands add to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch import submitter as submitting
from itopctl.dispatch.cancellation import carry_out, plan_cancellation
from itopctl.dispatch.probe import probe
from itopctl.dispatch.reconcile import reconcile
from itopctl.dispatch.scheduler import SchedulerError, SeenJob
from itopctl.dispatch.script import submit_script
from itopctl.dispatch.slurm import Slurm, environment, submitted_id
from itopctl.dispatch.snapshot import Code
from itopctl.store.rundir import Results
from itopctl.store.submissions import live_submissions
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.test_submitter import RUNS, left_in, submit

BANNER = """--> Checking limits: this is job 3 of 50 ... OK
NOTE: the words "Submitted batch job 5" mean that all is well.
CLUSTER: fake
Jobs = 7
3|0|RUNNING|None|my job
3_0|COMPLETED|0:0|2026-01-01T00:00:00|my job
3_0|FAILED
für die Aufträge
"""
"""What a site may print around any command, in an encoding of its own."""


@pytest.fixture
def results(tmp_path: Path, local_disk: None, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setattr(submitting, "_SECOND_LOOKS", (0.0, 0.0))
    made = Results(tmp_path / "my results")
    made.runs.mkdir(parents=True)
    return made


# Single answers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "job_id"),
    [
        ("Submitted batch job 123\n", "123"),
        ("Submitted batch job 123 on cluster north\n", "123"),
        (f"{BANNER}Submitted batch job 123\r\n{BANNER}", "123"),
        (f"Submitted batch job 123\n{BANNER}Submitted batch job 123\n", "123"),
        ("Submitted batch job 5\nSubmitted batch job 123\n", None),
        ("Submitted batch job 123+1\n", None),
        (BANNER, None),
        ("Auftrag 123 übermittelt\n", None),
        ("123\n", None),
        ("", None),
    ],
)
def test_the_id_is_what_a_whole_line_of_sbatch_says_and_only_if_one_is_said(answer: str, job_id: str | None) -> None:
    assert submitted_id(answer) == job_id


def says(fake: FakeSlurm, command: str, text: str) -> None:
    """A command prints something, whatever it is asked."""
    (fake.folder / "bin" / command).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")


@pytest.mark.parametrize(
    ("shown", "places"),
    [
        ("100_4", [4]),
        ("100_[3,5-7%2]", [3, 5, 6, 7]),
        ("100_[0-20:4]", [0, 4, 8, 12, 16, 20]),
        ("100_[0-8:4,9%1]", [0, 4, 8, 9]),
        ("100_[0,2,48,51,54,...]", [0, 2, 48, 51, 54]),
        ("100_[0,2,48,51,54...%4]", [0, 2, 48, 51]),
        ("100_4.batch", []),
        ("100_[3].extern", []),
        ("100+1", []),
        ("100", []),
        ("100_", []),
    ],
)
def test_sacct_ids_of_arrays_are_read_in_all_their_forms(fake: FakeSlurm, shown: str, places: list[int]) -> None:
    says(fake, "sacct", f"{shown}|PENDING|0:0|Unknown|x-1")
    assert Slurm().accounts(["x-1"], days=1) == [SeenJob("x-1", "100", i, "PENDING", None, "0:0") for i in places]


def test_slurm_is_told_not_to_cut_off_lists_whatever_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("0", "64"):
        monkeypatch.setenv("SLURM_BITSTR_LEN", value)
        assert environment()["SLURM_BITSTR_LEN"] == "0"


# Every command says more ------------------------------------------------------------------------------------


def test_banners_around_every_command_change_nothing(fake: FakeSlurm, results: Results) -> None:
    fake.wrap(before=BANNER, after=BANNER)
    assert Slurm().cluster().name == "fake"
    assert Slurm().version() == "slurm-wlm 22.05.8"
    assert {row["partition"] for row in Slurm().partitions()} == {"main*", "urgent"}
    first, rest = submit(results, RUNS[:3], first=1)
    assert [first.state.job_id, rest.state.job_id] == list(fake.arrays)
    array = first.state.job_id or ""
    assert fake.arrays[rest.state.job_id or ""]["asked"]["dependency"] == f"afterok:{array}"
    assert Slurm().words_of(rest.state.job_id or "") == ["PENDING"] * 2
    assert Slurm().queue([first.name]) == [SeenJob(first.name, array, 0, "PENDING", "Resources")]
    fake.start(f"{array}_0")
    assert [job.word for job in Slurm().accounts([first.name], days=1)] == ["RUNNING"]
    assert Slurm().own_job(f"{array}_0", 10).running
    assert reconcile(results, Slurm()).error is None
    ended = carry_out(results, plan_cancellation(results, RUNS[:2], Slurm().cluster), Slurm())
    assert (ended.gone, ended.certain) == (2, True)
    assert [fake.word(f"{rest.state.job_id}_{index}") for index in (0, 1)] == ["CANCELLED", "PENDING"]


def test_a_refusal_behind_a_banner_is_said_in_slurms_words(fake: FakeSlurm, results: Results) -> None:
    fake.wrap("sbatch", before="Welcome to job 3.\n" * 50)
    with pytest.raises(SchedulerError, match=r"^SLURM refused the jobs: .*Invalid partition name specified$"):
        submit(results, partition="nowhere")
    assert left_in(results) == []


# Whether the jobs are there ---------------------------------------------------------------------------------


def test_the_queue_decides_which_id_the_jobs_have_whatever_sbatch_says(fake: FakeSlurm, results: Results) -> None:
    fake.wrap("sbatch", before="Submitted batch job 7\n", after="Submitted batch job 7\n")
    (submission,) = submit(results, RUNS[:2])
    assert [submission.state.job_id] == list(fake.arrays)


def test_jobs_of_an_sbatch_that_fails_afterwards_are_known(fake: FakeSlurm, results: Results) -> None:
    fake.wrap("sbatch", after="sbatch: error: the accounting of this site is down\n", code="1")
    (submission,) = submit(results, RUNS[:2])
    assert [submission.state.job_id] == list(fake.arrays)


def test_jobs_whose_id_cannot_be_checked_are_adopted_by_the_next_command(fake: FakeSlurm, results: Results) -> None:
    fake.break_controller_after("squeue", 0)
    (submission,) = submit(results, RUNS[:2])
    assert submission.state.job_id is None
    fake.break_controller(False)
    assert submit(results, RUNS[:2]) == [], "they are there"
    news = reconcile(results, Slurm())
    (array,) = fake.arrays
    assert news.notes == [f"Jobs named {submission.name} were submitted, not recorded; adopted as {array}."]


def test_jobs_that_are_to_wait_for_jobs_of_no_known_id_are_not_submitted(fake: FakeSlurm, results: Results) -> None:
    fake.break_controller_after("squeue", 0)
    with pytest.raises(SchedulerError, match="the other jobs are to wait for them"):
        submit(results, first=2)
    assert [sorted(one.live_runs) for one in live_submissions(results)] == [sorted(RUNS[:2])]
    assert fake.count()["sbatch"] == 1


@pytest.mark.parametrize("says_so", [True, False])
def test_an_sbatch_that_submits_nothing_is_believed_for_some_minutes_and_the_runs_come_free(
    fake: FakeSlurm, results: Results, says_so: bool
) -> None:
    says(fake, "sbatch", "Submitted batch job 7" if says_so else "Your job is kept for tonight.")
    if says_so:
        assert [one.state.job_id for one in submit(results, RUNS[:2])] == [None]
    else:
        with pytest.raises(SchedulerError, match=r"Your job is kept for tonight.*the next command looks\.$"):
            submit(results, RUNS[:2])
    assert len(live_submissions(results)) == 1
    assert reconcile(results, Slurm(), lambda: 0.0).live, "it may come"
    assert reconcile(results, Slurm(), lambda: 100.0).live
    assert not reconcile(results, Slurm(), lambda: 300.0).live


def test_a_question_whose_answer_was_late_keeps_the_record(fake: FakeSlurm, results: Results) -> None:
    program = fake.folder / "bin" / "sbatch"
    program.write_text("#!/bin/sh\necho 'sbatch: error: Batch job submission failed: Socket timed out' >&2\nexit 1\n")
    with pytest.raises(SchedulerError, match="is not known; the next command looks"):
        submit(results, RUNS[:2])
    assert len(live_submissions(results)) == 1


def test_a_probe_that_gives_up_ends_its_own_job_alone(fake: FakeSlurm, results: Results) -> None:
    folder = results.path / "mine"
    folder.mkdir()
    mine = submit_script(folder, "#!/bin/bash\n#SBATCH --job-name=mine\n#SBATCH --array=0-0\n")
    fake.wrap("sbatch", before=f"Submitted batch job {mine}\n")
    code = Code(None, None, "d" * 12, None, str(results.path))
    answer = probe(results, Slurm(), SlurmOptions(), code, results.path, [], lambda word: False)
    assert answer.seen is None
    assert fake.word(f"{mine}_0") == "PENDING"
    (own,) = set(fake.arrays) - {mine}
    assert fake.word(f"{own}_0") == "CANCELLED"


def test_a_job_of_another_user_is_none_of_ours(fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    assert Slurm().cluster().user == "54321"
