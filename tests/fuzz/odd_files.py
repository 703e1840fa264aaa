"""What can stand where a file or folder of a results folder belongs, in a folder that somebody else made."""

from __future__ import annotations

import os
import random
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.bench import BEGUN, DONE, QUEUED


def _link(path: Path, target: Path | str) -> None:
    path.symlink_to(target)


def _socket(path: Path) -> None:
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(path.parent)  # a socket's path must be short
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)
        os.close(here)


def _device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # reads zeros for ever
    except PermissionError:
        path.symlink_to("/dev/zero")


def _large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(300 << 20)


ODD: dict[str, Callable[[Path, Path], None]] = {
    "link to a file": lambda path, canary: _link(path, canary / "file"),
    "link to a folder": lambda path, canary: _link(path, canary),
    "link to what is not there": lambda path, canary: _link(path, canary / "new"),
    "link to itself": lambda path, canary: _link(path, path.name),
    "link to zeros": lambda path, canary: _link(path, "/dev/zero"),
    "link above": lambda path, canary: _link(path, ".."),
    "hard link": lambda path, canary: path.hardlink_to(canary / "file"),
    "pipe": lambda path, canary: os.mkfifo(path),
    "socket": lambda path, canary: _socket(path),
    "device": lambda path, canary: _device(path),
    "folder": lambda path, canary: path.mkdir(),
    "full folder": lambda path, canary: (path / "a" / "b").mkdir(parents=True),
    "empty file": lambda path, canary: path.touch(),
    "large file": lambda path, canary: _large(path),
    "nothing": lambda path, canary: None,
}
"""What stands there → makes it at a path, with a folder outside."""

_MORE = (
    "itop.db-wal", "itop.db-shm", "itop.db-journal", "sweeps/new.json",
    "snapshots",
    "snapshots/0123456789ab", "submissions/other", "submissions/one-x/ended-77_0.json",
    "submissions/one-x/77_0_0_log.out",
    f"runs/{BEGUN}/result.json", f"runs/{QUEUED}", f"runs/{'a' * 12}", f"runs/{BEGUN}/reserve", f"runs/{DONE}/lock",
    f"runs/{BEGUN}/.config.json.01234567", f"runs/{DONE}/checkpoint-000000000021-0123456789abcdef.pt", "runs/x\ny",
    "runs/..x",
    f"runs/{BEGUN}/journal.before-import.jsonl", "rebuilt.db", ".itop.db.part", "sweeps/.one.json.0123",
)  # fmt: skip


def put(path: Path, what: str, canary: Path) -> None:
    """Put something odd at a path, in place of what is there."""
    if what == "hard link" and path.name.startswith("itop.db-"):
        return  # SQLite writes to these itself, and a file does not say what other names it has
    if what == "pipe" and path.name == "itop.db-journal":
        return  # by itself, in test_found.py: SQLite waits there where no signal is heard
    if path.is_symlink() or path.is_file() or (path.exists() and not path.is_dir()):
        path.unlink()
    elif path.is_dir():
        shutil.rmtree(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    ODD[what](path, canary)


def odd_file(folder: Path, canary: Path, rng: random.Random) -> None:
    """Put something odd somewhere in a results folder."""
    there = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))]
    name = rng.choice(there if rng.random() < 0.6 and there else _MORE)
    path = folder / name
    if any(parent.is_symlink() or (parent.exists() and not parent.is_dir()) for parent in path.parents):
        return
    put(path, rng.choice(sorted(ODD)), canary)
