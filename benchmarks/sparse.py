"""Sparse layers beside the same network dense in plain PyTorch: whole training steps (forward, backward, optimizer).

Each figure is a ratio within one run: both are timed in turns. What `compute: auto` chooses is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.measure import Figure, interleaved_seconds
from itopctl.catalogue import MODELS
from itopctl.dst import SparseTraining

THREADS = (1, 2)
CLASSES = 10


def wide_mlp() -> nn.Module:
    """An MLP 3072-4000-1000-4000-10."""
    return nn.Sequential(
        nn.Linear(3072, 4000), nn.ReLU(), nn.Linear(4000, 1000), nn.ReLU(), nn.Linear(1000, 4000), nn.ReLU(),
        nn.Linear(4000, CLASSES),
    )  # fmt: skip


def of_catalogue(name: str, shape: tuple[int, int, int]) -> Callable[[], nn.Module]:
    """What makes a model of the catalogue for images of a shape."""
    return lambda: MODELS.function(name)(input_shape=shape, classes=CLASSES)


@dataclass(frozen=True)
class _Subject:
    """A network to measure: shape of a batch, the least speed-up at each sparsity, and the allocation of density."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    goals: Mapping[float, float | None]
    repetitions: int
    allocation: str = "erk"


_RESNET = of_catalogue("resnet34", (3, 32, 32))
SUBJECTS = [
    _Subject(
        "MLP 3072-4000-1000-4000-10, batch 128", wide_mlp, (128, 3072), {0.95: 3.5, 0.98: 7.0, 0.99: 12.0}, 9
    ),
    _Subject(
        "ResNet-34, CIFAR shapes, batch 32, uniform", _RESNET, (32, 3, 32, 32), {0.95: 1.8, 0.98: 3.0, 0.99: 4.5}, 3,
        "uniform",
    ),
    _Subject(
        "ResNet-34, CIFAR shapes, batch 32, ERK", _RESNET, (32, 3, 32, 32), {0.95: 1.8, 0.98: 3.0, 0.99: 4.5}, 3
    ),
    _Subject(
        "LeNet-300-100, batch 128", of_catalogue("lenet-300-100", (1, 28, 28)), (128, 1, 28, 28),
        {0.95: 1.3, 0.98: 1.5, 0.99: 1.5}, 51,
    ),
]  # fmt: skip


def whole_steps() -> Iterator[Figure]:
    """Every network at every sparsity, by one thread and by two."""
    for subject in SUBJECTS:
        for threads in THREADS:
            for sparsity in subject.goals:
                yield step_figure(subject, sparsity, threads)


def step_figure(subject: _Subject, sparsity: float, threads: int) -> Figure:
    """One network at one sparsity."""
    torch.set_num_threads(threads)
    images, labels = torch.randn(subject.shape), torch.randint(0, CLASSES, subject.shape[:1])
    dense, own = with_optimizer(subject.make)
    model, optimizer = with_optimizer(subject.make)
    sparse = SparseTraining(
        model, optimizer, "set-itop", sparsity=sparsity, total_steps=10**9, update_interval=10**8, compute="auto",
        example=images, allocation=subject.allocation,
    )  # fmt: skip
    ours, theirs = interleaved_seconds(
        [
            lambda: train_step(model, optimizer, sparse.step, images, labels),
            lambda: train_step(dense, own, own.step, images, labels),
        ],
        subject.repetitions,
    )
    backends = [layer.backend for layer in sparse.layers()]
    goal = subject.goals[sparsity]
    return Figure(
        f"a training step of {subject.name}, {sparsity:.0%} sparse, {_threads(threads)}", ours, None,
        f"{theirs / ours:.1f} × faster than dense ({theirs * 1e3:.1f} ms); "
        f"{backends.count('sparse')} of {len(backends)} layers sparse",
        theirs / ours, goal, f"≥ {goal} ×",
    )  # fmt: skip


def _threads(count: int) -> str:
    return "one thread" if count == 1 else f"{count} threads"


def with_optimizer(make: Callable[[], nn.Module]) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network, the same each time, and the optimizer that all benchmarks of sparse layers use."""
    torch.manual_seed(0)
    model = make()
    return model, torch.optim.SGD(
        model.parameters(), lr=1e-6, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True
    )


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, step: Callable[[], object], images: Tensor, labels: Tensor
) -> None:
    """A whole training step: forward, backward, optimizer."""
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    step()
