"""Networks that are odd in some way train alike with sparse layers and with masked ones."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from itopctl.dst import SparseTraining


class Twice(nn.Module):
    """A layer that is called twice, and one whose bias is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 3)
        self.b.bias.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(torch.relu(self.a(input)))))


def with_norm(norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), norm, nn.ReLU(inplace=True), nn.Conv2d(8, 6, 3, stride=2),
        nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(72, 4),
    )  # fmt: skip


IMAGES = (4, 3, 7, 9)
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cumulative batch norm": (lambda: with_norm(nn.BatchNorm2d(8, momentum=None)), IMAGES),
    "batch norm without statistics": (lambda: with_norm(nn.BatchNorm2d(8, track_running_stats=False)), IMAGES),
    "batch norm without weights": (lambda: with_norm(nn.BatchNorm2d(8, affine=False)), IMAGES),
    "frozen batch norm": (lambda: with_norm(nn.BatchNorm2d(8).eval()), IMAGES),
    "group norm": (lambda: with_norm(nn.GroupNorm(2, 8)), IMAGES),
    "layer norm": (lambda: with_norm(nn.LayerNorm([8, 7, 9])), IMAGES),
    "instance norm": (lambda: with_norm(nn.InstanceNorm2d(8)), IMAGES),
    "one image": (lambda: with_norm(nn.Identity()), (1, 3, 7, 9)),
    "channels last": (lambda: with_norm(nn.BatchNorm2d(8)).to(memory_format=torch.channels_last), IMAGES),
    "strides longer than kernels": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 1, stride=3), nn.ReLU(), nn.Conv2d(8, 4, 2, stride=3, padding=1), nn.Flatten(),
            nn.Linear(16, 3),
        ),
        IMAGES,
    ),
    "convolutions that stay masked": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(), nn.ConvTranspose2d(4, 5, 3), nn.ReLU(), nn.Conv2d(5, 2, 3, padding="same"),
            nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
        ),
        IMAGES,
    ),
    "other layers between": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(8, 4, 3), nn.AdaptiveMaxPool2d(2),
            nn.PixelShuffle(2),
        ),
        IMAGES,
    ),
    "inputs of three dimensions": (lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)), (4, 5, 6)),
    "a layer called twice": (Twice, (8, 6)),
}  # fmt: skip


def trained(name: str, compute: str, clipped: bool = False, **rules: Any) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of some steps and of one without gradients, and the masks in the end."""
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparse = SparseTraining(
        model, optimizer, "rigl-itop", sparsity=0.7, total_steps=40, update_interval=4, compute=compute,
        allocation="uniform", **rules,
    )  # fmt: skip
    losses = []
    for step in range(12):
        optimizer.zero_grad(set_to_none=False)
        loss = model(torch.randn(shape, generator=torch.Generator().manual_seed(step))).square().mean()
        loss.backward()
        if clipped:
            sparse.mask_gradients()
            nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        sparse.step()
        losses.append(float(loss.detach()))
    model.eval()
    with torch.no_grad():
        losses.append(float(model(torch.ones(shape)).square().mean()))
    return losses, {layer.name: sparse.mask(layer.name) for layer in sparse.layers()}


def check(name: str, **settings: Any) -> None:
    (masked, masks), (sparse, others) = (trained(name, compute, **settings) for compute in ("masked", "sparse"))
    torch.testing.assert_close(sparse, masked, atol=1e-4, rtol=1e-4)
    for layer, mask in masks.items():
        assert torch.equal(mask, others[layer]), layer


@pytest.mark.parametrize("name", NETWORKS)
def test_an_odd_network_trains_alike(name: str) -> None:
    check(name)


@pytest.mark.parametrize("settings", [{"clipped": True}, {"gradient_batches": 3}], ids=str)
def test_clipped_and_averaged_gradients_are_alike(settings: dict[str, Any]) -> None:
    check("cumulative batch norm", **settings)
    check("a layer called twice", **settings)


def test_a_sparse_model_can_be_copied_and_pickled() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(100, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    SparseTraining(
        model, optimizer, "set-itop", sparsity=0.5, total_steps=10, update_interval=2, compute="sparse",
        allocation="uniform",
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    images = torch.randn(2, 3, 7, 7)
    expected = model(images)
    assert torch.equal(torch.load(file, weights_only=False)(images), expected)
    assert torch.equal(copy.deepcopy(model)(images), expected)
