"""Deleting sweeps and runs for good: which, and what stays because another sweep has it."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from itopctl.errors import EnvironmentUnfitError, UserError, plural
from itopctl.report.number_text import size as in_bytes
from itopctl.store.files import explained, read_json, remove, rename, write_json
from itopctl.store.ingest import is_whole_manifest
from itopctl.store.locks import is_held, one_at_a_time
from itopctl.store.manifests import as_points, points_of
from itopctl.store.rundir import Results, RunDirectory
from itopctl.store.submissions import claimed_runs, directories, live_submissions, load, submitting

_NAMED = 5  # runs that a sentence names


@dataclass(frozen=True)
class Forgetting:
    """What forgetting some sweeps and runs comes to.

    Attributes:
        sweeps: sweeps that are deleted.
        runs: runs that are deleted.
        finished: how many of these are finished.
        size: bytes of their folders.
        kept: runs of the sweeps that stay → other sweeps that have them.
        unread: those of the sweeps whose manifest is damaged: which runs they have is not known, and these stay.
        done: whether it was done, or is only described.
    """

    sweeps: tuple[str, ...]
    runs: tuple[str, ...]
    finished: int
    size: int
    kept: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    done: bool = False

    @property
    def described(self) -> str:
        """`2 sweeps (a, b) and 6 runs, 4 of them finished (12 MB)`."""
        parts = [f"{plural(len(self.sweeps), 'sweep')} ({', '.join(self.sweeps)})"] if self.sweeps else []
        finished = f", {self.finished:,} of them finished" if self.finished else ""
        parts.append(f"{plural(len(self.runs), 'run')}{finished} ({in_bytes(self.size)})")
        return " and ".join(parts)

    @property
    def notes(self) -> list[str]:
        """What stays, in sentences."""
        damaged = [f"The manifest of {name} is damaged: its runs are not known, and stay." for name in self.unread]
        if not self.kept:
            return damaged
        others = sorted({name for names in self.kept.values() for name in names})
        stay, them = ("stays", "it") if len(self.kept) == 1 else ("stay", "them")
        have = "has" if len(others) == 1 else "have"
        return [*damaged, f"{plural(len(self.kept), 'run')} {stay}, since {', '.join(others)} {have} {them}, too."]


def plan_forgetting(results: Results, sweeps: Iterable[str], runs: Iterable[str]) -> Forgetting:
    """Say what would be deleted; nothing is.

    Args:
        results: the results folder.
        sweeps: names of sweeps: they go, and their runs that no other sweep has.
        runs: ids of runs that go by themselves.

    Raises:
        UserError: a run that is named belongs to several sweeps, or a run is at work or waits for a job.
        EnvironmentUnfitError: the manifest of another sweep is damaged, so that its runs are not known.
    """
    gone = dict.fromkeys(sweeps)
    damaged = [path for path in results.manifests() if not is_whole_manifest(path)]
    for path in damaged:
        if path.stem not in gone:
            raise EnvironmentUnfitError(
                f"{path} is no whole manifest of a sweep, so it cannot be told which runs it has; nothing is deleted. "
                f"Start that sweep again, or forget {path.stem} first."
            )
    members = _members(results)
    owners: dict[str, list[str]] = {}
    for name, ids in members.items():
        for run_id in ids:
            owners.setdefault(run_id, []).append(name)
    wanted: dict[str, None] = {}
    kept = {}
    for run_id in dict.fromkeys(run_id for name in gone for run_id in members.get(name, ())):
        others = tuple(name for name in owners[run_id] if name not in gone)
        if others:
            kept[run_id] = others
        else:
            wanted[run_id] = None
    for run_id in runs:
        others = tuple(name for name in owners.get(run_id, ()) if name not in gone)
        if len(others) > 1:
            raise UserError(f"run {run_id} belongs to several sweeps, {' and '.join(others)}; it goes with the last.")
        wanted[run_id] = None
        kept.pop(run_id, None)
    check_idle(results, wanted)
    finished = sum(results.run(run_id).result.exists() for run_id in wanted)
    size = sum(_size(results.run(one).path) for one in wanted)
    unread = tuple(path.stem for path in damaged)
    return Forgetting(tuple(gone), tuple(wanted), finished, size, kept, unread)


def _members(results: Results) -> dict[str, list[str]]:
    """Sweep → its runs."""
    return {path.stem: list(points_of(read_json(path) or {})) for path in results.manifests()}


def check_idle(results: Results, runs: Iterable[str]) -> None:
    """Raise UserError where a process is at some of the runs, or has them in its queue, or a job waits to be.

    A pool on this machine does not record what it has yet to do: where it is at a run of a sweep, every run of that
    sweep that is not finished may be in its queue.
    """
    claimed, members = claimed_runs(live_submissions(results)), _members(results)
    at_work = [name for name, ids in members.items() if any(is_held(results.run(run_id)) for run_id in ids)]
    queued = {run_id for name in at_work for run_id in members[name] if not results.run(run_id).result.exists()}
    busy = [run_id for run_id in runs if run_id in claimed or run_id in queued or is_held(results.run(run_id))]
    if busy:
        named = " ".join(busy[:_NAMED]) + " …" * (len(busy) > _NAMED)
        are, wait = ("is", "waits") if len(busy) == 1 else ("are", "wait")
        raise UserError(
            f"{plural(len(busy), 'run')} {are} being run or {wait} for a process or job; cancel first: "
            f"itopctl cancel {named}"
        )


def _size(path: Path) -> int:
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total


def carry_out(results: Results, forgetting: Forgetting) -> list[str]:
    """Delete the folders of runs, then what names them; where it is killed, the same call again deletes the rest.

    Args:
        results: the results folder.
        forgetting: what to delete.

    Returns:
        Names of submissions that went with the last of their runs.

    Raises:
        UserError: a process is at a run since.
        EnvironmentUnfitError: something cannot be deleted.
    """
    check_idle(results, forgetting.runs)  # a person may have thought about it for long
    for left in results.runs.glob(f"{_ASIDE}*"):
        _delete(left)  # of a command that was killed here
    for run_id in forgetting.runs:
        _delete_run(results.run(run_id))
    gone = set(forgetting.runs)
    if results.sweeps.is_dir():
        with explained(results.sweeps), one_at_a_time(results.sweeps):
            for path in results.manifests():
                _take_out(path, gone, whole=path.stem in forgetting.sweeps)
    if not directories(results):
        return []
    with submitting(results):
        return _delete_submissions(results, gone)


def _delete_submissions(results: Results, gone: set[str]) -> list[str]:
    """Delete those that have ended and none of whose runs is left; returns their names.

    Of others the configs of the deleted runs go: a run that no sweep names is known by these alone.
    """
    left = {*results.run_ids(), *(run_id for ids in _members(results).values() for run_id in ids)}
    deleted = []
    for directory in directories(results):
        found = load(directory)
        if found is None or not found.state.over or gone.isdisjoint(found.request.runs):
            continue
        if left.isdisjoint(found.request.runs):
            _delete(directory.path)
            deleted.append(directory.name)
        else:
            configs = read_json(directory.configs) or {}
            write_json(directory.configs, {run_id: one for run_id, one in configs.items() if run_id not in gone})
    return deleted


_ASIDE = ".forgotten-"


def _delete_run(run: RunDirectory) -> None:
    if run.path.is_symlink() or not run.path.is_dir():
        with explained(run.path):
            remove(run.path)
        return
    aside = run.path.with_name(f"{_ASIDE}{run.run_id}")
    with explained(run.path), one_at_a_time(run.path):  # as does who takes the lock
        if is_held(run):
            raise UserError(f"run {run.run_id} is being run since; cancel first: itopctl cancel {run.run_id}")
        _delete(aside)
        rename(run.path, aside)
    _delete(aside)


def _delete(path: Path) -> None:
    with explained(path), contextlib.suppress(FileNotFoundError):
        shutil.rmtree(path)


def _take_out(manifest: Path, runs: set[str], whole: bool) -> None:
    """Delete a sweep's manifest, or take runs out of it."""
    if whole:
        remove(manifest)
        return
    content: dict[str, Any] = read_json(manifest) or {}
    points = points_of(content)
    if not runs.isdisjoint(points):
        left = {run_id: config for run_id, config in points.items() if run_id not in runs}
        write_json(manifest, {**content, "runs": as_points(left)})
