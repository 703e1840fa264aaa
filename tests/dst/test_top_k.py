from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itopctl.dst.top_k import HighestSoFar, _split, _split_on_cpu, distinct, highest, lowest, outside, positions
from tests.dst.nets import modest

INF = float("inf")
tied_scores = st.lists(st.sampled_from([-INF, -1.0, -0.0, 0.0, 1e-30, 1.0, INF]), min_size=1, max_size=40)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@st.composite
def selections(draw, scores=tied_scores):
    values = draw(scores)
    forbidden = draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    count = draw(st.integers(0, len(values) - sum(forbidden)))
    return torch.tensor(values), torch.tensor(forbidden), count, draw(st.integers(0, 99))


@modest(300)
@given(selections())
def test_exactly_count_allowed_entries_come_back_whatever_the_ties_and_infinities(case):
    scores, forbidden, count, seed = case
    before = scores.clone()
    chosen = highest(scores, count, seeded(seed), positions(forbidden)).tolist()
    assert len(chosen) == len(set(chosen)) == count
    assert chosen == sorted(chosen)
    assert not forbidden[chosen].any()
    assert torch.equal(scores, before)


@modest(300)
@given(selections())
def test_no_entry_left_behind_beats_a_chosen_one(case):
    scores, forbidden, count, seed = case
    high = torch.zeros_like(forbidden)
    high[highest(scores, count, seeded(seed), positions(forbidden))] = True
    if 0 < count < int((~forbidden).sum()):
        assert scores[high].min() >= scores[~forbidden & ~high].max()
    low = torch.zeros_like(forbidden)
    low[lowest(scores, count, seeded(seed))] = True
    if 0 < count < len(scores):
        assert scores[low].max() <= scores[~low].min()


@modest(150)
@given(selections(st.integers(1, 60).flatmap(lambda n: st.permutations([float(i) for i in range(n)]))))
def test_without_ties_the_choice_is_that_of_a_full_sort(case):
    scores, forbidden, count, seed = case
    order = [i for i in scores.argsort().tolist() if not forbidden[i]]
    chosen = highest(scores, count, seeded(seed), positions(forbidden))
    assert chosen.tolist() == sorted(order[len(order) - count :])
    assert lowest(scores, count, seeded(seed)).tolist() == sorted(scores.argsort().tolist()[:count])


@pytest.mark.parametrize("score", [-INF, INF, float("nan"), 0.0])
def test_forbidden_entries_never_come_back_whatever_their_score(score):
    allowed = torch.arange(100) % 3 == 0
    for others in (0.0, -INF, INF):
        scores = torch.where(allowed, torch.full((100,), others), torch.full((100,), score))
        for count in (0, 1, 20, 34):
            chosen = highest(scores, count, seeded(1), positions(~allowed))
            assert len(chosen) == count
            assert (chosen % 3 == 0).all()


def test_nothing_is_drawn_where_nothing_is_tied():
    generator = seeded(3)
    before = generator.get_state()
    lowest(torch.arange(50.0), 20, generator)
    highest(torch.arange(50.0), 20, generator, torch.tensor([3, 49]))
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("choose", [lowest, highest])
def test_every_subset_of_tied_entries_is_equally_likely(choose):
    # Entry 0 is better than the rest and entry 6 worse, whichever way round; two of the five ties are wanted.
    scores = torch.tensor([-1.0, 0, 0, 0, 0, 0, 1.0])
    if choose is highest:
        scores = -scores
    draws = 2000
    seen = Counter(tuple(choose(scores, 3, seeded(seed)).tolist()) for seed in range(draws))
    expected = draws / 10
    assert set(seen) == {(0, a, b) for a, b in combinations(range(1, 6), 2)}
    chi_square = sum((count - expected) ** 2 / expected for count in seen.values())
    assert chi_square < 27.9  # 9 degrees of freedom, p = .001


def test_ties_among_ten_thousand_zeros_are_spread_over_the_whole_tensor():
    chosen = highest(torch.zeros(10_000), 2_000, seeded(5))
    per_block = torch.bincount(chosen // 1000, minlength=10).double()
    # Hypergeometric: mean 200, standard deviation 12.
    assert per_block.sum() == 2_000
    assert (per_block - 200).abs().max() < 5 * 12


def test_the_same_seed_gives_the_same_choice_and_another_seed_another():
    first, again, other = (lowest(torch.zeros(200), 50, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_nan_among_the_allowed_is_an_error(count):
    scores = torch.tensor([1.0, float("nan"), 3.0])
    for choose in (lowest, highest):
        with pytest.raises(ValueError, match="NaN"):
            choose(scores, count, seeded(0))
    assert highest(scores, min(count, 2), seeded(0), torch.tensor([1])).numel() == min(count, 2)


@pytest.mark.parametrize("count", [-1, 3])
def test_more_than_the_allowed_or_less_than_none_is_an_error(count):
    with pytest.raises(ValueError, match="cannot choose"):
        highest(torch.arange(4.0), count, seeded(0), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match="cannot draw"):
        distinct(2, count, seeded(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_floating_type_can_be_ranked(dtype):
    scores = torch.tensor([5, 1, 4, 2, 3], dtype=dtype)
    assert lowest(scores, 2, seeded(0)).tolist() == [1, 3]
    assert highest(scores, 2, seeded(0)).tolist() == [0, 2]
    assert highest(scores, 2, seeded(0), torch.tensor([0])).tolist() == [2, 4]


@modest(100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 3, 1000]))
def test_the_way_for_gpus_chooses_what_the_way_for_cpus_does(seed: int, size: int, levels: int) -> None:
    scores = torch.randint(-levels, levels + 1, (size,), generator=seeded(seed)).to(torch.float32)
    for count in range(size + 1):
        above, tied = _split(scores, count)
        ours, reached = _split_on_cpu(scores, count)
        if len(above) + len(tied) == count:  # all ties are wanted: the CPU's way does not tell them apart
            assert ours.tolist() == sorted([*above.tolist(), *tied.tolist()])
            assert reached.tolist() == []
        else:
            assert (ours.tolist(), reached.tolist()) == (above.tolist(), tied.tolist())


@modest(200)
@given(st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(0, n - 1))))))
def test_ranks_outside_a_set_are_the_positions_of_its_complement(case):
    size, members = case
    members = sorted(m for m in members if m < size)
    complement = [i for i in range(size) if i not in members]
    found = outside(torch.arange(len(complement)), torch.tensor(members, dtype=torch.int64))
    assert found.tolist() == complement


