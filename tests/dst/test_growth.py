"""What each growth rule grows, as tables that can be checked with a pencil.

Most drop one weight that is plainly the smallest, and ask which candidate (inactive, or just dropped) comes.
"""

from __future__ import annotations

import math
from collections import Counter
from itertools import combinations

import pytest
import torch

from itopctl.catalogue import GROWTHS
from itopctl.dst import SparseTraining
from tests.dst.nets import assert_masked, backward, make_batch, mlp, plain_sgd, train
from tests.dst.tables import Table, Tables, chi_square

RULES = GROWTHS.names()
NAN = float("nan")


def indices(mask: list) -> list[int]:
    return [index for index, active in enumerate(mask) if active]


# random and random-unexplored -------------------------------------------------------------------------------


def test_random_growth_draws_every_pair_of_candidates_equally_often():
    grown = Counter()
    for seed in range(600):
        table = Table("rigl", [1] * 4 + [0] * 2, [1.0, 2, 3, 4, 0, 0], growth="random", drop_fraction=0.5, seed=seed)
        # |w|: 1 and 2 go; the candidates are indices 0, 1, 4 and 5: six pairs
        assert table.step([0.0] * 6).replaced == 2
        assert table.mask[2:4] == [1, 1]
        grown[tuple(i for i in indices(table.mask) if i not in (2, 3))] += 1
    # 5 degrees of freedom, p = .001
    assert chi_square(grown, dict.fromkeys(combinations((0, 1, 4, 5), 2), 100)) < 20.5


def test_random_growth_looks_at_neither_gradient_nor_weights():
    masks = []
    for scale in (9.0, -0.01):
        table = Table("set-itop", [1] * 5 + [0] * 15, [scale] * 5 + [0.0] * 15, drop_fraction=1.0, seed=3)
        table.step([scale * i for i in range(20)])
        masks.append(table.mask)
    assert masks[0] == masks[1]


def unexplored(explored: list, zeta: float, seed: int = 0) -> Table:
    """Three active weights of six, ζ of them dropped (the first ones); which were ever active is given."""
    table = Table(
        "set-itop", [1, 1, 1, 0, 0, 0], [1.0, 2, 3, 0, 0, 0], growth="random-unexplored", drop_fraction=zeta, seed=seed
    )
    table.set_history(0, explored)
    table.step([0.0] * 6)
    return table


def test_random_unexplored_grows_only_what_was_never_active_while_there_is_any():
    grown = Counter()
    for seed in range(300):
        # one goes; index 3 was active before, 4 and 5 never
        table = unexplored([1, 1, 1, 1, 0, 0], 0.3, seed)
        assert table.mask[:4] == [0, 1, 1, 0]
        grown[indices(table.mask)[-1]] += 1
    assert chi_square(grown, {4: 150, 5: 150}) < 10.8  # 1 degree of freedom, p = .001


def test_random_unexplored_takes_all_that_are_unexplored_where_just_so_many_grow():
    table = unexplored([1, 1, 1, 1, 0, 0], 0.6)
    assert table.mask == [0, 0, 1, 0, 1, 1]
    assert table.sparse.exploration_rate == 1.0


def test_random_unexplored_draws_the_rest_among_the_other_candidates_once_it_runs_out():
    grown = Counter()
    for seed in range(300):
        # two go; 5 is the only one unexplored, and comes; the other is one of 0, 1 (just dropped), 3 and 4
        table = unexplored([1, 1, 1, 1, 1, 0], 0.6, seed)
        assert table.mask[2] == table.mask[5] == 1
        assert sum(table.mask) == 3
        grown[next(i for i in (0, 1, 3, 4) if table.mask[i])] += 1
    assert chi_square(grown, dict.fromkeys((0, 1, 3, 4), 75)) < 16.3  # 3 degrees of freedom, p = .001


def test_random_unexplored_is_random_growth_once_everything_was_explored():
    grown = Counter()
    for seed in range(300):
        table = unexplored([1] * 6, 0.3, seed)
        assert table.mask[1:3] == [1, 1]
        grown[next(i for i in (0, 3, 4, 5) if table.mask[i])] += 1
        assert table.sparse.exploration_rate == 1.0
    assert chi_square(grown, dict.fromkeys((0, 3, 4, 5), 75)) < 16.3  # 3 degrees of freedom, p = .001


