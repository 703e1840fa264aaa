from __future__ import annotations

from pathlib import Path

import pytest

from itopctl.errors import EnvironmentUnfitError
from itopctl.store.files import read_json, write_json


def test_a_written_object_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "result.json"
    write_json(path, {"accuracy": 0.1, "name": "ζ", "shape": [1, 2]})
    assert read_json(path) == {"accuracy": 0.1, "name": "ζ", "shape": [1, 2]}
    assert path.stat().st_mode & 0o777 == 0o644


def test_writing_replaces_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"long": "x" * 10_000})
    write_json(path, {"short": 1})
    assert read_json(path) == {"short": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("unwritable", [{"loss": float("nan")}, {"a": object()}])
def test_what_is_no_json_leaves_the_old_file_as_it_was(tmp_path: Path, unwritable: object) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, unwritable)
    assert read_json(path) == {"old": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


def test_a_place_that_cannot_be_written_is_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentUnfitError, match=r"file/result\.json cannot be written"):
        write_json(tmp_path / "file" / "result.json", {})


def test_a_folder_in_the_place_of_the_file_is_said_to_be_there_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(EnvironmentUnfitError, match="cannot be written"):
        write_json(tmp_path / "result.json", {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"[1]", b"3", b"\xff", b"[" * 100_000])
def test_what_is_not_a_whole_object_reads_as_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert read_json(path) is None


def test_an_absent_file_reads_as_nothing(tmp_path: Path) -> None:
    assert read_json(tmp_path / "config.json") is None
