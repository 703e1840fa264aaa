from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from itopctl.store.journal import JournalPart, JournalWriter, mark_at, read_journal

EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["progress", "evaluated", "topology"]),
        st.dictionaries(
            st.sampled_from(["step", "message", "layer\nname", "ζ"]),
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        ),
    ),
    max_size=8,
)


def append(path: Path, *events: tuple[str, dict[str, Any]], continuing: bool = False) -> int:
    """Write events as one process would, and give its attempt's number."""
    writer = JournalWriter(path, continuing)
    for event, fields in events:
        writer.write(event, fields)
    writer.close()
    return writer.attempt


def names(part: JournalPart) -> list[str]:
    return [event["event"] for event in part.events]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.jsonl"


def test_an_absent_journal_has_no_events(path: Path) -> None:
    assert read_journal(path) == JournalPart([], 0, 0, False)


def test_a_line_begins_with_event_number_attempt_and_time(path: Path) -> None:
    append(path, ("evaluated", {"step": 3, "epoch": 0.5, "test_accuracy": 0.25}))
    raw = path.read_text()
    assert raw.count("\n") == 1 and raw.endswith("}\n")
    line = json.loads(raw)
    assert list(line) == ["event", "seq", "attempt", "at", "step", "epoch", "test_accuracy"]
    assert (line["event"], line["seq"], line["attempt"], line["test_accuracy"]) == ("evaluated", 1, 1, 0.25)
    at = datetime.fromisoformat(line["at"])
    assert at.utcoffset() is not None and abs((datetime.now(timezone.utc) - at).total_seconds()) < 60


def test_text_with_line_ends_stays_on_one_line(path: Path) -> None:
    append(path, ("failed", {"message": "one\ntwo\r\nthree\u2028four"}), ("progress", {}))
    part = read_journal(path)
    assert names(part) == ["failed", "progress"]
    assert part.events[0]["message"] == "one\ntwo\r\nthree\u2028four"


def test_a_number_that_is_not_finite_is_refused_and_nothing_is_written(path: Path) -> None:
    writer = JournalWriter(path)
    with pytest.raises(ValueError, match="JSON"):
        writer.write("evaluated", {"train_loss": float("nan")})
    writer.close()
    assert path.read_bytes() == b""


def test_a_torn_last_line_is_reported_and_passed_over(path: Path) -> None:
    append(path, ("started", {}), ("progress", {"step": 1}))
    whole = path.stat().st_size
    with path.open("ab") as file:
        file.write(b'{"event": "progress", "st')
    part = read_journal(path)
    assert names(part) == ["started", "progress"]
    assert part.torn and part.offset == whole and part.damaged == 0


def test_the_next_writer_closes_a_torn_line_and_its_own_events_are_whole(path: Path) -> None:
    append(path, ("started", {}))
    with path.open("ab") as file:
        file.write(b'{"event": "progress", "st')
    append(path, ("started", {}), ("finished", {}))
    part = read_journal(path)
    assert names(part) == ["started", "started", "finished"]
    assert part.damaged == 1 and not part.torn and part.offset == path.stat().st_size