def test_random_unexplored_explores_as_fast_as_can_be():
    mask = [1] * 10 + [0] * 90
    table = Table("set-itop", mask, [float(m) for m in mask], growth="random-unexplored", drop_fraction=0.4)
    for update in range(1, 30):
        assert table.step([0.0] * 100).exploration_rate == pytest.approx(min(1.0, (10 + 4 * update) / 100))


# gradient ---------------------------------------------------------------------------------------------------


def test_gradient_growth_takes_the_largest_of_either_sign_among_the_candidates():
    table = Table("rigl", [1, 1, 1, 0, 0, 0, 0], [3.0, -1, 2, 0, 0, 0, 0], drop_fraction=0.67)
    # |w|: 1 and 2 go; |gradient| of the candidates 1, 2, 3, 4, 5, 6: 5, 1, 4, 6, 0, 2 → indices 4 and 1
    table.step([99.0, -5, 1, 4, -6, 0, 2])
    assert table.mask == [1, 1, 0, 0, 1, 0, 0]
    assert table.values == [3, -1, 0, 0, 0, 0, 0]  # what is dropped and grown again keeps its value


def averaging(**settings) -> Table:
    return Table("rigl", [1, 1, 0, 0], [9.0, 1, 0, 0], lr=0.0, drop_fraction=0.5, **settings)


def test_gradient_batches_average_the_gradient_before_its_absolute_value_is_taken():
    table = averaging(update_interval=3, gradient_batches=2)
    table.step([0.0, 0, 0, 0])
    table.step([0.0, 0, 5, 2])
    table.step([0.0, 0, -5, 2])
    # |mean|: 0 and 2 → index 3; the mean of |g| would be 5 and 2
    assert table.mask == [1, 0, 0, 1]


@pytest.mark.parametrize("other", ["none", "momentum"])  # momentum is taken in at every step, the mean is not
@pytest.mark.parametrize(("batches", "grown"), [(1, 3), (2, 2), (3, 2), (4, 3)])
def test_gradient_batches_are_the_last_ones_before_the_update(batches, grown, other):
    table = averaging(update_interval=5, gradient_batches=batches, redistribution=other)
    gradients = [[90.0, 0], [0.0, 9], [0.0, 0], [4.0, 0], [0.0, 3]]  # of the indices 2 and 3, step by step
    # over the last 1: 0, 3 → index 3; 2: 4, 3 → 2; 3: 4, 3 → 2; 4: 4, 12 → 3; the first step never counts
    for gradient in gradients:
        table.step([0.0, 0, *gradient])
    assert indices(table.mask) == [0, grown]


def test_gradient_batches_start_afresh_after_an_update():
    table = averaging(update_interval=3, gradient_batches=2)
    for gradient in ([0.0, 90], [0.0, 90], [0.0, 90]):
        table.step([0.0, 0, *gradient])
    assert table.mask == [1, 0, 0, 1]
    for gradient in ([0.0, 0], [0.0, 0], [7.0, 3]):  # index 3 is active now, at zero, and so the one that goes
        table.step([0.0, 0, *gradient])
    assert table.mask == [1, 0, 1, 0]


def test_a_batch_in_the_window_that_overflowed_skips_the_update_and_one_before_it_does_not():
    for bad, skipped in ((1, False), (2, True), (3, True)):
        table = averaging(update_interval=3, gradient_batches=2)
        for step in (1, 2, 3):
            update = table.step([0.0, 0, 1, NAN if step == bad else 2])
        assert update.skipped == skipped
        assert table.mask == ([1, 1, 0, 0] if skipped else [1, 0, 0, 1])
        for _ in range(3):
            update = table.step([0.0, 0, 2, 1])
        assert not update.skipped  # nothing of it is left over


