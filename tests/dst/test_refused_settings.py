"""More that the engine cannot take, each in one sentence when the training is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import mlp, plain_sgd


def make(model: nn.Module, optimizer: Any = ..., **settings: Any) -> SparseTraining:
    settings = {"sparsity": 0.5, "total_steps": 100, **settings}
    return SparseTraining(model, plain_sgd(model) if optimizer is ... else optimizer, "rigl-itop", **settings)


def twice(model: nn.Module) -> SparseTraining:
    return make(model, [plain_sgd(model)] * 2)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a lazy norm": (
        lambda: make(nn.Sequential(nn.Linear(8, 4), nn.LazyBatchNorm1d())),
        r"1\.weight has no shape yet, since its layer is lazy",
    ),
    "an embedding with sparse gradients": (
        lambda: make(nn.Sequential(nn.Embedding(9, 8, sparse=True), nn.Linear(8, 4)), also_mask=["0.weight"]),
        r"0\.weight has sparse gradients, .* sparse=False",
    ),
    "a single glob that matches nothing": (
        lambda: make(mlp(8, 4), also_mask="1.weight"),
        r"also_mask '1\.weight' matches no parameter",
    ),
    "no optimizer": (lambda: make(mlp(8, 4), None), "NoneType is no optimizer"),
    "a class of optimizers": (lambda: make(mlp(8, 4), torch.optim.SGD), "SGD is no optimizer.*make one"),
    "an optimizer given twice": (lambda: twice(mlp(8, 4)), "SGD is given twice"),
    "a training of half a step": (lambda: make(mlp(8, 4), total_steps=2.5), "total_steps is 2.5; a whole number"),
    "a training of so many steps in words": (lambda: make(mlp(8, 4), total_steps="9"), "total_steps is '9'"),
    "a seed that is no whole number": (lambda: make(mlp(8, 4), seed=1.5), "seed is 1.5; a whole number"),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.parametrize("what", REFUSED)
def test_it_is_one_sentence(what):
    act, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        act()


def test_a_single_glob_need_not_be_in_a_list():
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 4))
    assert [layer.name for layer in make(model, also_mask="0.*").layers()] == ["0.weight", "1.weight"]
