"""What is zero off a mask is stored as its active entries alone: small files, and exact whatever an optimizer does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from itopctl.config.run_config import RunConfig
from itopctl.dst import SparseTraining
from itopctl.train.checkpoint import decode, encode, pack, unpack
from itopctl.train.loop import Training
from itopctl.train.setup import be_deterministic
from tests.dst.nets import mlp
from tests.faults.resuming import DATA, config_of, train

MOMENTUM = {"name": "sgd", "lr": 0.1, "momentum": 0.9}


@pytest.fixture(autouse=True)
def _deterministic() -> None:
    be_deterministic(1)


def size_of(config: RunConfig) -> int:
    """Bytes of its last checkpoint."""
    return len(train(config).saved[-1][0])


@pytest.mark.parametrize(("optimizer", "part"), [("sgd", 0.2), ("adam", 0.18)])
def test_a_checkpoint_of_a_sparse_network_is_a_small_part_of_the_dense_ones(optimizer: str, part: float) -> None:
    """Of LeNet-300-100 at 95 %: a twentieth of each number, two bits a weight, and the generators' states."""
    about = {"optimizer": MOMENTUM if optimizer == "sgd" else {"name": "adam"}, "epochs": 1}
    dense = size_of(config_of(method="dense", **about))
    sparse = size_of(config_of(method="set-itop", sparsity=0.95, **about))
    assert sparse < part * dense
    weights = 64 * 300 + 300 * 100 + 100 * 10
    numbers = 2 if optimizer == "sgd" else 3
    assert dense > 4 * numbers * weights
    assert sparse < 1.15 * (0.05 * 4 * numbers * weights + 2 * weights / 8 + 4 * numbers * 410) + 20_000


def trained(optimizer: str = "adam") -> Training:
    """A training that has made a few steps."""
    training = Training(config_of(optimizer={"name": optimizer}, epochs=1), DATA, lambda *_: None)
    training.run()
    return training


def test_state_that_is_not_zero_off_the_mask_is_stored_whole_and_comes_back() -> None:
    """As of an optimizer that keeps statistics of every weight."""
    training = trained()
    slots = training.optimizer.state[training.model.get_parameter("1.weight")]
    slots["exp_avg"].add_(0.25)
    slots["exp_avg_sq"][~training.sparse.mask("1.weight")] = float("nan")
    expected = {name: slots[name].clone() for name in ("exp_avg", "exp_avg_sq")}
    state = decode(encode(training.state_dict()))
    back = unpack(state, training.sparse)["optimizer"]["state"][0]
    for name, value in expected.items():
        assert torch.equal(back[name].nan_to_num(7.0), value.nan_to_num(7.0)), name


def test_weights_that_are_not_zero_off_the_mask_are_stored_whole_and_come_back() -> None:
    training = trained()
    weight = training.model.get_parameter("3.weight")
    with torch.no_grad():
        weight.add_(1.0)
    state = unpack(decode(encode(training.state_dict())), training.sparse)
    assert torch.equal(state["model"]["3.weight"], weight)


NUMBERS = st.sampled_from([0.0, 1.0, -2.5, 1e-45, -1e38, float("inf"), float("-inf"), float("nan")])
KINDS = st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16])


@given(st.data(), KINDS, st.floats(0.1, 0.97), st.booleans())
@settings(derandomize=True, deadline=None, max_examples=60)
def test_every_state_comes_back_as_it_was(
    data: st.DataObject, kind: torch.dtype, sparsity: float, masked: bool
) -> None:
    model = mlp(9, 7, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=sparsity, total_steps=10, update_interval=2)
    slots: dict[int, dict[str, Tensor]] = {}
    for number, weight in enumerate(model.parameters()):
        values = torch.tensor(data.draw(st.lists(NUMBERS, min_size=8, max_size=8)))
        slots[number] = {"slot": values.repeat(weight.numel())[: weight.numel()].view(weight.shape).to(kind)}
    for number, (name, _) in enumerate(model.named_parameters()):
        if masked and name in {layer.name for layer in sparse.layers()}:
            slots[number]["slot"] = torch.where(sparse.mask(name), slots[number]["slot"], torch.zeros((), dtype=kind))
    state = {
        "model": dict(model.state_dict()), "optimizer": {"state": slots, "param_groups": []},
        "sparse": sparse.state_dict(),
    }  # fmt: skip
    back = unpack(decode(encode(pack(state, model, optimizer, sparse))), sparse)
    for number, slot in slots.items():
        found, expected = back["optimizer"]["state"][number]["slot"], slot["slot"]
        assert found.dtype == kind
        assert torch.equal(found.isnan(), expected.isnan())
        assert torch.equal(found.nan_to_num(7.0), expected.nan_to_num(7.0))
    for name, value in model.state_dict().items():
        assert torch.equal(back["model"][name], value)
