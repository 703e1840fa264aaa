"""A data set as tensors on the device: an epoch is a permutation and slices; no worker processes, no copies.

Images stay uint8; normalisation, crop and flip happen batch by batch, on the device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from itopctl.catalogue import DATASETS
from itopctl.config.run_config import batches_of
from itopctl.dst.random_streams import keyed_generator
from itopctl.errors import DataUnfitError
from itopctl.train.data.catalogue import locate

_PAD = 4  # He et al. 2016: pad by 4, crop at random
_EVALUATION_BATCH = 1000


@dataclass(frozen=True)
class Part:
    """Images (uint8 [n, channels, height, width]) and labels (int64 [n]) of one part of a data set."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ImageData:
    """A data set split in three, with what normalises it.

    Attributes:
        train, validation, test: disjoint; validation is empty where none was asked for.
        mean, std: per channel [channels, 1, 1], of the training part, in units of a pixel's byte.
        classes: number of labels.
    """

    train: Part
    validation: Part
    test: Part
    mean: Tensor
    std: Tensor
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    def normalise(self, images: Tensor) -> Tensor:
        """uint8 images as float32 of zero mean and unit variance over the training part."""
        return images.to(torch.float32).sub_(self.mean).div_(self.std)

    def train_batches(
        self,
        batch_size: int,
        augment: str,
        seed: int,
        epoch: int,
        start: int = 0,
        share: tuple[int, int] = (0, 1),
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One epoch in random order: normalised images and labels.

        Of a share, the images are those of `share_of`, as they would be in the whole batch; where these are fewer than
        two, others of the batch follow, since batch norm needs two. The labels are always those of the whole batch.

        Args:
            batch_size: samples a batch; the last may be smaller (see `batches_of`).
            augment: `none` or `crop-flip`.
            seed, epoch: order and augmentation depend on these two and the batch's index alone, so that a
                training resumed in the middle of an epoch sees what it would have seen.
            start: index of the first batch to give.
            share: (index, count): of every batch, give the images of one share of so many.
        """
        device = self.train.labels.device
        order = torch.randperm(len(self.train), generator=keyed_generator("order", seed, epoch)).to(device)
        for index in range(start, batches_of(len(self.train), batch_size)):
            chosen = order[index * batch_size : (index + 1) * batch_size]
            rows = _rows_of(len(chosen), *share)
            images = self.train.images[chosen[rows]]
            if augment == "crop-flip":
                images = crop_flip(images, keyed_generator("augment", seed, epoch, index), len(chosen), rows)
            yield self.normalise(images), self.train.labels[chosen]

    def evaluation_batches(self, part: Part) -> Iterator[tuple[Tensor, Tensor]]:
        """A part in its own order, never augmented."""
        for start in range(0, len(part), _EVALUATION_BATCH):
            stop = start + _EVALUATION_BATCH
            yield self.normalise(part.images[start:stop]), part.labels[start:stop]


@functools.lru_cache(maxsize=2)
def load_images(name: str, validation: float, data_dir: Path, device: torch.device) -> ImageData:
    """Load a data set onto the device; kept for the next run of this process.

    The validation part is drawn by the data set's name alone, so every run of every sweep has the same.

    Raises:
        DataUnfitError: files missing or damaged.
    """
    raw = DATASETS.function(name)(locate(name, data_dir))
    options = DATASETS.get(name).options
    if len(raw.train_images) != options["train"] or len(raw.test_images) != options["test"]:
        raise DataUnfitError(
            f"data set {name!r} has {len(raw.train_images):,} + {len(raw.test_images):,} images where "
            f"{options['train']:,} + {options['test']:,} belong; fetch it again."
        )
    images, labels = torch.from_numpy(raw.train_images.copy()), torch.from_numpy(raw.train_labels.copy())
    order = torch.randperm(len(labels), generator=keyed_generator("validation", name))
    held_out = round(len(labels) * validation)
    chosen, rest = order[:held_out].sort().values, order[held_out:].sort().values
    train_images = images[rest]
    mean, std = _channel_moments(train_images)
    test = Part(
        torch.from_numpy(raw.test_images.copy()).to(device),
        torch.from_numpy(raw.test_labels.copy()).to(device),
    )
    return ImageData(
        train=Part(train_images.to(device), labels[rest].to(device)),
        validation=Part(images[chosen].to(device), labels[chosen].to(device)),
        test=test,
        mean=mean.to(device),
        std=std.to(device),
        classes=options["classes"],
    )


def share_of(samples: int, index: int, count: int) -> slice:
    """The rows of a batch that are share `index` of `count`: in order, sizes at most one apart, some maybe empty."""
    return slice(samples * index // count, samples * (index + 1) // count)


def _rows_of(samples: int, index: int, count: int) -> slice | Tensor:
    """The rows of a share, and others after them where these are fewer than two."""
    own, least = share_of(samples, index, count), min(2, samples)
    return own if own.stop - own.start >= least else torch.arange(own.start, own.start + least) % samples


def crop_flip(
    images: Tensor, generator: torch.Generator, drawn: int | None = None, which: slice | Tensor = slice(None)
) -> Tensor:
    """Random crops after zero padding by 4, and horizontal flips of half of them; sample by sample.

    Args:
        images: [n, channels, height, width], any dtype.
        generator: on the CPU.
        drawn: for how many images to draw, where these are some of them.
        which: of those they are.
    """
    drawn = len(images) if drawn is None else drawn
    count, channels, height, width = images.shape
    device = images.device
    padded = torch.nn.functional.pad(images, (_PAD, _PAD, _PAD, _PAD))
    top, left = torch.randint(0, 2 * _PAD + 1, (2, drawn, 1), generator=generator)[:, which].to(device)
    flip = (torch.rand(drawn, 1, generator=generator) < 0.5)[which].to(device)
    rows = top + torch.arange(height, device=device)
    columns = torch.arange(width, device=device).expand(count, width)
    columns = left + torch.where(flip, columns.flip(1), columns)
    sample = torch.arange(count, device=device).view(count, 1, 1, 1)
    channel = torch.arange(channels, device=device).view(1, channels, 1, 1)
    return padded[sample, channel, rows.view(count, 1, height, 1), columns.view(count, 1, 1, width)]


def _channel_moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, from exact integer histograms; shape [channels, 1, 1]."""
    values = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in range(images.shape[1]):
        counts = torch.zeros(256, dtype=torch.float64)
        for chunk in images[:, channel].split(_EVALUATION_BATCH):  # bincount needs eight bytes a pixel
            counts += torch.bincount(chunk.reshape(-1).long(), minlength=256)
        mean = (counts * values).sum() / counts.sum()
        variance = (counts * (values - mean) ** 2).sum() / counts.sum()
        means.append(mean)
        stds.append(variance.sqrt().clamp(min=1e-6))
    shape = (-1, 1, 1)
    return torch.stack(means).float().view(shape), torch.stack(stds).float().view(shape)
