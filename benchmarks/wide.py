"""An MLP 784-w-w-10 for any width: dense, or with hidden layers that never exist but as their nonzeros.

`SparseTraining` is given a dense network, and draws among all its weights: at a width of 65,536 that would take 16 GiB
before the first step, and 0.5 GiB for what was explored. Here the same layers are made of drawn positions at once, and
nothing else is kept. `python -m benchmarks.wide WAY WIDTH` prints the peak of memory of a process of its own.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import nn

from benchmarks.measure import interleaved_seconds
from benchmarks.memory import peak_of_steps
from benchmarks.sparse import CLASSES, train_step, with_optimizer
from itopctl.dst.compressed_layer import compressed
from itopctl.dst.random_streams import keyed_generator
from itopctl.dst.top_k import distinct

INPUTS, BATCH = 784, 128
NAME = f"MLP {INPUTS}-w-w-{CLASSES}, batch {BATCH}"
DENSE, THIN, SPARSEST = "dense", "99 % sparse", "20 nonzeros a neuron"

_PER_NEURON: dict[str, Callable[[int], float]] = {THIN: lambda inputs: inputs / 100, SPARSEST: lambda inputs: 20}
"""Way → nonzeros of a neuron with so many inputs."""

WAYS = (DENSE, *_PER_NEURON)
_WIDEST = {DENSE: 16_384, THIN: 32_768, SPARSEST: 65_536}
WIDTHS = [2**power for power in range(8, 17)]
MEMORY_WIDTHS = WIDTHS[2::2]
_STEPS = 2  # of which the peak is taken, after another one


def ways_at(width: int) -> list[str]:
    """Which of the ways are measured at a width: dense weights are at most 1 GiB, and steps take seconds at most."""
    return [way for way in WAYS if width <= _WIDEST[way]]


def density(way: str, width: int) -> float:
    """Of the weights between the hidden layers."""
    return _PER_NEURON[way](width) / width if way in _PER_NEURON else 1.0


def weights(width: int) -> int:
    """How many there are, zeros included."""
    return INPUTS * width + width * width + width * CLASSES


def step_seconds(width: int) -> dict[str, float]:
    """Way → median seconds of a training step, in turns; by one thread."""
    torch.set_num_threads(1)
    ways = ways_at(width)
    repetitions = max(3, min(51, 2**15 // width))
    times = interleaved_seconds([_step(way, width) for way in ways], repetitions, twice=True)
    return dict(zip(ways, times, strict=True))


def peak_bytes(way: str, width: int) -> int:
    """What training takes at the peak, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.wide", way, str(width)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _step(way: str, width: int) -> Callable[[], None]:
    """What makes a training step of a new network."""
    images, labels = torch.randn(BATCH, INPUTS), torch.randint(0, CLASSES, (BATCH,))
    model, optimizer = with_optimizer(lambda: _network(way, width))
    return lambda: train_step(model, optimizer, optimizer.step, images, labels)


def _network(way: str, width: int) -> nn.Module:
    hidden = [_layer(way, number, inputs, width) for number, inputs in enumerate((INPUTS, width))]
    return nn.Sequential(hidden[0], nn.ReLU(), hidden[1], nn.ReLU(), nn.Linear(width, CLASSES))


def _layer(way: str, number: int, inputs: int, outputs: int) -> nn.Module:
    if way == DENSE:
        return nn.Linear(inputs, outputs)
    count = round(_PER_NEURON[way](inputs) * outputs)
    layer = nn.Linear(1, outputs)
    layer.in_features = inputs
    layer.weight = nn.Parameter(torch.zeros(1, 1).expand(outputs, inputs))  # a shape, and one number in memory
    made = compressed(layer, distinct(inputs * outputs, count, keyed_generator("wide", number)))
    nn.init.normal_(made.weight, std=math.sqrt(2 * outputs / count))
    return made


def _steps(way: str, width: int) -> Callable[[int], float]:
    step = _step(way, width)
    return lambda count: statistics.median(interleaved_seconds([step], count))


if __name__ == "__main__":
    torch.set_num_threads(1)
    _steps(sys.argv[1], 64)(4)  # what is loaded and kept at the first steps of any network
    print(peak_of_steps(lambda: _steps(sys.argv[1], int(sys.argv[2])), _STEPS)[0])
