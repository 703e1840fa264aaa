"""Copies of (model, optimizer, training), as population-based training and what-if branches make them."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch

from itopctl.dst import SparseTraining
from tests.dst.nets import backward, make_batch, mlp


def _through_torch(value: Any) -> Any:
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "torch.save": _through_torch,
}


def trained(model: Any, sparse: SparseTraining, steps: range) -> list[torch.Tensor]:
    for step in steps:
        backward(model, make_batch((12,), step))
        sparse.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("method", ["static", "set-itop", "rigl", "mest", "snfs", "dst-ee"])
def test_a_copy_goes_on_as_the_original_does_and_apart_from_it(method, compute, way):
    if method == "snfs" and compute == "sparse":
        pytest.skip("sparse layers keep no momentum")
    torch.manual_seed(0)
    model = mlp(12, 16, 16, 4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    settings = {} if method == "static" else {"update_interval": 3}
    sparse = SparseTraining(model, optimizer, method, sparsity=0.8, total_steps=60, compute=compute, **settings)
    trained(model, sparse, range(7))
    backward(model, make_batch((12,), 7))  # a copy between backward() and step() has no gradients
    twin = WAYS[way]((model, optimizer, sparse))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    theirs = trained(twin[0], twin[2], range(8, 17))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)), "the original has changed"
    model.zero_grad()
    ours = trained(model, sparse, range(8, 17))
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert twin[1] is twin[2].optimizer
    assert list(sparse.layers()) == list(twin[2].layers())
    assert method == "static" or sparse.exploration_rate > sparse.density


@pytest.mark.parametrize("compute", ["masked", "sparse"])
def test_the_copy_of_a_training_alone_brings_what_it_trains_along(compute):
    model = mlp(12, 16, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, "set", sparsity=0.8, total_steps=60, update_interval=2, compute=compute)
    twin = copy.deepcopy(sparse)
    held = {id(parameter) for group in twin.optimizer.param_groups for parameter in group["params"]}
    assert all(id(twin.weight(layer.name)) in held for layer in twin.layers())
    assert not held & {id(parameter) for parameter in model.parameters()}
