"""A repository that somebody else made is asked, and runs nothing of what its settings name."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from itopctl.dispatch.repository import Repository
from itopctl.dispatch.snapshot import find_code, git_state
from tests.dispatch.test_snapshot import git


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A repository with a commit, and a file that differs from it only in its time."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / ".gitattributes").write_text("*.txt filter=odd=name\n")
    (folder / "notes.txt").write_text("some notes\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "one")
    (folder / "notes.txt").write_text("some notex\n")  # as long as before: its content has to be compared
    return folder


def mark_of(theirs: Path, setting: str) -> Path:
    """Let a setting name a program; returns what it leaves behind."""
    mark = theirs.parent / "it was run"
    program = theirs.parent / "program"
    program.write_text(f"#!/bin/sh\ntouch '{mark}'\ncat\n")
    program.chmod(0o755)
    git(theirs, "config", setting, str(program))
    return mark


@pytest.mark.parametrize("setting", ["core.fsmonitor", "filter.odd=name.clean", "filter.odd=name.process"])
def test_no_program_is_run_that_the_settings_of_a_repository_name(theirs: Path, setting: str) -> None:
    mark = mark_of(theirs, setting)
    commit, dirty = git_state(theirs)
    assert commit is not None and dirty is True
    assert "notes.txt" in find_code(theirs, [], [])
    assert not mark.exists()
    subprocess.run(["git", "status"], cwd=theirs, capture_output=True, check=False)
    assert mark.exists(), "git itself would run it"


def test_a_filter_of_ones_own_is_used_as_ever(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = theirs.parent / "own settings"
    own.write_text('[filter "odd=name"]\n\tclean = sed s/notex/notes/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(own))
    assert git_state(theirs)[1] is False, "what the filter makes of it is what was committed"


def test_settings_that_came_by_the_environment_hold(theirs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "status.showUntrackedFiles")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "no")
    (theirs / "notes.txt").write_text("some notes\n")
    (theirs / "new.py").write_text("")
    assert git_state(theirs)[1] is False


def test_git_is_not_asked_in_a_folder_with_results(theirs: Path) -> None:
    inside = theirs / "runs"
    inside.mkdir()
    assert git_state(theirs)[0] is not None
    for folder in (theirs, inside):
        assert git_state(folder, [theirs]) == (None, None)
        assert not [name for name in find_code(folder, [theirs], []) if not name.startswith("itopctl/")]


def test_results_in_a_repository_of_ones_own_do_not_hide_it(theirs: Path) -> None:
    assert git_state(theirs, [theirs / "results"])[0] is not None


def test_a_repository_that_claims_other_folders_for_its_own_is_none(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    git(theirs, "config", "core.worktree", str(tmp_path / "private"))
    assert Repository.around(theirs) is None
    git(theirs, "config", "--unset", "core.worktree")
    (tmp_path / "bare").mkdir()
    git(tmp_path / "bare", "init", "-q", "--bare")
    assert Repository.around(tmp_path / "bare") is None
