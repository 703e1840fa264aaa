"""Archives of finished runs: how they are written, and how much of one is believed."""

from __future__ import annotations

import errno
import os
import tarfile
from pathlib import Path

import pytest

from itopctl.errors import DiskFullError
from itopctl.store import files
from itopctl.store.exchange import export
from itopctl.store.files import Change
from tests.store.builders import Lab, config, run_id

A, B = run_id(1), run_id(2)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab.at(tmp_path / "results")
    made.done(A, seed=0)
    made.done(B, seed=1)
    made.sweep("one", {A: config(seed=0), B: config(seed=1)})
    return made


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as opened:
        return {name.split("/")[1] for name in opened.getnames() if name.startswith("runs/")}


# Out --------------------------------------------------------------------------------------------------------


def test_two_exports_at_once_to_one_name_leave_one_of_the_two_whole(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.tar"

    def another_comes(change: Change) -> None:
        if change.kind == "write":  # the first is at it
            monkeypatch.setattr(files, "watchers", [])
            export(lab.results, target, [B], ["one"])

    monkeypatch.setattr(files, "watchers", [another_comes])
    export(lab.results, target, [A], ["one"])
    assert files.watchers == [], "there were not two"
    assert names_in(target) == {A}
    assert list(tmp_path.glob(".out*")) == []


def test_an_export_follows_no_link_that_lies_where_it_writes(lab: Lab, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in (".out.tar.part", "out.tar"):
        (tmp_path / name).symlink_to(victim)
    export(lab.results, tmp_path / "out.tar", [A], ["one"])
    assert victim.read_text() == "mine"
    assert names_in(tmp_path / "out.tar") == {A}
    assert not (tmp_path / "out.tar").is_symlink()


@pytest.mark.parametrize("name", ["out.tar", "out.tar.gz", "out.tar.xz"])
def test_an_archive_is_on_disk_before_it_has_its_name(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    seen: list[Change] = []
    monkeypatch.setattr(files, "watchers", [seen.append])
    export(lab.results, tmp_path / name, [A, B], ["one"])
    kinds = [change.kind for change in seen if change.kind != "write"]
    assert kinds[:4] == ["create", "flush", "rename", "flush-folder"]
    assert seen[-1].path != tmp_path / name
    assert names_in(tmp_path / name) == {A, B}


@pytest.mark.parametrize("name", ["out.tar", "out.tar.gz", "out.tar.xz"])
def test_a_full_disk_leaves_the_archive_that_was_there(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_text("of yesterday")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFullError):
        export(lab.results, tmp_path / name, [A], ["one"])
    assert (tmp_path / name).read_text() == "of yesterday"
    assert list(tmp_path.glob(".out*")) == []
