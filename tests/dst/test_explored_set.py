from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itopctl.dst import SparseTraining, expected_exploration
from itopctl.dst.expected import expected_total_exploration
from itopctl.dst.explored_set import ExploredSet, pack_bits, unpack_bits
from itopctl.dst.rules import Rules
from itopctl.dst.schedule import update_fractions
from tests.dst.nets import mlp, modest, plain_sgd

ITOP = update_fractions(Rules.of_method("set-itop"), 88_000)


@pytest.mark.parametrize("length", range(41))
def test_packing_and_unpacking_gives_the_mask_back(length):
    for seed in range(3):
        mask = torch.rand(length, generator=torch.Generator().manual_seed(seed)) < 0.5
        packed = pack_bits(mask)
        assert packed.dtype == torch.uint8
        assert packed.numel() == math.ceil(length / 8)
        assert torch.equal(unpack_bits(packed, length), mask)


def test_bits_are_packed_lowest_first_and_row_by_row():
    mask = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 1, 0, 1]], dtype=torch.bool)
    assert pack_bits(mask).tolist() == [0b1000_0001, 0b10]


def test_packing_reads_a_channels_last_tensor_in_logical_order():
    mask = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    assert torch.equal(pack_bits(mask.to(memory_format=torch.channels_last)), pack_bits(mask))


def test_packing_leaves_the_mask_alone():
    mask = torch.ones(16, dtype=torch.bool)
    packed = pack_bits(mask)
    packed.zero_()
    assert mask.all()


@modest(60)
@given(st.integers(1, 70), st.integers(1, 8), st.integers(0, 1000))
def test_the_explored_set_counts_what_a_plain_or_counts(size, updates, seed):
    generator = torch.Generator().manual_seed(seed)
    masks = [torch.rand(size, generator=generator) < 0.2 for _ in range(updates)]
    explored, plain = ExploredSet(size, pack_bits(masks[0])), masks[0].clone()
    for mask in masks[1:]:
        new = int((mask & ~plain).sum())
        plain |= mask
        assert explored.add(mask) == new
        assert explored.count == int(plain.sum())
        assert explored.rate == int(plain.sum()) / size
    assert torch.equal(unpack_bits(explored.bits, size), plain)


@pytest.mark.parametrize(("density", "rate"), [(0.05, 0.5553), (0.20, 0.9754)])
def test_expected_exploration_takes_the_published_values(density, rate):
    assert expected_exploration(density, ITOP) == pytest.approx(rate, abs=5e-5)


def test_expected_exploration_of_one_update_can_be_checked_by_hand():
    # d = 1/2, ζ = 1/2: a quarter of the weights stays, so 1/4 of N grows among 3/4 of N, a third of each.
    assert expected_exploration(0.5, [0.5]) == pytest.approx(1 - 0.5 * (1 - 1 / 3))


def test_expected_exploration_without_updates_is_the_density_and_one_for_a_dense_layer():
    assert expected_exploration(0.3, []) == pytest.approx(0.3)
    assert expected_exploration(0.3, [0.0, 0.0]) == pytest.approx(0.3)
    assert expected_exploration(1.0, ITOP) == 1.0
    assert expected_exploration(1.0, [0.0]) == 1.0


@modest(100)
@given(st.floats(0.001, 1.0), st.lists(st.floats(0.0, 1.0), max_size=20), st.floats(0.0, 1.0))
def test_expected_exploration_rises_with_every_update_and_stays_between_density_and_one(density, fractions, one_more):
    rate = expected_exploration(density, fractions)
    assert density - 1e-9 <= rate <= 1
    assert expected_exploration(density, [*fractions, one_more]) >= rate - 1e-9


def test_the_total_is_the_mean_weighted_by_layer_size():
    fractions = [0.5, 0.25]
    by_hand = (100 * expected_exploration(0.2, fractions) + 900 * expected_exploration(0.1, fractions)) / 1000
    assert expected_total_exploration([20, 90], [100, 900], fractions) == pytest.approx(by_hand)


def explore(sparsity: float, seed: int, shape: tuple[int, int], updates: int, zeta: float) -> SparseTraining:
    """Random growth alone: no gradient ever, an update a step, every rounding exact."""
    torch.manual_seed(seed)
    model = mlp(*shape, bias=False)
    sparse = SparseTraining(
        model, plain_sgd(model), "set-itop", sparsity=sparsity, total_steps=updates + 1, seed=seed, update_interval=1,
        drop_fraction=zeta, drop_schedule={"name": "constant"},
    )  # fmt: skip
    for _ in range(updates):
        sparse.step()
    return sparse


@pytest.mark.parametrize(
    ("density", "zeta", "updates"), [(0.02, 0.5, 20), (0.05, 0.4, 25), (0.1, 0.3, 12), (0.3, 0.2, 6), (0.5, 0.1, 8)]
)
def test_random_growth_explores_what_the_closed_form_expects(density, zeta, updates):
    rates = [explore(1 - density, seed, (40, 50), updates, zeta).exploration_rate for seed in range(40)]
    expected = expected_exploration(density, [zeta] * updates)
    mean, deviation = torch.tensor(rates, dtype=torch.float64).mean(), torch.tensor(rates).std()
    assert 0 < deviation < 0.03
    assert abs(float(mean) - expected) < 4 * float(deviation) / math.sqrt(len(rates))


@pytest.mark.parametrize(("sparsity", "rate"), [(0.95, 0.5553), (0.80, 0.9754)])
def test_a_long_set_itop_schedule_reaches_the_published_exploration_rate(sparsity, rate):
    model = mlp(400, 500, bias=False)
    sparse = SparseTraining(model, plain_sgd(model), "set-itop", sparsity=sparsity, total_steps=88_000)
    updates = 0
    while sparse.steps_done < 87_999:
        # Nothing is trained, so the steps between two updates may be leapt over.
        sparse.steps_done = min(87_999, (sparse.steps_done // 1500 + 1) * 1500) - 1
        updates += sparse.step() is not None
    assert updates == 58
    # 200 000 weights: an independent weight each would give a standard deviation of .0011 and .0003.
    assert sparse.exploration_rate == pytest.approx(rate, abs=4 * math.sqrt(rate * (1 - rate) / 200_000) + 5e-5)


def test_times_active_counts_topologies_and_the_initial_one_is_the_first():
    model = mlp(20, 30, bias=False)
    sparse = SparseTraining(model, plain_sgd(model), "dst-ee", sparsity=0.8, total_steps=9, update_interval=1)

    def counts() -> torch.Tensor:
        return sparse.state_dict()["layers"]["0.weight"]["times_active"]

    mask = sparse.mask("0.weight").flatten()
    assert torch.equal(counts(), mask.int())
    expected = counts()
    for seed in range(3):
        model(torch.randn(4, 20, generator=torch.Generator().manual_seed(seed))).square().sum().backward()
        assert sparse.step().moved > 0
        expected += sparse.mask("0.weight").flatten().int()
        assert torch.equal(counts(), expected)
    assert torch.equal(expected > 0, unpack_bits(sparse.state_dict()["layers"]["0.weight"]["explored"], 600))
