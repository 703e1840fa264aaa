"""Downloading data sets, and comparing files with the published checksums; both by torchvision."""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itopctl.catalogue import DATASETS
from itopctl.errors import EnvironmentUnfitError
from itopctl.train.data.catalogue import find_file


def download(name: str, folder: Path) -> None:
    """Download into the layout torchvision uses. Raises EnvironmentUnfitError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _torchvision_class(name)(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        package = DATASETS.get(name).options.get("package")
        other = f" On Debian: apt-get install {package}." if package else ""
        raise EnvironmentUnfitError(f"{name} could not be fetched: {' '.join(str(error).split())}.{other}") from error


@dataclass(frozen=True)
class Checksums:
    """Names of files by how their MD5 compares with the published one.

    A gzip file that differs may hold the same content packed anew (Debian's package does); nothing was published
    for what is inside, so it is `repacked`, not `different`.
    """

    same: list[str]
    different: list[str]
    repacked: list[str]


def compare_checksums(name: str, folder: Path) -> Checksums:
    """Compare a data set's files with the published checksums; files in a form nobody published are passed over."""
    published: dict[str, str] = dict(_published(_torchvision_class(name)))
    found = Checksums([], [], [])
    for group in DATASETS.get(name).options["files"]:
        path = find_file(folder, group)
        if path is None or path.name not in published:
            continue
        digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if digest == published[path.name]:
            found.same.append(path.name)
        elif path.suffix == ".gz":
            found.repacked.append(path.name)
        else:
            found.different.append(path.name)
    return found


def _published(dataset: Any) -> list[tuple[str, str]]:
    if hasattr(dataset, "resources"):
        return [(name, md5) for name, md5 in dataset.resources]
    return [*map(tuple, dataset.train_list), *map(tuple, dataset.test_list)]


def _torchvision_class(name: str) -> Any:
    from torchvision import datasets

    with contextlib.redirect_stdout(io.StringIO()):
        return getattr(datasets, DATASETS.get(name).options["torchvision"])
