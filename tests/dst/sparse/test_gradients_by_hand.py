"""Gradients that are set by hand, not by backward(), with sparse layers: right, or an error at the update."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import conv_net, mlp


def by_grad(model: nn.Module, loss: Tensor) -> None:
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        parameter.grad = gradient


def by_grad_scaled(model: nn.Module, loss: Tensor) -> None:
    loss.backward()
    for parameter in model.parameters():
        parameter.grad = 0.5 * parameter.grad


def by_grad_of_two_halves(model: nn.Module, loss: Tensor) -> None:
    parts = [torch.autograd.grad(loss / 2, list(model.parameters()), retain_graph=True) for _ in range(2)]
    for parameter, first, second in zip(model.parameters(), *parts, strict=True):
        parameter.grad = first + second


def grown(compute: str, kind: str, set_gradients) -> list[Tensor]:
    torch.manual_seed(0)
    model, shape, classes = (mlp(40, 60, 5), (40,), 5) if kind == "linear" else (conv_net(), (2, 6, 6), 3)
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, *shape, generator=generator)
    labels = torch.randint(0, classes, (64,), generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = SparseTraining(
        model, optimizer, "rigl-itop", sparsity=0.8, total_steps=100, update_interval=5, compute=compute
    )
    for _ in range(10):
        optimizer.zero_grad()
        set_gradients(model, functional.cross_entropy(model(inputs), labels))
        sparse.step()
    return [sparse.mask(layer.name) for layer in sparse.layers()]


@pytest.mark.parametrize("kind", ["linear", "convolution"])
@pytest.mark.parametrize("way", [by_grad, by_grad_of_two_halves])
def test_growth_sees_gradients_set_by_hand(way, kind):
    expected = grown("masked", kind, lambda model, loss: loss.backward())
    for compute in ("masked", "sparse"):
        assert all(torch.equal(a, b) for a, b in zip(grown(compute, kind, way), expected, strict=True)), compute


def test_a_multiple_of_a_gradient_grows_as_it_does():
    masks = [grown(compute, "linear", by_grad_scaled) for compute in ("masked", "sparse")]
    assert all(torch.equal(a, b) for a, b in zip(*masks, strict=True))


def test_gradients_of_nothing_that_was_seen_are_an_error_at_the_update():
    torch.manual_seed(0)
    model = mlp(40, 60, 5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = SparseTraining(
        model, optimizer, "rigl-itop", sparsity=0.8, total_steps=100, update_interval=3, compute="sparse"
    )
    for step in range(3):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        if step < 2:  # at other steps the nonzeros are all that is needed
            sparse.step()
    with pytest.raises(UserError, match=r"0\.weight is sparse and its gradient was set by hand"):
        sparse.step()


def test_a_layer_without_part_in_the_loss_has_a_gradient_of_zero():
    torch.manual_seed(0)
    model = mlp(8, 12, 4)
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), 0.1), "rigl-itop", sparsity=0.8, total_steps=10,
        update_interval=1, compute="sparse",
    )  # fmt: skip
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    assert sparse.step() is not None
