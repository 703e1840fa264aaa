"""The data sets: names, sizes, where their files are looked for, and how they are fetched.

Light: neither torch nor numpy is imported until a loader is called. A loader takes the folder its files were
found in (None for a built-in set) and returns `RawImages`.

Options of an entry: `train`, `test` (samples), `shape` (channels, height, width), `classes`, `augment` (what a
run does unless told otherwise), `folders` (where files may lie, under the data folder or absolute), `files`
(any one name of each group must be there), `torchvision` (the class that can download it), `imports` (modules that the
loader imports and that take long to import).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from itopctl.catalogue import DATASETS
from itopctl.errors import DataUnfitError

if TYPE_CHECKING:
    from itopctl.train.data.files import RawImages

_IDX = [
    (f"{name}-idx{n}-ubyte", f"{name}-idx{n}-ubyte.gz", f"{name}.idx{n}-ubyte")
    for name, n in (("train-images", 3), ("train-labels", 1), ("t10k-images", 3), ("t10k-labels", 1))
]
_CIFAR10_FILES = [(f"data_batch_{n}",) for n in range(1, 6)] + [("test_batch",)]


@DATASETS.add(
    "digits",
    source="UCI optical digits, in scikit-learn",
    train=1437,
    test=360,
    shape=(1, 8, 8),
    classes=10,
    augment="none",
    imports=("sklearn.datasets", "sklearn.model_selection"),
)
def digits(folder: Path | None) -> RawImages:
    """handwritten digits, 8×8, built in: 1,437 + 360 images"""
    from itopctl.train.data.files import read_digits

    return read_digits()


@DATASETS.add(
    "mnist",
    source="LeCun et al. 1998",
    train=60_000,
    test=10_000,
    shape=(1, 28, 28),
    classes=10,
    augment="none",
    folders=("MNIST/raw", "mnist"),
    files=_IDX,
    torchvision="MNIST",
)
def mnist(folder: Path | None) -> RawImages:
    """handwritten digits, 28×28: 60,000 + 10,000 images"""
    return _idx(folder, "mnist")


@DATASETS.add(
    "fashion_mnist",
    source="Xiao et al. 2017 (arXiv 1708.07747)",
    train=60_000,
    test=10_000,
    shape=(1, 28, 28),
    classes=10,
    augment="none",
    folders=("FashionMNIST/raw", "fashion_mnist", "fashion-mnist", "/usr/share/datasets/fashion-mnist"),
    files=_IDX,
    torchvision="FashionMNIST",
    package="dataset-fashion-mnist",
)
def fashion_mnist(folder: Path | None) -> RawImages:
    """pieces of clothing, 28×28: 60,000 + 10,000 images"""
    return _idx(folder, "fashion_mnist")


@DATASETS.add(
    "cifar10",
    source="Krizhevsky 2009",
    train=50_000,
    test=10_000,
    shape=(3, 32, 32),
    classes=10,
    augment="crop-flip",
    folders=("cifar-10-batches-py", "."),
    files=_CIFAR10_FILES,
    torchvision="CIFAR10",
)
def cifar10(folder: Path | None) -> RawImages:
    """colour photographs of 10 classes, 32×32: 50,000 + 10,000 images"""
    from itopctl.train.data.files import read_cifar

    assert folder is not None
    return read_cifar(folder, [name for (name,) in _CIFAR10_FILES[:5]], "test_batch", "labels", 10)


@DATASETS.add(
    "cifar100",
    source="Krizhevsky 2009",
    train=50_000,
    test=10_000,
    shape=(3, 32, 32),
    classes=100,
    augment="crop-flip",
    folders=("cifar-100-python", "."),
    files=[("train",), ("test",)],
    torchvision="CIFAR100",
)
def cifar100(folder: Path | None) -> RawImages:
    """colour photographs of 100 classes, 32×32: 50,000 + 10,000 images"""
    from itopctl.train.data.files import read_cifar

    assert folder is not None
    return read_cifar(folder, ["train"], "test", "fine_labels", 100)


@DATASETS.add("synthetic", source="-", train=5_000, test=1_000, shape=(3, 32, 32), classes=10, augment="none")
def synthetic(folder: Path | None) -> RawImages:
    """noisy seeded prototypes, 3×32×32, for benchmarks and trials: 5,000 + 1,000 images"""
    from itopctl.train.data.files import make_synthetic

    return make_synthetic()


def data_folder(option: Path | None = None) -> Path:
    """Where data sets lie: the option, else `ITOPCTL_DATA`, else `./data`."""
    return option or Path(os.environ.get("ITOPCTL_DATA") or "data")


def locate(name: str, data_dir: Path) -> Path | None:
    """The folder that holds every file of a data set; None for a built-in one.

    Raises:
        DataUnfitError: the files are nowhere; names the one command that fetches them.
    """
    options = DATASETS.get(name).options
    if "files" not in options:
        return None
    folders = [data_dir / folder for folder in options["folders"]]
    for folder in folders:
        if all(find_file(folder, group) for group in options["files"]):
            return folder
    command = f"itopctl data fetch {name}" + (f" --data-dir {data_dir}" if data_dir != data_folder() else "")
    package = options.get("package")
    other = f" (or, on Debian: apt-get install {package})" if package else ""
    raise DataUnfitError(
        f"data set {name!r} is not there; looked in {', '.join(map(str, folders))}. Fetch it with: {command}{other}"
    )


def find_file(folder: Path, names: Sequence[str]) -> Path | None:
    """The first of the names that is a file in the folder."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _idx(folder: Path | None, name: str) -> RawImages:
    from itopctl.train.data.files import read_idx_set

    assert folder is not None
    paths = [find_file(folder, group) for group in DATASETS.get(name).options["files"]]
    return read_idx_set([path for path in paths if path is not None])
