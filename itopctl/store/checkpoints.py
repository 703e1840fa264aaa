"""The checkpoints of a run: files whose names say how far the run was and what their content must be.

RESULTS/runs/<run_id>/checkpoint-<step, 12 digits>-<digest of the content, 16 hex digits>.pt

The newest and the one before are kept, so that a damaged one costs the steps between them. What is in them is the
training's affair (`itopctl.train.checkpoint`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from itopctl.store.files import NOT_OURS, read_bytes, remove, rename, write_whole
from itopctl.store.rundir import RunDirectory

KEPT = 2
_NAME = re.compile(r"checkpoint-(\d{12})-([0-9a-f]{16})\.pt")


class DamagedCheckpointError(ValueError):
    """A checkpoint cannot be used; its message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's file.

    Attributes:
        path: where it lies.
        step: optimizer steps done.
        digest: of its content, as its name has it.
    """

    path: Path
    step: int
    digest: str

    def read(self) -> bytes:
        """Its content.

        Raises:
            DamagedCheckpointError: that is not what was written.
            OSError: it cannot be read just now (an I/O error, no permission), which says nothing of it.
        """
        try:
            data = read_bytes(self.path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *NOT_OURS):
                raise
            raise DamagedCheckpointError(str(error.strerror)) from error
        if _digest(data) != self.digest:
            raise DamagedCheckpointError("its content is not what was written")
        return data


def checkpoints(run: RunDirectory) -> list[Checkpoint]:
    """Those of a run, newest first."""
    found = []
    for path in run.path.glob("checkpoint-*.pt"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append(Checkpoint(path, int(match[1]), match[2]))
    return sorted(found, key=lambda one: (one.step, _written(one.path), one.digest), reverse=True)


def save_checkpoint(run: RunDirectory, step: int, data: bytes) -> None:
    """Write one, whole, then remove those that are older than the one before.

    Raises:
        EnvironmentUnfitError: it cannot be written.
    """
    path = run.path / f"checkpoint-{step:012d}-{_digest(data)}.pt"
    write_whole(path, data)
    others = [one for one in checkpoints(run) if one.path != path]
    for one in others[KEPT - 1 :]:
        with contextlib.suppress(OSError):
            remove(one.path)


def set_aside(run: RunDirectory, checkpoint: Checkpoint) -> Path:
    """Rename one that cannot be used; returns its new name. Raises OSError."""
    damaged = run.path / checkpoint.path.name.replace("checkpoint-", "checkpoint.damaged-", 1)
    rename(checkpoint.path, damaged)
    return damaged


def remove_checkpoints(run: RunDirectory) -> None:
    """Remove all, those set aside included. Raises OSError."""
    for path in run.path.glob("checkpoint*.pt"):
        remove(path)


def _written(path: Path) -> int:
    try:
        return path.lstat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
