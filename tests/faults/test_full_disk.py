"""A real disk that is full, from any moment on: it is said and recorded, and once there is room the run goes on to the
same end."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterable

import pytest

from itopctl.store.journal import LOG_LINES, JournalWriter, open_attempt, read_journal
from tests.faults.mounts import SmallDisk, is_full
from tests.faults.trials import ATTEMPT, RUN, Undisturbed, begun, check_the_end, check_what_readers_see
from tests.faults.zygote import Fate, Zygote
from tests.share import of_share
from tests.store.builders import Lab

QUICK = 6
"""Every so many changes, one is taken where there is no time for all."""


@pytest.fixture(
    params=[
        pytest.param(True, id="some of them"),
        pytest.param(False, marks=pytest.mark.slow, id="a share of the others"),
    ]
)
def moments(request: pytest.FixtureRequest, undisturbed: Undisturbed) -> Iterable[int]:
    """Numbers of the changes before which the disk becomes full."""
    some = range(0, len(undisturbed.changes), QUICK)
    others = [number for number in range(len(undisturbed.changes)) if number not in some]
    return some if request.param else of_share(others, request.node.name)


def check_ended_for_want_of_room(fate: Fate, lab: Lab, undisturbed: Undisturbed) -> None:
    """It says so, in its journal too if it had begun; and nothing that is half there counts."""
    ended = fate.value
    assert ended["state"] in ("done", "failed"), ended
    run = lab.results.run(RUN)
    state = check_what_readers_see(lab, undisturbed.numbers)
    assert (state == "done") == (ended["state"] == "done")
    if ended["state"] == "failed":
        assert ended["cause"] == "disk-full", ended
        assert "full" in ended["message"] or "No space left" in ended["message"]
        assert open_attempt(run.journal) is None, "an attempt that has begun says how it ended"
        ends = [event for event in read_journal(run.journal).events if event["event"] == "failed"]
        assert [end["cause"] for end in ends] in ([], ["disk-full"])
        assert state == ("failed" if ends else "queued")
    assert ended["restored"], "what is printed afterwards does not go to the run's log"


@pytest.mark.parametrize("reserve", [True, False])
def test_the_last_word_has_room_of_its_own_and_nothing_half_is_left_of_others(disk: SmallDisk, reserve: bool) -> None:
    folder = disk.path / "run"
    folder.mkdir()
    path = folder / "journal.jsonl"
    journal = JournalWriter(path, reserve=folder / "reserve" if reserve else None)
    journal.write("started", {"step": 0})
    disk.fill()
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        journal.write("evaluated", {"step": 1, "more than a page": "x" * 20_000})
    assert path.read_bytes() == before
    last_word = {"step": 1, "cause": "disk-full", "log": ["x" * 300] * LOG_LINES}
    if reserve:
        journal.write("failed", last_word)
    else:
        with pytest.raises(OSError, match="No space left"):
            journal.write("failed", last_word)
        assert path.read_bytes() == before
    journal.close()
    assert [event["event"] for event in read_journal(path).events] == ["started", *(["failed"] if reserve else [])]
    assert [one.name for one in folder.iterdir()] == ["journal.jsonl"]


def test_a_disk_that_is_full_before_a_run_starts_is_said_to_be_so(
    zygote: Zygote, undisturbed: Undisturbed, disk: SmallDisk
) -> None:
    lab = begun(disk.path / "results")
    fate = zygote.call(ATTEMPT, results=str(lab.results.path), ballast=str(disk.ballast), fill_at=0)
    assert fate.value["cause"] == "disk-full"
    assert is_full(disk.path)
    check_ended_for_want_of_room(fate, lab, undisturbed)


def test_a_run_whose_disk_becomes_full_says_so_and_goes_on_once_there_is_room(
    zygote: Zygote, undisturbed: Undisturbed, disk: SmallDisk, moments: Iterable[int]
) -> None:
    for number in moments:
        lab = begun(disk.path / "results")
        about = {"results": str(lab.results.path), "ballast": str(disk.ballast)}
        fate = zygote.call(ATTEMPT, **about, fill_at=number)
        check_ended_for_want_of_room(fate, lab, undisturbed)
        disk.make_room()
        assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done"
        check_the_end(lab, undisturbed.numbers)
        shutil.rmtree(lab.results.path)


def test_a_disk_that_somebody_else_fills_meanwhile_is_the_same(
    zygote: Zygote, undisturbed: Undisturbed, disk: SmallDisk
) -> None:
    draw = random.Random(11)
    for _ in range(8):
        lab = begun(disk.path / "results")
        about = {"results": str(lab.results.path), "ballast": str(disk.ballast), "fill_after": 0.1 * draw.random()}
        check_ended_for_want_of_room(zygote.call(ATTEMPT, **about), lab, undisturbed)
        disk.make_room()
        assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done"
        check_the_end(lab, undisturbed.numbers)
        shutil.rmtree(lab.results.path)


def test_a_run_tried_again_and_again_on_a_full_disk_loses_nothing(
    zygote: Zygote, undisturbed: Undisturbed, disk: SmallDisk
) -> None:
    lab = begun(disk.path / "results")
    about = {"results": str(lab.results.path), "ballast": str(disk.ballast)}
    zygote.call(ATTEMPT, **about, fill_at=60)
    step = lab.row(RUN)["step"]
    for _ in range(3):
        fate = zygote.call(ATTEMPT, **about, fill_at=0)
        assert fate.value["cause"] == "disk-full"
    disk.make_room()
    assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done"
    lab.ingest()
    assert lab.attempts(RUN)[-1]["resumed_from_step"] >= step - 1 > 0
    check_the_end(lab, undisturbed.numbers)
