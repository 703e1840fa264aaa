"""Every change of the files in a results folder, one system call at a time; and reading what lies there.

Whatever replaces a file is written aside, flushed and renamed, and its folder is flushed after that: a reader, or
whoever comes after a power cut, finds the old file or the new one, whole. Files are opened only where they are files: a
symbolic link, a pipe or a device in their place (in somebody else's results) is neither followed nor waited for.

Not for what the training prints, nor for what a scheduler's own commands write.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

from itopctl.errors import DiskFullError, EnvironmentUnfitError, NotWritableError

_MOST_BYTES = {
    "lock": 1 << 16, "config.json": 1 << 20, "environment.json": 1 << 20, "result.json": 16 << 20, ".json": 64 << 20,
    ".jsonl": 128 << 20, ".txt": 256 << 20, ".pt": 64 << 30,
}  # fmt: skip

_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_PIECE = 1 << 20
_OPEN = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK

T = TypeVar("T")


@dataclass(frozen=True)
class Change:
    """A system call that changes something on disk, about to be made.

    Attributes:
        kind: `mkdir`, `create`, `write` (at the end), `truncate`, `flush` (a file), `flush-folder`, `rename`, `link`,
            `unlink`.
        path: of what is changed.
        data: what is written.
        target: the new name of a renamed or linked file.
        size: of a truncated file.
    """

    kind: str
    path: Path
    data: bytes = b""
    target: Path | None = None
    size: int = 0


watchers: list[Callable[[Change], None]] = []
"""Told of every change before it is made; for tests, which record changes or raise at one."""


def _do(change: Change, call: Callable[[], T]) -> T:
    for watch in watchers:
        watch(change)
    return call()


# Reading ----------------------------------------------------------------------------------------------------


def most_bytes(path: Path) -> int:
    """A file of this name that is larger is none of ours; of JSON, 64 MiB are a manifest of some 50,000 runs."""
    return _MOST_BYTES.get(path.name) or _MOST_BYTES.get(path.suffix, _MOST_BYTES[".json"])


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading. Everything here and elsewhere that reads a results folder opens its files by this.

    Raises:
        OSError: it is missing, no regular file, or cannot be read.
    """
    handle = os.open(path, os.O_RDONLY | _OPEN)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises OSError as `open_regular` does, and where it is larger than `most_bytes`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > (most := most_bytes(path)):
            raise OSError(errno.EFBIG, f"it is larger than {most >> 20} MiB", str(path))
        return file.read()


def pieces(path: Path, offset: int = 0) -> Iterator[bytes]:
    """What stands in a file from an offset to its present end, a piece at a time; an absent file has nothing.

    Raises:
        EnvironmentUnfitError: it is no regular file, or cannot be read.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise EnvironmentUnfitError(f"{path} cannot be read: {reason}.") from error
    with file:
        file.seek(offset)
        left = os.fstat(file.fileno()).st_size - offset
        while left > 0 and (piece := file.read(min(left, _PIECE))):
            left -= len(piece)
            yield piece


def last_lines(path: Path, count: int, width: int = 300) -> list[str]:
    """The last lines of a text file, each cut to a width; none where it cannot be read."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4 * count * width))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line[:width] for line in lines[-count:]]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object from a file; None where there is no file, or no whole object in it."""
    try:
        return parse_object(read_bytes(path))
    except (OSError, MemoryError):
        return None


NOT_OURS = (errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.ENXIO)
"""What opening or reading says of a link, a pipe, a device, something too large: no file of ours."""


def read_json_surely(path: Path) -> dict[str, Any] | None:
    """The same, where much hangs on it that a file is not taken for missing because it cannot be read just now.

    Raises:
        OSError: there may be a file, and it cannot be read (no permission, an I/O error, a network file system).
    """
    try:
        return parse_object(read_bytes(path))
    except (FileNotFoundError, NotADirectoryError, MemoryError):
        return None
    except OSError as error:
        if error.errno in NOT_OURS:
            return None
        raise


def parse_object(text: bytes) -> dict[str, Any] | None:
    """A JSON object; None for anything else. NaN and infinity are not JSON."""
    try:
        data = _DECODER.decode(text.decode())
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


# Changing ---------------------------------------------------------------------------------------------------


def cannot_write(path: Path, error: OSError) -> EnvironmentUnfitError:
    """The error to raise where something could not be written: of the class that says why."""
    what = f"{path} cannot be written"
    if error.errno in _FULL:
        return DiskFullError(f"{what}: {'the quota is' if error.errno == errno.EDQUOT else 'the disk is'} full.")
    if error.errno in _FORBIDDEN:
        return NotWritableError(f"{what}: {error.strerror}.")
    if error.errno == errno.ELOOP:
        return NotWritableError(f"{what}: it is a symbolic link.")
    return EnvironmentUnfitError(f"{what}: {error.strerror or error}.")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an OSError into the error that a person understands."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def make_folder(path: Path) -> None:
    """Make a folder and those above it, where they are missing. Raises OSError."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        _do(Change("mkdir", path), path.mkdir)
    flush_folder(path.parent)


def flush_folder(path: Path) -> None:
    """Make sure that names in a folder are on disk, where the file system can."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot flush folders
            _do(Change("flush-folder", path), lambda: os.fsync(handle))
    finally:
        os.close(handle)


