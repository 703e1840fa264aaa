"""Runs whose process is killed, at any moment: what is left can be read, and they go on to the same end to the bit."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from itopctl.store.checkpoints import checkpoints
from tests.faults.trials import (
    ATTEMPT,
    RUN,
    Undisturbed,
    begun,
    check_journal,
    check_the_end,
    check_what_readers_see,
    left_in,
)
from tests.faults.typed import look_with_every_command
from tests.faults.zygote import Zygote
from tests.share import of_share

QUICK = 8
"""Every so many changes, one is taken where there is no time for all."""


@pytest.fixture(
    params=[
        pytest.param(True, id="some of them"),
        pytest.param(False, marks=pytest.mark.slow, id="a share of the others"),
    ]
)
def moments(request: pytest.FixtureRequest, undisturbed: Undisturbed) -> range | list[int]:
    """Numbers of the changes before which the process is killed."""
    some = range(0, len(undisturbed.changes), QUICK)
    others = [number for number in range(len(undisturbed.changes)) if number not in some]
    return some if request.param else of_share(others, request.node.name)


def test_the_run_in_question_does_all_that_a_run_does(undisturbed: Undisturbed) -> None:
    """Or else what follows would show little."""
    assert [key for key, row in undisturbed.numbers.evaluations.items() if row["new"]] == [("update", 2), ("update", 4)]
    assert len([key for key in undisturbed.numbers.evaluations if key[0] == "epoch"]) == 2
    assert (
        undisturbed.changes.count("rename") == 10
    )  # checkpoints of six steps and of the end, environment, network, result
    assert set(undisturbed.changes) == {"create", "write", "flush", "flush-folder", "rename", "link", "unlink"}


def test_a_run_that_is_killed_before_any_change_goes_on_to_the_same_end(
    zygote: Zygote, undisturbed: Undisturbed, tmp_path: Path, moments: Iterable[int]
) -> None:
    for number in moments:
        lab = begun(tmp_path / str(number))
        assert zygote.call(ATTEMPT, results=str(lab.results.path), kill_at=number).killed
        check_what_readers_see(lab, undisturbed.numbers)
        assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done"
        check_the_end(lab, undisturbed.numbers)


def test_a_run_that_is_killed_in_the_middle_of_any_write_goes_on_to_the_same_end(
    zygote: Zygote, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    writes = [number for number, kind in enumerate(undisturbed.changes) if kind == "write"]
    for number in of_share(writes, "the middle of any write", 4):
        lab = begun(tmp_path / str(number))
        assert zygote.call(ATTEMPT, results=str(lab.results.path), kill_at=number, torn=True).killed
        check_what_readers_see(lab, undisturbed.numbers)
        assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done"
        check_the_end(lab, undisturbed.numbers)


@pytest.mark.rotates
@pytest.mark.parametrize(
    ("seed", "trials"), [pytest.param(0, 5), *(pytest.param(n, 15, marks=pytest.mark.slow) for n in (1, 2, 3))]
)
def test_a_run_that_is_killed_again_while_it_goes_on_comes_to_the_same_end(
    zygote: Zygote, undisturbed: Undisturbed, tmp_path: Path, seed: int, trials: int
) -> None:
    draw = random.Random(seed)
    for number in range(trials):
        lab = begun(tmp_path / str(number))
        kills = [(draw.randrange(len(undisturbed.changes)), draw.random() < 0.3) for _ in range(draw.choice((2, 2, 5)))]
        for kill_at, torn in kills:
            zygote.call(ATTEMPT, results=str(lab.results.path), kill_at=kill_at, torn=torn)
            check_what_readers_see(lab, undisturbed.numbers)
        assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done", kills
        check_the_end(lab, undisturbed.numbers)


def test_a_run_that_keeps_no_checkpoint_and_is_killed_at_its_end_leaves_none(
    zygote: Zygote, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    made = zygote.call(ATTEMPT, results=str(begun(tmp_path / "whole").results.path), tidy=True).value["changes"]
    for number in range(len(made) - 12, len(made)):
        lab = begun(tmp_path / str(number))
        assert zygote.call(ATTEMPT, results=str(lab.results.path), tidy=True, kill_at=number).killed
        check_what_readers_see(lab, undisturbed.numbers)
        assert zygote.call(ATTEMPT, results=str(lab.results.path), tidy=True).value["state"] == "done"
        assert check_what_readers_see(lab, undisturbed.numbers) == "done"
        check_journal(lab.results.run(RUN))
        assert left_in(lab.results.run(RUN)) == {
            "config.json", "environment.json", "journal.jsonl", "log.txt", "network.pt", "result.json",
        }  # fmt: skip


def test_a_checkpoint_is_always_there_from_the_first_to_the_end(
    zygote: Zygote, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    """Whatever was saved once is not lost to a kill: the run never begins anew."""
    renames = [number for number, kind in enumerate(undisturbed.changes) if kind == "rename"]
    for number in range(renames[1] + 1, renames[-1] + 1, QUICK // 2):  # after the first checkpoint, before the result
        lab = begun(tmp_path / str(number))
        assert zygote.call(ATTEMPT, results=str(lab.results.path), kill_at=number).killed
        steps = [one.step for one in checkpoints(lab.results.run(RUN)) if one.read()]
        assert steps and steps[0] >= 1
        zygote.call(ATTEMPT, results=str(lab.results.path))
        assert [attempt["resumed_from_step"] for attempt in lab.attempts(RUN)] == [0, steps[0]]


def test_every_command_that_looks_copes_with_what_a_kill_left(
    zygote: Zygote, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    for number in range(3, len(undisturbed.changes), 12):
        lab = begun(tmp_path / str(number))
        assert zygote.call(ATTEMPT, results=str(lab.results.path), kill_at=number, torn=True).killed
        said = look_with_every_command(lab.results.path, RUN)
        (run,) = json.loads(said["report -t runs --json"].out)
        assert run["state"] == check_what_readers_see(lab, undisturbed.numbers)
