"""What an exported file does: whether it gives what the network gave, and how long it takes beside that."""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from itopctl.errors import ItopctlError
from itopctl.train.data.tensors import Part
from itopctl.train.export.network import TrainedNetwork

Reader = Callable[[Tensor], Tensor]
"""Images as bytes to logits."""

_TOLERANCE = 1e-3  # of the largest logit: sums are made in another order
BATCHES = (1, 8, 128)
"""Sizes of the batches that are timed."""

_REPETITIONS = 15  # of each batch at least, if there is time for so many
_LEAST_SECONDS, _MOST_SECONDS = 0.5, 4.0
_ACCURACY_BATCH = 64


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one batch, medians: of the file, and of the network with whole weights in PyTorch."""

    batch: int
    file_ms: float
    dense_ms: float


@torch.inference_mode()
def check_alike(network: TrainedNetwork, read: Reader) -> None:
    """Raise ItopctlError where a file gives other logits than the network."""
    dense = network.dense()
    for batch in (1, 5):
        images = network.example(batch)
        expected, given = dense(images), read(images)
        if not bool(expected.isfinite().all()):
            raise ItopctlError("the network gives logits that are not finite: nothing was written.")
        largest = float(expected.abs().max())
        apart = float((expected - given).abs().max()) if given.shape == expected.shape else float("inf")
        if not apart <= _TOLERANCE * max(largest, 1e-6):
            raise ItopctlError(
                f"the file that was made gives logits up to {apart:.3g} away from the network's, whose largest is "
                f"{largest:.3g}: nothing was written. It may go with --dense."
            )


@torch.inference_mode()
def accuracy(read: Reader, part: Part) -> float:
    """Share of images whose label is found, in [0, 1]."""
    starts = range(0, len(part), _ACCURACY_BATCH)
    batches = ((part.images[at : at + _ACCURACY_BATCH], part.labels[at : at + _ACCURACY_BATCH]) for at in starts)
    return sum(int((read(images).argmax(dim=1) == labels).sum()) for images, labels in batches) / len(part)


@contextlib.contextmanager
def few_threads() -> Iterator[int]:
    """As many threads as OMP_NUM_THREADS says, up to the cores there are, for a while; else one.

    More of them wait for each other wherever something else runs.
    """
    said, before = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip(), torch.get_num_threads()
    count = min(max(int(said), 1), os.cpu_count() or 1) if said.isdecimal() else 1
    torch.set_num_threads(count)
    try:
        yield count
    finally:
        torch.set_num_threads(before)


@torch.inference_mode()
def timings(network: TrainedNetwork, read: Reader) -> Iterator[Timing]:
    """Both in turns, for some sizes of a batch."""
    dense = network.dense()
    for batch in BATCHES:
        images = network.example(batch)
        seconds = _in_turns([functools.partial(read, images), functools.partial(dense, images)])
        yield Timing(batch, *(1e3 * each for each in seconds))


def _in_turns(actions: Sequence[Callable[[], object]]) -> list[float]:
    """Median seconds of each."""
    times: list[list[float]] = [[] for _ in actions]
    for action in actions:
        action()
    began = time.perf_counter()
    while (
        not times[0]
        or (spent := time.perf_counter() - began) < _LEAST_SECONDS
        or (len(times[0]) < _REPETITIONS and spent < _MOST_SECONDS)
    ):
        for action, taken in zip(actions, times, strict=True):
            start = time.perf_counter()
            action()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in times]
