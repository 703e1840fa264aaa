"""Damage and malice, seeded: to bytes, to JSON values and to their text."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

HUGE = int("9" * 400)
DEEP = "[" * 100_000
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63) - 1, HUGE, 0.0, -0.5, 1e308, 5e-324, "", " ", "\x00",
    "\ud800", "a\nb",
    "\x1b[2J\x1b]0;x\x07", "[red]x[/nothing]", "[/]", "%s%n{0}", "'; DROP TABLE runs; --", "../../canary/file",
    "/etc/passwd",
    "evil:make", "canary.evil:make", "x" * 70_000, "é‮☃", "0x10", "1e5", "nan", "null", [], {}, [[]], {"": {}}, [None],
    ["a", 1], {"a": [1, {"b": None}]}, list(range(300)), {"__class__": "x"}, "done", "running", "failed", "pending",
    "2026-01-01T00:00:00.000+00:00", "9999-99-99", "local", "slurm", "dense", "rigl-itop", "digits", "ended",
    "finished",
    "000000000007", "eb84d5a71aa6", "eb84d5a71aa6\n", "..", ".", "~", "$(touch x)", "-1", "--help", "1_000",
)  # fmt: skip
TEXTS = (  # in place of a value in JSON text
    "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "9" * 5000, "1." + "0" * 5000, '"\\ud800"',
    '"\\udfff\\ud800"', '"\\u0000"',
    DEEP, '{"a":' * 50_000, "", "undefined", "{,}", "'a'", "01", '{"a": 1, "a": 2}', "1e-9999", "/* */ 1", "\t1",
    '"\t"',
)  # fmt: skip


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Some bytes changed, lost, doubled, moved, or all of them others."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        data = _damaged_once(bytearray(data), rng)
    return data


def _damaged_once(data: bytearray, rng: random.Random) -> bytes:
    if not data:
        return rng.randbytes(rng.choice((0, 1, 5, 300)))
    at, size = rng.randrange(len(data)), rng.choice((1, 2, 4, 16, 64, 500))
    match rng.randrange(12):
        case 0 | 1:
            data[at] ^= 1 << rng.randrange(8)
        case 2:
            data[at : at + size] = rng.randbytes(len(data[at : at + size]))
        case 3:
            del data[at : at + size]
        case 4:
            data[at:at] = data[at : at + size]
        case 5:
            other = rng.randrange(len(data))
            data[at : at + size], data[other : other + size] = data[other : other + size], data[at : at + size]
        case 6:
            del data[at:]
        case 7:
            data[at : at + size] = bytes(len(data[at : at + size]))
        case 8:
            data[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00"))
        case 9:
            data[at:at] = rng.choice(
                (b"\x00", b"\xff\xfe", b"\n", b"\r\n", b'"', b"{", b"]", b"\xef\xbb\xbf", b"\xc0\x80", b"'", b":")
            )
        case 10:
            data[at : at + 1] = rng.choice((b"-", b"0", b"9", b"e", b".", b"/", b"\\", b"}", b" "))
        case 11:
            if rng.random() < 0.2:
                return rng.randbytes(rng.choice((0, 1, 100, 5000)))
    return bytes(data)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in a JSON value but itself."""
    found: list[tuple[Any, ...]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found += [(*path, key), *places(one, (*path, key))]
    return found


def changed(value: Any, rng: random.Random) -> Any:
    """A JSON value with something in it that does not belong there, missing, renamed or twice."""
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(VALUES))
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 5))):
        there = places(value)
        if not there:
            break
        *above, key = rng.choice(there)
        holder = value
        for step in above:
            holder = holder[step]
        _change(holder, key, [*there], value, rng)
    return value


def _change(holder: Any, key: Any, there: list[tuple[Any, ...]], whole: Any, rng: random.Random) -> None:
    kind = rng.randrange(8)
    if kind <= 3:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
    elif kind == 4:
        del holder[key]
    elif kind == 5:  # what stands elsewhere
        other = whole
        for step in rng.choice(there):
            other = other[step]
        holder[key] = copy.deepcopy(other)
    elif kind == 6 and isinstance(holder, dict):
        holder[str(rng.choice(VALUES))[:100]] = holder.pop(key)
    elif isinstance(holder, list):
        holder.extend(copy.deepcopy([holder[key]] * rng.choice((1, 3, 40))))
    elif isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
        holder[key] = rng.choice((-holder[key], holder[key] * 10**12, holder[key] + 0.5, str(holder[key])))
    else:
        holder[key] = [holder[key]]


def changed_text(data: bytes, rng: random.Random) -> bytes:
    """A file of JSON with another value in it, or with what is no JSON, or damaged."""
    kind = rng.random()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return damaged(data, rng)
    if kind < 0.25:
        return damaged(data, rng)
    if kind < 0.8:
        return json.dumps(changed(value, rng)).encode("utf-8", "surrogatepass")
    there = places(value)
    if not there:
        return rng.choice(TEXTS).encode()
    *above, key = rng.choice(there)
    holder = value
    for step in above:
        holder = holder[step]
    holder[key] = "@@here@@"
    return json.dumps(value).replace('"@@here@@"', rng.choice(TEXTS)).encode()


def changed_lines(data: bytes, rng: random.Random) -> bytes:
    """A journal with events changed, moved, doubled, lost or torn."""
    lines = data.splitlines(keepends=True)
    for _ in range(rng.choice((1, 2, 4))):
        if not lines:
            break
        at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
        match rng.randrange(9):
            case 0 | 1 | 2 | 3:
                lines[at] = changed_text(lines[at], rng).replace(b"\n", b"") + b"\n"
            case 4:
                del lines[at]
            case 5:
                lines.insert(other, lines[at])
            case 6:
                lines[at], lines[other] = lines[other], lines[at]
            case 7:
                lines[at] = damaged(lines[at], rng)
            case 8:
                lines[at:at] = [
                    rng.choice(
                        (b"\n", b"{}\n", b"[]\n", b"\x00" * 4096 + b"\n", b"x" * 100_000 + b"\n", DEEP.encode() + b"\n")
                    )
                ]
    return b"".join(lines)
