"""Checkpoints that hold what they should not, under a name with the right digest.

They run no code, end no process and take no memory; they are set aside, and the run goes on from the one before, to
the same end. Not the subject: states that are possible, and not this run's. Who writes these can write a result, too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from itopctl.train.checkpoint import decode
from tests.faults.hostile import CODE, UNCHECKED, UNFIT, changed, compressed, overlapping
from tests.faults.saved_run import SavedRun
from tests.faults.trials import RUN


@pytest.mark.parametrize("how", CODE)
def test_code_in_a_checkpoint_does_not_run(saved_run: SavedRun, tmp_path: Path, how: str) -> None:
    mark = tmp_path / "it ran"
    content = CODE[how](saved_run.state(), mark)
    with pytest.raises(ValueError, match="it is no checkpoint"):
        decode(content)
    saved_run.check_goes_on(saved_run.with_newest(tmp_path / "results", content), 3)
    assert not mark.exists()


@pytest.mark.parametrize("bomb", [compressed, overlapping])
def test_a_small_file_that_is_large_when_it_is_read_is_not_read(
    saved_run: SavedRun, tmp_path: Path, bomb: Callable[[dict[str, Any]], bytes]
) -> None:
    content = bomb(saved_run.state())
    with pytest.raises(ValueError, match="it is no checkpoint"):
        decode(content)
    saved_run.check_goes_on(saved_run.with_newest(tmp_path / "results", content), 3)


@pytest.mark.parametrize("name", UNFIT)
def test_a_checkpoint_that_does_not_fit_the_run_is_set_aside(saved_run: SavedRun, tmp_path: Path, name: str) -> None:
    lab = saved_run.with_newest(tmp_path / "results", changed(saved_run.state(), *UNFIT[name]))
    saved_run.check_goes_on(lab, 3)
    run = lab.results.run(RUN)
    assert "set aside" in run.log.read_text()
    assert list(run.path.glob("checkpoint.damaged-*.pt"))


@pytest.mark.parametrize(
    "name", [name if name != "a laughing model" else pytest.param(name, marks=pytest.mark.slow) for name in UNCHECKED]
)
def test_a_checkpoint_is_looked_at_before_anything_of_it_is_used(
    saved_run: SavedRun, tmp_path: Path, name: str
) -> None:
    lab = saved_run.with_newest(tmp_path / "results", changed(saved_run.state(), *UNCHECKED[name]))
    saved_run.check_goes_on(lab, 3)


def _link(path: Path, content: bytes) -> None:
    other = path.with_name("elsewhere")
    other.write_bytes(content)
    path.symlink_to(other)


PLACES: dict[str, Callable[[Path, bytes], None]] = {
    "a symbolic link": _link,
    "a link to nothing": lambda path, content: path.symlink_to("nowhere"),
    "a link to a device": lambda path, content: path.symlink_to("/dev/zero"),
    "a pipe": lambda path, content: os.mkfifo(path),
    "a folder": lambda path, content: path.mkdir(),
    "a folder with something in it": lambda path, content: (path / "x").mkdir(parents=True),
}


@pytest.mark.parametrize("what", PLACES)
def test_what_is_no_file_in_the_place_of_a_checkpoint_is_neither_followed_nor_waited_for(
    saved_run: SavedRun, tmp_path: Path, what: str
) -> None:
    lab = saved_run.copied(tmp_path / "results")
    path = lab.results.run(RUN).path / saved_run.newest.path.name
    content = path.read_bytes()
    path.unlink()
    PLACES[what](path, content)
    saved_run.check_goes_on(lab, 3)
    if what == "a symbolic link":
        assert path.with_name("elsewhere").read_bytes() == content
