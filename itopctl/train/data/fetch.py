"""Downloading data sets, and comparing files with the published checksums; both by torchvision."""

from __future__ import annotations

import contextlib
import hashlib
import io
from pathlib import Path
from typing import Any

from itopctl.catalogue import DATASETS
from itopctl.errors import EnvironmentUnfitError


def download(name: str, folder: Path) -> None:
    """Download into the layout torchvision uses. Raises EnvironmentUnfitError where that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _torchvision_class(name)(str(folder), download=True)
    except (OSError, RuntimeError) as error:
        package = DATASETS.get(name).options.get("package")
        other = f" On Debian: apt-get install {package}." if package else ""
        raise EnvironmentUnfitError(f"{name} could not be fetched: {' '.join(str(error).split())}.{other}") from error


def compare_checksums(name: str, folder: Path) -> list[str]:
    """Names of the files whose MD5 is not the published one. Files in a form nobody published are passed over."""
    published: dict[str, str] = dict(_published(_torchvision_class(name)))
    differing = []
    for group in DATASETS.get(name).options["files"]:
        for file in group:
            path = folder / file
            if file in published and path.is_file():
                digest = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
                if digest != published[file]:
                    differing.append(file)
    return differing


def _published(dataset: Any) -> list[tuple[str, str]]:
    if hasattr(dataset, "resources"):
        return [(name, md5) for name, md5 in dataset.resources]
    return [*map(tuple, dataset.train_list), *map(tuple, dataset.test_list)]


def _torchvision_class(name: str) -> Any:
    from torchvision import datasets

    with contextlib.redirect_stdout(io.StringIO()):
        return getattr(datasets, DATASETS.get(name).options["torchvision"])
