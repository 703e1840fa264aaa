"""How attempts end whose own process cannot say it any more, and what tells who was killed for want of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from itopctl.dispatch import memory
from itopctl.dispatch.causes import Cause
from itopctl.dispatch.lost_attempts import close_forgotten_attempt, end_for_the_dead, has_given_up
from itopctl.store.files import write_json
from itopctl.store.journal import JournalWriter, attempts_in, open_attempt, read_journal
from itopctl.store.rundir import RunDirectory
from tests.dispatch.told import JOB, begins, causes_in, fails, finishes, lab_at, nothing_changes
from tests.store.builders import Lab, run_id

ID = run_id(1)
LOCK = f"slurm:c:{JOB}"


@pytest.fixture
def lab(tmp_path: Path, no_waiting_for_the_disk: None) -> Lab:
    return lab_at(tmp_path / "my results")


def theirs(owner: dict) -> bool:
    return owner.get("job_id") in (JOB, LOCK)


def end(run: RunDirectory, cause: Cause = "node-failure") -> bool:
    return end_for_the_dead(run, theirs, cause, "so it is said", LOCK)


# Ended for them ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", [True, False])
def test_an_open_attempt_of_the_dead_gets_an_end_and_its_lock_goes(lab: Lab, lock: bool) -> None:
    run, _ = begins(lab, ID, lock=lock)
    assert end(run)
    event = read_journal(run.journal).events[-1]
    assert (event["event"], event["attempt"], event["cause"]) == ("failed", 1, "node-failure")
    assert event["message"] == "so it is said"
    assert not run.lock.exists()
    assert not end(run), "once is enough"
    assert causes_in(run) == ["node-failure"]


def test_a_torn_last_line_does_not_spoil_the_end(lab: Lab) -> None:
    run, _ = begins(lab, ID)
    with run.journal.open("ab") as file:
        file.write(b'{"event": "evaluated", "seq": 3, "att')
    assert end(run)
    assert read_journal(run.journal).events[-1]["cause"] == "node-failure"
    assert read_journal(run.journal).damaged == 1


@pytest.mark.parametrize(
    "made",
    [
        lambda lab: lab.folder(ID),
        lambda lab: fails(lab, ID, "user-error"),
        lambda lab: begins(lab, ID, job="78_0")[0],
        lambda lab: begins(lab, ID, job="78_0", lock=False)[0],
        lambda lab: lab.begun(ID)[0],
    ],
    ids=["nothing begun", "said itself", "another job's", "another job's, without a lock", "a local pool's"],
)
def test_where_there_is_nothing_of_theirs_nothing_is_written(lab: Lab, made: Callable[[Lab], RunDirectory]) -> None:
    run = made(lab)
    with nothing_changes(lab.results.path):
        assert not end(run)


def test_an_attempt_that_ended_by_itself_only_loses_its_lock(lab: Lab) -> None:
    run, journal = begins(lab, ID)
    journal.write("failed", {"step": 1, "epoch": 0.1, "cause": "preempted", "message": ""})
    assert not end(run)
    assert causes_in(run) == ["preempted"]
    assert not run.lock.exists()


def test_a_journal_that_cannot_be_written_is_no_error(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = begins(lab, ID)

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(JournalWriter, "write", full)
    assert not end(run)


# The same job, once more ------------------------------------------------------------------------------------


def test_a_job_that_is_started_again_ends_what_its_node_took_with_it(lab: Lab) -> None:
    run, _ = begins(lab, ID)
    close_forgotten_attempt(run, JOB)
    event = read_journal(run.journal).events[-1]
    assert event["cause"] == "node-failure"
    assert event["message"] == "the scheduler started the job again, without a word from node1"
    with nothing_changes(lab.results.path):
        close_forgotten_attempt(run, JOB)


@pytest.mark.parametrize("job", [None, "78_0", LOCK])
def test_what_another_left_open_counts_as_lost_with_the_end_of_its_log(lab: Lab, job: str | None) -> None:
    run, _ = begins(lab, ID)
    run.log.write_text("".join(f"line {number}\n" for number in range(60)))
    close_forgotten_attempt(run, job)
    event = read_journal(run.journal).events[-1]
    assert (event["event"], event["cause"]) == ("failed", "lost")
    assert event["log"] == [f"line {number}" for number in range(10, 60)]
    assert open_attempt(run.journal) is None


@pytest.mark.parametrize(
    ("cause", "given_up"),
    [("timeout", False), ("preempted", False), ("node-failure", False), ("killed", False), ("user-error", True),
     ("out-of-memory", True), ("environment", True), ("cancelled", True)],
)  # fmt: skip
def test_a_job_gives_a_run_up_for_good_where_another_start_would_not_help(lab: Lab, cause: str, given_up: bool) -> None:
    run = fails(lab, ID, cause)
    assert has_given_up(run, JOB) == given_up
    assert not has_given_up(run, "78_0")
    assert not has_given_up(run, None)
    begins(lab, ID)
    assert not has_given_up(run, JOB), "it is at it again"


def test_the_last_attempt_of_a_job_counts(lab: Lab) -> None:
    fails(lab, ID, "user-error")
    run = fails(lab, ID, "preempted")
    assert not has_given_up(run, JOB)
    fails(lab, ID, "user-error", job="78_0")
    assert not has_given_up(run, JOB)


def test_attempts_in_a_journal_tell_who_made_them_and_how_they_ended(lab: Lab) -> None:
    assert attempts_in(lab.results.run(ID).journal) == []
    fails(lab, ID, "timeout")
    run = finishes(lab, ID, job="78_0")
    begins(lab, ID)
    found = [(one.number, one.job_id, one.cause) for one in attempts_in(run.journal)]
    assert found == [(1, JOB, "timeout"), (2, "78_0", "finished"), (3, JOB, None)]


def test_what_is_odd_in_a_journal_stops_nothing(lab: Lab) -> None:
    run, _ = begins(lab, ID)
    with run.journal.open("ab") as file:
        file.write(b'{"event": "failed"}\n[1]\n{"event": "started", "attempt": "x"}\n\xff\xfe\n')
    assert attempts_in(run.journal)
    write_json(run.lock, {"job_id": LOCK})
    assert isinstance(end(run), bool)


# Memory -----------------------------------------------------------------------------------------------------


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Says what /proc/self/cgroup says, and what lies in the folders of control groups."""
    read = Path.read_text
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)

    def say(own: str | None, **files: str) -> None:
        def told(self: Path, *arguments: object, **named: object) -> str:
            if str(self) != "/proc/self/cgroup":
                return read(self, *arguments, **named)  # type: ignore[arg-type]
            if own is None:
                raise FileNotFoundError
            return own

        for name, text in files.items():
            path = tmp_path / name.replace("__", "/").replace("-", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(Path, "read_text", told)

    return say


EVENTS = "low 0\nhigh 0\nmax 7\noom 2\noom_kill 3\noom_group_kill 0\n"
CONTROL = "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"


def test_kills_are_counted_by_the_second_version_of_control_groups(groups: Callable[..., None]) -> None:
    groups("0::/job_1/step_0\n", **{"job_1/step_0/memory-events": EVENTS})
    assert memory.oom_kills() == 3


def test_and_by_the_first(groups: Callable[..., None]) -> None:
    groups("9:cpu,cpuacct:/a\n4:memory:/slurm/job_1\n", **{"memory/slurm/job_1/memory-oom_control": CONTROL})
    assert memory.oom_kills() == 5


def test_where_both_are_mounted_the_one_that_counts_is_asked(groups: Callable[..., None]) -> None:
    groups("4:memory:/a\n0::/b\n", **{"memory/a/memory-oom_control": CONTROL})
    assert memory.oom_kills() == 5


@pytest.mark.parametrize("text", ["", "oom 3\n", "oom_kill many\n"])
def test_where_nothing_counts_nothing_is_known(groups: Callable[..., None], text: str) -> None:
    groups("0::/a\n", **{"a/memory-events": text})
    assert memory.oom_kills() is None


@pytest.mark.parametrize("own", [None, "", "0::/nowhere\n", "1:name=systemd:/x\n"])
def test_nor_where_there_are_no_control_groups(groups: Callable[..., None], own: str | None) -> None:
    groups(own)
    assert memory.oom_kills() is None
