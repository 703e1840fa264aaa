"""Archives that were not made by `itopctl store export`, or not as it left them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from functools import cache
from pathlib import Path

from tests.fuzz.bench import DONE, FAILED, OLD, SPARSE
from tests.fuzz.mutations import changed_lines, changed_text, damaged

NAMES = (
    "../../canary/file", "/tmp/itopctl-fuzz-canary", f"runs/../../{DONE}/result.json", f"runs/{DONE}/../x.json",
    "sweeps/../../x.json",
    "sweeps/..json", "sweeps/.json", "sweeps/a/b.json", f"./runs/{DONE}/result.json", f"runs//{DONE}/result.json",
    f"runs/{DONE}/result.json/", f"runs/{DONE.upper()}/result.json", f"runs/{DONE}/lock", f"runs/{DONE}/cancel",
    "itop.db",
    f"runs/{DONE}/checkpoint.pt", "snapshots/x/evil.py", "", ".", "..", "/", "\x1b[2J", "a" * 5000,
    "runs/\ud800/x.json", "C:\\x",
    f"runs/{DONE}\n/result.json", f"runs/{DONE}/result.json\x00.txt", f"sweeps/{'s' * 300}.json",
    "sweeps/new\n.json", f"runs/{DONE}",
)  # fmt: skip
TYPES = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
    tarfile.CONTTYPE,
    tarfile.GNUTYPE_SPARSE, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK,
    b"Z", b"\xff", b"7",
)  # fmt: skip


@cache
def exported() -> tuple[tuple[str, bytes], ...]:
    """Members of an archive of two finished runs and their sweep."""
    found = [("sweeps/old.json", (OLD / "sweeps" / "old.json").read_bytes())]
    for run in (DONE, SPARSE, FAILED):
        for path in sorted((OLD / "runs" / run).iterdir()):
            found.append((f"runs/{run}/{path.name}", path.read_bytes()))
    return tuple(found)


def packed(members: list[tuple[tarfile.TarInfo, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar file; what a member says of itself need not be so."""
    out = io.BytesIO()
    for member, data in members:
        out.write(member.tobuf(form, "utf-8", "surrogateescape"))
        out.write(data + bytes(-len(data) % 512))
    return out.getvalue() + bytes(1024)


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a tar file with its content."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(data)
    return info, data


def archive(rng: random.Random) -> bytes:
    """An archive of any make."""
    members = [member(name, data) for name, data in exported()]
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        _spoil(members, rng)
    form = rng.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    try:
        data = packed(members, form)
    except (ValueError, UnicodeError):
        data = packed([one for one in members if one[0].name.isascii() and 0 <= one[0].size < 8**11], form)
    if rng.random() < 0.2:
        data = damaged(data, rng)
    data = rng.choice((bytes, bytes, _gzip, bz2.compress, lzma.compress))(data)
    return damaged(data, rng) if rng.random() < 0.3 else data


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, 1)


def _spoil(members: list[tuple[tarfile.TarInfo, bytes]], rng: random.Random) -> None:
    at = rng.randrange(len(members))
    info, data = members[at]
    target = rng.choice(
        ("../../../canary/file", "/etc/passwd", f"runs/{DONE}/result.json", ".", "", "/dev/zero", "x" * 300)
    )
    match rng.randrange(10):
        case 0:
            members[at] = member(rng.choice(NAMES), data)
        case 1:
            members[at] = member(info.name, b"", rng.choice(TYPES), target)
        case 2:  # a link, and then what would be written through it
            members[at:at] = [
                member(rng.choice((f"runs/{DONE}", "sweeps", "runs", info.name)), b"", tarfile.SYMTYPE, target)
            ]
        case 3:
            members.insert(rng.randrange(len(members)), member(info.name, data[: len(data) // 2]))
        case 4:
            info.size = rng.choice((0, 1, len(data) + 1, len(data) + 512, 1 << 20, 8**11 - 1, 1 << 40))
        case 5:
            change = changed_lines if info.name.endswith("jsonl") else changed_text
            members[at] = member(info.name, change(data, rng))
        case 6:
            del members[at]
            members.extend([] if members else [member("x")])
        case 7:
            rng.shuffle(members)
        case 8:
            info.pax_headers = {rng.choice(("path", "size", "linkpath", "GNU.sparse.map", "GNU.sparse.size",
            "GNU.sparse.major",
                                            "mtime", "hdrcharset", "x")): rng.choice(("../../x", "-1", "9" * 30,
                                            "nan", "", "1,2,3", "BINARY"))}  # fmt: skip
        case 9:
            info.type = rng.choice(TYPES)


def bomb(path: Path, size: int) -> Path:
    """An archive whose one member is zeros, a thousand times what the archive is."""
    with gzip.open(path, "wb", 9) as file:
        info = tarfile.TarInfo(f"runs/{DONE}/log.txt")
        info.size = size
        file.write(info.tobuf())
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return path
