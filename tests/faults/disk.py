"""A disk that remembers what was flushed: what is left of some changes where the power goes.

A file's content is on disk once the file was flushed, and names of a folder (made, renamed, linked, removed) once the
folder was. What comes after that may be there or not. So POSIX has it; file systems do better, each in its own way.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from itopctl.store.files import Change

Left = dict[str, bytes | None]
"""What is left of a folder: path in it → content; None for folders."""


@dataclass
class File:
    """Its content, and what of it was flushed."""

    content: bytes = b""
    flushed: bytes = b""


@dataclass
class Folder:
    """Its names, those that were flushed, and the changes since; each of these is made as a whole."""

    names: dict[str, File | Folder] = field(default_factory=dict)
    flushed: dict[str, File | Folder] = field(default_factory=dict)
    since: list[dict[str, File | Folder | None]] = field(default_factory=list)

    def change(self, **names: File | Folder | None) -> None:
        """Give names to files or folders, or take them away."""
        self.since.append(names)
        _put(self.names, names)


@dataclass(frozen=True)
class Cut:
    """What a power cut leaves of that which was not flushed.

    Attributes:
        content: `written` all of it; `lost` none; `zeros` where it was to be; `mixed` any of these, file by file.
        names: `written`, `lost`, or `mixed`: any of the changes.
        seed: of what is mixed.
    """

    content: str
    names: str
    seed: int = 0


KILL = Cut("written", "written")
"""Nothing is lost: the process was killed, not the machine."""

CUTS = (
    Cut("lost", "lost"), Cut("lost", "written"), Cut("zeros", "lost"), Cut("zeros", "written"),
    Cut("mixed", "mixed", 1), Cut("mixed", "mixed", 2),
)  # fmt: skip


class Disk:
    """A results folder on such a disk, with no files at first.

    Args:
        root: where it was when its changes were recorded.
        folders: names of folders in it that were there already.
    """

    def __init__(self, root: Path, folders: Sequence[str] = ()) -> None:
        self.root = root
        there: dict[str, File | Folder] = {name: Folder() for name in folders}
        self.top = Folder(dict(there), dict(there))

    def make(self, change: Change) -> None:
        """A change is made, as far as it can be."""
        parent: Folder | None = Folder({"": self.top})
        name = ""
        if change.path != self.root:
            parent, name = self._folder(change.path.parent), change.path.name
        if parent is None:
            assert change.kind == "unlink"
            return
        found = parent.names.get(name)
        match change.kind:
            case "mkdir" if found is None and name:
                parent.change(**{name: Folder()})
            case "create" if found is None:
                parent.change(**{name: File()})
            case "write" if isinstance(found, File):
                found.content += change.data
            case "truncate" if isinstance(found, File):
                found.content = found.content[: change.size]
            case "flush" if isinstance(found, File):
                found.flushed = found.content
            case "flush-folder" if isinstance(found, Folder):
                found.flushed, found.since = dict(found.names), []
            case "unlink" if found is not None:
                parent.change(**{name: None})
            case "rename" | "link" if isinstance(found, File):
                assert change.target is not None and change.target.parent == change.path.parent
                if change.kind == "rename":
                    parent.change(**{name: None, change.target.name: found})
                elif change.target.name not in parent.names:
                    parent.change(**{change.target.name: found})

    def left_by(self, cut: Cut) -> Left:
        """What there is after a power cut."""
        draw = random.Random(cut.seed)
        return dict(_left(self.top, "", cut, draw))

    def _folder(self, path: Path) -> Folder | None:
        folder = self.top
        for name in path.relative_to(self.root).parts:
            inner = folder.names.get(name)
            if not isinstance(inner, Folder):
                return None
            folder = inner
        return folder


def _left(folder: Folder, path: str, cut: Cut, draw: random.Random) -> Iterator[tuple[str, bytes | None]]:
    names = dict(folder.flushed)
    for change in folder.since:
        if cut.names == "written" or (cut.names == "mixed" and draw.random() < 0.5):
            _put(names, change)
    for name, inner in names.items():
        where = f"{path}/{name}".lstrip("/")
        if isinstance(inner, Folder):
            yield where, None
            yield from _left(inner, where, cut, draw)
        else:
            yield where, _content(inner, cut, draw)


def _content(file: File, cut: Cut, draw: random.Random) -> bytes:
    how = draw.choice(("written", "lost", "zeros")) if cut.content == "mixed" else cut.content
    if how == "written":
        return file.content
    return file.flushed + bytes(max(0, len(file.content) - len(file.flushed)) if how == "zeros" else 0)


def _put(names: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, inner in change.items():
        names.pop(name, None)
        if inner is not None:
            names[name] = inner


def lay_out(folder: Path, left: Left, inside: str = "") -> None:
    """Make a folder be as what is left, or as the folder `inside` of it.

    Files that are there already stay the same files, whatever their content.
    """
    prefix = f"{inside}/" if inside else ""
    wanted = {name.removeprefix(prefix): content for name, content in left.items() if name.startswith(prefix)}
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.rglob("*"), reverse=True):
        if str(path.relative_to(folder)) not in wanted:
            path.rmdir() if path.is_dir() else path.unlink()
    for name, content in wanted.items():
        if content is None:
            (folder / name).mkdir(exist_ok=True)
        else:
            (folder / name).write_bytes(content)


def moments(root: Path, changes: Sequence[Change], folders: Sequence[str] = ()) -> Iterator[tuple[int, Disk]]:
    """The disk after each number of changes, from none to all; see `Disk`."""
    disk = Disk(root, folders)
    for number, change in enumerate([*changes, None]):
        yield number, disk
        if change is not None:
            disk.make(change)


def digest(left: Left) -> str:
    """The same for what is the same."""
    return hashlib.sha256(repr(sorted(left.items())).encode()).hexdigest()
