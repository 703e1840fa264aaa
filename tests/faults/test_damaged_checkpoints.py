"""Checkpoints whose bytes are not what was written: noticed, set aside, and the run goes on from the one before."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from itopctl.store.checkpoints import Checkpoint, DamagedCheckpointError, checkpoints
from itopctl.train.checkpoint import decode
from tests.faults.saved_run import SavedRun
from tests.faults.trials import RUN

DRAW = 17


def flipped(content: bytes, position: int, bits: int = 1) -> bytes:
    changed = bytearray(content)
    changed[position] ^= bits
    return bytes(changed)


def places(size: int, count: int) -> list[int]:
    """The first and last bytes of a file, where its format says what it is, and some between."""
    return [*range(64), *random.Random(DRAW).sample(range(64, size - 64), count), *range(size - 64, size)]


def is_refused(path: Path, one: Checkpoint, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(DamagedCheckpointError, match="its content is not what was written"):
        Checkpoint(path, one.step, one.digest).read()


def test_a_byte_that_differs_is_noticed_wherever_it_is(saved_run: SavedRun, tmp_path: Path) -> None:
    one = saved_run.newest
    content = one.read()
    for position in places(len(content), 400):
        is_refused(tmp_path / "damaged", one, flipped(content, position, 1 << position % 8))


def test_a_file_that_is_cut_off_anywhere_or_goes_on_is_noticed(saved_run: SavedRun, tmp_path: Path) -> None:
    one = saved_run.newest
    content = one.read()
    for length in places(len(content), 400):
        is_refused(tmp_path / "damaged", one, content[:length])
        is_refused(tmp_path / "damaged", one, content[:length] + bytes(len(content) - length) + b"\0")
    is_refused(tmp_path / "damaged", one, content + b"\n")


def test_damaged_bytes_with_the_right_digest_are_a_state_or_refused_and_nothing_else(saved_run: SavedRun) -> None:
    """Whatever PyTorch makes of them: no other error, no crash."""
    content = saved_run.newest.read()
    refused = 0
    for position in places(len(content), 150):
        for damaged in (flipped(content, position, 0xFF), content[:position]):
            try:
                assert isinstance(decode(damaged), dict)
            except ValueError:
                refused += 1
    assert refused > 100


@pytest.mark.parametrize("damage", [lambda c: flipped(c, len(c) // 2), lambda c: c[:-1], lambda c: b"", bytes.upper])
def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    saved_run: SavedRun, tmp_path: Path, damage: object
) -> None:
    lab = saved_run.copied(tmp_path / "results")
    path = lab.results.run(RUN).path / saved_run.newest.path.name
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))
    saved_run.check_goes_on(lab, 3)
    assert "set aside as checkpoint.damaged-" in lab.results.run(RUN).log.read_text()


def test_a_run_whose_checkpoints_are_all_damaged_begins_anew(saved_run: SavedRun, tmp_path: Path) -> None:
    lab = saved_run.copied(tmp_path / "results")
    for one in checkpoints(lab.results.run(RUN)):
        one.path.write_bytes(flipped(one.read(), 1000))
    saved_run.check_goes_on(lab, 0)


def test_a_checkpoint_under_another_ones_name_is_not_taken_for_it(saved_run: SavedRun, tmp_path: Path) -> None:
    lab = saved_run.copied(tmp_path / "results")
    newest, before, *_ = checkpoints(lab.results.run(RUN))
    newest.path.write_bytes(before.read())
    saved_run.check_goes_on(lab, 3)


def test_a_checkpoint_is_taken_only_with_the_journal_that_led_to_it(saved_run: SavedRun, tmp_path: Path) -> None:
    """Or evaluations would be missing for good."""
    whole = saved_run.results.run(RUN).journal.read_bytes()
    offsets = {one.step: decode(one.read())["journal"]["offset"] for one in checkpoints(saved_run.results.run(RUN))}
    for number, (kept, step) in enumerate([
        (offsets[4], 4), (offsets[4] - 2, 3), (offsets[3] + 1, 3), (offsets[3] - 2, 2), (offsets[2] - 2, 0), (0, 0),
    ]):  # fmt: skip
        lab = saved_run.copied(tmp_path / str(number))
        lab.results.run(RUN).journal.write_bytes(whole[:kept])
        saved_run.check_goes_on(lab, step)
