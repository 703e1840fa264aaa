"""On-disk formats of image data sets → `RawImages`. Files are not trusted: sizes are checked, no code is run."""

from __future__ import annotations

import gzip
import io
import math
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from itopctl.errors import DataUnfitError

_IDX_UBYTE = 0x08


@dataclass(frozen=True)
class RawImages:
    """A data set as it is on disk.

    Attributes:
        train_images, test_images: uint8, [samples, channels, height, width].
        train_labels, test_labels: int64, [samples], in [0, classes).
    """

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def read_digits() -> RawImages:
    """scikit-learn's digits; a stratified fifth, always the same, is the test set. Pixels are 0 … 16."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = data.images.astype(np.uint8)[:, None]
    labels = data.target.astype(np.int64)
    train, test = train_test_split(np.arange(len(labels)), test_size=360, random_state=0, stratify=labels)
    return RawImages(images[train], labels[train], images[test], labels[test])


def make_synthetic(train: int = 5_000, test: int = 1_000, seed: int = 0) -> RawImages:
    """Ten seeded prototypes of 3×32×32 under noise: learnable, not trivially."""
    random = np.random.default_rng(seed)
    coarse = random.normal(0.0, 1.0, (10, 3, 8, 8))
    prototypes = coarse.repeat(4, axis=2).repeat(4, axis=3)
    labels = random.integers(0, 10, train + test)
    noise = random.normal(0.0, 2.0, (train + test, 3, 32, 32))
    pixels = np.clip(127.5 + 30.0 * (prototypes[labels] + noise), 0, 255).astype(np.uint8)
    return RawImages(pixels[:train], labels[:train], pixels[train:], labels[train:])


def read_idx_set(paths: Sequence[Path]) -> RawImages:
    """MNIST-like IDX files, plain or gzipped: train images, train labels, test images, test labels."""
    train_images, train_labels, test_images, test_labels = (read_idx(path) for path in paths)
    for images, labels, path in (
        (train_images, train_labels, paths[0]),
        (test_images, test_labels, paths[2]),
    ):
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise _damaged(path, f"images {images.shape} and labels {labels.shape} do not belong together")
        if labels.size and labels.max() > 9:
            raise _damaged(path, f"a label is {labels.max()}; 0 to 9 expected")
    return RawImages(
        train_images[:, None],
        train_labels.astype(np.int64),
        test_images[:, None],
        test_labels.astype(np.int64),
    )


def read_idx(path: Path) -> NDArray[np.uint8]:
    """One IDX file of unsigned bytes: two zero bytes, type, number of dimensions, each as big-endian int32."""
    raw = path.read_bytes()
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise _damaged(path, str(error)) from error
    if len(raw) < 4 or raw[0] or raw[1] or raw[2] != _IDX_UBYTE:
        raise _damaged(path, f"not an IDX file of unsigned bytes (starts with {raw[:4].hex() or 'nothing'})")
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise _damaged(path, f"its header of {start} bytes is cut off")
    shape = tuple(int(n) for n in np.frombuffer(raw[4:start], ">u4"))
    if len(raw) - start != math.prod(shape):
        raise _damaged(path, f"{len(raw) - start:,} bytes of data where its header says {shape}")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def read_cifar(folder: Path, train_files: Sequence[str], test_file: str, label_key: str, classes: int) -> RawImages:
    """CIFAR in its Python format: pickled dictionaries with `data` [n, 3072] uint8 and labels."""
    train = [_read_cifar_batch(folder / name, label_key, classes) for name in train_files]
    test_images, test_labels = _read_cifar_batch(folder / test_file, label_key, classes)
    return RawImages(
        np.concatenate([images for images, _ in train]),
        np.concatenate([labels for _, labels in train]),
        test_images,
        test_labels,
    )


def _read_cifar_batch(path: Path, label_key: str, classes: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        batch = _ArrayUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
        images = np.asarray(batch["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[label_key], dtype=np.int64)
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
    ) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if len(images) != len(labels) or (labels.size and not 0 <= labels.min() <= labels.max() < classes):
        raise _damaged(path, f"{len(images)} images, {len(labels)} labels, or a label outside 0 … {classes - 1}")
    return images, labels


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles plain data and numpy arrays; anything else that a pickle could call is refused."""

    _ALLOWED = frozenset({
        ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"),
        ("numpy.core.numeric", "_frombuffer"), ("numpy._core.numeric", "_frombuffer"),
    })  # fmt: skip

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not plain data")
        return super().find_class(module, name)


def _damaged(path: Path, why: str) -> DataUnfitError:
    return DataUnfitError(f"{path} is damaged: {why}. Fetch it again.")
