"""The code that jobs run: what it is, and a copy of it that later edits do not reach.

A job may wait for days. What it imports by then must be what was there when it was submitted: this package, and the
user's own modules from the folder the command was typed in. A snapshot is named by its content, so that a thousand
submissions of the same code share one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.machinery
import importlib.util
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import itopctl
from itopctl.catalogue import modules_named
from itopctl.config.own_code import OwnCode
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.repository import Repository
from itopctl.errors import UserError
from itopctl.places import current_folder
from itopctl.store.files import cannot_write, flush, flush_folder, make_folder, read_json, write_json
from itopctl.store.rundir import Results

_STALE_SECONDS = 86_400.0
MAX_BYTES = 200_000_000
_PACKAGE = Path(itopctl.__file__).parent
_SUFFIXES = (".py", ".pyi", ".typed", ".yaml", ".yml", ".json", ".toml")
_IMPORTABLE = (*importlib.machinery.all_suffixes(), ".pth")
_RECORD = "snapshot.json"
_ELSEWHERE = "_elsewhere"  # in a snapshot: modules that lie outside of the folder it was taken of
DIGEST_LENGTH = 12


@dataclass(frozen=True)
class Code:
    """What some process runs, or is to run.

    Attributes:
        git_commit, git_dirty: of the repository around the folder the command was typed in; None without one.
        digest: 12 hex digits over the content of all files.
        snapshot: folder of the copy, or None where jobs run what is installed.
        workdir: the folder that jobs run in.
        modules: top-level names of the user's modules.
        imports: folders of the snapshot that modules are looked for in, before its top.
    """

    git_commit: str | None
    git_dirty: bool | None
    digest: str
    snapshot: str | None
    workdir: str
    modules: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def of_attempt(self) -> dict[str, Any]:
        """What an attempt records of it."""
        return {"git_commit": self.git_commit, "git_dirty": self.git_dirty, "code": self.digest}


def find_code(folder: Path, apart: Iterable[Path], modules: Iterable[str]) -> Mapping[str, Path]:
    """Files of the code that a job started in `folder` would import, by the path they have in a snapshot.

    This package; and of the user's: all that git knows or does not ignore in the repository around the folder, or,
    without a repository, the Python files of the folder and the packages in it that are named; and named modules that
    are found elsewhere, but for what is installed.

    Args:
        folder: where the command was typed.
        apart: folders with results and data, never copied.
        modules: top-level names of the user's modules, from the specs.
    """
    apart = list(apart)
    files = {f"itopctl/{path.relative_to(_PACKAGE)}": path for path in _sources(_PACKAGE)}
    git = Repository.around(folder, apart)
    if git is not None:
        root = git.top
        listed = git.ask("ls-files", "--cached", "--others", "--exclude-standard", "-z", "--full-name", "--", str(root))
        own = {name: root / name for name in (listed or "").split("\0") if name}
    else:
        root = folder
        packages = [folder / name for name in modules if (folder / name).is_dir()]
        paths = [*folder.glob("*.py"), *(path for package in packages for path in _sources(package))]
        own = {str(path.relative_to(folder)): path for path in paths}
    for name in modules:
        place = _place_of(name, folder)
        if place is not None and not place.is_relative_to(root.resolve()):
            found = _sources(place / name) if (place / name).is_dir() else [place / f"{name}.py"]
            own.update({f"{_ELSEWHERE}/{path.relative_to(place)}": path for path in found})
    barred = [path.resolve() for path in apart]
    for name, path in own.items():
        if name.startswith("itopctl/") and root / "itopctl" == _PACKAGE:
            continue  # the package itself, seen from its own repository
        inside = path.resolve() if barred else path
        if path.is_file() and not any(inside.is_relative_to(bar) for bar in barred):
            files.setdefault(name, path)
    return dict(sorted(files.items()))


def _place_of(module: str, folder: Path) -> Path | None:
    """The folder that a top-level module is imported from, links followed; None where it is installed, or nowhere.

    Args:
        module: its name.
        folder: is looked in first.
    """
    try:
        spec = importlib.machinery.PathFinder.find_spec(module, [str(folder), *sys.path])
        spec = spec or importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    origin = spec.origin if spec is not None and spec.origin not in (None, "built-in", "frozen", "namespace") else None
    if spec is not None and origin is None and spec.submodule_search_locations:
        origin = f"{next(iter(spec.submodule_search_locations))}/__init__.py"
    if origin is None:
        return None
    path = Path(origin).resolve()
    place = path.parent.parent if path.name.startswith("__init__.") else path.parent
    kept = {Path(path).resolve() for kind, path in sysconfig.get_paths().items() if kind != "data"}
    return None if any(place.is_relative_to(entry) for entry in kept) else place


def _imports_of(files: Mapping[str, Path], root: Path, folder: Path, modules: Iterable[str]) -> list[str]:
    """Folders of a snapshot that modules are imported from, apart from its top: what Python searches here."""
    places = [place for name in modules if (place := _place_of(name, folder)) is not None]
    found: dict[str, None] = {}
    root = root.resolve()
    for entry in [*places, *(Path(entry).resolve() for entry in sys.path if entry)]:
        inside = entry.is_relative_to(root) and entry != root
        name = str(entry.relative_to(root)) if inside else ""
        if inside and any(file.startswith(f"{name}/") for file in files):
            found[name] = None
    if any(file.startswith(f"{_ELSEWHERE}/") for file in files):
        found[_ELSEWHERE] = None
    return list(found)


def modules_of(configs: Iterable[RunConfig]) -> tuple[str, ...]:
    """Top-level names of the modules that configs name, as in `package.module:function`, and that these import."""
    own_code = OwnCode()
    named = {name for config in configs for name in modules_named(vars(config).values())}
    reached = {inner for name in named for inner in own_code.files(name)}
    return tuple(sorted({name.partition(".")[0] for name in named | reached}))


def digest_of(files: Mapping[str, Path]) -> str:
    """12 hex digits over names and content."""
    digest = hashlib.sha256()
    for name, path in files.items():
        with contextlib.suppress(OSError):
            content = path.read_bytes()
            digest.update(f"{len(name.encode())} {name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:DIGEST_LENGTH]


def take(
    results: Results, folder: Path, data_dir: Path, modules: Sequence[str], copy: bool = True, dry: bool = False
) -> Code:
    """Record the code, and copy it unless the user opted out.

    Args:
        results: the results folder; snapshots lie in it.
        folder: where the command was typed.
        data_dir: where data sets lie; never copied.
        modules: top-level names of the user's modules, from the specs.
        copy: whether jobs run a snapshot.
        dry: whether only to say what would be done.

    Raises:
        UserError: it is too large to be only code.
        EnvironmentUnfitError: it cannot be written.
    """
    folder = folder.absolute()
    apart = [results.path, data_dir]
    files = find_code(folder, apart, modules)
    git = Repository.around(folder, apart)
    commit, dirty = git_state(folder, apart)
    digest = digest_of(files)
    if not copy:
        return Code(commit, dirty, digest, None, str(folder), tuple(modules))
    size = sum(path.stat().st_size for path in files.values())
    if size > MAX_BYTES:
        largest = max(files.values(), key=lambda path: path.stat().st_size)
        raise UserError(
            f"the code around {folder} is {size / 1e6:,.0f} MB (at most {MAX_BYTES / 1e6:,.0f}), {largest} the largest "
            "file of it. Let git ignore what is no code, or give --no-snapshot."
        )
    target = results.snapshots.absolute() / digest
    if not dry and not _is_sound(target, files, digest):
        _copy(files, target, {"digest": digest, "git_commit": commit, "git_dirty": dirty, "from": str(folder)})
    root = git.top if git is not None else folder
    workdir = target / folder.resolve().relative_to(root.resolve())
    if not dry:
        workdir.mkdir(parents=True, exist_ok=True)  # a folder without files is in no snapshot
    imports = tuple(str(target / name) for name in _imports_of(files, root, folder, modules))
    return Code(commit, dirty, digest, str(target), str(workdir), tuple(modules), imports)


def code_here(apart: Iterable[Path], modules: Iterable[str]) -> Code:
    """What this process runs: the snapshot it was started in, or what is there now; see `find_code`."""
    apart = list(apart)
    snapshot = _PACKAGE.parent
    record = read_json(snapshot / _RECORD)
    if record is not None and record.get("digest") == snapshot.name:
        places = {name: _place_of(name, current_folder()) for name in modules}
        strays = {
            name for name, place in places.items() if place is not None and not place.is_relative_to(snapshot.resolve())
        }
        digest = digest_of(find_code(current_folder(), apart, strays)) if strays else snapshot.name
        return Code(record.get("git_commit"), record.get("git_dirty"), digest, str(snapshot), str(current_folder()))
    commit, dirty = git_state(current_folder(), apart)
    return Code(commit, dirty, digest_of(find_code(current_folder(), apart, modules)), None, str(current_folder()))


def git_state(folder: Path, apart: Iterable[Path] = ()) -> tuple[str | None, bool | None]:
    """Commit, and whether anything differs from it; None where there is no repository, or it is not asked."""
    git = Repository.around(folder, apart)
    return git.state() if git is not None else (None, None)


def _is_sound(target: Path, files: Mapping[str, Path], digest: str) -> bool:
    """Whether a snapshot has all that it should, and no other code: the folder it lies in may be somebody else's.

    What jobs wrote beside it is none. Compiled code is made anew.
    """
    if target.is_symlink() or not (target / _RECORD).exists():
        return False
    for cache in target.rglob("__pycache__"):
        shutil.rmtree(cache, ignore_errors=True)
    if any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in target.rglob("*")):
        return False
    there = {str(path.relative_to(target)) for path in target.rglob("*") if path.name.endswith(_IMPORTABLE)}
    return there <= files.keys() and digest_of({name: target / name for name in files}) == digest


def _copy(files: Mapping[str, Path], target: Path, record: Mapping[str, Any]) -> None:
    """Copy aside, then rename: a snapshot is there whole or not at all, whoever else makes the same."""
    try:
        make_folder(target.parent)
        _remove_leftovers(target.parent)
        aside = Path(tempfile.mkdtemp(prefix=".snapshot-", dir=target.parent))
        try:
            for name, path in files.items():
                (aside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, aside / name)
                flush(aside / name)  # what is found after a power cut is whole, or not there
            aside.chmod(0o755)
            write_json(aside / _RECORD, dict(record))
            with contextlib.suppress(FileExistsError):
                _rename(aside, target, files, str(record["digest"]))
            flush_folder(target.parent)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise cannot_write(target, error) from error


def _remove_leftovers(folder: Path) -> None:
    """Remove what commands that were killed while they copied left, once nobody can be at it any more."""
    for left in folder.glob(".snapshot-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(left, ignore_errors=True)


def _rename(aside: Path, target: Path, files: Mapping[str, Path], digest: str) -> None:
    try:
        aside.rename(target)
    except OSError:
        if _is_sound(target, files, digest):
            return  # another process was quicker
        shutil.rmtree(target, ignore_errors=True)  # somebody took a part of it away
        aside.rename(target)


def _sources(package: Path) -> list[Path]:
    return sorted(path for path in package.rglob("*") if path.suffix in _SUFFIXES and "__pycache__" not in path.parts)
