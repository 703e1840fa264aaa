"""What each drop rule drops, as tables that can be checked with a pencil.

The updates take the optimizer's step's place unless a test says otherwise, and growth is by gradient: a weight that
is off the mask and whose gradient is large takes the place of what was dropped, so the mask shows what went.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from itopctl.catalogue import DROPS
from itopctl.dst import SparseTraining
from tests.dst.nets import assert_masked, mlp, plain_sgd, train
from tests.dst.tables import Table, Tables, chi_square

RULES = DROPS.names()
LAYERWISE = [name for name in RULES if name != "global-magnitude"]
READ_GRADIENT = ["taylor", "sensitivity", "mest"]


def test_magnitude_drops_what_is_closest_to_zero_on_either_side():
    table = Table("rigl", [1, 1, 1, 1, 0, 0], [-5.0, 1, -0.5, 3, 0, 0], drop="magnitude", drop_fraction=0.5)
    # |w|: 5, 1, .5, 3 → ⌊.5·4⌋ = 2 go, indices 2 and 1
    update = table.step([0.0, 0, 0, 0, 7, 8])
    assert table.mask == [1, 0, 0, 1, 1, 1]
    assert table.values == [-5, 0, 0, 3, 0, 0]
    assert update.replaced == 2


def test_magnitude_looks_at_the_weights_after_the_optimizers_step():
    table = Table("rigl-itop", [1, 1, 0, 0], [3.0, 1, 0, 0], drop="magnitude", drop_fraction=0.5)
    # after the step: 3 − 2.9 = .1 and 1 + .5 = 1.5 → the first goes, though it was larger before
    table.step([2.9, -0.5, 0, 9])
    assert table.mask == [0, 1, 0, 1]


def test_active_weights_that_are_exactly_zero_go_first_and_no_inactive_zero_is_counted_among_them():
    dropped = Counter()
    for seed in range(400):
        table = Table("rigl", [1, 1, 1, 1, 1, 0, 0], [0.0, -0.0, 4, 0, 0, 0, 0], drop_fraction=0.2, seed=seed)
        # |w|: 0, 0, 4, 0, 0 → ⌊.2·5⌋ = 1 goes: one of the four zeros, whatever its sign
        update = table.step([0.0, 0, 0, 0, 0, 0, 9])
        assert table.mask[2] == table.mask[6] == 1
        assert (update.replaced, update.moved, sum(table.mask)) == (1, 1, 5)
        dropped[table.mask.index(0)] += 1
    assert chi_square(dropped, dict.fromkeys((0, 1, 3, 4), 100)) < 16.3  # 3 degrees of freedom, p = .001


@pytest.mark.parametrize("rule", RULES)
def test_no_rule_takes_the_most_negative_weights_for_the_smallest(rule):
    # With a gradient of 1 all scores grow with |w|. Half go (or, by threshold, all up to 2): −1 and −2, or ±1 and ±2.
    for values in ([-4.0, -1, -3, -2, 0, 0], [4.0, -1, -3, 2, 0, 0], [-4.0, 1, 3, -2, 0, 0]):
        table = Table("rigl", [1, 1, 1, 1, 0, 0], values, drop=rule, drop_fraction=0.5, drop_threshold=2.0)
        update = table.step([1.0, 1, 1, 1, 5, 5])
        assert table.mask == [1, 0, 1, 0, 1, 1], values
        assert table.values == [values[0], 0, values[2], 0, 0, 0]
        assert update.replaced == 2


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_keeps_exact_counts_where_all_scores_are_equal(rule):
    for seed in range(20):
        table = Table(
            "rigl", [1] * 6 + [0] * 6, [0.0] * 12, drop=rule, drop_fraction=0.5, drop_threshold=0.0, seed=seed
        )
        update = table.step([0.0] * 6 + [1.0] * 6)
        assert update.replaced == (6 if rule == "threshold" else 3)
        assert sum(table.mask) == 6
        assert sum(table.mask[6:]) == update.replaced


@pytest.mark.parametrize("rule", LAYERWISE)
def test_the_rules_of_single_layers_do_not_see_the_others(rule):
    mask, settings = [1, 1, 0, 0], {"drop": rule, "drop_fraction": 0.5, "drop_threshold": 15.0}
    # Ten times as large: by magnitude alone, all that goes would go in the first layer.
    tables = Tables("rigl", [mask, mask], [[20.0, -10, 0, 0], [200.0, 10, 0, 0]], **settings)
    tables.step([1.0, 1, 5, 6], [1.0, 1, 6, 5])
    assert tables.masks == [[1, 0, 0, 1], [1, 0, 1, 0]]


# global-magnitude -------------------------------------------------------------------------------------------


def test_global_magnitude_ranks_all_layers_together_and_each_grows_back_what_it_lost():
    mask = [1, 1, 1, 1, 0, 0, 0, 0]
    tables = Tables(
        "rigl", [mask, mask], [[10.0, -20, 30, -40, 0, 0, 0, 0], [0.1, -0.2, 0.3, -0.4, 0, 0, 0, 0]],
        drop="global-magnitude", drop_fraction=0.5,
    )  # fmt: skip
    # ⌊.5·8⌋ = 4 go: the whole second layer
    update = tables.step([9.0] * 4 + [5.0] * 4, [1.0, 2, 3, 4, 5, 6, 7, 8])
    assert tables.masks == [mask, [0, 0, 0, 0, 1, 1, 1, 1]]
    assert tables.counts == [4, 4]
    assert (update.replaced, update.moved) == (4, 4)


def test_global_magnitude_splits_by_rank_whatever_the_scale_of_a_layer():
    mask = [1, 1, 1, 0, 0, 0]
    tables = Tables(
        "rigl", [mask, mask], [[10.0, 0.15, -20, 0, 0, 0], [0.1, 5, -0.2, 0, 0, 0]],
        drop="global-magnitude", drop_fraction=0.5,
    )  # fmt: skip
    # |w|: .1 (second), .15 (first), .2 (second) are the three smallest of six
    tables.step([0.0, 0, 0, 1, 2, 3], [0.0, 0, 0, 1, 2, 3])
    assert tables.masks == [[1, 0, 1, 0, 0, 1], [0, 1, 0, 0, 1, 1]]
    assert tables.counts == [3, 3]


@pytest.mark.parametrize(("rounding", "replaced"), [("floor", 2), ("ceil", 3)])
def test_global_magnitude_rounds_the_number_of_the_whole_network(rounding, replaced):
    # .3·(3 + 4) = 2.1; layer by layer it would be ⌊.9⌋ + ⌊1.2⌋ = 1 or ⌈.9⌉ + ⌈1.2⌉ = 3
    tables = Tables(
        "rigl", [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]], [[1.0, 2, 3, 0, 0, 0], [4.0, 5, 6, 7, 0, 0]],
        drop="global-magnitude", drop_fraction=0.3, replace_rounding=rounding,
    )  # fmt: skip
    update = tables.step([0.0, 0, 0, 1, 2, 3], [0.0] * 6)
    assert update.replaced == replaced
    assert tables.masks == [[[0, 0, 1, 0, 1, 1], [0, 0, 0, 1, 1, 1]][replaced - 2], [1, 1, 1, 1, 0, 0]]


def test_global_magnitude_breaks_ties_across_layers_evenly():
    went = Counter()
    for seed in range(300):
        mask = [1, 1, 0, 0]
        tables = Tables(
            "rigl", [mask, mask], [[7.0, -1, 0, 0], [1.0, 7, 0, 0]], drop="global-magnitude", drop_fraction=0.25,
            seed=seed,
        )  # fmt: skip
        assert tables.step([0.0, 0, 1, 0], [0.0, 0, 1, 0]).replaced == 1
        went[tables.masks == [[1, 0, 1, 0], [1, 1, 0, 0]]] += 1
    assert chi_square(went, {True: 150, False: 150}) < 10.8  # 1 degree of freedom, p = .001


# sign-split -------------------------------------------------------------------------------------------------


def sign_split(values: list, zeta: float, rounding: str = "floor") -> list:
    """Which of these active weights are kept."""
    n = len(values)
    table = Table(
        "rigl", [1] * n + [0] * n, [*map(float, values), *[0.0] * n], drop="sign-split", drop_fraction=zeta,
        replace_rounding=rounding,
    )  # fmt: skip
    table.step([0.0] * n + [1.0] * n)
    assert sum(table.mask) == n
    return [value for value, kept in zip(values, table.mask, strict=False) if kept]


def test_sign_split_drops_the_same_share_of_positive_and_of_negative_weights():
    # 4 positive, 4 negative, ζ = .5: 2 of each
    assert sign_split([1, 2, 3, 4, -1, -2, -3, -4], 0.5) == [3, 4, -3, -4]
    # 4 positive: round(.5·4) = 2 go; 3 − 2 = 1 of the 2 negatives goes. By magnitude it would be .1, .2 and .3
    assert sign_split([0.1, 0.2, 0.3, 5, -10, -20], 0.5) == [0.3, 5, -20]
    assert sign_split([-0.1, -0.2, -0.3, -5, 10, 20], 0.5) == [-0.3, -5, 20]


def test_sign_split_needs_neither_positive_nor_negative_weights():
    assert sign_split([-3, -1, -2, -4], 0.5) == [-3, -4]
    assert sign_split([3, 1, 2, 4], 0.5) == [3, 4]
    assert sign_split([0, 0, 0, 0], 1.0) == []


def test_sign_split_drops_zeros_before_any_negative_weight():
    # one positive: round(.25) = 0 go; so 1 of the rest goes, and it is the zero
    assert sign_split([4, 0, -3, -1], 0.25) == [4, -3, -1]
    # two positive: round(.5·2) = 1 goes; 3 − 1 = 2 of the rest: the zero, then −1
    assert sign_split([4, 0.1, 0, -3, -1, -2], 0.5) == [4, -3, -2]


def test_sign_split_lets_one_sign_make_up_for_what_the_other_lacks():
    # ⌈.1·3⌉ = 1 must go, though round(.1·3) = 0 of the positive ones would, and there is nothing else
    assert sign_split([3, 1, 2], 0.1, "ceil") == [3, 2]
    # ⌊.5·3⌋ = 1 may go, though round(.5·3) = 2 of the positive ones would
    assert sign_split([3, 1, 2], 0.5, "floor") == [3, 2]


# taylor, sensitivity, mest ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["taylor", "sensitivity"])
def test_taylor_and_sensitivity_drop_the_smallest_product_of_weight_and_gradient(rule):
    table = Table("rigl", [1, 1, 1, 1, 0, 0], [1.0, -2, 3, 0.5, 0, 0], drop=rule, drop_fraction=0.5)
    # |w·g|: 1·3 = 3, 2·1 = 2, 3·.1 = .3, .5·8 = 4 → indices 2 and 1 go, though index 2 is the largest weight
    table.step([3.0, 1, -0.1, 8, 90, 90])
    assert table.mask == [1, 0, 0, 1, 1, 1]


@pytest.mark.parametrize("rule", READ_GRADIENT)
def test_a_weight_whose_gradient_is_zero_is_no_reason_to_drop_an_inactive_one(rule):
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, 2, 1, 0, 0, 0], drop=rule, drop_fraction=0.34)
    # w·g is 0 for all of them: for taylor and sensitivity any may go; mest drops |w| = 1
    table.step([0.0, 0, 0, 0, 0, 1])
    assert sum(table.mask[:3]) == 2
    assert table.mask[3:] == [0, 0, 1]
    if rule == "mest":
        assert table.mask == [1, 1, 0, 0, 0, 1]


@pytest.mark.parametrize("rule", READ_GRADIENT)
def test_rules_that_read_the_gradient_see_the_weights_it_was_taken_at(rule):
    table = Table(
        "rigl-itop", [1, 1, 0, 0], [3.0, 1, 0, 0], drop=rule, growth="gradient", drop_fraction=0.5, gradient_weight=0.1
    )
    # before the step |w·g| is 8.7 and .5, |w| + .1·|g| is 3.29 and 1.05: the second goes.
    # After it the weights are .1 and 1.5, the scores .29 and .75, .39 and 1.55: the first would go.
    table.step([2.9, -0.5, 0, 9])
    assert table.mask == [1, 0, 0, 1]
    assert table.values == [pytest.approx(0.1), 0, 0, 0]  # the optimizer's step was taken none the less


@pytest.mark.parametrize("rule", READ_GRADIENT)
def test_rules_that_read_the_gradient_get_it_although_growth_is_random(rule):
    for seed in range(10):
        table = Table("set-itop", [1, 1, 0, 0], [3.0, 1, 0, 0], drop=rule, drop_fraction=0.5, seed=seed)
        assert not table.sparse.dense_gradient_due()  # that of active weights is enough
        table.step([2.9, -0.5, 0, 0])
        assert table.mask[0] == 1


@pytest.mark.parametrize(("weight", "kept"), [(0.0, [0, 1]), (None, [0, 1]), (0.2, [1, 0]), (1.0, [1, 0])])
def test_mest_adds_the_gradient_times_its_weight(weight, kept):
    table = Table("rigl", [1, 1, 0, 0], [1.0, -1.5, 0, 0], drop="mest", drop_fraction=0.5, gradient_weight=weight)
    # |w| + λ·|g|: 1 + 5λ and 1.5: the first goes while λ < .1, and λ is .01 unless it is given
    table.step([-5.0, 0, 0, 9])
    assert table.mask == [*kept, 0, 1]


def test_mest_drops_by_the_gradients_mean_where_gradient_batches_are_averaged():
    table = Table(
        "rigl", [1, 1, 0, 0], [1.0, 1.5, 0, 0], lr=0.0, drop="mest", drop_fraction=0.5, gradient_weight=1.0,
        update_interval=3, gradient_batches=2,
    )  # fmt: skip
    table.step([50.0, 0, 0, 9])  # outside the window
    table.step([5.0, 0, 0, 9])
    table.step([-5.0, 0, 0, 9])
    # |w| + |mean g|: 1 + 0 and 1.5 + 0; with the mean of |g| it would be 6 and 1.5
    assert table.mask == [0, 1, 0, 1]


# threshold --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau", "kept"),
    [
        (0.01, [1, 1, 1, 1, 1]),
        (0.05, [1, 1, 1, 0, 1]),
        (0.5, [0, 0, 1, 0, 1]),  # |w| = τ goes, too
        (2.0, [0, 0, 0, 0, 0]),
    ],
)
def test_threshold_drops_as_many_as_lie_below_it_and_as_many_grow(tau, kept):
    mask, values = [1] * 5 + [0] * 5, [0.5, -0.5, 0.75, -0.03125, 2, *[0.0] * 5]
    table = Table("rigl", mask, values, drop="threshold", drop_threshold=tau, drop_fraction=0.2)
    update = table.step([0.0] * 5 + [1.0] * 5)
    assert table.mask[:5] == kept
    assert update.replaced == update.moved == sum(table.mask[5:]) == 5 - sum(kept)
    assert sum(table.mask) == 5


def test_threshold_counts_vary_from_update_to_update_and_from_layer_to_layer():
    mask = [1, 1, 1, 0, 0, 0]
    tables = Tables(
        "set-itop", [mask, mask], [[0.1, 0.2, 3.0, 0, 0, 0], [4.0, 5, 0.1, 0, 0, 0]], lr=0.0, drop="threshold",
        drop_threshold=0.5,
    )  # fmt: skip
    assert tables.step([0.0] * 6, [0.0] * 6).replaced == 3
    assert tables.counts == [3, 3]
    # What grew stands at zero, so the next update drops it again; what stayed, stays.
    tables.set_values(0, [9.0 * m for m in tables.masks[0]])
    assert tables.step([0.0] * 6, [0.0] * 6).replaced == tables.masks[1].count(1) - 2
    assert tables.counts == [3, 3]


def test_threshold_is_one_thousandth_unless_given():
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [0.0011, -0.0009, 1, 0, 0, 0], drop="threshold")
    assert table.step([0.0, 0, 0, 0, 0, 1]).replaced == 1
    assert table.mask == [1, 0, 1, 0, 0, 1]


# all of them ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_at_sparsity_zero_there_is_nothing_to_drop_and_an_update_is_harmless(rule):
    model = mlp(4, 4, 2)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), "set-itop", sparsity=0.0, total_steps=5, update_interval=1,
                            drop=rule)  # fmt: skip
    assert sum(update.replaced for update in train(model, sparse, (4,), range(4)) if update) == 0
    assert sparse.density == sparse.exploration_rate == 1.0


@pytest.mark.parametrize("replaces", [True, False])
@pytest.mark.parametrize("rule", RULES)
def test_a_network_trains_by_every_rule_and_its_topology_moves(rule, replaces):
    torch.manual_seed(0)
    model = mlp(10, 12, 3)
    sparse = SparseTraining(
        model, plain_sgd(model, 0.1), "rigl-itop", sparsity=0.7, total_steps=20, update_interval=2, drop=rule,
        drop_threshold=0.1, update_replaces_step=replaces,
    )  # fmt: skip
    counts = [layer.active for layer in sparse.layers()]
    moved = 0
    for update in train(model, sparse, (10,), range(12)):
        moved += update.moved if update else 0
        assert_masked(model, sparse)
        assert [layer.active for layer in sparse.layers()] == counts
    assert moved > 0
