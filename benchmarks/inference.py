"""Networks exported as programs that multiply by their nonzeros, beside the same networks with whole weights.

Each figure is a ratio within one run, by one thread: the file, read back, and plain PyTorch, in turns.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator

import torch
from torch import nn

from benchmarks.measure import Figure, interleaved_seconds
from benchmarks.sparse import of_catalogue, wide_mlp
from itopctl.dst import SparseTraining
from itopctl.dst.inference import with_nonzeros_alone
from itopctl.train.export.check import BATCHES
from itopctl.train.export.program import exported

_SPARSITIES = (0.95, 0.98, 0.99)
_SUBJECTS: list[tuple[str, Callable[[], nn.Module], tuple[int, ...], str]] = [
    ("MLP 3072-4000-1000-4000-10", wide_mlp, (3072,), "erk"),
    ("ResNet-34, CIFAR shapes, uniform", of_catalogue("resnet34", (3, 32, 32)), (3, 32, 32), "uniform"),
    ("ResNet-34, CIFAR shapes, ERK", of_catalogue("resnet34", (3, 32, 32)), (3, 32, 32), "erk"),
]


@torch.inference_mode()
def inference() -> Iterator[Figure]:
    """Every network at every sparsity; the time is that of a batch of 8."""
    torch.set_num_threads(1)
    for name, make, shape, allocation in _SUBJECTS:
        for sparsity in _SPARSITIES:
            dense, program, size = _exported(make, shape, sparsity, allocation)
            whole = sum(4 * tensor.numel() for tensor in dense.state_dict().values())
            times = {batch: _times(program, dense, torch.randn(batch, *shape)) for batch in BATCHES}
            ratios = " / ".join(f"{theirs / ours:.1f}" for ours, theirs in times.values())
            ours, theirs = times[8]
            yield Figure(
                f"inference of {name}, {sparsity:.0%} sparse, exported, batch 8, one thread", ours, None,
                f"batches of {' / '.join(map(str, BATCHES))}: {ratios} × faster than dense (batch 8: "
                f"{theirs * 1e3:.1f} ms); file {size / whole:.0%} of dense weights ({size / 1e6:.1f} MB)",
            )  # fmt: skip


def _times(program: Callable[..., object], dense: nn.Module, images: torch.Tensor) -> list[float]:
    repetitions = 3 if len(images) > 8 else 15
    return interleaved_seconds([lambda: program(images), lambda: dense(images)], repetitions)


def _exported(
    make: Callable[[], nn.Module], shape: tuple[int, ...], sparsity: float, allocation: str
) -> tuple[nn.Module, Callable[..., object], int]:
    """A network with random weights, the program made of it, as read back, and the bytes of its file."""
    torch.manual_seed(0)
    with torch.inference_mode(False):
        model = make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        sparse = SparseTraining(
            model, optimizer, "static", sparsity=sparsity, total_steps=1, allocation=allocation
        )  # fmt: skip
        active = {layer.name: sparse.mask(layer.name) for layer in sparse.layers() if layer.active < layer.size}
        model = model.requires_grad_(False).eval()
        thin = with_nonzeros_alone(copy.deepcopy(model), active)
        file = io.BytesIO()
        torch.export.save(exported(thin, torch.randn(2, *shape)), file)
        file.seek(0)
        return model, torch.export.load(file).module(), len(file.getvalue())
