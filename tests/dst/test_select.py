from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itopctl.dst.select import _split, _split_on_cpu, highest, lowest
from tests.dst.nets import modest

INF = float("inf")
tied_scores = st.lists(st.sampled_from([-INF, -1.0, -0.0, 0.0, 1e-30, 1.0, INF]), min_size=1, max_size=40)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def selections(draw, scores=tied_scores):
    values = draw(scores)
    among = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    count = draw(st.integers(0, sum(among)))
    return torch.tensor(values), torch.tensor(among), count, draw(st.integers(0, 99))


@modest(300)
@given(selections(), st.sampled_from([lowest, highest]))
def test_exactly_count_allowed_entries_come_back_whatever_the_ties_and_infinities(case, choose):
    scores, among, count, seed = case
    chosen = choose(scores, count, among, seeded(seed)).tolist()
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert among[chosen].all()


@modest(300)
@given(selections())
def test_no_entry_left_behind_beats_a_chosen_one(case):
    scores, among, count, seed = case
    low, high = (torch.zeros_like(among) for _ in range(2))
    low[lowest(scores, count, among, seeded(seed))] = True
    high[highest(scores, count, among, seeded(seed))] = True
    if 0 < count < int(among.sum()):
        assert scores[low].max() <= scores[among & ~low].min()
        assert scores[high].min() >= scores[among & ~high].max()


@modest(150)
@given(selections(st.integers(1, 60).flatmap(lambda n: st.permutations([float(i) for i in range(n)]))))
def test_without_ties_the_choice_is_that_of_a_full_sort(case):
    scores, among, count, seed = case
    order = [i for i in scores.argsort().tolist() if among[i]]
    assert lowest(scores, count, among, seeded(seed)).tolist() == sorted(order[:count])
    assert highest(scores, count, among, seeded(seed)).tolist() == sorted(order[len(order) - count :])


@pytest.mark.parametrize("forbidden", [-INF, INF, float("nan"), 0.0])
def test_forbidden_entries_never_come_back_whatever_their_score(forbidden):
    among = torch.arange(100) % 3 == 0
    scores = torch.where(among, torch.zeros(100), torch.full((100,), forbidden))
    for choose in (lowest, highest):
        for count in (0, 1, 20, 34):
            chosen = choose(scores, count, among, seeded(1))
            assert len(chosen) == count
            assert (chosen % 3 == 0).all()


def test_nothing_is_drawn_where_nothing_is_tied():
    generator = seeded(3)
    before = generator.get_state()
    lowest(torch.arange(50.0), 20, torch.ones(50, dtype=torch.bool), generator)
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("choose", [lowest, highest])
def test_every_subset_of_tied_entries_is_equally_likely(choose):
    # Entry 0 is better than the rest and entry 6 worse, whichever way round; two of the five ties are wanted.
    scores = torch.tensor([-1.0, 0, 0, 0, 0, 0, 1.0])
    if choose is highest:
        scores = -scores
    everything = torch.ones(7, dtype=torch.bool)
    draws = 2000
    seen = Counter(tuple(choose(scores, 3, everything, seeded(seed)).tolist()) for seed in range(draws))
    expected = draws / 10
    assert set(seen) == {(0, a, b) for a, b in combinations(range(1, 6), 2)}
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_square < 27.9  # 9 degrees of freedom, p = .001


def test_ties_among_ten_thousand_zeros_are_spread_over_the_whole_tensor():
    everything = torch.ones(10_000, dtype=torch.bool)
    chosen = highest(torch.zeros(10_000), 2_000, everything, seeded(5))
    per_block = torch.bincount(chosen // 1000, minlength=10).double()
    # Hypergeometric: mean 200, standard deviation 12.
    assert per_block.sum() == 2_000
    assert (per_block - 200).abs().max() < 5 * 12


def test_the_same_seed_gives_the_same_choice_and_another_seed_another():
    everything = torch.ones(200, dtype=torch.bool)
    first, again, other = (lowest(torch.zeros(200), 50, everything, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_nan_among_the_allowed_is_an_error():
    scores = torch.tensor([1.0, float("nan"), 3.0])
    for choose in (lowest, highest):
        with pytest.raises(ValueError, match="NaN"):
            choose(scores, 1, torch.ones(3, dtype=torch.bool), seeded(0))


@pytest.mark.parametrize("count", [-1, 3])
def test_more_than_the_allowed_or_less_than_none_is_an_error(count):
    with pytest.raises(ValueError, match="cannot choose"):
        lowest(torch.arange(4.0), count, torch.tensor([True, False, True, False]), seeded(0))


def test_indices_follow_logical_order_for_a_channels_last_tensor():
    scores = torch.randperm(2 * 3 * 4 * 5, generator=seeded(0)).double().reshape(2, 3, 4, 5)
    among = scores % 2 == 0
    rearranged = [tensor.to(memory_format=torch.channels_last) for tensor in (scores, among)]
    assert torch.equal(lowest(scores, 13, among, seeded(0)), lowest(rearranged[0], 13, rearranged[1], seeded(0)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_type_can_be_ranked(dtype):
    scores = torch.tensor([5, 1, 4, 2, 3], dtype=dtype)
    everything = torch.ones(5, dtype=torch.bool)
    assert lowest(scores, 2, everything, seeded(0)).tolist() == [1, 3]
    assert highest(scores, 2, everything, seeded(0)).tolist() == [0, 2]


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 3, 1000]))
def test_the_way_for_gpus_chooses_what_the_way_for_cpus_does(seed: int, size: int, levels: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(-levels, levels + 1, (size,), generator=generator).to(torch.float32)
    allowed = torch.rand(size, generator=generator) < 0.7
    available = int(allowed.sum())
    for count in range(available + 1):
        ours, theirs = (way(scores, allowed, count, available) for way in (_split_on_cpu, _split))
        assert [part.tolist() for part in ours] == [part.tolist() for part in theirs]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_scores_of_other_precisions_are_ranked_alike(dtype: torch.dtype) -> None:
    scores = torch.tensor([3.0, -1.0, 2.0, 0.5, 7.0]).to(dtype)
    chosen = lowest(scores, 2, torch.tensor([True, True, False, True, True]), torch.Generator())
    assert chosen.tolist() == [1, 3]
