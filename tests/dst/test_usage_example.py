"""An ordinary training loop that knows nothing of this project but one class."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

from itopctl.dst import SparseTraining


def two_spirals(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 2
    radius = torch.rand(samples, generator=generator) * 2 + 0.2
    angle = radius * 2.5 + labels * torch.pi
    points = torch.stack([radius * angle.cos(), radius * angle.sin()], 1)
    return points + 0.03 * torch.randn(samples, 2, generator=generator), labels


@pytest.mark.parametrize("method", ["static", "set", "rigl", "set-itop", "rigl-itop"])
def test_a_plain_loop_learns_at_the_density_it_asked_for(method):
    torch.manual_seed(0)
    points, labels = two_spirals(512, seed=0)
    model = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = SparseTraining(model, optimizer, method, sparsity=0.7, total_steps=600, update_interval=50)

    for step in range(600):
        batch = torch.arange(step * 64, step * 64 + 64) % 512
        optimizer.zero_grad()
        functional.cross_entropy(model(points[batch]), labels[batch]).backward()
        sparse.step()

    test_points, test_labels = two_spirals(512, seed=1)
    accuracy = (model(test_points).argmax(1) == test_labels).float().mean()
    assert accuracy > 0.9
    weights = [p for p in model.parameters() if p.dim() == 2]
    # Exactly zero weights only where there is no connection (a connection grown may still be unused).
    nonzero = sum(int(torch.count_nonzero(w)) for w in weights)
    assert nonzero <= sparse.active == round(0.3 * (128 + 4096 + 128))
    assert nonzero > 0.9 * sparse.active
    assert sparse.density == pytest.approx(0.3, abs=1e-3)
    if method == "static":
        assert sparse.exploration_rate == pytest.approx(sparse.density)
    else:
        assert sparse.exploration_rate > sparse.density + 0.1


def test_importing_the_package_does_not_import_torch():
    code = (
        "import sys, itopctl.dst, itopctl.dst.methods, itopctl.dst.allocation, itopctl.dst.drop, itopctl.dst.growth,"
        " itopctl.dst.rules, itopctl.dst.schedule, itopctl.dst.redistribution, itopctl.dst.expected;"
        " print('torch' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_every_public_name_can_be_imported_and_no_other():
    import itopctl.dst

    assert all(getattr(itopctl.dst, name).__name__ == name for name in itopctl.dst.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = itopctl.dst.no_such_name