@pytest.mark.parametrize("line", [b"no json", b'"text"', b"[1]", b"{}", b'{"event": 3}', b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_is_no_event_is_counted_and_its_neighbours_are_read(path: Path, line: bytes) -> None:
    append(path, ("started", {}))
    with path.open("ab") as file:
        file.write(line + b"\n")
    append(path, ("progress", {}))
    part = read_journal(path)
    assert names(part) == ["started", "progress"] and part.damaged == 1 and not part.torn


def test_an_empty_line_is_no_damage(path: Path) -> None:
    append(path, ("started", {}))
    with path.open("ab") as file:
        file.write(b"\n")
    append(path, ("progress", {}))
    assert (len(read_journal(path).events), read_journal(path).damaged) == (2, 0)


def test_every_writer_is_a_new_attempt_and_numbers_run_on(path: Path) -> None:
    assert append(path, ("started", {}), ("progress", {})) == 1
    assert append(path, ("started", {}), ("failed", {})) == 2
    assert append(path, ("started", {}), ("finished", {})) == 3
    events = read_journal(path).events
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    assert [event["attempt"] for event in events] == [1, 1, 2, 2, 3, 3]


def test_continuing_ends_the_attempt_of_a_process_that_is_gone(path: Path) -> None:
    append(path, ("started", {}), ("progress", {}))
    assert append(path, ("failed", {"cause": "lost"}), continuing=True) == 1
    assert [(e["event"], e["attempt"], e["seq"]) for e in read_journal(path).events][-1] == ("failed", 1, 3)


@pytest.mark.parametrize("last", ["finished", "failed"])
def test_continuing_after_an_ended_attempt_begins_the_next(path: Path, last: str) -> None:
    append(path, ("started", {}), (last, {}))
    assert append(path, ("failed", {}), continuing=True) == 2


def test_continuing_an_empty_journal_is_its_first_attempt(path: Path) -> None:
    assert append(path, ("failed", {}), continuing=True) == 1


def test_damaged_numbers_do_not_stop_the_next_writer(path: Path) -> None:
    path.write_text('{"event": "started", "seq": "x", "attempt": null}\n')
    assert append(path, ("started", {})) == 1


def test_reading_goes_on_from_an_offset(path: Path) -> None:
    append(path, ("started", {}), ("progress", {"step": 1}))
    first = read_journal(path)
    assert names(read_journal(path, first.offset)) == []
    append(path, ("started", {}))
    second = read_journal(path, first.offset)
    assert names(second) == ["started"] and second.events[0]["seq"] == 3
    assert second.offset == path.stat().st_size


def test_a_line_that_was_torn_when_first_read_is_read_whole_later(path: Path) -> None:
    append(path, ("started", {}), ("progress", {"step": 1}))
    raw = path.read_bytes()
    path.write_bytes(raw[:-9])
    first = read_journal(path)
    assert names(first) == ["started"] and first.torn
    path.write_bytes(raw)
    assert names(read_journal(path, first.offset)) == ["progress"]


_FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from itopctl.store.journal import JournalWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
path = Path(sys.argv[1])
writer = JournalWriter(path)
writer.write("progress", {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, resource.RLIM_INFINITY))
try:
    writer.write("progress", {"step": 2})
except OSError:
    pass
else:
    sys.exit("there was room after all")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
writer.write("failed", {"cause": "user-error"})
"""


def test_after_a_write_for_which_the_disk_had_no_room_the_next_event_is_whole(path: Path) -> None:
    subprocess.run([sys.executable, "-c", _FULL_DISK, str(path)], check=True)
    assert names(read_journal(path)) == ["progress", "failed"]


@settings(max_examples=150, deadline=None)
@given(EVENTS, st.data())
def test_a_journal_cut_anywhere_reads_as_a_prefix_and_takes_more_without_loss(
    events: list[tuple[str, dict[str, Any]]], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        append(path, *events)
        whole = read_journal(path)
        assert [{k: v for k, v in e.items() if k not in ("seq", "attempt", "at")} for e in whole.events] == [
            {"event": event, **fields} for event, fields in events
        ]
        raw = path.read_bytes()
        cut = data.draw(st.integers(0, len(raw)), label="cut at")
        path.write_bytes(raw[:cut])
        part = read_journal(path)
        assert part.events == whole.events[: len(part.events)]
        assert len(part.events) == raw[:cut].count(b"\n")
        assert part.torn == (cut > part.offset) and part.damaged == 0

        append(path, ("started", {"step": 7}), ("failed", {}))
        after = read_journal(path)
        assert after.events[: len(part.events)] == part.events
        assert names(after)[-2:] == ["started", "failed"] and not after.torn
        assert read_journal(path, part.offset).events == after.events[len(part.events) :]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(0, 10_000))
@example(2, 1)  # just the line end is missing
def test_numbers_never_repeat_whatever_was_cut_off(count: int, missing: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.jsonl"
        append(path, *[("progress", {"step": step}) for step in range(count)])
        raw = path.read_bytes()
        path.write_bytes(raw[: max(0, len(raw) - missing)])
        append(path, ("started", {}), ("progress", {}))
        numbers = [event["seq"] for event in read_journal(path).events]
        assert numbers == sorted(set(numbers))


def test_no_bytes_stand_before_a_negative_offset(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_text('{"event": "started"}\n')
    assert mark_at(journal, -3) is None
    assert mark_at(journal, 5) is not None
