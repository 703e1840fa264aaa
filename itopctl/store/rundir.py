"""Where the files of a run, and of a sweep, lie.

RESULTS/runs/<run_id>/  config.json · journal.jsonl · checkpoint-<step>-<digest>.pt · result.json · environment.json ·
                        network.pt · log.txt · lock
RESULTS/sweeps/<name>.json   the spec as it was, and its runs: ids and configs
RESULTS/submissions/<name>/  what was handed to a scheduler (`submissions.py`)
RESULTS/snapshots/<digest>/  the code that was submitted
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from itopctl.errors import NotWritableError

_SWEEP = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RUN_ID = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run's files."""

    path: Path

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def network(self) -> Path:
        """The trained network of a finished run."""
        return self.path / "network.pt"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def reserve(self) -> Path:
        """Room on the disk that is kept for the last word of an attempt."""
        return self.path / "reserve"

    @property
    def cancel(self) -> Path:
        """There while somebody wants this run to stop."""
        return self.path / "cancel"

    def check(self) -> None:
        """Raise NotWritableError where what is written here would land elsewhere."""
        _check_links(self.path)


@dataclass(frozen=True)
class Results:
    """A results folder."""

    path: Path

    @property
    def runs(self) -> Path:
        return self.path / "runs"

    @property
    def sweeps(self) -> Path:
        return self.path / "sweeps"

    @property
    def submissions(self) -> Path:
        return self.path / "submissions"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def database(self) -> Path:
        return self.path / "itop.db"

    def run(self, run_id: str) -> RunDirectory:
        return RunDirectory(self.runs / run_id)

    def check(self) -> None:
        """Raise NotWritableError where what is written here would land elsewhere."""
        _check_links(self.runs, self.sweeps, self.submissions, self.snapshots, self.database)

    def run_ids(self) -> list[str]:
        """Ids of all runs that have a folder; whatever else lies there is passed over."""
        try:
            with os.scandir(self.runs) as entries:
                folders = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        return sorted(filter(is_run_id, folders))

    def manifest(self, sweep: str) -> Path:
        return self.sweeps / f"{sweep}.json"

    def manifests(self) -> list[Path]:
        """Manifests of all recorded sweeps, by name; their stems are the sweeps' names."""
        try:
            paths = sorted(self.sweeps.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [path for path in paths if path.suffix == ".json" and is_sweep_name(path.stem)]


def _check_links(*paths: Path) -> None:
    for path in paths:
        if path.is_symlink():
            raise NotWritableError(
                f"{path} cannot be written: it is a symbolic link. What is written to a results folder stays in it: to "
                "keep results elsewhere, name that folder with --results."
            )


def is_sweep_name(name: str) -> bool:
    """Whether a name has the form of a sweep's."""
    return _SWEEP.fullmatch(name) is not None


def is_run_id(name: str) -> bool:
    """Whether a name has the form of a run's id."""
    return _RUN_ID.fullmatch(name) is not None
