"""Deleting sweeps and runs for good: what goes, what stays, and that a kill in between loses nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from itopctl.dispatch.deletion import Forgetting, carry_out, plan_forgetting
from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.store import maintenance
from itopctl.store.files import read_json
from itopctl.store.locks import locked
from itopctl.store.manifests import points_of
from tests.dispatch.told import finishes, known, made_anew, nothing_changes
from tests.store.builders import Lab, config, run_id

A, B, C, D = (run_id(number) for number in range(1, 5))


@pytest.fixture
def lab(tmp_path: Path, no_waiting_for_the_disk: None) -> Lab:
    """Two sweeps: `one` has A and B, `two` has B and C; A and C are finished, B failed, D belongs to no sweep."""
    lab = Lab.at(tmp_path / "my results")
    for run in (A, C, D):
        finishes(lab, run)
    lab.failed(B)
    lab.sweep("one", {A: config(), B: config()})
    lab.sweep("two", {B: config(), C: config()})
    lab.ingest()
    return lab


def forget(lab: Lab, *sweeps: str, runs: tuple[str, ...] = ()) -> Forgetting:
    planned = plan_forgetting(lab.results, sweeps, runs)
    maintenance.forget(lab.store, planned.runs, planned.sweeps, carry_out(lab.results, planned))
    return planned


def test_planning_deletes_nothing(lab: Lab) -> None:
    with nothing_changes(lab.results.path):
        planned = plan_forgetting(lab.results, ["one"], [])
    assert (planned.sweeps, planned.runs, planned.finished) == (("one",), (A,), 1)
    assert planned.kept == {B: ("two",)} and planned.notes == ["1 run stays, since two has it, too."]
    files = sum(path.lstat().st_size for path in lab.results.run(A).path.rglob("*"))
    assert planned.size == files > 1000
    assert planned.described.startswith("1 sweep (one) and 1 run, 1 of them finished (")


def test_a_sweep_goes_with_the_runs_that_no_other_has(lab: Lab) -> None:
    forget(lab, "one")
    assert lab.results.run_ids() == [B, C, D]
    assert [path.stem for path in lab.results.manifests()] == ["two"]
    lab.ingest()
    assert lab.everything() == made_anew(lab)
    assert {row[0] for row in lab.everything()["runs"]} == {B, C, D}


def test_two_sweeps_go_with_what_they_share(lab: Lab) -> None:
    planned = forget(lab, "one", "two")
    assert set(planned.runs) == {A, B, C} and not planned.kept
    assert lab.results.run_ids() == [D]


def test_a_run_goes_alone_and_out_of_its_sweep(lab: Lab) -> None:
    forget(lab, runs=(A, D))
    assert lab.results.run_ids() == [B, C]
    assert list(points_of(read_json(lab.results.manifest("one")) or {})) == [B]
    lab.ingest()
    assert lab.everything() == made_anew(lab)


def test_a_run_of_several_sweeps_is_refused(lab: Lab) -> None:
    with nothing_changes(lab.results.path), pytest.raises(UserError, match=f"{B} belongs to several sweeps, one and"):
        forget(lab, runs=(B,))
    assert forget(lab, "one", runs=(B,)).runs == (A, B)  # one sweep is left, and it is taken out of that


def test_a_run_at_a_process_or_job_is_refused(lab: Lab) -> None:
    with locked(lab.results.run(A)), pytest.raises(UserError, match=f"1 run is being run .* itopctl cancel {A}"):
        forget(lab, "one")
    lab.submitted("one-x", (C,), (D,))
    with pytest.raises(
        UserError, match=f"2 runs are being run or wait for a process or job; .*: itopctl cancel {C} {D}"
    ):
        forget(lab, "two", runs=(D,))
    assert lab.results.run_ids() == [A, B, C, D]


def test_where_a_manifest_is_damaged_nothing_that_it_may_have_is_deleted(lab: Lab) -> None:
    manifest = lab.results.manifest("two")
    manifest.write_bytes(manifest.read_bytes()[:-40])
    with (
        nothing_changes(lab.results.path),
        pytest.raises(EnvironmentUnfitError, match=r"two\.json is no whole manifest"),
    ):
        forget(lab, "one")
    assert "its runs are not known" in forget(lab, "two").notes[0]
    assert lab.results.run_ids() == [A, B, C, D] and not manifest.exists()
    forget(lab, "one")
    assert lab.results.run_ids() == [C, D]


def test_a_run_that_may_be_in_the_queue_of_a_pool_is_refused(lab: Lab) -> None:
    with locked(lab.results.run(C)):
        with pytest.raises(UserError, match=f"1 run is being run or waits for a process or job; .* {B}"):
            forget(lab, "one", runs=(B,))
        assert forget(lab, "one").runs == (A,)  # it is finished, and B stays with the other sweep


def test_a_submission_goes_with_the_last_of_its_runs_and_brings_none_back(lab: Lab) -> None:
    known(known(lab.submitted("one-x", (A,), (D,)), 0, phase="ended"), 1, phase="ended")
    lab.ingest()
    forget(lab, "one")
    assert (lab.results.submissions / "one-x").exists()
    assert A not in {row[0] for row in made_anew(lab)["runs"]}
    forget(lab, runs=(D,))
    assert not (lab.results.submissions / "one-x").exists()
    assert lab.everything() == made_anew(lab)


def test_a_link_in_place_of_a_runs_folder_is_removed_and_what_it_leads_to_stays(lab: Lab, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere"
    lab.results.run(D).path.rename(other)
    lab.results.run(D).path.symlink_to(other)
    planned = Forgetting((), (D,), 0, 0)
    carry_out(lab.results, planned)
    assert not lab.results.run(D).path.is_symlink() and (other / "result.json").exists()


KILLED = """
import os, shutil, sys
from pathlib import Path
from itopctl.dispatch import deletion as forget
from itopctl.store.rundir import Results

left, calls = int(sys.argv[2]), 0
def counted(call):
    def wrapped(*arguments, **named):
        global calls
        calls += 1
        if calls == left:
            os._exit(9)
        return call(*arguments, **named)
    return wrapped
for name in ("rename", "remove", "write_json"):
    setattr(forget, name, counted(getattr(forget, name)))
shutil.rmtree = counted(shutil.rmtree)
results = Results(Path(sys.argv[1]))
forget.carry_out(results, forget.plan_forgetting(results, ["one"], [sys.argv[3]]))
"""


@pytest.mark.parametrize("moment", range(1, 9))
def test_killed_at_any_moment_the_same_call_again_deletes_the_rest(lab: Lab, moment: int) -> None:
    folder = str(lab.results.path)
    ended = subprocess.run([sys.executable, "-c", KILLED, folder, str(moment), C], check=False)
    assert ended.returncode in (0, 9)
    lab.ingest()  # readers in between see a sound folder
    assert maintenance.check(lab.store, lab.results, lambda config: "") is not None
    known = lab.everything()
    sweeps = ["one"] if "one" in {row[0] for row in known["sweeps"]} else []
    forget(lab, *sweeps, runs=(C,) if C in {row[0] for row in known["runs"]} else ())
    lab.ingest()
    assert lab.results.run_ids() == [B, D] and not list(lab.results.runs.glob(".*"))
    assert lab.everything() == made_anew(lab)


def test_a_folder_that_cannot_be_written_is_told(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("itopctl.dispatch.deletion.rename", refused)
    with pytest.raises(EnvironmentUnfitError, match="cannot be written: Permission denied"):
        forget(lab, "one")
    assert lab.results.run(A).result.exists()
