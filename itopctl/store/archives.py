"""Finished runs as one file, and taking in somebody else's: results of two people become one folder.

An archive is a tar file of `runs/<run_id>/…` and `sweeps/<name>.json`, as in a results folder. What comes in is not
trusted: names, kinds and sizes of files are checked, and a config must have the id that its folder says.

Nothing is extracted: a member's content is read, and written as the file of a run. So `tarfile.data_filter`, which
decides where extraction may write, is not used. It would replace no check: a name must match one pattern, which has
no `..` and no root, and no link is taken, while the filter accepts links within a folder. To extract to a folder
first, and import that, would write every file twice and leave that folder behind after a kill.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itopctl.errors import UserError
from itopctl.schema import Run, fields_of
from itopctl.store.files import (
    explained,
    make_folder,
    most_bytes,
    parse_object,
    read_bytes,
    read_json,
    rename,
    replacing,
    write_json,
    write_whole,
)
from itopctl.store.locks import RunLockedError, locked, one_at_a_time
from itopctl.store.maintenance import Identity, wrong_config, wrong_result
from itopctl.store.manifests import as_points, points_of
from itopctl.store.rundir import Results, RunDirectory, is_run_id, is_sweep_name

FILES = ("config.json", "environment.json", "log.txt", "journal.jsonl", "result.json")
"""Files of a finished run, in the order in which they are put in place: the last makes it count."""

_MODES = {".tar": "w", ".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.xz": "w:xz"}
_MEMBER = re.compile(r"(?:runs/(?P<run>[0-9a-f]{12})/(?P<file>[a-z]+\.[a-z]+)|sweeps/(?P<sweep>[^/]+)\.json)")
_MOST_RATIO, _FREE_BYTES = 200, 128 << 20  # of what comes out of an archive to what goes in: more is a trap
_BYTES_OF_MEMBER = 4096  # that each counts for beside its content: small ones are packed to 20 bytes and more
_MOST_UNKNOWN = 1000  # files of no run
_TIMES = frozenset({"attempt", "finished_at", *(f.written for f in fields_of(Run).values() if not f.repeats)})
"""What may differ between two results of the same run."""


@dataclass
class Imported:
    """What became of the runs that came in.

    Attributes:
        taken: ids of those taken over.
        same: of those that were here with the same results.
        differing: of those that are finished here with other results: these stay.
        busy: of those that a process is at here.
        refused: id or name → why it was not believed.
        sweeps: names of sweeps that came, or got further runs.
    """

    taken: list[str] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    sweeps: list[str] = field(default_factory=list)


# Out --------------------------------------------------------------------------------------------------------


def export(results: Results, target: Path, run_ids: Sequence[str], sweeps: Iterable[str]) -> None:
    """Write finished runs to an archive, packed as its name says (`.tar`, `.tar.gz`, `.tgz`, `.tar.xz`).

    Args:
        results: where they lie.
        target: the archive; replaced if it is there.
        run_ids: the runs.
        sweeps: names of sweeps to tell of, with those of their runs that are among these.

    Raises:
        UserError: a name that is none of an archive.
        EnvironmentUnfitError: it cannot be written.
    """
    mode = next((mode for suffix, mode in _MODES.items() if target.name.endswith(suffix)), None)
    if mode is None:
        raise UserError(f"{target} has no name of an archive: .tar, .tar.gz, .tgz or .tar.xz.")
    with explained(target), replacing(target) as file, tarfile.open(fileobj=file, mode=mode) as archive:  # type: ignore[call-overload]
        for name in sweeps:
            _add(archive, f"sweeps/{name}.json", _restricted(results.manifest(name), set(run_ids)))
        for run_id in run_ids:
            for name in FILES:
                with contextlib.suppress(FileNotFoundError):
                    _add(archive, f"runs/{run_id}/{name}", read_bytes(results.run(run_id).path / name))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), 0o644
    archive.addfile(member, io.BytesIO(data))


def _restricted(manifest: Path, runs: set[str]) -> bytes:
    content = read_json(manifest) or {}
    kept = {run_id: config for run_id, config in points_of(content).items() if run_id in runs}
    return json.dumps({**content, "runs": as_points(kept)}).encode()


# In ---------------------------------------------------------------------------------------------------------


def import_runs(results: Results, source: Path, identity: Identity) -> Imported:
    """Take finished runs over from an archive, or from another results folder.

    Args:
        results: where to.
        source: an archive that `export` wrote, or a results folder.
        identity: gives the id that follows from a config.

    Raises:
        UserError: the source is neither.
        EnvironmentUnfitError: a file cannot be written.
    """
    done, manifests = Imported(), {}
    for name, files in _parcels(source, done):
        if is_run_id(name):
            _take_run(results.run(name), files, identity, done)
        else:
            manifests[name] = parse_object(files["manifest"]) or {}
    for name, manifest in manifests.items():
        _take_sweep(results, name, manifest, identity, done)
    return done


def _parcels(source: Path, done: Imported) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A run's id with its files by name, or a sweep's name with its `manifest`."""
    if source.is_dir():
        yield from _from_folder(Results(source), done)
        return
    try:
        with tarfile.open(source, "r:*") as archive:
            members = _members(archive, source.stat().st_size, done)
            for name, group in itertools.groupby(members, key=lambda member: member[0]):
                yield name, {file: data for _, file, data in group}
            _check_end(archive)
    except (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{source} is no archive that itopctl can read: {' '.join(reason.split())}.") from error


def _from_folder(results: Results, done: Imported) -> Iterator[tuple[str, dict[str, bytes]]]:
    if not results.runs.is_dir():
        raise UserError(f"{results.path} is no results folder: it has no runs.")
    for path in results.manifests():
        with contextlib.suppress(OSError):
            yield path.stem, {"manifest": read_bytes(path)}
    for run_id in results.run_ids():
        folder = results.run(run_id).path
        if not (folder / FILES[-1]).exists():
            continue
        files = {}
        for name in FILES:
            try:
                files[name] = read_bytes(folder / name)
            except FileNotFoundError:
                continue
            except OSError as error:
                done.refused[run_id] = f"{name}: {error.strerror}"
        if run_id not in done.refused:
            yield run_id, files


def _members(archive: tarfile.TarFile, packed: int, done: Imported) -> Iterator[tuple[str, str, bytes]]:
    """Run or sweep, file and content of every member that may come in."""
    budget, unknown = _MOST_RATIO * packed + _FREE_BYTES, 0
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # or the library keeps all it has met
        budget -= _BYTES_OF_MEMBER + member.size
        if budget < 0:
            raise ValueError("it unpacks to far more than it is")
        match = _MEMBER.fullmatch(member.name)
        known = match and (match["file"] in FILES if match["run"] else is_sweep_name(match["sweep"]))
        if not known or not match:
            unknown += 1
            if unknown > _MOST_UNKNOWN:
                raise ValueError(f"more than {_MOST_UNKNOWN:,} of its files are of no run")
            done.refused[_shown(member.name)] = "is no file of a run or a sweep"
            continue
        name = match["run"] or match["sweep"]
        if not member.isreg() or member.size > most_bytes(Path(member.name)):
            done.refused[name] = f"{_shown(member.name)} is no plain file, or too large"
            continue
        file = archive.extractfile(member)
        assert file is not None
        yield name, match["file"] or "manifest", file.read()


def _check_end(archive: tarfile.TarFile) -> None:
    """Raise ValueError where an archive that was read has no end: the library takes one cut between files for whole."""
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError("it ends before its end; what came before was taken in")


def _take_run(run: RunDirectory, files: Mapping[str, bytes], identity: Identity, done: Imported) -> None:
    id_ = run.run_id
    if id_ in done.refused:
        return
    config, result = parse_object(files.get("config.json", b"")), parse_object(files.get("result.json", b""))
    wrong = wrong_config(id_, config, identity) or wrong_result(id_, result) or _wrong_accuracy(result or {})
    if wrong is not None or result is None:
        done.refused[id_] = str(wrong)
        return
    here = read_json(run.result)
    if here is not None:
        (done.same if _are_alike(here, result) else done.differing).append(id_)
        return
    with explained(run.path):
        make_folder(run.path)
    try:
        with locked(run):
            _keep_journal(run)
            for name in FILES:
                if name in files:
                    with one_at_a_time(run.path):
                        write_whole(run.path / name, files[name])
    except RunLockedError:
        done.busy.append(id_)
        return
    done.taken.append(id_)


def _wrong_accuracy(result: dict[str, Any]) -> str | None:
    accuracy: Any = result.get("test_accuracy")
    is_number = type(accuracy) in (int, float)  # True is none
    return None if is_number and 0 <= accuracy <= 1 else "its result.json has no accuracy"


def _are_alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two results of a run say the same of whatever both record: versions of itopctl record more or less."""
    return all(one[name] == other[name] for name in one.keys() & other.keys() - _TIMES)


def _keep_journal(run: RunDirectory) -> None:
    """Set the journal of attempts that were not finished here aside: it is of another history."""
    if run.journal.exists():
        with explained(run.journal):
            rename(run.journal, run.journal.with_name("journal.before-import.jsonl"))


def _take_sweep(results: Results, name: str, theirs: dict[str, Any], identity: Identity, done: Imported) -> None:
    path = results.manifest(name)
    points = {
        run_id: config
        for run_id, config in points_of(theirs).items()
        if results.run(run_id).result.exists() and wrong_config(run_id, {"config": config}, identity) is None
    }
    if not points:
        return
    with explained(path):
        make_folder(path.parent)
    with one_at_a_time(path.parent):
        ours = read_json(path)
        merged = ours or _foreign(name, theirs)
        there = points_of(merged)
        if points.keys() <= there.keys():
            return
        write_json(path, {**merged, "runs": as_points({**points, **there})})
    done.sweeps.append(name)


def _foreign(name: str, theirs: dict[str, Any]) -> dict[str, Any]:
    """Somebody else's manifest, without what it asks of their cluster."""
    texts = {key: theirs[key] if isinstance(theirs.get(key), str) else "" for key in ("created_at", "updated_at")}
    description = theirs.get("description")
    specs = theirs.get("specs")
    return {
        "sweep": name, "description": description if isinstance(description, str) else "",
        "specs": specs if isinstance(specs, list) else [], "cluster": "local", "slurm": {}, **texts,
    }  # fmt: skip


def _shown(name: str) -> str:
    return repr(name)[1:-1][:100]
