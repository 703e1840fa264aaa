"""Growth by the dense gradient of large sparse layers, whose dense gradient is never in memory as a whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from itopctl.catalogue import rule
from itopctl.dst import SparseTraining
from itopctl.dst.sparse import linear
from tests.dst.sparse.test_training import Run, assert_alike, mlp

SEEN: list[int] = []


class _Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(one, Tensor) and one.layout == torch.strided:
                self.size = max(self.size, one.numel())
        return made


@rule(needs=("gradient",))
def ranks_of_gradients(layer: Any) -> Tensor:
    """A score that depends on all weights of a layer."""
    SEEN.append(layer.gradient.numel())
    return layer.gradient.abs().argsort().argsort().to(torch.float32)


@rule(needs=("gradient",), elementwise=True)
def what_is_seen(layer: Any) -> Tensor:
    """A score made of all that a view shows, entry by entry."""
    assert layer.indices.shape == layer.gradient.shape == layer.weight.shape == layer.explored.shape
    assert layer.random_scores().shape == layer.active.shape
    unexplored = (~layer.explored).to(torch.float32)
    return layer.gradient.abs() + 1e-3 * unexplored + 1e-6 * layer.indices + 1e-3 * layer.weight.abs()


@pytest.mark.parametrize("block", [1, 45, 200])
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"gradient_batches": 2},
        {"growth": "gradient-plus-exploration"},
        {"growth": f"{__name__}:what_is_seen"},
    ],
)
def test_growth_by_blocks_of_rows_is_growth(monkeypatch: pytest.MonkeyPatch, rules: dict[str, Any], block: int) -> None:
    monkeypatch.setattr(linear, "_BLOCK", block)
    masked, sparse = (Run(mlp, "sgd", compute, "rigl-itop", **rules).steps(24) for compute in ("masked", "sparse"))
    assert_alike(masked, sparse)
    assert sparse.sparse.exploration_rate > 0.25


def test_a_penalty_on_weights_has_its_say_in_blocks_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_BLOCK", 45)
    layer = Run(mlp, "sgd", "sparse", "rigl-itop").sparse._compressed[0]
    values = torch.randn(layer.active_count)
    layer.gradient.add(torch.randn(16, 20), torch.randn(16, 30))
    layer.gradient.set_active(values)
    whole = layer.gradient.dense()
    torch.testing.assert_close(whole.view(-1)[layer.active_positions()], values)
    blocks = torch.cat([layer.gradient.rows(start, stop) for start, stop in layer.row_blocks])
    torch.testing.assert_close(blocks, whole)


@pytest.mark.parametrize("passes", [0, 1, 2])
def test_rows_are_those_of_the_whole_after_any_number_of_passes(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    monkeypatch.setattr(linear, "_BLOCK", 45)
    layer = Run(mlp, "sgd", "sparse", "rigl-itop").sparse._compressed[0]
    for _ in range(passes):
        layer.gradient.add(torch.randn(16, 20), torch.randn(16, 30))
    whole = layer.gradient.dense()
    rows = [layer.gradient.rows(start, stop) for start, stop in layer.row_blocks]
    torch.testing.assert_close(torch.cat(rows), whole)
    rows[0].fill_(7.0)
    torch.testing.assert_close(layer.gradient.dense(), whole)


def test_a_rule_that_looks_at_all_weights_gets_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_BLOCK", 1)
    SEEN.clear()
    Run(mlp, "sgd", "sparse", "rigl-itop", growth=f"{__name__}:ranks_of_gradients").steps(5)
    assert set(SEEN) == {600, 750, 125}


@pytest.mark.parametrize("method", ["set-itop", "rigl-itop"])
def test_an_update_makes_nothing_as_large_as_a_dense_layer(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1000, 2000), nn.ReLU(), nn.Linear(2000, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(
        model, optimizer, method, sparsity=0.99, total_steps=100, update_interval=2, compute="sparse"
    )  # fmt: skip
    with _Largest() as largest:
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(8, 1000)), torch.randint(0, 10, (8,))).backward()
            sparse.step()
        sparse.state_dict()
    assert sparse.updates_done == 2
    assert largest.size <= 2**18 < 2_000_000
