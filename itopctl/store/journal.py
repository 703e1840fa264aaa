"""The journal of one run: one JSON object a line, appended whole.

Fields of every line, in this order first: `event`, `seq` (1, 2, … over the run's whole life), `attempt`, `at` (UTC),
then `step`, `epoch` and what the event is about. Events: started, progress, evaluated, topology, checkpoint,
finished, failed. A torn last line (a crash while it was written) is passed over by readers and closed by the next
writer.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

_DURABLE = frozenset({"started", "checkpoint", "finished", "failed"})


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


def read_journal(path: Path, offset: int = 0) -> JournalPart:
    """Events from byte `offset` on; an absent file has none."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            raw = file.read()
    except FileNotFoundError:
        return JournalPart([], offset, 0, False)
    whole, _, rest = raw.rpartition(b"\n")
    events, damaged = [], 0
    for line in whole.split(b"\n") if whole else []:
        event = _parse(line)
        if event is not None:
            events.append(event)
        elif line.strip():
            damaged += 1
    consumed = len(raw) - len(rest)
    return JournalPart(events, offset + consumed, damaged, bool(rest))


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


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

    Args:
        path: the journal; created where there is none.
        continuing: write as the last attempt in the journal, if it has no end yet (for a process that cannot
            write it any more), instead of beginning the next.
    """

    def __init__(self, path: Path, continuing: bool = False) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        earlier = read_journal(path)
        if earlier.torn:
            os.write(self._file, b"\n")  # what was cut off may have been whole but for this
            earlier = read_journal(path)
        last = max((_number(e.get("attempt")) for e in earlier.events), default=0)
        ended = not earlier.events or earlier.events[-1]["event"] in ("finished", "failed")
        self.attempt = last if continuing and not ended else last + 1
        self._seq = max((_number(e.get("seq")) for e in earlier.events), default=0)
        self._torn = False

    def write(self, event: str, fields: dict[str, Any]) -> None:
        """Append one event in a single write; those a later step depends on reach the disk before this returns.

        Raises:
            OSError: it could not be written whole; the next event begins a line of its own.
        """
        self._seq += 1
        line = {"event": event, "seq": self._seq, "attempt": self.attempt, "at": utc_now(), **fields}
        data = b"\n" * self._torn + json.dumps(line, allow_nan=False).encode() + b"\n"
        self._torn = True
        while data:
            data = data[os.write(self._file, data) :]
        self._torn = False
        if event in _DURABLE:
            os.fsync(self._file)

    def close(self) -> None:
        os.close(self._file)


def utc_now() -> str:
    """Now, as ISO 8601 in UTC with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
