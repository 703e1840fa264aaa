"""What sparse layers take in memory, measured by the operating system: each network is trained in a process of its own.

Counted is the peak of resident memory over some steps, less what the process had before it made the network: so
parameters, gradients, optimizer state, structure, explored sets, and the activations of a batch of one. Shares are of
what is held, the C library being told to return at once what is freed (`_AT_ONCE`), and beside them with what it keeps
for later if it isn't.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import nn

from benchmarks.measure import Figure
from itopctl.dst import SparseTraining

_STEPS = 12
_LARGEST_SHARE = 0.08
_NEVER = 10**6
_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16), "MALLOC_TRIM_THRESHOLD_": str(1 << 17)}  # glibc's


def peak_memory() -> Iterator[Figure]:
    """A 99 % sparse MLP beside the dense one, and one with a million hidden neurons."""
    dense, _ = _measured("mlp", "dense", 0.0, _NEVER, _AT_ONCE)
    for method, interval, what in (
        ("set-itop", _NEVER, "steps alone"),
        ("set-itop", 3, "with updates by random growth"),
        ("rigl-itop", 3, "with updates by gradient growth"),
    ):
        held, _ = _measured("mlp", method, 0.99, interval, _AT_ONCE)
        taken, seconds = _measured("mlp", method, 0.99, interval)
        yield Figure(
            f"memory of MLP 3072-4000-1000-4000-10, 99% sparse, {what}", seconds, None,
            f"{held / dense:.1%} of dense ({held / 2**20:.1f} of {dense / 2**20:.0f} MiB); with what the C library "
            f"keeps {taken / dense:.1%}",
            -held / dense, -_LARGEST_SHARE, f"≤ {_LARGEST_SHARE:.0%} of dense",
        )  # fmt: skip
    taken, seconds = _measured("million", "set-itop", 0.999, 3)
    yield Figure(
        "a training step of MLP 784-1,000,000-10, 99.9% sparse, batch 128", seconds, None,
        f"{taken / 2**30:.1f} GiB, most of it activations; "
        f"dense weights, gradients and momentum alone: {3 * 4 * 794e6 / 2**30:.1f} GiB",
    )  # fmt: skip


def _measured(
    network: str, method: str, sparsity: float, interval: int, environment: Mapping[str, str] | None = None
) -> tuple[int, float]:
    """Bytes at the peak, and the median seconds of a step."""
    command = [sys.executable, "-m", "benchmarks.memory", network, method, str(sparsity), str(interval)]
    around = {**os.environ, **(environment or {})}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=around)
    taken, seconds = done.stdout.split()
    return int(taken), float(seconds)


def _network(name: str) -> tuple[nn.Module, int, int]:
    """The network, its inputs and the size of a batch."""
    if name == "small":
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)), 64, 2
    if name == "million":
        return nn.Sequential(nn.Linear(784, 1_000_000), nn.ReLU(), nn.Linear(1_000_000, 10)), 784, 128
    widths = (3072, 4000, 1000, 4000, 10)
    layers = [layer for pair in itertools.pairwise(widths) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1]), widths[0], 1


def _resident(line: str) -> int:
    for entry in Path("/proc/self/status").read_text().splitlines():
        if entry.startswith(line):
            return int(entry.split()[1]) * 1024
    raise RuntimeError(f"Linux tells no {line}")


def _give_back() -> None:
    """Return what has been freed to the system: the C library keeps it for later."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _train(name: str, method: str, sparsity: float, interval: int) -> None:
    """Prints the bytes taken at the peak and the median seconds of a step."""
    torch.set_num_threads(1)
    _Training("small", "set-itop", 0.5, 2).steps(4)  # what is loaded and kept at the first steps of any network
    print(*peak_of_steps(lambda: _Training(name, method, sparsity, interval).steps, _STEPS))


def peak_of_steps(make: Callable[[], Callable[[int], float]], count: int) -> tuple[int, float]:
    """Bytes that a training takes at the peak, and the median seconds of its steps.

    Args:
        make: makes the network, and gives what trains it for so many steps.
        count: of the steps.
    """
    _give_back()
    before = _resident("VmRSS")
    steps = make()
    _give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on: to make the network took more
    seconds = steps(count)
    return _resident("VmHWM") - before, seconds


class _Training:
    def __init__(self, name: str, method: str, sparsity: float, interval: int) -> None:
        torch.manual_seed(0)
        self.model, self.inputs, self.batch = _network(name)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9, fused=True)
        rules = {} if method == "dense" else {"update_interval": interval}
        self.sparse = SparseTraining(
            self.model, self.optimizer, method, sparsity=sparsity, total_steps=10**9, compute="sparse", **rules
        )

    def steps(self, count: int) -> float:
        """Median seconds of so many steps."""
        times = []
        for _ in range(count):
            images, labels = torch.randn(self.batch, self.inputs), torch.randint(0, 10, (self.batch,))
            began = time.perf_counter()
            self.optimizer.zero_grad()
            nn.functional.cross_entropy(self.model(images), labels).backward()
            self.sparse.step()
            times.append(time.perf_counter() - began)
        return statistics.median(times)


if __name__ == "__main__":
    _train(sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