def test_the_mean_of_gradient_batches_is_that_of_one_large_batch():
    def masks(batches: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = mlp(8, 12, 3)
        sparse = SparseTraining(
            model, plain_sgd(model, 0.0), "rigl", sparsity=0.6, total_steps=40, update_interval=8,
            gradient_batches=batches,
        )  # fmt: skip
        for step in range(8):
            data = [make_batch((8,), step)] if batches > 1 else [make_batch((8,), late) for late in range(4, 8)]
            backward(model, torch.cat(data))
            sparse.step()
        return [sparse.mask(layer.name) for layer in sparse.layers()]

    assert all(torch.equal(a, b) for a, b in zip(masks(4), masks(1), strict=True))


# momentum ---------------------------------------------------------------------------------------------------


def test_momentum_growth_follows_the_moving_average_of_the_dense_gradient():
    table = averaging(growth="momentum", momentum_decay=0.5, update_interval=2)
    # m = .5·m + .5·g. Index 2: .5·8 = 4, then 2. Index 3: 0, then .5·3 = 1.5. The last gradient alone says index 3.
    table.step([0.0, 0, -8, 0])
    table.step([0.0, 0, 0, 3])
    assert table.mask == [1, 0, 1, 0]


@pytest.mark.parametrize(("decay", "grown"), [(0.0, 3), (0.5, 3), (0.9, 2), (None, 2)])
def test_momentum_decay_says_how_far_back_the_average_reaches(decay, grown):
    table = averaging(growth="momentum", momentum_decay=decay, update_interval=2)
    # decay β: (1 − β)·β·4 against (1 − β)·3, so that the older one wins from β > .75; it is .9 unless given
    table.step([0.0, 0, 4, 0])
    table.step([0.0, 0, 0, 3])
    assert indices(table.mask) == [0, grown]


def test_momentum_reaches_over_updates_unlike_the_mean_of_gradient_batches():
    table = averaging(growth="momentum", momentum_decay=0.5)
    table.step([0.0, 0, 8, 64])
    assert table.mask == [1, 0, 0, 1]
    table.step([0.0, 0, 0, 1])  # the momentum of index 2 is 2 now, though it never was active; index 3 has 16.5
    assert table.mask == [1, 0, 0, 1]
    table.step([0.0, 0, 0, -33])  # index 2 has 1, index 3 has .5·(16.5 − 33) = −8.25
    table.step([0.0, 0, 0, 7.5])  # .5 and .5·(−8.25 + 7.5) = −.375
    assert table.mask == [1, 0, 1, 0]


def test_a_gradient_that_overflowed_counts_as_zero_in_the_momentum():
    table = averaging(growth="momentum", momentum_decay=0.5, update_interval=3)
    table.step([0.0, 0, 8, 8])
    table.step([0.0, 0, NAN, 8])
    assert not table.step([0.0, 0, float("inf"), 8]).skipped
    assert table.mask == [1, 0, 0, 1]


@pytest.mark.parametrize("rule", ["momentum", "momentum-neuron"])
@pytest.mark.parametrize("optimizer", ["plain", "momentum"])
def test_the_topology_moves_by_momentum_though_the_optimizers_own_is_masked(rule, optimizer):
    torch.manual_seed(0)
    model = mlp(20, 30, 3)
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9 if optimizer == "momentum" else 0.0)
    sparse = SparseTraining(model, sgd, "set-itop", sparsity=0.8, total_steps=60, update_interval=3, growth=rule)
    moved = new = 0
    for update in train(model, sparse, (20,), range(30)):
        assert_masked(model, sparse)
        if update:
            moved, new = moved + update.moved, new + update.new
    # Were it read from a masked buffer, only weights just dropped could come back: none would move.
    assert moved > new > 50
    assert sparse.dense_gradient_due()  # every step


# momentum-neuron --------------------------------------------------------------------------------------------

ROWS = [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 0]]


def by_neuron(values: list, zeta: float, momentum: list) -> list:
    table = Table("rigl", ROWS, values, growth="momentum-neuron", momentum_decay=0.5, drop_fraction=zeta)
    table.step([[2.0 * m for m in row] for row in momentum])
    assert sum(map(sum, table.mask)) == 6
    return table.mask


WEIGHTS = [[9.0, 0.1, 0, 0], [9.0, 0.2, 0, 0], [9.0, 0.3, 0, 0]]  # of six, ζ = .5 drops .1, .2 and .3


