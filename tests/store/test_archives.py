"""Archives of finished runs: how they are written, and how much of one is believed."""

from __future__ import annotations

import errno
import io
import json
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from itopctl.errors import DiskFullError, UserError
from itopctl.store import files
from itopctl.store.archives import export, import_runs
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


def test_a_result_that_records_less_than_the_one_here_is_the_same(lab: Lab, tmp_path: Path) -> None:
    """Versions of itopctl record more or less; what both record tells."""
    theirs = Lab.at(tmp_path / "theirs")
    for id_, seed, changed in ((A, 0, {}), (B, 1, {"test_accuracy": 0.5})):
        run = theirs.done(id_, changed, seed=seed)
        found = json.loads(run.result.read_text())
        run.result.write_text(json.dumps({k: v for k, v in found.items() if k not in ("total_density", "left_dense")}))
    done = import_runs(lab.results, theirs.results.path, lambda config: (A, B)[config["seed"]])
    assert (done.same, done.differing) == ([A], [B])


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


@pytest.mark.parametrize(("error", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "the quota is full")])
@pytest.mark.parametrize("name", ["out.tar", "out.tar.gz", "out.tar.xz"])
def test_a_full_disk_or_quota_leaves_the_archive_that_was_there(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, error: int, words: str
) -> None:
    (tmp_path / name).write_text("of yesterday")

    def full(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(DiskFullError, match=words):
        export(lab.results, tmp_path / name, [A], ["one"])
    assert (tmp_path / name).read_text() == "of yesterday"
    assert list(tmp_path.glob(".out*")) == []


# In ---------------------------------------------------------------------------------------------------------


def archive_of(path: Path, names: Iterable[str], data: bytes = b"") -> Path:
    """An archive whose members are all alike but for their names."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:  # type: ignore[call-overload]
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def refusal(lab: Lab, source: Path) -> str:
    with pytest.raises(UserError) as caught:
        import_runs(lab.results, source, lambda config: A)
    return str(caught.value)


def test_many_empty_members_are_a_trap(lab: Lab, tmp_path: Path) -> None:
    source = archive_of(tmp_path / "in.tar.gz", ["sweeps/a.json"] * 40_000)
    assert "unpacks to far more than it is" in refusal(lab, source)


def test_headers_count_among_what_comes_out_of_an_archive(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("itopctl.store.archives._FREE_BYTES", 1 << 20)
    monkeypatch.setattr("itopctl.store.archives._MOST_RATIO", 20)
    source = archive_of(tmp_path / "in.tar.gz", ["sweeps/a.json"] * 15_000)
    assert "unpacks to far more than it is" in refusal(lab, source)


def test_many_files_of_no_run_make_no_archive_of_runs(lab: Lab, tmp_path: Path) -> None:
    source = archive_of(tmp_path / "in.tar", (f"photo{number}.jpg" for number in range(2000)))
    assert "more than 1,000 of its files are of no run" in refusal(lab, source)


def test_what_was_met_in_an_archive_is_not_kept(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive_of(tmp_path / "in.tar", ["sweeps/a.json"] * 500, b"{}")
    kept: list[int] = []
    extract = tarfile.TarFile.extractfile

    def counting(self: tarfile.TarFile, member: tarfile.TarInfo) -> object:
        kept.append(len(self.members))
        return extract(self, member)

    monkeypatch.setattr(tarfile.TarFile, "extractfile", counting)
    import_runs(lab.results, source, lambda config: A)
    assert len(kept) == 500 and max(kept) <= 1
