"""Data sets: their files in the true formats, the split, and augmentation."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from itopctl.catalogue import DATASETS
from itopctl.dst.random_streams import keyed_generator
from itopctl.errors import EnvironmentUnfitError, UserError
from itopctl.train.data import tensors
from itopctl.train.data.catalogue import locate
from itopctl.train.data.fetch import compare_checksums
from itopctl.train.data.files import read_cifar, read_digits, read_idx, read_idx_set
from itopctl.train.data.tensors import crop_flip, load_images
from tests.helpers import FASHION_MNIST, need_fashion_mnist


def idx_bytes(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(folder: Path, train: int = 12, test: int = 5, compress: bool = False) -> dict[str, np.ndarray]:
    """Small MNIST-like files in the layout torchvision leaves."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    arrays = {
        "train-images-idx3-ubyte": random.integers(0, 256, (train, 28, 28), dtype=np.uint8),
        "train-labels-idx1-ubyte": random.integers(0, 10, train, dtype=np.uint8),
        "t10k-images-idx3-ubyte": random.integers(0, 256, (test, 28, 28), dtype=np.uint8),
        "t10k-labels-idx1-ubyte": random.integers(0, 10, test, dtype=np.uint8),
    }
    for name, array in arrays.items():
        raw = idx_bytes(array)
        (folder / (name + ".gz" * compress)).write_bytes(gzip.compress(raw) if compress else raw)
    return arrays


