"""`status`, `cancel`, `logs` and `doctor`, over a pretended SLURM: what they say, and how they end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from itopctl.api.cluster import Patience
from itopctl.store.submissions import live_submissions
from tests.cli.desk import BASE, Desk, Done
from tests.cli.test_terminal import Terminal
from tests.dispatch.told import begins, files_of, finishes, lab_at
from tests.helpers import write_spec

# Looking ----------------------------------------------------------------------------------------------------


def test_status_asks_the_cluster_and_shows_what_waits_runs_and_ended(desk: Desk) -> None:
    array = desk.submit()
    lab, runs = lab_at(desk.results.path), desk.runs
    desk.fake.start(f"{array}_0")
    begins(lab, runs[0], f"{array}_0")
    desk.fake.end(f"{array}_1", "NODE_FAIL")
    assert list(desk.states().values()) == ["running", "pending", "pending"], "nobody has asked SLURM yet"
    desk.fake.forget_calls()
    done = desk("status", "--json")
    (summary,) = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert {state: summary[state] for state in ("running", "pending", "failed", "total")} == {
        "running": 1, "pending": 1, "failed": 1, "total": 3,
    }  # fmt: skip
    assert desk.fake.count() == {"squeue": 1, "scontrol": 1}


def test_a_scheduler_that_does_not_answer_is_reported_and_changes_nothing(desk: Desk) -> None:
    desk.submit()
    desk("status")
    desk.fake.break_controller()
    before = files_of(desk.results.path)
    done = desk("status")
    assert done.code == 3
    assert "Unable to contact slurm controller" in done.err
    assert "What is shown of jobs is what was known before." in done.err
    assert "trial" in done.out
    assert files_of(desk.results.path) == before
    assert set(desk.states().values()) == {"pending"}


def test_where_nothing_is_at_a_cluster_status_asks_nobody(desk: Desk) -> None:
    array = desk.submit()
    for job, run in zip(desk.fake.jobs(array), desk.runs, strict=True):
        finishes(lab_at(desk.results.path), run, job)
        desk.fake.end(job)
    assert desk("status").code == 0
    desk.fake.forget_calls()
    desk.fake.break_controller()
    assert desk("status").code == 0
    assert desk.fake.count() == {}


def test_patience_grows_while_nothing_changes_and_begins_anew_when_something_does() -> None:
    patience = Patience(2.0, 10.0)
    waits = [patience.after(False) for _ in range(6)]
    assert waits == sorted(waits) and waits[0] == 3.0 and waits[-1] == 10.0
    assert patience.after(True) == 2.0
    assert patience.after(False) == 3.0


def test_patience_asks_a_cluster_at_most_every_other_minute_in_the_end() -> None:
    patience = Patience()
    hour, looks = 0.0, 0
    while hour < 3600:
        hour += patience.after(False)
        looks += 1
    assert looks < 45


# Cancelling -------------------------------------------------------------------------------------------------


def test_cancelling_needs_yes_where_nobody_can_be_asked(desk: Desk) -> None:
    array = desk.submit()
    done = desk("cancel", "trial")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "itopctl: this would cancel 3 runs (3 jobs of the cluster); give --yes to do it without being asked.\n"
    )
    assert {desk.fake.word(job) for job in desk.fake.jobs(array)} == {"PENDING"}


def test_cancelling_ends_jobs_and_the_runs_are_queued_again(desk: Desk) -> None:
    array = desk.submit()
    desk.fake.start(f"{array}_0")
    done = desk("cancel", "trial", "--yes")
    assert done.code == 0
    assert done.out == (
        "Cancelled 3 runs (3 jobs of the cluster). What runs stops after its present step.\n"
        f"scancel was told to end 3 jobs ({array}_[0-2]) and accepted all.\n"
    )
    assert {desk.fake.word(job) for job in desk.fake.jobs(array)} == {"CANCELLED"}
    assert set(desk.states().values()) == {"queued"}
    again = desk.submit()
    assert len(desk.fake.jobs(again)) == 3


def test_a_banner_that_speaks_of_jobs_changes_nothing_of_submitting_and_cancelling(desk: Desk) -> None:
    desk.fake.wrap("sbatch", before="--> Checking limits: this is job 3 of 50 ... OK\n")
    done = desk("sweep", desk.spec, "--cluster", "slurm", "--first", "1")
    first, rest = desk.fake.arrays
    assert f"Submitted 1 job as {first} " in done.out and f"Submitted 2 jobs as {rest} " in done.out
    assert desk.fake.arrays[rest]["asked"]["dependency"] == f"afterok:{first}"
    done = desk("cancel", "trial", "--yes")
    assert f"scancel was told to end 3 jobs ({first}_0, {rest}_[0-1]) and accepted all.\n" in done.out
    assert desk.fake.calls("scancel") == [["scancel", f"{first}_0", f"{rest}_0", f"{rest}_1"]]


def test_a_scancel_that_does_nothing_is_told_of_and_no_job_counts_as_cancelled(desk: Desk) -> None:
    array = desk.submit()
    (desk.fake.folder / "bin" / "scancel").write_text("#!/bin/sh\necho 'scancel: see your site manager'\n")
    done = desk("cancel", "trial", "--yes")
    assert (done.code, done.out) == (3, (
        "Marked 3 runs: a run that finds its mark stops, or does not start.\n"
        f"scancel was told to end 3 jobs ({array}_[0-2]) and accepted all.\n"
        f"Still there: {array}_[0-2] PENDING.\n"
    ))  # fmt: skip


def test_single_runs_can_be_cancelled(desk: Desk) -> None:
    array = desk.submit()
    run = desk.runs[1]
    done = desk("cancel", run[:8], "--yes")
    assert done.out.startswith("Cancelled 1 run (1 job of the cluster).")
    assert [desk.fake.word(job) for job in desk.fake.jobs(array)] == ["PENDING", "CANCELLED", "PENDING"]
    assert desk.states()[run] == "queued"


def test_where_there_is_nothing_to_cancel_that_is_said(desk: Desk) -> None:
    desk.submit()
    desk("cancel", "--yes")
    done = desk("cancel", "--yes")
    assert (done.code, done.out) == (0, "Nothing to cancel: none of these runs waits or runs.\n")


def test_a_name_that_is_neither_a_sweep_nor_a_run_is_refused(desk: Desk) -> None:
    desk.submit()
    done = desk("cancel", "trail", "--yes")
    assert done.code == 2
    assert done.err.startswith("itopctl: there is no sweep or run 'trail'. Did you mean 'trial'?")


def test_a_cluster_that_does_not_answer_when_runs_are_cancelled_is_an_error_and_nothing_is_done(desk: Desk) -> None:
    desk.submit()
    runs = desk.runs
    desk.fake.break_controller()
    done = desk("cancel", "--yes")
    assert done.code == 3
    assert "Unable to contact slurm controller" in done.err
    assert not any(desk.results.run(run).cancel.exists() for run in runs)  # whose they are could not be told


@pytest.mark.parametrize(("answer", "code", "word"), [("n", 1, "PENDING"), ("y", 0, "CANCELLED")])
def test_in_a_terminal_cancelling_asks_first(desk: Desk, answer: str, code: int, word: str) -> None:
    array = desk.submit()
    terminal = Terminal("cancel", "--results", desk.results.path)
    seen = terminal.read_until(lambda text: "[y/N]" in text)
    assert "Cancel 3 runs (3 jobs of the cluster)? [y/N]" in seen
    os.write(terminal.screen, f"{answer}\n".encode())
    assert terminal.end() == code
    assert ("Cancelled 3 runs" in terminal.seen) == (answer == "y")
    assert "Traceback" not in terminal.seen
    assert {desk.fake.word(job) for job in desk.fake.jobs(array)} == {word}


# Logs -------------------------------------------------------------------------------------------------------


def test_a_run_that_waits_has_no_log_yet(desk: Desk) -> None:
    array = desk.submit()
    run = desk.runs[0]
    done = desk("logs", run)
    assert done.code == 3
    assert done.err.startswith(f"itopctl: run {run} has not started yet: there is no log")
    done = desk("logs", "--job", run)
    assert (done.code, done.err) == (3, f"itopctl: job {array}_0 of run {run} has printed nothing yet.\n")


def test_what_a_job_printed_outside_of_runs_can_be_seen(desk: Desk) -> None:
    array = desk.submit()
    (submission,) = live_submissions(desk.results)
    (submission.directory.path / f"{array}_1_0_log.err").write_text("python: No module named itopctl")
    done = desk("logs", "--job", desk.runs[1])
    assert done.code == 0
    path = submission.directory.path.relative_to(desk.folder)
    assert done.out == f"--- {path}/{array}_1_0_log.err\npython: No module named itopctl\n"


def test_a_run_that_was_never_submitted_has_no_job(desk: Desk) -> None:
    desk("sweep", desk.spec, "--cluster", "slurm", "--slurm", "partition=nowhere")
    run = next(iter(desk.states()))
    done = desk("logs", "--job", run)
    assert (done.code, done.err) == (3, f"itopctl: run {run} was never submitted to a cluster.\n")
    assert desk("logs", "--follow", run).code == 3


def test_following_a_run_that_waits_shows_its_log_when_it_begins(desk: Desk) -> None:
    array = desk.submit()
    run = desk.runs[0]
    terminal = Terminal("logs", "--follow", run, "--results", desk.results.path)
    terminal.read_until(lambda text: f"run {run} waits; its log follows when it begins." in text)
    lab = lab_at(desk.results.path)
    directory, journal = begins(lab, run, f"{array}_0")
    directory.log.write_text("first words\n")
    terminal.read_until(lambda text: "first words" in text)
    with directory.log.open("a") as file:
        file.write("last words\n")
    journal.close()
    finishes(lab, run, f"{array}_0")
    directory.lock.unlink()
    assert terminal.end() == 0
    assert "last words" in terminal.seen


# Doctor -----------------------------------------------------------------------------------------------------


def findings(done: Done) -> dict[str, tuple[str, str]]:
    return {finding["subject"]: (finding["kind"], finding["answer"]) for finding in json.loads(done.out)}


def test_a_fit_machine_and_cluster_are_said_to_be(desk: Desk) -> None:
    done = desk("doctor", desk.spec, "--json")
    found = findings(done)
    assert done.code == 0
    assert found["SLURM"][0] == "ok" and "cluster fake" in found["SLURM"][1]
    assert found["partition main*"] == ("ok", "up, nodes: 2 with 4 CPUs, 4000 MB and gpu:2; time limit infinite")
    assert found["arrays"] == ("ok", "at most 1,001 jobs each; larger sweeps are split")
    assert found["accounting"] == ("ok", "sacct answers")
    assert found["data set digits"][0] == "ok"
    assert found["profile"][0] == "note"
    assert "probe" not in found and "sbatch" not in desk.fake.count()
    assert not desk.results.path.exists(), "looking leaves nothing"


def test_a_cluster_that_does_not_answer_is_a_problem(desk: Desk) -> None:
    desk.fake.break_controller()
    done = desk("doctor", "--json", "--probe")
    found = findings(done)
    assert done.code == 3
    assert found["SLURM"][0] == "problem" and "Unable to contact slurm controller" in found["SLURM"][1]
    assert found["probe"] == ("problem", "not submitted")


def test_a_machine_without_slurm_is_told_so(desk: Desk, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = desk("doctor", "--json")
    assert done.code == 3
    assert findings(done)["SLURM"] == (
        "problem", "SLURM is not there: no scontrol on the PATH of this machine.",
    )  # fmt: skip


def test_accounts_that_cannot_be_asked_are_a_problem_and_none_at_all_are_not(desk: Desk) -> None:
    desk.fake.break_accounts()
    done = desk("doctor", "--json")
    assert done.code == 3
    assert findings(done)["accounting"][0] == "problem"
    desk.fake.without_accounting()
    done = desk("doctor", "--json")
    assert done.code == 0
    assert findings(done)["accounting"][0] == "note"


def test_a_data_set_that_is_missing_here_is_a_problem(desk: Desk) -> None:
    spec = write_spec(desk.folder, base={**BASE, "dataset": "cifar10", "model": "vgg16-c"}, grid={"seed": 1})
    done = desk("doctor", spec, "--json")
    assert done.code == 3
    assert findings(done)["data set cifar10"][0] == "problem"


def test_a_probe_that_slurm_refuses_is_a_problem_and_leaves_nothing(desk: Desk) -> None:
    done = desk("doctor", "--json", "--probe", "--slurm", "partition=nowhere")
    assert done.code == 3
    kind, answer = findings(done)["probe"]
    assert kind == "problem" and "Invalid partition name" in answer
    assert list(desk.results.submissions.iterdir()) == []


def test_a_probe_says_what_a_node_sees(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    from itopctl.dispatch import probe

    submit = probe.submit_script

    def at_once(folder: Path, script: str) -> str:
        array = submit(folder, script)
        desk.fake.run(f"{array}_0")
        return array

    monkeypatch.setattr(probe, "submit_script", at_once)
    done = desk("doctor", desk.spec, "--json", "--probe")
    found = findings(done)
    assert done.code == 0, found
    (node,) = [subject for subject in found if re.fullmatch(r"node \S+", subject)]
    assert found[node][0] == "ok"
    assert found[f"{node}: torch"][0] == "ok"
    assert found[f"{node}: data set digits"] == ("ok", "built in")
    assert list(desk.results.submissions.iterdir()) == []
