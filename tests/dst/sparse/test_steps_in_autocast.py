"""Steps that are made inside of autocast, as some training loops do."""

from __future__ import annotations

import pytest
import torch

from itopctl.dst import SparseTraining
from tests.dst.nets import make_batch, mlp


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("method", ["rigl", "mest", "set"])
def test_a_step_inside_autocast_grows_what_one_outside_grows(method, passes):
    masks = []
    for inside in (False, True):
        torch.manual_seed(0)
        model = mlp(8, 12, 4)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparse = SparseTraining(
            model, optimizer, method, sparsity=0.6, total_steps=20, update_interval=2, compute="sparse"
        )
        for step in range(4):
            optimizer.zero_grad()
            for part in range(passes):
                model(make_batch((8,), 10 * step + part)).square().mean().backward()
            with torch.autocast("cpu", enabled=inside):
                sparse.step()
        masks.append([sparse.mask(layer.name) for layer in sparse.layers()])
    assert all(torch.equal(one, other) for one, other in zip(*masks, strict=True))


@pytest.mark.parametrize("method", ["set", "rigl"])
def test_empty_batches_are_trained_through(method):
    model = mlp(8, 12, 4)
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), 0.1), method, sparsity=0.6, total_steps=20, update_interval=2,
        compute="sparse",
    )  # fmt: skip
    for _ in range(4):
        model.zero_grad()
        model(torch.zeros(0, 8)).sum().backward()
        sparse.step()
    assert sparse.active == round(0.4 * sparse.maskable)