def write_cifar(folder: Path, classes: int = 10, samples: int = 4, protocol: int = 2) -> dict[str, np.ndarray]:
    """Small CIFAR files in the Python format of the authors."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(classes)
    names = [f"data_batch_{n}" for n in range(1, 6)] + ["test_batch"] if classes == 10 else ["train", "test"]
    images = {}
    for name in names:
        data = random.integers(0, 256, (samples, 3072), dtype=np.uint8)
        labels = [int(label) for label in random.integers(0, classes, samples)]
        batch = {"data": data, "labels" if classes == 10 else "fine_labels": labels, "batch_label": name}
        if classes == 100:
            batch["coarse_labels"] = [label // 5 for label in labels]
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
        images[name] = data.reshape(-1, 3, 32, 32)
    return images


def shrink(monkeypatch: pytest.MonkeyPatch, name: str, train: int, test: int) -> None:
    """Let a catalogued data set be of another size."""
    monkeypatch.setitem(DATASETS.get(name).options, "train", train)
    monkeypatch.setitem(DATASETS.get(name).options, "test", test)
    load_images.cache_clear()


@pytest.mark.parametrize("compress", [False, True])
def test_mnist_files_are_read_plain_and_gzipped(tmp_path: Path, compress: bool) -> None:
    arrays = write_mnist(tmp_path / "MNIST" / "raw", compress=compress)
    raw = DATASETS.function("mnist")(locate("mnist", tmp_path))
    assert np.array_equal(raw.train_images[:, 0], arrays["train-images-idx3-ubyte"])
    assert np.array_equal(raw.test_labels, arrays["t10k-labels-idx1-ubyte"])
    assert raw.train_labels.dtype == np.int64


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda raw: raw[:-1], "bytes of data"),
        (lambda raw: raw + b"x", "bytes of data"),
        (lambda raw: b"", "not an IDX file"),
        (lambda raw: b"<html>not found</html>", "not an IDX file"),
        (lambda raw: raw[:3], "not an IDX file"),
        (lambda raw: raw[:5], "cut off"),
        (lambda raw: gzip.compress(raw)[:-9], "damaged"),
        (lambda raw: b"\x1f\x8b" + raw, "damaged"),
    ],
)
def test_a_damaged_idx_file_is_named_as_such(tmp_path: Path, damage, word: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(idx_bytes(np.zeros((2, 3, 3), dtype=np.uint8))))
    with pytest.raises(EnvironmentUnfitError, match=word) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_images_and_labels_of_different_number_are_refused(tmp_path: Path) -> None:
    paths = []
    for index, shape in enumerate([(3, 2, 2), (4,), (1, 2, 2), (1,)]):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(idx_bytes(np.zeros(shape, dtype=np.uint8)))
    with pytest.raises(EnvironmentUnfitError, match="do not belong together"):
        read_idx_set(paths)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_cifar10_files_are_read(tmp_path: Path, protocol: int) -> None:
    images = write_cifar(tmp_path / "cifar-10-batches-py", protocol=protocol)
    raw = DATASETS.function("cifar10")(locate("cifar10", tmp_path))
    assert raw.train_images.shape == (20, 3, 32, 32)
    assert np.array_equal(raw.train_images[4:8], images["data_batch_2"])
    assert np.array_equal(raw.test_images, images["test_batch"])


def test_cifar100_files_are_read_with_their_fine_labels(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-100-python", classes=100)
    raw = DATASETS.function("cifar100")(locate("cifar100", tmp_path))
    stored = pickle.loads((tmp_path / "cifar-100-python" / "train").read_bytes())
    assert raw.train_labels.tolist() == stored["fine_labels"]


def test_cifar_files_agree_with_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    write_cifar(tmp_path / "cifar-10-batches-py")
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)  # small files are not the published ones
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    theirs = CIFAR10(str(tmp_path), train=True)
    ours = DATASETS.function("cifar10")(locate("cifar10", tmp_path))
    assert np.array_equal(ours.train_images.transpose(0, 2, 3, 1), theirs.data)
    assert ours.train_labels.tolist() == theirs.targets


class _Evil:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch pwned",))


def test_a_cifar_file_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-100-python"
    write_cifar(folder, classes=100)
    (folder / "train").write_bytes(pickle.dumps({"data": _Evil(), "fine_labels": []}))
    with pytest.raises(EnvironmentUnfitError, match="not plain data"):
        read_cifar(folder, ["train"], "test", "fine_labels", 100)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", pickle.dumps([1, 2]), pickle.dumps({"data": 1}), pickle.dumps({"data": [[1]], "labels": [0]})],
)
def test_a_damaged_cifar_file_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    write_cifar(tmp_path / "c")
    (tmp_path / "c" / "data_batch_3").write_bytes(content)
    with pytest.raises(EnvironmentUnfitError, match="data_batch_3 is damaged"):
        read_cifar(tmp_path / "c", [f"data_batch_{n}" for n in range(1, 6)], "test_batch", "labels", 10)


def test_a_cifar_label_out_of_range_is_refused(tmp_path: Path) -> None:
    write_cifar(tmp_path / "c")
    with pytest.raises(EnvironmentUnfitError, match="label outside"):
        read_cifar(tmp_path / "c", ["data_batch_1"], "test_batch", "labels", 1)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10", "cifar100"])
def test_a_missing_data_set_names_the_command_that_fetches_it(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = tuple(folder for folder in DATASETS.get(name).options["folders"] if not folder.startswith("/"))
    monkeypatch.setitem(DATASETS.get(name).options, "folders", folders)
    with pytest.raises(EnvironmentUnfitError, match=f"itopctl data fetch {name} --data-dir {tmp_path}") as caught:
        locate(name, tmp_path)
    assert caught.value.exit_code == 3


def test_a_data_set_with_a_file_missing_is_missing(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py")
    assert locate("cifar10", tmp_path) == tmp_path / "cifar-10-batches-py"
    (tmp_path / "cifar-10-batches-py" / "data_batch_5").unlink()
    with pytest.raises(EnvironmentUnfitError):
        locate("cifar10", tmp_path)


def test_an_unknown_data_set_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="Did you mean 'cifar10'"):
        DATASETS.get("cifar-10")


def test_a_data_set_of_the_wrong_size_is_refused(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    with pytest.raises(EnvironmentUnfitError, match=r"12 \+ 5 images where 60,000 \+ 10,000 belong"):
        load_images("mnist", 0.1, tmp_path, torch.device("cpu"))


def test_small_files_are_not_the_published_ones(tmp_path: Path) -> None:
    write_cifar(tmp_path / "c")
    assert len(compare_checksums("cifar10", tmp_path / "c").different) == 6


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path: Path) -> None:
    need_fashion_mnist()
    assert locate("fashion_mnist", tmp_path) == FASHION_MNIST
    data = load_images("fashion_mnist", 0.1, tmp_path, torch.device("cpu"))
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.train.images.dtype == torch.uint8
    assert compare_checksums("fashion_mnist", FASHION_MNIST).different == []


def test_digits_are_split_evenly_over_classes() -> None:
    raw = read_digits()
    assert raw.train_images.shape == (1437, 1, 8, 8)
    assert raw.test_images.shape == (360, 1, 8, 8)
    assert np.bincount(raw.test_labels).min() >= 34
    together = np.concatenate([raw.train_images, raw.test_images])
    from sklearn.datasets import load_digits

    assert np.array_equal(
        np.sort(together.sum(axis=(1, 2, 3))), np.sort(load_digits().images.sum(axis=(1, 2)).astype(int))
    )


def test_the_split_is_the_same_whatever_the_run_and_disjoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch, "cifar10", 20, 4)
    images = write_cifar(tmp_path / "cifar-10-batches-py")
    torch.manual_seed(1)
    first = load_images("cifar10", 0.1, tmp_path, torch.device("cpu"))
    load_images.cache_clear()
    torch.manual_seed(2)
    second = load_images("cifar10", 0.1, tmp_path, torch.device("cpu"))
    load_images.cache_clear()
    assert torch.equal(first.validation.images, second.validation.images)
    assert (len(first.train), len(first.validation), len(first.test)) == (18, 2, 4)
    everything = {image.tobytes() for name in images if name != "test_batch" for image in images[name]}
    train = {image.numpy().tobytes() for image in first.train.images}
    held_out = {image.numpy().tobytes() for image in first.validation.images}
    assert train | held_out == everything
    assert not train & held_out
    assert {image.numpy().tobytes() for image in first.test.images} == {i.tobytes() for i in images["test_batch"]}


def test_without_validation_everything_is_trained_on() -> None:
    data = load_images("digits", 0.0, Path("data"), torch.device("cpu"))
    assert len(data.train) == 1437
    assert len(data.validation) == 0


def test_training_images_are_normalised_by_their_own_moments() -> None:
    data = load_images("synthetic", 0.1, Path("data"), torch.device("cpu"))
    images = data.normalise(data.train.images)
    assert torch.allclose(images.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(images.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 128, 1292, 1293, 5000])
def test_an_epoch_shows_every_image_once(batch_size: int) -> None:
    data = load_images("digits", 0.1, Path("data"), torch.device("cpu"))
    batches = list(data.train_batches(batch_size, "none", seed=0, epoch=0))
    seen = sum(len(labels) for _, labels in batches)
    assert seen == len(data.train) - (batch_size == 1292)  # the last batch would be one image: left out
    assert len(batches) == tensors.batches_of(len(data.train), batch_size)
    counts = torch.bincount(torch.cat([labels for _, labels in batches]), minlength=10)
    assert (torch.bincount(data.train.labels, minlength=10) - counts).abs().sum() == (batch_size == 1292)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    data = load_images("digits", 0.1, Path("data"), torch.device("cpu"))

    def order(seed: int, epoch: int) -> list[int]:
        return [int(label) for _, labels in data.train_batches(64, "none", seed, epoch) for label in labels]

    torch.manual_seed(5)
    first = order(0, 0)
    torch.manual_seed(6)
    assert order(0, 0) == first
    assert order(1, 0) != first
    assert order(0, 1) != first


def test_an_epoch_taken_up_in_its_middle_goes_on_as_it_would_have() -> None:
    data = load_images("synthetic", 0.1, Path("data"), torch.device("cpu"))
    whole = list(data.train_batches(500, "crop-flip", seed=3, epoch=2))
    rest = list(data.train_batches(500, "crop-flip", seed=3, epoch=2, start=4))
    assert len(rest) == len(whole) - 4
    assert all(torch.equal(a, b) and torch.equal(x, y) for (a, x), (b, y) in zip(whole[4:], rest, strict=True))


def test_crop_and_flip_equal_the_obvious_loop() -> None:
    images = torch.randint(0, 256, (40, 3, 9, 7), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    generator = keyed_generator("trial")
    top, left = torch.randint(0, 9, (2, 40, 1), generator=generator)
    flip = torch.rand(40, 1, generator=generator) < 0.5
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    expected = torch.empty_like(images)
    for i in range(40):
        cut = padded[i, :, top[i, 0] : top[i, 0] + 9, left[i, 0] : left[i, 0] + 7]
        expected[i] = cut.flip(2) if flip[i, 0] else cut
    assert torch.equal(crop_flip(images, keyed_generator("trial")), expected)
    assert 5 < int(flip.sum()) < 35


def test_validation_and_test_images_are_never_augmented() -> None:
    data = load_images("synthetic", 0.1, Path("data"), torch.device("cpu"))
    (images, labels), *_ = data.evaluation_batches(data.test)
    assert torch.equal(images, data.normalise(data.test.images[: len(labels)]))
