"""Copies of a training made while some of its weights are frozen."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from itopctl.dst import SparseTraining
from tests.dst.nets import make_batch, mlp, train

WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda whole: pickle.loads(pickle.dumps(whole))}


@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("way", WAYS)
def test_a_copy_keeps_frozen_weights_frozen_and_masks_them_once_they_are_not(way: str, compute: str) -> None:
    model = mlp(12, 20, 8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(model, optimizer, "rigl", sparsity=0.7, total_steps=40, update_interval=3, compute=compute)
    list(train(model, sparse, (12,), range(4)))
    model[0].weight.requires_grad_(False)
    twin, _, again = WAYS[way]((model, optimizer, sparse))
    assert not twin[0].weight.requires_grad
    for network, training in ((model, sparse), (twin, again)):
        with pytest.warns(UserWarning, match="0.weight: not trained any more"):
            list(train(network, training, (12,), range(4, 7)))
        network[0].weight.requires_grad_(True)
        network(make_batch((12,), 8)).square().mean().backward()
        if compute == "masked":
            assert not network[0].weight.grad[~training.mask("0.weight")].any()
        list(train(network, training, (12,), range(7, 14)))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))
    assert all(torch.equal(sparse.mask(layer.name), again.mask(layer.name)) for layer in sparse.layers())
