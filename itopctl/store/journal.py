"""The journal of one run: one JSON object a line, appended whole.

Fields of every line, in this order first: `event`, `seq` (1, 2, … over the run's whole life), `attempt`, `at` (UTC),
then `step`, `epoch` and what the event is about. Events: started, progress, evaluated, topology, checkpoint,
finished, failed. A torn last line (a crash while it was written) is passed over by readers and closed by the next
writer. What depends on events, a checkpoint or a result, is written after these are on disk (`JournalWriter.flush`).
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from itopctl.store.files import Appender, hold_space, most_bytes, open_regular, parse_object, remove

_DURABLE = frozenset({"started", "checkpoint", "finished", "failed"})
LOG_LINES = 50
"""Lines of a run's log that go into the last word of an attempt that failed."""

_LONGEST_LINE = 1 << 20
_MARKED_BYTES = 512  # the last event or two, with their times and numbers
_RESERVED_BYTES = 64 << 10  # more than the longest last word


@dataclass(frozen=True)
class JournalPart:
    """What a reader got.

    Attributes:
        events: whole events, in order.
        offset: where to go on reading.
        damaged: lines that are no JSON object (passed over).
        torn: whether bytes without a line end follow `offset`.
    """

    events: list[dict[str, Any]]
    offset: int
    damaged: int
    torn: bool


def read_journal(path: Path, offset: int = 0, until: int | None = None) -> JournalPart:
    """Events from byte `offset` on, and before byte `until`; an absent file has none, and so has what is no file."""
    until = most_bytes(path) if until is None else until
    events, damaged, end, torn = [], 0, offset, False
    with contextlib.suppress(OSError):
        for line, length in _lines(path, offset, until):
            torn = not line.endswith(b"\n")
            if torn:
                break
            end += length
            event = _parse(line) if length == len(line) else None
            if event is not None:
                events.append(event)
            elif line.strip():
                damaged += 1
    return JournalPart(events, end, damaged, torn)


def mark_at(path: Path, offset: int) -> str | None:
    """What tells the bytes just before an offset from others; None where there are not so many."""
    if offset < 0:  # of a damaged database
        return None
    length = min(offset, _MARKED_BYTES)
    try:
        with open_regular(path) as file:
            file.seek(offset - length)
            data = file.read(length)
    except OSError:
        return None
    return hashlib.blake2b(data, digest_size=8).hexdigest() if len(data) == length else None


def _lines(path: Path, offset: int, until: int) -> Iterator[tuple[bytes, int]]:
    """Lines with their ends, the last perhaps without, and their lengths; of a long one the end. Raises OSError."""
    with open_regular(path) as file:
        file.seek(offset)
        while (left := until - file.tell()) > 0 and (line := file.readline(min(left, _LONGEST_LINE))):
            length = len(line)
            while len(line) == _LONGEST_LINE and not line.endswith(b"\n"):  # no event of ours is so long
                line = file.readline(_LONGEST_LINE)
                length += len(line)
            yield line, length


def _parse(line: bytes) -> dict[str, Any] | None:
    event = parse_object(line)
    return event if event is not None and isinstance(event.get("event"), str) else None


def open_attempt(path: Path) -> dict[str, Any] | None:
    """The `started` event of the last attempt, where nothing says yet how that attempt ended."""
    started = None
    for event in read_journal(path).events:
        if event["event"] == "started":
            started = event
        elif event["event"] in ("finished", "failed"):
            started = None
    return started


@dataclass(frozen=True)
class AttemptInJournal:
    """An attempt as a journal tells it: who made it, and why it ended (None: nothing says so yet)."""

    number: int
    job_id: str | None
    cause: str | None


def attempts_in(path: Path) -> list[AttemptInJournal]:
    """Every attempt that a journal knows of, in order; an absent file has none."""
    jobs: dict[int, str | None] = {}
    causes: dict[int, str | None] = {}
    for event in read_journal(path).events:
        number = _number(event.get("attempt"))
        if event["event"] == "started":
            jobs[number] = event.get("job_id")
        elif event["event"] in ("finished", "failed"):
            causes[number] = str(event.get("cause"))
    return [AttemptInJournal(n, jobs.get(n), causes.get(n)) for n in sorted({*jobs, *causes})]


class JournalWriter:
    """Appends events of one attempt.

    Room on the disk is kept for the last of them, so that a full disk does not keep an attempt from saying that the
    disk is full.

    Args:
        path: the journal; created where there is none.
        continuing: write as the last attempt in the journal, if it has no end yet (for a process that cannot
            write it any more), instead of beginning the next.
        reserve: name for that room; an earlier attempt's may still be there.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path, continuing: bool = False, reserve: Path | None = None) -> None:
        self._reserve = reserve
        if reserve is not None and not continuing:
            hold_space(reserve, _RESERVED_BYTES)
        self._file = Appender(path)
        earlier = read_journal(path)
        if earlier.torn:
            self._append(b"\n")  # what was cut off may have been whole but for this
            earlier = read_journal(path)
        last = max((_number(e.get("attempt")) for e in earlier.events), default=0)
        ended = not earlier.events or earlier.events[-1]["event"] in ("finished", "failed")
        self.attempt = last if continuing and not ended else last + 1
        self._seq = max((_number(e.get("seq")) for e in earlier.events), default=0)

    def write(self, event: str, fields: dict[str, Any]) -> None:
        """Append one event, or nothing of it; those a later step depends on reach the disk before this returns.

        Raises:
            OSError: it could not be written.
        """
        line = {"event": event, "seq": self._seq + 1, "attempt": self.attempt, "at": utc_now(), **fields}
        data = json.dumps(line, allow_nan=False).encode() + b"\n"
        if event == "failed":
            self._append(data)
        else:
            self._file.append(data)
        self._seq += 1
        if event in _DURABLE:
            self._file.flush()

    def flush(self) -> None:
        """Make sure that all events so far are on disk. Raises OSError."""
        self._file.flush()

    @property
    def position(self) -> dict[str, int]:
        """Where the journal ends now: the last event's number and the bytes up to its end."""
        return {"seq": self._seq, "offset": self._file.size}

    def close(self) -> None:
        self._file.close()
        if self._reserve is not None:
            with contextlib.suppress(OSError):
                remove(self._reserve)

    def _append(self, data: bytes) -> None:
        try:
            self._file.append(data)
        except OSError as error:
            if self._reserve is None or error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            remove(self._reserve)
            self._file.append(data)


def holds(path: Path, position: dict[str, Any]) -> bool:
    """Whether a journal has all that it had at this `JournalWriter.position`."""
    seq, offset = position.get("seq"), position.get("offset")
    if not isinstance(seq, int) or not isinstance(offset, int):
        return False
    part = read_journal(path, 0, offset)
    return part.offset == offset and bool(part.events) and part.events[-1].get("seq") == seq


def maskable_before(path: Path, position: dict[str, Any]) -> int | None:
    """How many maskable weights a training had at a `JournalWriter.position`; None where the journal does not say."""
    events = read_journal(path, 0, position["offset"]).events
    return next((e["maskable"] for e in reversed(events) if isinstance(e.get("maskable"), int)), None)


def utc_now() -> str:
    """Now, as ISO 8601 in UTC with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