def test_momentum_neuron_shares_growth_over_rows_by_their_mean_and_grows_the_largest_in_each():
    # mean |m|: 0, 1, 2 → of 3, the rows grow 0, 1 and 2; in each the largest of the indices 1, 2 and 3
    mask = by_neuron(WEIGHTS, 0.5, [[0, 0, 0, 0], [0, 0, -1, 3], [0, 5, 1, -2]])
    assert mask == [[1, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 1]]


def test_momentum_neuron_counts_the_momentum_of_kept_weights_in_a_rows_mean():
    mask = by_neuron(WEIGHTS, 0.5, [[900, 0, 0, 0], [0, 0, 0, 1], [0, 1, 0, 0]])
    assert mask == [[1, 1, 1, 1], [1, 0, 0, 0], [1, 0, 0, 0]]


def test_momentum_neuron_gives_what_does_not_fit_into_a_row_to_the_others():
    # ⌊.67·6⌋ = 4 go: .1, .2, .3 and 8. The last row has all the momentum, and room for 3; one is left for the others.
    values = [[8.0, 0.1, 0, 0], [9.0, 0.2, 0, 0], [9.0, 0.3, 0, 0]]
    mask = by_neuron(values, 0.67, [[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    assert mask[2] == [1, 1, 1, 1]
    assert mask[1][0] == 1
    assert sum(mask[0]) + sum(mask[1]) == 2
    # means 1, 2 and 97: 3 again, and the last one goes to the larger of 1/3 and 2/3
    mask = by_neuron(values, 0.67, [[0, 0, 0, 4], [0, 8, 0, 0], [97, 97, 97, 97]])
    assert mask == [[0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]


def test_momentum_neuron_shares_alike_where_there_is_no_momentum():
    mask = by_neuron(WEIGHTS, 0.5, [[0] * 4] * 3)
    assert [sum(row) for row in mask] == [2, 2, 2]


# gradient-plus-exploration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("c", "offset", "grown"),
    [
        (0.0, 1.0, 1),  # .5, .2, .1: the gradient alone
        (None, None, 1),  # c = .001: .5003, .2007, .1007
        (1.0, 1.0, 2),  # .5 + .347, .2 + .693, .1 + .231
        (0.3, 1.0, 1),  # .5 + .104, .2 + .208, .1 + .069
        (0.3, 0.1, 2),  # .5 + .189, .2 + 2.08, .1 + .099
    ],
)
def test_the_bonus_of_exploration_is_c_times_ln_t_over_n_plus_epsilon(c, offset, grown):
    table = Table(
        "dst-ee", [1, 1, 0, 0], [9.0, 1, 0, 0], lr=0.0, drop_fraction=0.5, update_interval=2, exploration_weight=c,
        exploration_offset=offset,
    )  # fmt: skip
    table.set_history(0, [1, 1, 0, 2])
    # At t = 2, ln t = .693. N is 1 for index 1 (just dropped), 0 for index 2, 2 for index 3.
    table.step([0.0, 0.5, 0.2, 0.1])
    table.step([0.0, 0.5, 0.2, 0.1])
    assert indices(table.mask) == [0, grown]


def test_there_is_no_bonus_at_the_first_step_whose_logarithm_is_zero():
    table = Table("dst-ee", [1, 1, 0, 0], [9.0, 1, 0, 0], drop_fraction=0.5, exploration_weight=1e6)
    table.step([0.0, 0.5, 0.2, 0.1])
    assert table.mask == [1, 1, 0, 0]


def test_a_topology_counts_once_for_each_weight_active_in_it_whatever_the_steps_between():
    table = averaging(growth="gradient-plus-exploration", exploration_weight=0.0, update_interval=2)
    assert table.times_active(0) == [1, 1, 0, 0]
    table.step([0.0, 0, 0, 0])
    assert table.times_active(0) == [1, 1, 0, 0]
    table.step([0.0, 0, 0, 5])
    assert (table.mask, table.times_active(0)) == ([1, 0, 0, 1], [2, 1, 0, 1])
    table.step([0.0, 0, 0, 0])
    assert table.step([0.0, 0, NAN, 0]).skipped  # no new topology
    assert table.times_active(0) == [2, 1, 0, 1]
    table.step([0.0, 0, 0, 0])
    table.step([0.0, 7, 0, 5])
    assert (table.mask, table.times_active(0)) == ([1, 1, 0, 0], [3, 2, 0, 1])
    table.step([0.0, 0, 0, 0])
    table.step([0.0, 7, 0, 5])  # index 1 is dropped and grown again: it was active all along
    assert (table.mask, table.times_active(0)) == ([1, 1, 0, 0], [4, 3, 0, 1])


def test_a_large_bonus_explores_everything_before_it_grows_anything_twice():
    mask = [1] * 4 + [0] * 16
    table = Table("dst-ee", mask, [float(m) for m in mask], drop_fraction=0.5, exploration_weight=1e3, lr=0.0)
    gradient = [float(i + 1) for i in range(20)]
    table.step(gradient)  # ln 1 = 0: by the gradient, so far
    for _ in range(2, 9):
        assert table.step(gradient).new == 2
    assert table.sparse.exploration_rate == 1.0


# sampled-gradient -------------------------------------------------------------------------------------------


def test_sampled_gradient_that_samples_all_candidates_is_gradient_growth():
    for seed in range(20):
        torch.manual_seed(seed)
        mask, values = [1] * 6 + [0] * 24, [*torch.randn(6).tolist(), *[0.0] * 24]
        gradient = torch.randn(30).tolist()
        masks = []
        for settings in ({"growth": "gradient"}, {"growth": "sampled-gradient", "sampled_share": 1e6}):
            table = Table("rigl", mask, values, drop_fraction=0.5, seed=seed, **settings)
            table.step(gradient)
            masks.append(table.mask)
        assert masks[0] == masks[1]


def test_sampled_gradient_takes_the_best_of_a_uniform_sample():
    ranks, draws = Counter(), 840
    for seed in range(draws):
        table = Table(
            "rigl", [1] * 4 + [0] * 6, [1.0, 2, 3, 4] + [0.0] * 6, growth="sampled-gradient", sampled_share=0.5,
            drop_fraction=0.25, seed=seed,
        )  # fmt: skip
        # 7 candidates, index 0 and the inactive ones, with gradients 1 … 7; ⌊.5·4⌋ = 2 are sampled, the larger grows
        table.step([1.0, 9, 9, 9, 2, 3, 4, 5, 6, 7])
        (grown,) = [i for i in indices(table.mask) if i not in (1, 2, 3)]
        ranks[1 if grown == 0 else grown - 2] += 1
    assert ranks[1] == 0  # never the larger one
    # The larger of two has the gradient r in (r − 1) of 21 pairs; 5 degrees of freedom, p = .001
    assert chi_square(ranks, {r: draws * (r - 1) / math.comb(7, 2) for r in range(2, 8)}) < 20.5


def test_sampled_gradient_samples_at_least_what_it_must_grow_and_is_random_then():
    grown = Counter()
    for seed in range(400):
        table = Table(
            "rigl", [1] * 2 + [0] * 3, [1.0, 2, 0, 0, 0], growth="sampled-gradient", sampled_share=1e-3,
            drop_fraction=0.5, seed=seed,
        )  # fmt: skip
        table.step([1.0, 0, 2, 3, 4])
        grown[next(i for i in (0, 2, 3, 4) if table.mask[i])] += 1
    assert chi_square(grown, dict.fromkeys((0, 2, 3, 4), 100)) < 16.3  # 3 degrees of freedom, p = .001


# all of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_only_rules_that_look_at_every_weight_need_a_dense_gradient(rule):
    tables = Tables("rigl", [[1, 0]], [[1.0, 0]], growth=rule, update_interval=3)
    dense = [(tables.step([0.0, 0]), tables.sparse.dense_gradient_due())[1] for _ in range(6)]
    every_step, at_updates = [True] * 6, [False, True, False, False, True, False]
    expected = {"gradient": at_updates, "gradient-plus-exploration": at_updates,
                "momentum": every_step, "momentum-neuron": every_step}  # fmt: skip
    assert dense == expected.get(rule, [False] * 6)


@pytest.mark.parametrize("rule", RULES)
def test_at_sparsity_zero_there_is_nothing_to_grow_and_an_update_is_harmless(rule):
    model = mlp(4, 4, 2)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), "set-itop", sparsity=0.0, total_steps=5, update_interval=1,
                            growth=rule)  # fmt: skip
    assert sum(update.replaced for update in train(model, sparse, (4,), range(4)) if update) == 0