def flush(path: Path) -> None:
    """Make sure that a file's content is on disk. Raises OSError."""
    with open_regular(path) as file:
        _do(Change("flush", path), lambda: os.fsync(file.fileno()))


def write_json(path: Path, data: Any) -> None:
    """Write JSON to `path`, whole. Raises EnvironmentUnfitError where it cannot be written."""
    write_whole(path, json.dumps(data, indent=1, allow_nan=False).encode() + b"\n")


def write_whole(path: Path, data: bytes) -> None:
    """Put a file in its place, whole, folders above it included; on return it is on disk.

    Raises:
        EnvironmentUnfitError: it cannot be written; what was there before still is.
    """
    with explained(path):
        make_folder(path.parent)
        with aside(path, data, flush=True) as written:
            _do(Change("rename", written, target=path), lambda: written.replace(path))
        flush_folder(path.parent)


@contextlib.contextmanager
def aside(path: Path, data: bytes, flush: bool = False) -> Iterator[Path]:
    """A file with this content beside `path`, gone on leaving unless it was renamed. Raises OSError."""
    beside, handle = _create_beside(path)
    try:
        try:
            _write(handle, beside, data)
            if flush:
                _do(Change("flush", beside), lambda: os.fsync(handle))
        finally:
            os.close(handle)
        yield beside
    finally:
        if beside.exists():
            remove(beside)


def _create_beside(path: Path) -> tuple[Path, int]:
    """A new file beside another, under a name that nobody else has, open for writing."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
    return beside, _do(Change("create", beside), lambda: os.open(beside, flags, 0o644))


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write piece by piece, which is put in the place of `path`, on disk, when all of it is written.

    Raises:
        OSError: it cannot be written; what was there before still is, as it is where the caller raises.
    """
    beside, handle = _create_beside(path)
    try:
        try:
            with io.BufferedWriter(_Raw(handle, beside), _PIECE) as file:
                yield cast(BinaryIO, file)
            _do(Change("flush", beside), lambda: os.fsync(handle))
        finally:
            os.close(handle)
        rename(beside, path)
    finally:
        remove(beside)


class _Raw(io.RawIOBase):
    """A descriptor that is written to as everything here is."""

    def __init__(self, handle: int, path: Path) -> None:
        self._handle, self._path, self._size = handle, path, 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._size

    def write(self, data: Any) -> int:
        _write(self._handle, self._path, bytes(data))
        self._size += len(data)
        return len(data)


def leftovers(path: Path) -> list[Path]:
    """What processes that were killed while they replaced a file left beside it."""
    return sorted(path.parent.glob(f".{path.name}.*"))


def place(beside: Path, path: Path) -> None:
    """Give a file a second name, whole at once. Raises FileExistsError where there is one already."""
    try:
        _do(Change("link", beside, target=path), lambda: path.hardlink_to(beside))
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _OPEN
        handle = _do(Change("create", path), lambda: os.open(path, flags, 0o644))
        try:
            _write(handle, path, beside.read_bytes())
        finally:
            os.close(handle)


def rename(path: Path, target: Path) -> None:
    """Rename a file within a folder, over another if there is one. Raises OSError."""
    _do(Change("rename", path, target=target), lambda: path.replace(target))
    flush_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file, if it is there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        _do(Change("unlink", path), path.unlink)


class Appender:
    """A file that only grows, piece by whole piece.

    Args:
        path: made where there is none, in a folder that is there.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | _OPEN
        self._file = _do(Change("create", path), lambda: os.open(path, flags, 0o644))
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            os.close(self._file)
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if new:
            flush_folder(path.parent)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return os.fstat(self._file).st_size

    def append(self, data: bytes) -> None:
        """Append all of it, or nothing. Raises OSError."""
        before = self.size
        try:
            _write(self._file, self.path, data)
        except OSError:
            with contextlib.suppress(OSError):
                _do(Change("truncate", self.path, size=before), lambda: os.ftruncate(self._file, before))
            raise

    def flush(self) -> None:
        """Make sure that all of it is on disk. Raises OSError."""
        _do(Change("flush", self.path), lambda: os.fsync(self._file))

    def close(self) -> None:
        os.close(self._file)


def hold_space(path: Path, size: int) -> None:
    """Take up room on the disk under a name, to be given back by `remove` when there is no other left."""
    with contextlib.suppress(OSError):
        handle = _do(Change("create", path), lambda: os.open(path, os.O_WRONLY | os.O_CREAT | _OPEN, 0o644))
        try:
            os.posix_fallocate(handle, 0, size)
        finally:
            os.close(handle)


def _write(handle: int, path: Path, data: bytes) -> None:
    def write(rest: bytes) -> int:
        return _do(Change("write", path, data=rest), lambda: os.write(handle, rest))

    while data:
        data = data[write(data) :]
