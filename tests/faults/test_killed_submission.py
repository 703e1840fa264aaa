"""Commands that are killed while they submit, cancel or look: no run gets two jobs, and none is forgotten."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from itopctl.dispatch.reconcile import GRACE_SECONDS, reconcile
from itopctl.dispatch.slurm import Slurm
from itopctl.store.locks import lock_holder
from itopctl.store.rundir import Results
from itopctl.store.submissions import live_submissions
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.told import begins, lab_at, on_local_disk
from tests.faults.submitting import FIRST, RUNS, Site, go_on, jobs_of_runs, kill_around_sbatch, submit_here
from tests.faults.trials import rows
from tests.faults.zygote import Fate, Zygote
from tests.helpers import write_spec
from tests.share import of_share
from tests.store.builders import Lab, run_id

HERE = "tests.faults.submitting"
SUBMIT, LOOK = f"{HERE}:submit", f"{HERE}:look"


@pytest.fixture
def changes(zygote: Zygote, site: Site) -> list[str]:
    """Kinds of the changes that submitting makes."""
    fake, results = site("whole")
    made: list[str] = zygote.call(SUBMIT, results=str(results.path), environment=fake.env).value
    assert [len(about["tasks"]) for about in fake.arrays.values()] == [FIRST, len(RUNS) - FIRST]
    return made


@pytest.mark.parametrize("look_first", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("torn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_submitter_that_is_killed_before_any_change_leaves_no_run_with_two_jobs_and_none_without(
    zygote: Zygote, site: Site, changes: list[str], torn: bool, look_first: bool
) -> None:
    numbers = [number for number, kind in enumerate(changes) if kind == "write" or not torn]
    for number in of_share(numbers, f"{torn}, {look_first}", 6):
        fake, results = site(number)
        fate = zygote.call(SUBMIT, results=str(results.path), environment=fake.env, kill_at=number, torn=torn)
        assert fate.killed
        go_on(fake, results, look_first)


@pytest.mark.parametrize("call", [0, 1])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("look_first", [False, True])
def test_a_submitter_that_is_killed_around_sbatch_leaves_no_run_with_two_jobs_and_none_without(
    zygote: Zygote, site: Site, call: int, when: str, look_first: bool
) -> None:
    fake, results = site("here")
    kill_around_sbatch(fake, call, when)
    assert zygote.call(SUBMIT, results=str(results.path), environment=fake.env).killed
    assert len(fake.arrays) == call + (when == "after")
    go_on(fake, results, look_first)


def test_jobs_that_slurm_accepts_after_the_submitters_death_are_adopted(zygote: Zygote, site: Site) -> None:
    """The command that asks for them may outlive it."""
    fake, results = site("here")
    kill_around_sbatch(fake, 1, "late")
    assert zygote.call(SUBMIT, results=str(results.path), environment=fake.env).killed
    reconcile(results, Slurm(), lambda: 0.0)
    submit_here(results)
    assert len(fake.arrays) == 1
    (fake.folder / "go").touch()
    until = time.monotonic() + 20
    while len(fake.arrays) == 1 and time.monotonic() < until:
        time.sleep(0.02)
    go_on(fake, results, look_first=True)


def test_the_command_itself_may_be_killed_at_any_change_and_typed_again(zygote: Zygote, site: Site) -> None:
    """From the first folder that it makes: manifest, records, jobs, store."""

    def begin(name: object) -> tuple[FakeSlurm, Results]:
        fake, results = site(name)
        write_spec(
            results.path.parent,
            base={"dataset": "digits", "model": "lenet-300-100", "method": "dense", "epochs": 1},
            grid={"seed": 3},
        )
        results.runs.rmdir()
        results.path.rmdir()
        return fake, results

    def type_in(fake: FakeSlurm, results: Results, **about: Any) -> Fate:
        line = ["sweep", "spec.yaml", "--cluster", "slurm", "--no-snapshot"]
        return zygote.call(f"{HERE}:type_in", folder=str(results.path.parent), line=line, environment=fake.env, **about)

    def jobs(fake: FakeSlurm, results: Results) -> list[int]:
        return sorted(map(len, jobs_of_runs(fake, results).values()))

    fake, results = begin("whole")
    made = type_in(fake, results).value["changes"]
    assert jobs(fake, results) == [1, 1, 1]
    for number in range(0, len(made), 6):
        fake, results = begin(number)
        assert type_in(fake, results, kill_at=number).killed
        again = type_in(fake, results).value
        assert again["code"] == 0, again
        assert jobs(fake, results) in ([], [1, 1, 1])
        reconcile(results, Slurm(), lambda: time.time() + GRACE_SECONDS + 1)
        assert type_in(fake, results).value["code"] == 0
        assert jobs(fake, results) == [1, 1, 1]


def test_what_was_never_recorded_whole_is_not_spoken_of_for_ever(
    zygote: Zygote, site: Site, changes: list[str]
) -> None:
    """It was never submitted: that comes after the record."""
    renames = [number for number, kind in enumerate(changes) if kind == "rename"]
    for number in renames[:3]:  # of configs.json, request.json and state.json
        fake, results = site(number)
        assert zygote.call(SUBMIT, results=str(results.path), environment=fake.env, kill_at=number).killed
        reconcile(results, Slurm(), lambda: 0.0)
        assert reconcile(results, Slurm(), lambda: GRACE_SECONDS + 1).notes == []
        if number == renames[2]:  # before that, nothing says whose it is; it is removed a day later
            assert list(results.submissions.iterdir()) == []


def test_cancelling_that_was_killed_is_finished_by_cancelling_again(zygote: Zygote, site: Site) -> None:
    fake, results = site("whole")
    submit_here(results)
    made = zygote.call(f"{HERE}:cancel", results=str(results.path), environment=fake.env).value
    assert jobs_of_runs(fake, results) == {}
    for number in range(0, len(made), 3):
        fake, results = site(number)
        submit_here(results)
        about = {"results": str(results.path), "environment": fake.env}
        assert zygote.call(f"{HERE}:cancel", **about, kill_at=number).killed
        zygote.call(f"{HERE}:cancel", **about)
        assert jobs_of_runs(fake, results) == {}
        reconcile(results, Slurm(), lambda: 0.0)
        lab = lab_at(results.path)
        lab.ingest()
        assert [lab.row(run)["state"] for run in RUNS] == ["queued"] * len(RUNS)
        assert live_submissions(results) == []


def lost_with_its_node(folder: Path) -> Lab:
    """A submission of two jobs, one of which is at a node."""
    lab = lab_at(folder)
    lab.sweep("one", {run_id(n): {"sparsity": 0.9, "seed": n} for n in (1, 2)})
    lab.submitted("one-x", (run_id(1),), (run_id(2),))
    begins(lab, run_id(1))
    return lab


def test_a_look_that_was_killed_is_finished_by_the_next(
    zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt ends once, whoever dies while writing that it did."""
    on_local_disk(monkeypatch)
    words = ["NODE_FAIL", "PENDING"]

    def outcome(lab: Lab) -> list[Any]:
        """Ends that its journal tells, the lock, and what the store says."""
        lab.ingest()
        lines = lab.results.run(run_id(1)).journal.read_text().splitlines()
        ends = [json.loads(line)["cause"] for line in lines if '"event": "failed"' in line and line.endswith("}")]
        found = [
            {**row, "journal_offset": 0, "journal_mark": "", "damaged_lines": 0} for row in rows(lab.store, "runs")
        ]
        return without_times([ends, lock_holder(lab.results.run(run_id(1))), found, rows(lab.store, "attempts")])

    whole = lost_with_its_node(tmp_path / "whole")
    made = zygote.call(LOOK, results=str(whole.results.path), words=words).value
    expected = outcome(whole)
    assert expected[:2] == [["node-failure"], None]
    kills = [(number, torn) for number, kind in enumerate(made) for torn in (False, True)[: 1 + (kind == "write")]]
    for number, torn in of_share(kills, "a look", 4):
        lab = lost_with_its_node(tmp_path / f"{number} {torn}")
        assert zygote.call(LOOK, results=str(lab.results.path), words=words, kill_at=number, torn=torn).killed
        lab.ingest()
        zygote.call(LOOK, results=str(lab.results.path), words=words)
        assert outcome(lab) == expected


def without_times(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: without_times(value) for key, value in found.items() if not key.endswith("_at")}
    return [without_times(one) for one in found] if isinstance(found, list) else found
