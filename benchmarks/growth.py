"""How the cost of a training step (forward, backward, optimizer) grows with density and with width, by one thread.

`python -m benchmarks growth` prints what it comes to; `python -m benchmarks.growth docs/sparse-cost.svg` draws it, with
the data as CSV beside it (`--data` draws again what was measured before). What one panel compares is timed in turns.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks import wide
from benchmarks.growth_figure import Cost, crossing, draw, read
from benchmarks.measure import Figure, interleaved_seconds
from benchmarks.sparse import CLASSES, of_catalogue, train_step, wide_mlp, with_optimizer
from itopctl.dst import SparseTraining
from itopctl.report.figures.make import as_csv, encoded

DENSITIES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
_STEEP_FROM = 0.02  # below, a step is mostly what does not depend on the density
_WIDE_FROM = 2048


@dataclass(frozen=True)
class _Subject:
    """A network whose layers all have the same density."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    repetitions: int


SUBJECTS = (
    _Subject("MLP 3072-4000-1000-4000-10, batch 128", wide_mlp, (128, 3072), 15),
    _Subject("ResNet-18, CIFAR shapes, batch 16", of_catalogue("resnet18", (3, 32, 32)), (16, 3, 32, 32), 5),
)


def growth() -> Iterator[Figure]:
    """Where sparse and dense steps cost the same, and by which powers of density and width cost grows."""
    yield from figures(measured())


def measured() -> list[Cost]:
    """Everything, in a few minutes."""
    return [*(cost for subject in SUBJECTS for cost in by_density(subject)), *by_width()]


def by_density(subject: _Subject) -> list[Cost]:
    """A network dense, under masks, and with sparse layers at all densities."""
    torch.set_num_threads(1)
    images, labels = torch.randn(subject.shape), torch.randint(0, CLASSES, subject.shape[:1])
    dense, own = with_optimizer(subject.make)
    wanted = [("masked", DENSITIES[0]), *(("sparse", density) for density in DENSITIES)]
    actions = [partial(train_step, dense, own, own.step, images, labels)]
    for compute, density in wanted:
        model, optimizer = with_optimizer(subject.make)
        sparse = SparseTraining(
            model, optimizer, "set-itop", sparsity=1 - density, total_steps=10**9, update_interval=10**8,
            compute=compute, allocation="uniform",
        )  # fmt: skip
        actions.append(partial(train_step, model, optimizer, sparse.step, images, labels))
    times = interleaved_seconds(actions, subject.repetitions, twice=True)
    return [
        Cost(subject.name, "density", way, density, None, seconds, None)
        for (way, density), seconds in zip([("dense", 1.0), *wanted], times, strict=True)
    ]


def by_width() -> Iterator[Cost]:
    """An MLP of two hidden layers, from narrow to so wide that it fits as its nonzeros alone."""
    for width in wide.WIDTHS:
        for way, seconds in wide.step_seconds(width).items():
            peak = wide.peak_bytes(way, width) if width in wide.MEMORY_WIDTHS else None
            yield Cost(wide.NAME, "width", way, wide.density(way, width), width, seconds, peak)


def figures(costs: Sequence[Cost]) -> Iterator[Figure]:
    """What the measurements come to."""
    for name in dict.fromkeys(cost.network for cost in costs if cost.against == "density"):
        own = [cost for cost in costs if cost.network == name]
        dense, masked = (next(cost for cost in own if cost.way == way) for way in ("dense", "masked"))
        steep = [(cost.density, cost.seconds) for cost in own if cost.way == "sparse" and cost.density >= _STEEP_FROM]
        same = crossing(own)
        yield Figure(
            f"a dense training step of {name}, one thread", dense.seconds, None,
            f"under masks {masked.seconds / dense.seconds:.2f} ×; sparse layers "
            f"{f'the same at density {same:.2g}' if same else 'cheaper at all densities measured'}, and as "
            f"density^{power(steep):.2f} from {_STEEP_FROM:g} on",
        )  # fmt: skip
    yield from _of_width([cost for cost in costs if cost.against == "width"])


def _of_width(costs: Sequence[Cost]) -> Iterator[Figure]:
    by_way = {way: {cost.width or 0: cost for cost in costs if cost.way == way} for way in wide.WAYS}
    common = max(by_way[wide.DENSE])
    dense = by_way[wide.DENSE][common].seconds
    for way, own in by_way.items():
        grows = power([(width, cost.seconds) for width, cost in own.items() if width >= _WIDE_FROM])
        faster = "" if way == wide.DENSE else f"{dense / own[common].seconds:.0f} × faster; "
        yield Figure(
            f"a training step of {wide.NAME}, w = {common:,}, {way}, one thread", own[common].seconds, None,
            f"{faster}as w^{grows:.2f} from {_WIDE_FROM:,} on",
        )  # fmt: skip
    width = max(by_way[wide.SPARSEST])
    widest = by_way[wide.SPARSEST][width]
    yield Figure(
        f"a training step of {wide.NAME}, w = {width:,}, {widest.way}, one thread", widest.seconds, None,
        f"{(widest.peak_bytes or 0) / 2**20:.0f} MiB; "
        f"dense weights, gradients and momentum alone: {3 * 4 * wide.weights(width) / 2**30:.0f} GiB",
    )  # fmt: skip


def power(points: Sequence[tuple[float, float]]) -> float:
    """The exponent of the power of x that y grows by, as least squares of the logarithms have it."""
    x, y = ([math.log(point[axis]) for point in points] for axis in (0, 1))
    return float(np.polyfit(x, y, 1)[0])


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("picture", type=Path, help="an .svg, .pdf or .png; the data goes beside it, as .csv")
    parser.add_argument("--data", type=Path, help="draw from this CSV, and measure nothing")
    asked = parser.parse_args()
    costs = read(asked.data) if asked.data else measured()
    asked.picture.write_bytes(encoded(draw(costs), asked.picture.suffix[1:]))
    if not asked.data:
        asked.picture.with_suffix(".csv").write_text(as_csv([asdict(cost) for cost in costs]))
    for figure in figures(costs):
        print(f"{figure.what}: {figure.seconds:.4g} s; {figure.beside}")


if __name__ == "__main__":
    main()