@modest(100)
@given(st.integers(0, 30), st.data())
def test_a_random_subset_has_distinct_members_of_the_population(population, data):
    count = data.draw(st.integers(0, population))
    drawn = distinct(population, count, seeded(data.draw(st.integers(0, 99)))).tolist()
    assert len(set(drawn)) == count
    assert drawn == sorted(drawn)
    assert all(0 <= member < population for member in drawn)


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_every_random_subset_is_equally_likely(count):
    draws = 3000
    seen = Counter(tuple(distinct(6, count, seeded(seed)).tolist()) for seed in range(draws))
    subsets = list(combinations(range(6), count))
    expected = draws / len(subsets)
    chi_square = sum((seen[subset] - expected) ** 2 / expected for subset in subsets)
    assert chi_square < {6: 20.5, 15: 36.1}[len(subsets)]  # 5 and 14 degrees of freedom, p = .001


def test_a_subset_of_a_layer_of_millions_takes_memory_for_its_members_only():
    drawn = distinct(10**12, 1000, seeded(0))
    assert len(set(drawn.tolist())) == 1000
    assert drawn.min() < 10**10  # the smallest of 1000 is about 10⁹
    assert drawn.max() > 99 * 10**10


@modest(300)
@given(selections(), st.lists(st.integers(1, 9), min_size=1), st.sampled_from([torch.float32, torch.float64]))
def test_scores_that_come_in_pieces_give_what_all_of_them_give(case, sizes, dtype):
    scores, forbidden, count, seed = case
    scores, forbidden = scores.to(dtype), positions(forbidden)
    found, first = HighestSoFar(count, seeded(seed), forbidden), 0
    while first < scores.numel():
        piece = scores[first : first + sizes[first % len(sizes)]]
        found.add(piece, first)
        first += piece.numel()
    assert found.positions().tolist() == highest(scores, count, seeded(seed), forbidden).tolist()


def test_pieces_of_random_scores_leave_little_in_memory():
    torch.manual_seed(0)
    scores = torch.rand(200_000)
    found = HighestSoFar(50, seeded(0), torch.arange(10))
    for first in range(0, scores.numel(), 1000):
        found.add(scores[first : first + 1000], first)
        assert found._scores.numel() <= 1000 + 2 * 50
    assert found.positions().tolist() == highest(scores, 50, seeded(0), torch.arange(10)).tolist()


def test_a_nan_in_any_piece_is_told_of_unless_it_is_forbidden():
    scores = torch.tensor([3.0, torch.nan, 5.0])
    for forbidden, told in (([], True), ([1], False)):
        found = HighestSoFar(1, seeded(0), torch.tensor(forbidden, dtype=torch.int64))
        found.add(torch.tensor([9.0, 8.0]), -2)
        if told:
            with pytest.raises(ValueError, match="NaN"):
                found.add(scores, 0)
        else:
            found.add(scores, 0)
            assert found.positions().tolist() == [-2]


def test_more_than_there_are_cannot_be_chosen_from_pieces():
    found = HighestSoFar(3, seeded(0), torch.tensor([0]))
    found.add(torch.ones(3), 0)
    with pytest.raises(ValueError, match="cannot choose 3 of 2"):
        found.positions()


@pytest.mark.parametrize("size", [200_000, 400_000])
def test_ties_that_are_all_kept_are_not_looked_at_again_and_again(size, monkeypatch):
    looked = 0

    def split(scores, count):
        nonlocal looked
        looked += scores.numel()
        return _split_on_cpu(scores, count)

    monkeypatch.setattr("itopctl.dst.top_k._split_on_cpu", split)
    found, nothing = HighestSoFar(50, seeded(0), torch.tensor([5])), torch.zeros(1000)
    for first in range(0, size, 1000):
        found.add(nothing, first)
    expected = highest(torch.zeros(size), 50, seeded(0), torch.tensor([5]))
    assert found.positions().tolist() == expected.tolist()
    assert looked < 6 * size
