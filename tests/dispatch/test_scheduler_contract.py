"""What every scheduler promises: the same tests on the pretended SLURM and on a real one, where one is up.

A test says when a job begins and ends; on the real cluster it then waits until the job does.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from itopctl.dispatch.scheduler import SchedulerError, SeenJob
from itopctl.dispatch.script import submit_script
from itopctl.dispatch.slurm import Slurm
from itopctl.dispatch.slurm_states import meaning_of
from tests.dispatch.fake_slurm import FakeSlurm
from tests.slurm.cluster import Cluster

PATIENCE = 60.0


class Site(Protocol):
    """A cluster, and jobs on it that do as they are told."""

    folder: Path

    def begin(self, job: str) -> None:
        """The job is at a node from here on."""

    def finish(self, job: str, code: int = 0) -> None:
        """The job has ended by itself from here on."""

    def cut_off(self) -> None:
        """Neither controller nor database can be reached any more."""


class PretendedSite:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.fake = FakeSlurm.installed(folder / "fake slurm", monkeypatch)

    def begin(self, job: str) -> None:
        self.fake.start(job)

    def finish(self, job: str, code: int = 0) -> None:
        self.fake.end(job, "FAILED" if code else "COMPLETED", f"{code}:0")

    def cut_off(self) -> None:
        self.fake.break_controller()
        self.fake.break_accounts()

    def clear(self) -> None: ...


class RealSite:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch
        self.arrays: set[str] = set()
        cluster = Cluster()
        if not cluster.running():
            if os.environ.get("ITOPCTL_TEST_SLURM_REQUIRED"):
                pytest.fail("no SLURM cluster is up: make slurm-up")
            pytest.skip("no SLURM cluster is up: make slurm-up")
        for name, value in cluster.env.items():
            monkeypatch.setenv(name, value)
        self.conf = cluster.conf

    def begin(self, job: str) -> None:
        self.arrays.add(job.partition("_")[0])
        wait_until(lambda: Slurm().own_job(job, 10).running)

    def finish(self, job: str, code: int = 0) -> None:
        (self.folder / f"end-{job}").write_text(str(code))
        wait_until(lambda: not Slurm().own_job(job, 10).running)

    def cut_off(self) -> None:
        lines = [line for line in self.conf.read_text().splitlines() if "Port=" not in line or "NodeName" in line]
        aside = self.folder / "cut off.conf"
        aside.write_text("\n".join([*lines, "SlurmctldPort=1", "AccountingStoragePort=1", "MessageTimeout=2", ""]))
        self.monkeypatch.setenv("SLURM_CONF", str(aside))

    def clear(self) -> None:
        self.monkeypatch.setenv("SLURM_CONF", str(self.conf))
        Slurm().cancel(sorted(self.arrays))


@pytest.fixture(params=["pretended", pytest.param("real", marks=pytest.mark.slurm)])
def site(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    made = (PretendedSite if request.param == "pretended" else RealSite)(tmp_path, monkeypatch)
    yield made
    made.clear()


def wait_until(true: Callable[[], Any]) -> Any:
    until = time.monotonic() + PATIENCE
    while not (found := true()):
        assert time.monotonic() < until
        time.sleep(0.2)
    return found


def submit(site: Site, jobs: int = 1, **about: object) -> tuple[str, str]:
    """An array of jobs that last until they are told to end; returns its name and id."""
    name = f"contract-{secrets.token_hex(4)}"
    asked = {"job-name": name, "array": f"0-{jobs - 1}", "output": "/dev/null", "time": 3, "requeue": True, **about}
    flags = "\n".join(f"#SBATCH --{key}" + ("" if value is True else f"={value}") for key, value in asked.items())
    end = f"'{site.folder}'/end-${{SLURM_ARRAY_JOB_ID}}_${{SLURM_ARRAY_TASK_ID}}"
    script = f"#!/bin/bash\n{flags}\nwhile [ ! -s {end} ]; do sleep 0.1; done\nexit $(cat {end})\n"
    folder = site.folder / name
    folder.mkdir()
    array = submit_script(folder, script)
    if isinstance(site, RealSite):
        site.arrays.add(array)
    return name, array


def words(name: str) -> dict[int, str]:
    """State of each job in the queue."""
    return {job.index: job.word for job in Slurm().queue([name])}


def phases(name: str) -> dict[int, str]:
    """What those states mean."""
    found = {index: meaning_of(word) for index, word in words(name).items()}
    return {index: meaning.phase for index, meaning in found.items() if meaning is not None}


def test_submitting_a_script_gives_the_id_that_the_queue_shows(site: Site) -> None:
    name, array = submit(site, 3, hold=True)
    assert array.isdigit()
    jobs = Slurm().queue([name])
    assert [(job.name, job.array_id, job.word) for job in jobs] == [(name, array, "PENDING")] * 3
    assert sorted(job.index for job in jobs) == [0, 1, 2]
    assert all(job.reason for job in jobs)


def test_the_queue_follows_a_job_from_waiting_to_its_end(site: Site) -> None:
    name, array = submit(site, 2)
    for index in (0, 1):
        site.begin(f"{array}_{index}")
    assert phases(name) == {0: "running", 1: "running"}
    site.finish(f"{array}_0")
    site.finish(f"{array}_1", 3)
    assert wait_until(lambda: "running" not in phases(name).values())
    assert words(name) == {0: "COMPLETED", 1: "FAILED"}


def test_the_accounts_know_in_the_end_how_jobs_ended(site: Site) -> None:
    name, array = submit(site, 2)
    for index, code in ((0, 0), (1, 3)):
        site.begin(f"{array}_{index}")
        site.finish(f"{array}_{index}", code)

    def ended() -> list[SeenJob]:
        found = [job for job in Slurm().accounts([name], days=2) if job.word in ("COMPLETED", "FAILED")]
        return found if len(found) == 2 else []

    found = sorted(wait_until(ended), key=lambda job: job.index)
    assert found == [
        SeenJob(name, array, 0, "COMPLETED", None, "0:0"), SeenJob(name, array, 1, "FAILED", None, "3:0"),
    ]  # fmt: skip


def test_names_that_nobody_has_give_nothing(site: Site) -> None:
    nobody = f"contract-{secrets.token_hex(8)}"
    assert Slurm().queue([nobody]) == []
    assert Slurm().accounts([nobody], days=2) == []


def test_jobs_of_other_names_are_not_shown(site: Site) -> None:
    (one, _), (two, _), (other, _) = (submit(site, hold=True) for _ in range(3))
    assert {job.name for job in Slurm().queue([one, two])} == {one, two}
    assert {job.name for job in Slurm().queue([other, "contract-unknown"])} == {other}


def test_hundreds_of_names_can_be_asked_for(site: Site) -> None:
    name, _ = submit(site, hold=True)
    many = [f"contract-with-a-name-of-some-length-{number:04d}" for number in range(1200)]
    assert {job.name for job in Slurm().queue([*many, name])} == {name}
    assert Slurm().accounts([*many], days=2) == []


def test_a_job_that_waits_is_cancelled_and_its_neighbours_stay(site: Site) -> None:
    name, array = submit(site, 3, hold=True)
    Slurm().cancel([f"{array}_1"])
    assert wait_until(lambda: phases(name).get(1) != "pending")
    assert words(name).get(1) in (None, "CANCELLED")
    assert [words(name)[index] for index in (0, 2)] == ["PENDING"] * 2


def test_a_job_that_runs_is_cancelled_and_its_neighbours_go_on(site: Site) -> None:
    name, array = submit(site, 2)
    for index in (0, 1):
        site.begin(f"{array}_{index}")
    Slurm().cancel([f"{array}_0"])
    assert wait_until(lambda: phases(name).get(0) == "ended")
    assert words(name) == {0: "CANCELLED", 1: "RUNNING"}
    kept = wait_until(lambda: [j for j in Slurm().accounts([name], 2) if j.index == 0 and "CANCEL" in j.word])
    assert meaning_of(kept[0].word) == meaning_of("CANCELLED")


def test_cancelling_what_is_over_or_was_never_there_is_no_error_and_changes_nothing(site: Site) -> None:
    name, array = submit(site)
    site.begin(f"{array}_0")
    site.finish(f"{array}_0")
    assert wait_until(lambda: words(name) == {0: "COMPLETED"})
    Slurm().cancel([f"{array}_0", "4000000_7"])
    Slurm().cancel([])
    assert words(name) == {0: "COMPLETED"}


def test_a_job_can_be_requeued_and_counts_its_starts(site: Site) -> None:
    name, array = submit(site)
    job = f"{array}_0"
    site.begin(job)
    before = Slurm().own_job(job, 10)
    assert (before.running, before.restarts) == (True, 0)
    assert before.seconds_left is not None and 100 < before.seconds_left <= 180
    Slurm().requeue(job)
    assert wait_until(lambda: phases(name) == {0: "pending"})
    after = Slurm().own_job(job, 10)
    assert (after.running, after.restarts) == (False, 1)


def test_requeueing_what_is_not_there_is_an_error(site: Site) -> None:
    with pytest.raises(SchedulerError, match="Invalid job id specified"):
        Slurm().requeue("4000000_7")


def test_a_job_is_known_while_it_waits_and_after_it_ended_and_one_that_never_was_is_not(site: Site) -> None:
    _, waiting = submit(site, 3, hold=True)
    assert Slurm().words_of(waiting) == ["PENDING"] * 3 and Slurm().words_of(f"{waiting}_1") == ["PENDING"]
    _, array = submit(site, 2)
    site.begin(f"{array}_0")
    site.finish(f"{array}_0")
    assert Slurm().words_of(f"{array}_0") == ["COMPLETED"]
    assert Slurm().words_of("4000000") == []
    assert Slurm().words_of("4000000_1") == []


def test_a_cluster_says_who_it_is_and_what_it_can(site: Site) -> None:
    cluster = Slurm().cluster()
    assert cluster.name
    assert cluster.user == Path.home().owner()
    assert cluster.largest_array > 1
    assert cluster.accounts
    assert Slurm().version().startswith("slurm")
    assert Slurm().setting("ClusterName") == cluster.name
    assert Slurm().setting("NoSuchSetting") is None
    partitions = {one["partition"].rstrip("*"): one for one in Slurm().partitions()}
    assert {"main", "urgent"} <= set(partitions)
    assert partitions["main"]["state"] == "up"


def test_an_array_of_as_many_jobs_as_the_cluster_allows_is_taken_and_one_more_is_refused(site: Site) -> None:
    largest = Slurm().cluster().largest_array
    name, _ = submit(site, largest, hold=True)
    assert len(Slurm().queue([name])) == largest
    with pytest.raises(SchedulerError, match=r"^SLURM refused the jobs: .*Invalid job array specification$"):
        submit(site, largest + 1)


def test_a_partition_that_is_not_there_is_refused_in_slurms_words(site: Site) -> None:
    with pytest.raises(SchedulerError, match="Invalid partition name specified"):
        submit(site, partition="nowhere")


def test_an_option_that_is_not_there_is_refused_in_slurms_words(site: Site) -> None:
    with pytest.raises(SchedulerError, match="unrecognized option '--colour"):
        submit(site, colour="blue")


@pytest.mark.parametrize(
    "question",
    [
        lambda slurm: slurm.cluster(),
        lambda slurm: slurm.queue(["contract-x"]),
        lambda slurm: slurm.accounts(["contract-x"], days=2),
        lambda slurm: slurm.cancel(["1_0"]),
        lambda slurm: slurm.requeue("1_0"),
        lambda slurm: slurm.partitions(),
        lambda slurm: slurm.words_of("1_0"),
    ],
    ids=["cluster", "queue", "accounts", "cancel", "requeue", "partitions", "words_of"],
)
def test_where_nobody_answers_every_question_is_an_error_and_no_empty_answer(
    site: Site, question: Callable[[Slurm], object]
) -> None:
    site.cut_off()
    with pytest.raises(SchedulerError, match=r"^SLURM: \w+: .+"):
        question(Slurm())


def test_where_nobody_answers_nothing_is_submitted(site: Site) -> None:
    site.cut_off()
    with pytest.raises(SchedulerError, match=r"^SLURM refused the jobs: .+"):
        submit(site)
