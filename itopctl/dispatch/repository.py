"""The git repository around a folder, asked without running anything that its own configuration names.

Where somebody stands may have come from somebody else, `.git/config` included; and that can name programs.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

_NEVER = {
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "safe.bareRepository": "explicit",  # a folder that only looks like one
}
_FILTERS = ("clean", "process", "smudge")


@dataclass(frozen=True)
class Repository:
    """A repository.

    Attributes:
        folder: where git is asked.
        top: the repository's topmost folder.
    """

    folder: Path
    top: Path

    @staticmethod
    def around(folder: Path, apart: Iterable[Path] = ()) -> Repository | None:
        """The one around a folder, if there is one.

        Where the folder lies in one of `apart` (folders with results and data), git is not asked at all: what lies
        there is no code, and its repository nobody's own.
        """
        here = folder.resolve()
        if any(here.is_relative_to(path.resolve()) for path in apart):
            return None
        top = _ask(folder, _NEVER, "rev-parse", "--show-toplevel")
        if not top or not here.is_relative_to(Path(top).resolve()):  # its settings may name any folder
            return None
        return Repository(folder, Path(top))

    def ask(self, *arguments: str) -> str | None:
        """What a git command says; None where it fails."""
        return _ask(self.folder, {**_NEVER, **self._no_filters()}, *arguments)

    def state(self) -> tuple[str | None, bool | None]:
        """Commit, and whether anything differs from it; None where there is none."""
        commit = self.ask("rev-parse", "HEAD")
        if commit is None:
            return None, None
        # Submodules have settings of their own.
        status = self.ask("status", "--porcelain", "--ignore-submodules=all")
        return commit, bool(status) if status is not None else None

    def _no_filters(self) -> dict[str, str]:
        """Settings that undo the filters which the repository itself names, and git would run to compare files."""
        listed = _ask(self.folder, _NEVER, "config", "--list", "--show-scope", "--name-only", "--null") or ""
        words = listed.split("\0")
        named = {key.rpartition(".")[0] for scope, key in _pairs(words) if scope in ("local", "worktree")}
        filters = [name for name in named if name.startswith("filter.")]
        undone = {f"{name}.{kind}": "" for name in filters for kind in _FILTERS}
        return {**undone, **{f"{name}.required": "false" for name in filters}}


def _pairs(words: Sequence[str]) -> Iterable[tuple[str, str]]:
    return zip(words[::2], words[1::2], strict=False)


def _ask(folder: Path, settings: dict[str, str], *arguments: str) -> str | None:
    before = os.environ.get("GIT_CONFIG_COUNT", "")
    numbered = list(enumerate(settings.items(), int(before) if before.isdigit() else 0))
    environment = {
        **os.environ,
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_ALLOW_PROTOCOL": "none",  # nothing is fetched
        "GIT_CONFIG_COUNT": str(numbered[-1][0] + 1),
        **{f"GIT_CONFIG_KEY_{number}": key for number, (key, _) in numbered},
        **{f"GIT_CONFIG_VALUE_{number}": value for number, (_, value) in numbered},
    }
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.rstrip("\n")
