"""Small file systems of their own, to be filled or made read-only: tmpfs, which root may mount."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REQUIRED = "ITOPCTL_TEST_MOUNT_REQUIRED"


@dataclass(frozen=True)
class SmallDisk:
    """A mounted file system; tests keep what they write in folders of it."""

    path: Path

    @property
    def ballast(self) -> Path:
        """What fills it."""
        return self.path / "ballast"

    def fill(self) -> None:
        fill(self.ballast)

    def make_room(self) -> None:
        self.ballast.unlink(missing_ok=True)

    def read_only(self, so: bool = True) -> None:
        """Make it so, or writable again."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if so else 'rw'}", self.path], check=True)


def fill(ballast: Path) -> None:
    """Write to a file until its file system is full."""
    handle = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(handle, bytes(size))
    finally:
        os.close(handle)


def is_full(folder: Path) -> bool:
    """Whether nothing more can be written there."""
    try:
        (folder / "probe").write_bytes(bytes(1))
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        (folder / "probe").unlink(missing_ok=True)
    return False


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount one on a folder; where that is not allowed the test is skipped, or fails if `REQUIRED` says so."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0777", "tmpfs", folder],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError) as error:
        why = f"no file system can be mounted here: {getattr(error, 'stderr', '') or error}"
        if os.environ.get(REQUIRED) == "1":
            pytest.fail(why)
        pytest.skip(why)
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
