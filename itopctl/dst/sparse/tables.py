"""What a sparse convolution multiplies rows of: images as each kernel column meets them, a block of rows at a time.

A table is three times an image for a kernel of three columns. So it is made in blocks where it is large, always in the
same memory: pages that a process is given anew at every layer cost more time than what is written into them.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from itopctl.dst.sparse.csr import Bags

_LARGEST = 8 << 20  # bytes of a table, about: it stays in the caches until it is used


@dataclass(frozen=True)
class Block:
    """Some rows of the images that a product makes.

    Attributes:
        rows: of the images.
        bags: of these rows.
        table: what their sources count: rows (row, kernel column, channel) of width·N numbers. It is another block's
            as soon as the next one is asked for.
    """

    rows: slice
    bags: Bags
    table: Tensor


def blocks(
    bags: Bags, height: int, images: Tensor, width: int, meetings: list[tuple[slice, slice]],
    met: Callable[[slice], slice],
) -> Iterator[Block]:  # fmt: skip
    """All of a product's rows, in as many blocks as its table needs.

    Args:
        bags: of the product; their sources are rows (row, kernel column, channel).
        height: of the images that it makes.
        images: the other factor, [H, C, W, N].
        width: of what it makes.
        meetings: for each kernel column, which columns of the product are which of the images; others are zero.
        met: which rows of the images some rows of the product are made of; one at least.
    """
    of_row = len(meetings) * images.shape[1]  # so many rows of the table are made of one of the images
    count = 1
    if images.device.type == "cpu" and not _as_they_are(images, width, meetings):
        count = -(-images.shape[0] * of_row * width * images.shape[3] * images.element_size() // _LARGEST)
    rows = -(-height // max(count, 1))
    for start in range(0, height, rows):
        block = slice(start, min(start + rows, height))
        sources = met(block)
        table = _shifted(images[sources], width, meetings)
        yield Block(block, bags.part(block, height, sources.start * of_row), table)


def _as_they_are(images: Tensor, width: int, meetings: list[tuple[slice, slice]]) -> bool:
    """Whether the only kernel column meets every pixel where it is, so that images are a table already."""
    return width == images.shape[2] and meetings == [(slice(0, width, 1), slice(0, width, 1))]


def _shifted(images: Tensor, width: int, meetings: list[tuple[slice, slice]]) -> Tensor:
    """Images [H, C, W, N] as each kernel column meets them, [H·columns·C, width·N]."""
    height, channels, _, batch = images.shape
    if _as_they_are(images, width, meetings):
        return images.view(height * channels, width * batch)
    tables = _memory(images, (height, len(meetings), channels, width, batch))
    for table, (columns, pixels) in zip(tables.unbind(1), meetings, strict=True):
        _put(table, columns, images[:, :, pixels])
    return tables.view(height * len(meetings) * channels, width * batch)


def _put(table: Tensor, columns: slice, values: Tensor) -> None:
    """Write values at these columns of a table [height, channels, width, batch], and zeros elsewhere."""
    if columns.step != 1 or columns.stop <= columns.start:
        table.zero_()
    else:
        table[:, :, : columns.start] = 0
        table[:, :, columns.stop :] = 0
    if columns.stop > columns.start:
        table[:, :, columns] = values


_kept = threading.local()


def _memory(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Memory for a table: on a CPU the same each time, a thread's own."""
    if like.device.type != "cpu":
        return like.new_empty(shape)
    size = math.prod(shape) * like.element_size()
    kept: Tensor | None = getattr(_kept, "memory", None)
    if kept is None or kept.numel() < size:
        with torch.inference_mode(False):  # what is made in this mode could not be written to outside of it
            kept = _kept.memory = torch.empty(size, dtype=torch.uint8)
    return kept[:size].view(like.dtype).view(shape)
