"""The engine on ResNet-34 (21.3 million maskable weights): what a topology update and a step cost.

Beside an update stands the plain way to do it: two full sorts a layer (the paper's code). Beside a step stands the
optimizer's own step on the same gradients. Two threads.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torchvision.models import resnet34

from benchmarks.measure import Figure, interleaved_seconds
from itopctl.dst import SparseTraining
from itopctl.dst.explored_set import ExploredSet, pack_bits

THREADS = 2
SPARSITY = 0.9
_REPETITIONS = 9


def topology_updates() -> list[Figure]:
    """One update of ResNet-34, by random and by gradient growth."""
    torch.set_num_threads(THREADS)
    return [_update_figure(growth) for growth in ("random", "gradient")]


def _update_figure(growth: str) -> Figure:
    model, gradients = _network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(
        model, optimizer, "set-itop", sparsity=SPARSITY, total_steps=10**6, update_interval=1, growth=growth,
        drop_schedule={"name": "constant"}, update_replaces_step=True,
    )  # fmt: skip
    weights = dict(model.named_parameters())
    masks = {layer.name: sparse.mask(layer.name) for layer in sparse.layers()}
    explored = {name: ExploredSet(mask.numel(), pack_bits(mask)) for name, mask in masks.items()}

    def ours() -> None:
        _put(model, gradients)
        assert sparse.step() is not None

    def plain() -> None:
        _put(model, gradients)
        for name, mask in masks.items():
            masks[name] = sort_and_sort(weights[name], mask, growth, 0.5)
            explored[name].add(masks[name])

    nothing, seconds, slow = interleaved_seconds([lambda: _put(model, gradients), ours, plain], _REPETITIONS)
    ratio = (slow - nothing) / (seconds - nothing)
    return Figure(
        f"one topology update of ResNet-34, {growth} growth", seconds - nothing, None,
        f"{ratio:.0f} × faster than two full sorts a layer ({slow - nothing:.2f} s)", ratio, 10.0, "≥ 10 ×",
    )  # fmt: skip


@torch.no_grad()
def sort_and_sort(weight: Tensor, mask: Tensor, growth: str, zeta: float) -> Tensor:
    """The plain update of one layer, as the paper's code does it: sort |w|, then sort the scores of what is off."""
    flat, active = weight.detach().abs().flatten(), mask.flatten()
    count = int(zeta * int(active.sum()))
    order = torch.where(active, flat, torch.inf).argsort()
    kept = active.clone()
    kept[order[:count]] = False
    gradient = weight.grad
    assert gradient is not None
    scores = torch.rand(flat.numel()) if growth == "random" else gradient.abs().flatten()
    order = torch.where(kept, -torch.inf, scores).argsort(descending=True)
    kept[order[:count]] = True
    weight.mul_(kept.view_as(weight))
    return kept.view_as(mask)


def steps() -> list[Figure]:
    """An ordinary step, beside the optimizer's own on the same network; and what masking adds to a whole step."""
    torch.set_num_threads(THREADS)
    return [*(_step_figure(name, make) for name, make in _OPTIMIZERS.items()), _whole_step_figure()]


_OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-9, momentum=0.9, nesterov=True, weight_decay=5e-4),
    "Adam": lambda p: torch.optim.Adam(p, lr=1e-9),
    "SGD, fused": lambda p: torch.optim.SGD(p, lr=1e-9, momentum=0.9, nesterov=True, weight_decay=5e-4, fused=True),
}


def _step_figure(name: str, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Figure:
    """Gradients come by a backward pass that does nothing else, so that the hooks that mask them are measured, too."""
    model, gradients = _network()
    optimizer = make(list(model.parameters()))
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=SPARSITY, total_steps=10**9, update_interval=10**8)
    twin = copy.deepcopy(model)
    own = make(list(twin.parameters()))
    masked = {name: gradient * sparse.mask(name) if name in masks_of(sparse) else gradient
              for name, gradient in gradients.items()}  # fmt: skip
    times = interleaved_seconds(
        [lambda: _arrive(model, gradients), sparse.step, lambda: _arrive(twin, masked), own.step], 25
    )
    arriving, step, arriving_alone, alone = times
    more, masking = step / alone - 1, (arriving - arriving_alone) / alone
    return Figure(
        f"a step of ResNet-34, {name}", step, None,
        f"{more:+.0%} over the optimizer's own ({alone * 1e3:.1f} ms); masking, in the backward pass, {masking:+.0%}",
        -more, -0.10, "≤ +10 %",
    )  # fmt: skip


def masks_of(sparse: SparseTraining) -> set[str]:
    """Names of the layers that have a mask."""
    return {layer.name for layer in sparse.layers()}


def _whole_step_figure() -> Figure:
    """Forward, backward and step, on 32 images of 3×32×32."""
    model, _ = _network()
    optimizer = _OPTIMIZERS["SGD, fused"](list(model.parameters()))
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=SPARSITY, total_steps=10**9, update_interval=10**8)
    twin = copy.deepcopy(model)
    own = _OPTIMIZERS["SGD, fused"](list(twin.parameters()))
    images, labels = torch.randn(32, 3, 32, 32), torch.randint(0, 1000, (32,))

    def train(network: nn.Module, step: Callable[[], object]) -> None:
        network.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        step()

    ours, alone = interleaved_seconds([lambda: train(model, sparse.step), lambda: train(twin, own.step)], 15)
    beside = f"{ours / alone - 1:+.1%} over the same without masks ({alone * 1e3:.0f} ms)"
    return Figure("a whole training step of ResNet-34, 32 images of 3×32×32, fused SGD", ours, None, beside)


def _arrive(model: nn.Module, gradients: dict[str, Tensor]) -> None:
    """Gradients arrive at the weights, as the end of a backward pass, with the copy that it makes of them."""
    model.zero_grad()
    for name, weight in model.named_parameters():
        torch.autograd.backward([weight], [gradients[name].clone()])


def _network() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    model = resnet34()
    return model, {name: torch.randn_like(weight) for name, weight in model.named_parameters()}


def _put(model: nn.Module, gradients: dict[str, Tensor]) -> None:
    for name, weight in model.named_parameters():
        if weight.grad is None:
            weight.grad = gradients[name].clone()
        else:
            weight.grad.copy_(gradients[name])
