"""Sharing a whole number under caps, and what each redistribution rule makes of the layers' counts."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st

from itopctl.catalogue import REDISTRIBUTIONS
from itopctl.dst import SparseTraining
from itopctl.dst.apportion import apportion
from tests.dst.nets import assert_masked, mlp, modest, plain_sgd, train
from tests.dst.tables import Tables

RULES = REDISTRIBUTIONS.names()
MOVING = [name for name in RULES if name != "none"]


# apportion --------------------------------------------------------------------------------------------------

weights_and_caps = st.lists(
    st.tuples(st.one_of(st.just(0.0), st.integers(1, 9).map(float), st.floats(1e-30, 1e30)), st.integers(0, 30)),
    min_size=1,
    max_size=8,
)


def poured(weights: list[float], total: int, caps: list[int]) -> list[Fraction]:
    """The exact shares min(cap, λ·weight) that sum to `total`: water poured until the next vessel is full, again.

    Weightless vessels fill, alike, once all others are full.
    """
    level = [Fraction(0)] * len(weights)
    left = Fraction(total)
    for round_ in ([Fraction(weight) for weight in weights], [Fraction(weight == 0) for weight in weights]):
        while left and (open_ := [i for i, cap in enumerate(caps) if round_[i] and level[i] < cap]):
            until_full = min((caps[i] - level[i]) / round_[i] for i in open_)
            rise = min(until_full, left / sum(round_[i] for i in open_))
            for i in open_:
                level[i] += rise * round_[i]
            left -= rise * sum(round_[i] for i in open_)
    return level


@modest(400)
@given(weights_and_caps, st.floats(0, 1))
@example([(5e-324, 3), (5e-324, 3), (0.0, 3)], 0.5)
@example([(1.0, 2), (1e300, 2), (1e-300, 2)], 1.0)
def test_shares_are_whole_sum_exactly_stay_under_their_caps_and_lie_within_one_of_the_exact_ones(pairs, fullness):
    weights, caps = [weight for weight, _ in pairs], [cap for _, cap in pairs]
    total = round(fullness * sum(caps))
    shares = apportion(weights, total, caps)
    assert all(type(share) is int for share in shares)
    assert sum(shares) == total
    assert all(0 <= share <= cap for share, cap in zip(shares, caps, strict=True))
    exact = poured(weights, total, caps)
    assert sum(exact) == total
    assert all(abs(share - Fraction(one)) < 1 + Fraction(1, 10**6) for share, one in zip(shares, exact, strict=True))


@modest(200)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 200))
def test_without_caps_shares_are_proportional_by_largest_remainder(weights, total):
    assume(sum(weights))
    shares = apportion([float(weight) for weight in weights], total, [total] * len(weights))
    exact = [Fraction(total * weight, sum(weights)) for weight in weights]
    assert all(math.floor(one) <= share <= math.ceil(one) for share, one in zip(shares, exact, strict=True))
    rounded_up = [one - math.floor(one) for share, one in zip(shares, exact, strict=True) if share > one]
    rounded_down = [one - math.floor(one) for share, one in zip(shares, exact, strict=True) if share < one]
    assert min(rounded_up, default=1) >= max(rounded_down, default=0)


@modest(100)
@given(weights_and_caps, st.floats(0, 1), st.sampled_from([2.0**-40, 0.5, 2.0**20]))
def test_only_the_proportions_of_the_weights_matter(pairs, fullness, factor):
    weights, caps = [weight for weight, _ in pairs], [cap for _, cap in pairs]
    total = round(fullness * sum(caps))
    assert apportion([factor * weight for weight in weights], total, caps) == apportion(weights, total, caps)


@pytest.mark.parametrize(
    ("weights", "total", "caps", "shares"),
    [
        ([1, 2, 3], 6, [9, 9, 9], [1, 2, 3]),
        ([1, 1, 1], 4, [9, 9, 9], [2, 1, 1]),  # the first of equal remainders
        ([1, 7, 1], 3, [1, 4, 1], [1, 2, 0]),  # 1/3, 7/3, 1/3: equal again
        ([1, 1, 2], 5, [9, 9, 9], [1, 1, 3]),  # 1.25, 1.25, 2.5: the largest remainder
        ([1, 1, 8], 10, [9, 9, 4], [3, 3, 4]),  # 4 fit into the last one; 6 are left for 1 : 1
        ([1, 2, 8], 10, [9, 3, 4], [3, 3, 4]),  # then 2 : 4, of which 3 fit
        ([0, 0, 5], 5, [9, 9, 3], [1, 1, 3]),  # all that are left weigh nothing: alike
        ([0, 0], 3, [1, 9], [1, 2]),
        ([0, 1], 3, [9, 9], [0, 3]),
        ([3, 1], 4, [0, 9], [0, 4]),
        ([1, 1], 0, [9, 9], [0, 0]),
        ([], 0, [], []),
    ],
)  # fmt: skip
def test_shares_that_can_be_worked_out_by_hand(weights, total, caps, shares):
    assert apportion([float(weight) for weight in weights], total, caps) == shares


@pytest.mark.parametrize(("total", "caps"), [(5, [2, 2]), (-1, [2, 2]), (1, [])])
def test_more_than_the_caps_hold_is_an_error(total, caps):
    with pytest.raises(ValueError, match="cannot share"):
        apportion([1.0] * len(caps), total, caps)


# in the engine ----------------------------------------------------------------------------------------------

MASK, VALUES = [1, 1, 1, 1, 0, 0, 0, 0], [4.0, 3, 2, 1, 0, 0, 0, 0]


def two_layers(redistribution: str, masks=(MASK, MASK), values=(VALUES, VALUES), zeta=0.5, **settings) -> Tables:
    return Tables(
        "rigl", list(masks), list(values), redistribution=redistribution, growth="random", drop_fraction=zeta,
        **settings,
    )  # fmt: skip


def test_none_gives_every_layer_back_what_it_lost():
    tables = two_layers("none", values=(VALUES, [100 * value for value in VALUES]))
    assert tables.step([1.0] * 8, [900.0] * 8).replaced == 4
    assert tables.counts == [4, 4]


def test_momentum_moves_weights_to_the_layer_whose_active_weights_have_the_larger_momentum():
    tables = two_layers("momentum", momentum_decay=0.5)
    # 2 + 2 go. Mean |m| of the active weights: 1 and 3 → of 4, the layers grow 1 and 3. The inactive are not looked at.
    update = tables.step([2.0, -2, 2, -2, 99, 99, 99, 99], [6.0, -6, 6, -6, 0, 0, 0, 0])
    assert tables.counts == [3, 5]
    assert update.replaced == 4
    assert [mask[:2] for mask in tables.masks] == [[1, 1], [1, 1]]


def test_momentum_is_averaged_over_the_weights_that_were_active_before_the_drop():
    tables = two_layers("momentum", momentum_decay=0.5)
    # The momentum of what is dropped (2 and 1 in absolute value) counts: means (0 + 0 + 4 + 4) / 4 = 2 and 2
    tables.step([0.0, 0, 8, 8, 0, 0, 0, 0], [4.0, 4, 4, 4, 0, 0, 0, 0])
    assert tables.counts == [4, 4]


def test_magnitude_moves_weights_to_the_layer_whose_active_weights_are_larger():
    # mean |w|: 10 / 4 and 30 / 4 → of 4, the layers grow 1 and 3
    tables = two_layers("magnitude", values=(VALUES, [-3 * value for value in VALUES]))
    tables.step([0.0] * 8, [0.0] * 8)
    assert tables.counts == [3, 5]


def test_magnitude_is_that_of_the_weights_after_the_optimizers_step():
    tables = two_layers("magnitude", update_replaces_step=False)
    tables.step([0.0] * 8, [-5.0] * 4 + [0.0] * 4)  # the second layer's become 9, 8, 7, 6: mean 7.5
    assert tables.counts == [3, 5]


def test_nonzeros_shares_by_the_number_of_active_weights():
    # 6 and 2 active of 12, half of them go: 3 + 1; of 4, the layers grow 3 and 1
    masks = [[1] * 6 + [0] * 6, [1] * 2 + [0] * 10]
    tables = two_layers("nonzeros", masks, [[float(m) for m in mask] for mask in masks])
    tables.step([0.0] * 12, [0.0] * 12)
    assert tables.counts == [6, 2]


def test_a_layer_grows_no_more_than_fits_and_the_others_take_the_rest():
    masks = [MASK, [1, 1, 1, 1, 0]]  # four active of five: sparsity .2, which is not below .2
    tables = two_layers("momentum", masks, [VALUES, [4.0, 3, 2, 1, 0]])
    # 2 + 2 go. All momentum is the second layer's, which holds 3 more; the fourth goes to the first layer.
    tables.step([0.0] * 8, [1.0] * 5)
    assert tables.counts == [3, 5]
    assert tables.masks[1] == [1] * 5


def test_a_layer_left_with_nothing_grows_one():
    tables = two_layers("momentum", zeta=1.0)
    tables.step([0.0] * 8, [1.0] * 8)  # all 8 go; the second layer gets all that is left beside the one
    assert tables.counts == [1, 7]
    tables = two_layers("magnitude", ([1, 0, 0, 0], [1, 0, 0, 0]), ([1.0, 0, 0, 0], [9.0, 0, 0, 0]), zeta=1.0)
    tables.step([0.0] * 4, [0.0] * 4)
    assert tables.counts == [1, 1]


@pytest.mark.parametrize("rule", MOVING)
def test_where_no_layer_has_any_share_they_grow_alike(rule):
    zeros = [0.0] * 8
    tables = two_layers(rule, values=(zeros, zeros))
    tables.step(zeros, zeros)
    assert tables.counts == [4, 4]


NEARLY_DENSE = [1] * 9 + [0]  # sparsity .1
NINE = [9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(("rounding", "lost"), [("floor", 0), ("ceil", 1)])
def test_a_nearly_dense_layer_that_is_to_gain_loses_no_more_than_its_sparsity(rounding, lost):
    tables = two_layers("momentum", (MASK, NEARLY_DENSE), (VALUES, NINE), replace_rounding=rounding)
    # Share above average, sparsity .1 < .2: min(.1, ζ)·9 = .9 go from the second layer, not half of it; and 2 of the
    # first.
    update = tables.step([1.0] * 8, [3.0] * 10)
    assert update.replaced == 2 + lost
    # It takes all that fits: 1, or 2 with what it lost.
    assert tables.counts == [3, 10]


def test_a_nearly_dense_layer_that_is_to_lose_is_not_spared():
    tables = two_layers("momentum", (MASK, NEARLY_DENSE), (VALUES, NINE))
    assert tables.step([3.0] * 8, [1.0] * 10).replaced == 2 + 4  # share below average


def test_a_layer_of_sparsity_a_fifth_or_more_is_not_spared():
    tables = two_layers("momentum", (MASK, [1] * 8 + [0] * 2), (VALUES, [*NINE[:8], 0.0, 0]))
    assert tables.step([1.0] * 8, [3.0] * 10).replaced == 2 + 4


def test_a_nearly_dense_layer_is_spared_by_none_at_no_time():
    tables = two_layers("none", (MASK, NEARLY_DENSE), (VALUES, NINE))
    assert tables.step([1.0] * 8, [3.0] * 10).replaced == 2 + 4


def test_a_spared_layer_loses_the_same_share_of_either_sign_by_sign_split():
    mask, values = [1] * 40 + [0] * 8, [*range(1, 21), *range(-20, 0), *[0] * 8]
    tables = two_layers("momentum", (MASK, mask), (VALUES, [float(value) for value in values]), drop="sign-split")
    tables.step([1.0] * 8, [9.0] * 48)
    # min(8/48, ζ)·40 = 6.67: 3 of the 20 positive weights and 3 of the 20 negative ones go, not 6 of one sign.
    # What stays active and is not zero was kept, or dropped and grown again at random.
    kept = torch.tensor(tables.all_values[1])
    assert (int((kept > 0).sum()) >= 17) and (int((kept < 0).sum()) >= 17)


@pytest.mark.parametrize("rule", RULES)
def test_at_sparsity_zero_there_is_nothing_to_share_and_an_update_is_harmless(rule):
    model = mlp(4, 4, 2)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), "set-itop", sparsity=0.0, total_steps=5, update_interval=1,
                            redistribution=rule)  # fmt: skip
    assert sum(update.replaced for update in train(model, sparse, (4,), range(4)) if update) == 0


@pytest.mark.filterwarnings("ignore:sparsity .* gives less than one weight")
@modest(80)
@given(
    st.lists(st.integers(2, 10), min_size=2, max_size=5),
    st.floats(0.3, 0.9),
    st.sampled_from(RULES),
    st.sampled_from(["magnitude", "global-magnitude", "threshold"]),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.integers(0, 99),
)
def test_in_all_the_number_of_active_weights_never_changes(widths, sparsity, rule, drop, zeta, seed):
    torch.manual_seed(seed)
    model = mlp(*widths)
    sparse = SparseTraining(
        model, plain_sgd(model, 0.1), "rigl", sparsity=sparsity, total_steps=20, update_interval=1, seed=seed,
        redistribution=rule, drop=drop, drop_fraction=zeta, drop_threshold=0.2, drop_schedule={"name": "constant"},
        allocation="uniform",
    )  # fmt: skip
    counts = {layer.name: layer.active for layer in sparse.layers()}
    for _ in train(model, sparse, (widths[0],), range(6)):
        assert_masked(model, sparse)  # among others, that no layer is above its size or below one
        assert sparse.active == sum(counts.values())
        if rule == "none":
            assert {layer.name: layer.active for layer in sparse.layers()} == counts


def test_snfs_gives_a_layer_that_learns_faster_more_weights():
    torch.manual_seed(0)
    model = mlp(20, 20, 20, 3)
    sparse = SparseTraining(model, plain_sgd(model, 0.01), "snfs", sparsity=0.8, total_steps=60, update_interval=5,
                            allocation="uniform")  # fmt: skip
    before = {layer.name: layer.active for layer in sparse.layers()}
    list(train(model, sparse, (20,), range(55)))
    after = {layer.name: layer.active for layer in sparse.layers()}
    momentum = sparse.state_dict()["gradients"]["momentum"]
    size = {name: float(momentum[name][sparse.mask(name)].abs().mean()) for name in after}
    most, least = max(size, key=size.get), min(size, key=size.get)
    assert after[most] > before[most]
    assert after[least] < before[least]
    assert sum(after.values()) == sum(before.values())
