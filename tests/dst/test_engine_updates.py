"""Single topology updates, as tables that can be checked with a pencil."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import assert_masked, backward, make_batch, mlp, modest, plain_sgd, train
from tests.dst.tables import Table

NAN = float("nan")


def test_rigl_drops_the_smallest_magnitude_and_grows_the_largest_gradient():
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.34)
    # |w|:         3, 1, 2          → drop 1 (index 1)
    # |gradient|:  .5, 2, 4, 1 among indices 1, 3, 4, 5 → grow index 4, whose gradient is negative
    update = table.step([9.0, 0.5, 9, 2, -4, 1])
    assert table.mask == [1, 0, 1, 0, 1, 0]
    assert table.values == [3, 0, 2, 0, 0, 0]
    assert (update.replaced, update.moved, update.new) == (1, 1, 1)
    assert update.exploration_rate == pytest.approx(4 / 6)


def test_rigl_replaces_the_optimizer_step_and_only_at_an_update():
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.34, update_interval=2)
    assert table.step([1.0, 1, 1, 1, 1, 1]) is None
    assert table.values == [2, -2, 1, 0, 0, 0]
    assert table.step([9.0, 9, 0.5, 2, 4, 1]) is not None
    assert table.values == [2, -2, 0, 0, 0, 0]
    assert table.mask == [1, 1, 0, 0, 1, 0]
    assert table.step([1.0, 1, 1, 1, 1, 1]) is None
    assert table.values == [1, -3, 0, 0, -1, 0]


def test_rigl_itop_steps_first_and_grows_by_the_gradient_before_that_step():
    table = Table("rigl-itop", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.33)
    # step:        3 - 2.5 = .5, -1 - 1 = -2, 2 + 1 = 3   → drop .5 (index 0), ⌈.33·3⌉ = 1
    # |gradient|:  2.5, 1, 4, 3 among indices 0, 3, 4, 5  → grow index 4
    update = table.step([2.5, 1, -1, 1, 4, 3])
    assert table.mask == [0, 1, 1, 0, 1, 0]
    assert table.values == [0, -2, 3, 0, 0, 0]
    assert (update.step, update.replaced, update.moved, update.new) == (1, 1, 1, 1)


def test_a_two_by_three_weight_drops_and_grows_two():
    table = Table("rigl", [[1, 0, 1], [1, 1, 0]], [[0.1, 0.0, -5], [4, -0.2, 0]], drop_fraction=0.5)
    # |w|: .1, 5, 4, .2 → drop (0,0) and (1,1); |gradient| of the four candidates: 1, 3, 2, 0 → grow (0,1) and (1,1)
    update = table.step([[1.0, 3, 9], [9, 2, 0]])
    assert table.mask == [[0, 1, 1], [1, 1, 0]]
    assert table.values == [[0, 0, -5], [4, pytest.approx(-0.2), 0]]
    assert (update.replaced, update.moved, update.new) == (2, 1, 1)


def test_a_weight_dropped_and_grown_again_keeps_its_value_and_its_momentum():
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], 0.5, drop_fraction=0.34, update_interval=2)
    table.step([0.0, -0.25, 0, 0, 0, 0])
    assert table.values == [3, -0.75, 2, 0, 0, 0]
    update = table.step([0.0, 8, 0, 2, 4, 1])
    assert table.mask == [1, 1, 1, 0, 0, 0]
    assert table.values == [3, -0.75, 2, 0, 0, 0]
    assert table.optimizer.state[table.layer.weight]["momentum_buffer"].tolist() == [[0, -0.25, 0, 0, 0, 0]]
    assert (update.replaced, update.moved, update.new) == (1, 0, 0)


def test_a_weight_that_leaves_takes_its_momentum_with_it_and_comes_back_at_zero():
    table = Table("rigl", [1, 1, 0], [3.0, -1, 0], 0.5, drop_fraction=0.5, update_interval=2)
    table.step([0.0, -0.25, 0])
    table.step([0.0, 1, 2])  # index 1 leaves, 2 comes
    assert table.mask == [1, 0, 1]
    table.step([0.0, 1, -1])
    assert table.values == [3, 0, 1]
    update = table.step([0.0, 9, 1])  # index 2 leaves, 1 comes back
    assert table.mask == [1, 1, 0]
    assert table.values == [3, 0, 0]
    assert not table.optimizer.state[table.layer.weight]["momentum_buffer"][0, 1:].any()
    assert (update.moved, update.new) == (1, 0)
    assert update.exploration_rate == 1.0


@pytest.mark.parametrize("method", ["set", "set-itop"])
def test_random_growth_is_uniform_over_the_inactive_and_the_just_dropped(method):
    grown = Counter()
    for seed in range(400):
        table = Table(method, [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.33, seed=seed)
        update = table.step([0.0] * 6)
        assert (table.mask[0], table.mask[2]) == (1, 1)
        (index,) = [i for i in (1, 3, 4, 5) if table.mask[i]]
        assert table.values == [3, -1 if index == 1 else 0, 2, 0, 0, 0]
        assert (update.replaced, update.moved) == (1, index != 1)
        grown[index] += 1
    # 100 each; chi-square with 3 degrees of freedom, p = .001
    assert sum((grown[i] - 100) ** 2 / 100 for i in (1, 3, 4, 5)) < 16.3


def test_equal_gradients_are_grown_uniformly():
    grown = Counter()
    for seed in range(500):
        table = Table("rigl", [1, 1, 0, 0, 0, 0], [3.0, -1, 0, 0, 0, 0], drop_fraction=0.5, seed=seed)
        table.step([7.0, 1, 1, -1, 1, -1])
        grown[tuple(table.mask)] += 1
    assert len(grown) == 5
    assert sum((count - 100) ** 2 / 100 for count in grown.values()) < 18.5  # 4 degrees of freedom, p = .001


def test_equal_magnitudes_are_dropped_uniformly():
    dropped = Counter()
    for seed in range(500):
        table = Table("rigl", [1, 1, 1, 1, 1, 0], [1.0, -1, 1, -1, 1, 0], drop_fraction=0.2, seed=seed)
        table.step([0.0, 0, 0, 0, 0, 1])
        dropped[tuple(table.mask)] += 1
    assert len(dropped) == 5
    assert sum((count - 100) ** 2 / 100 for count in dropped.values()) < 18.5  # 4 degrees of freedom, p = .001


def test_an_active_weight_is_never_grown_whatever_its_gradient():
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.34)
    table.step([1e30, 0.0, -1e30, 0, 0, 1e-30])
    assert table.mask == [1, 0, 1, 0, 0, 1]


@pytest.mark.parametrize(
    ("rounding", "zeta", "active", "replaced"),
    [
        ("floor", 0.3, 3, 0), ("ceil", 0.3, 3, 1),
        ("floor", 0.5, 3, 1), ("ceil", 0.5, 3, 2),
        ("floor", 0.005, 10, 0), ("ceil", 0.005, 10, 1),
        ("floor", 0.3, 10, 3), ("ceil", 0.3, 10, 3),
        ("floor", 0.29, 100, 29), ("ceil", 0.07, 100, 7),  # 28.999999999999996 and 7.000000000000001 in binary
        ("floor", 1.0, 10, 10), ("ceil", 1.0, 10, 10),
    ],
)  # fmt: skip
def test_the_number_to_replace_is_rounded_as_the_method_says(rounding, zeta, active, replaced):
    mask = [1] * active + [0] * active
    table = Table("rigl", mask, [float(m) for m in mask], drop_fraction=zeta, replace_rounding=rounding)
    assert table.step([0.0] * len(mask)).replaced == replaced


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, 4])
def test_rigl_skips_an_update_whose_dense_gradient_is_not_finite(bad, where):
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.34)
    gradient = [1.0, 1, 1, 2, 4, 1]
    gradient[where] = bad
    update = table.step(gradient)
    assert update.skipped
    assert (update.replaced, update.moved, update.new) == (0, 0, 0)
    assert table.mask == [1, 1, 1, 0, 0, 0]
    assert table.values == [3, -1, 2, 0, 0, 0]
    assert table.sparse.exploration_rate == pytest.approx(0.5)
    assert not table.step([1.0, 1, 1, 2, 4, 1]).skipped
    assert table.mask == [1, 0, 1, 0, 1, 0]


def test_a_nan_off_the_mask_skips_a_rigl_itop_update_and_leaves_the_step_clean():
    table = Table("rigl-itop", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0])
    assert table.step([1.0, 1, 1, NAN, 4, 1]).skipped
    assert table.values == [2, -2, 1, 0, 0, 0]
    assert table.mask == [1, 1, 1, 0, 0, 0]


def test_a_nan_in_one_layer_skips_the_update_of_all():
    model = mlp(4, 4, 4)
    sparse = SparseTraining(model, plain_sgd(model), "rigl", sparsity=0.5, total_steps=9, update_interval=1)
    before = [sparse.mask(layer.name) for layer in sparse.layers()]
    backward(model, make_batch((4,), 0))
    model[2].weight.grad[1, 1] = NAN
    assert sparse.step().skipped
    assert all(torch.equal(a, sparse.mask(layer.name)) for a, layer in zip(before, sparse.layers(), strict=True))


def test_clipping_after_mask_gradients_sees_only_active_gradients():
    table = Table("set-itop", [1, 1, 0, 0], [5.0, 5, 0, 0], update_interval=50)
    (table.layer.weight * torch.tensor([3.0, 4, 100, 100])).sum().backward()
    table.sparse.mask_gradients()
    norm = nn.utils.clip_grad_norm_(table.layer.parameters(), 1.0)
    assert float(norm) == pytest.approx(5.0)
    table.sparse.step()
    assert table.values == [pytest.approx(4.4, abs=1e-5), pytest.approx(4.2, abs=1e-5), 0, 0]


def test_clipping_at_an_update_leaves_growth_the_dense_gradient():
    table = Table("rigl", [1, 1, 0, 0], [5.0, 1, 0, 0], drop_fraction=0.5)
    (table.layer.weight * torch.tensor([3.0, 4, 100, 200])).sum().backward()
    table.sparse.mask_gradients()
    assert float(nn.utils.clip_grad_norm_(table.layer.parameters(), 1.0)) == pytest.approx(5.0)
    table.sparse.step()
    assert table.mask == [1, 0, 0, 1]


def test_masking_gradients_twice_or_not_at_all_makes_no_difference():
    def trained(times: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = mlp(8, 8, 4)
        sparse = SparseTraining(
            model, plain_sgd(model, 0.1), "rigl-itop", sparsity=0.5, total_steps=12, update_interval=2
        )
        for step in range(10):
            backward(model, make_batch((8,), step))
            for _ in range(times):
                sparse.mask_gradients()
            sparse.step()
        return [p.detach() for p in model.parameters()]

    for times in (1, 2):
        assert all(torch.equal(a, b) for a, b in zip(trained(0), trained(times), strict=True))


def test_the_dense_gradient_is_due_only_where_growth_reads_it():
    rigl = Table("rigl", [1, 0], [1.0, 0], update_interval=3)
    random = Table("set-itop", [1, 0], [1.0, 0], update_interval=3)
    for step in range(1, 10):
        assert rigl.sparse.update_due() == random.sparse.update_due() == (step % 3 == 0)
        assert rigl.sparse.dense_gradient_due() == (step % 3 == 0)
        assert not random.sparse.dense_gradient_due()
        rigl.step([1.0, 1])
        random.step([1.0, 1])


@pytest.mark.parametrize("method", ["rigl", "rigl-itop", "set-itop"])
def test_a_gradient_scaler_unscales_before_the_update_and_the_step(method):
    def trained(scale: float | None) -> tuple[list, list]:
        torch.manual_seed(0)
        model = mlp(8, 8, 4)
        sparse = SparseTraining(model, plain_sgd(model, 0.1), method, sparsity=0.5, total_steps=20, update_interval=2)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
        for step in range(10):
            model.zero_grad()
            scaler.scale(model(make_batch((8,), step)).square().mean()).backward()
            sparse.step(scaler if scale else None)
            scaler.update()
            assert_masked(model, sparse)
        return [sparse.mask(layer.name) for layer in sparse.layers()], [p.detach() for p in model.parameters()]

    plain_masks, plain = trained(None)
    masks, scaled = trained(1024.0)
    assert all(torch.equal(a, b) for a, b in zip(plain_masks, masks, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain, scaled, strict=True))


def test_an_overflow_under_a_scaler_skips_the_update_and_the_step():
    table = Table("rigl-itop", [1, 1, 0, 0], [5.0, 1, 0, 0])
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale((table.layer.weight * torch.tensor([3.0, 4, 1e38, 200])).sum()).backward()
    assert table.sparse.step(scaler).skipped
    scaler.update()
    assert table.values == [5, 1, 0, 0]
    assert scaler.get_scale() == 2.0**9


@pytest.mark.filterwarnings("ignore:sparsity .* gives less than one weight")
@modest(100)
@given(st.integers(2, 30), st.data())
def test_rigl_on_distinct_values_equals_two_full_sorts(size, data):
    active = data.draw(st.integers(1, size - 1))
    values = data.draw(st.permutations(range(1, size + 1)))
    gradient = data.draw(st.permutations(range(1, size + 1)))
    signs = data.draw(st.lists(st.sampled_from([-1.0, 1.0]), min_size=size, max_size=size))
    zeta = data.draw(st.sampled_from([0.1, 0.3, 0.5, 1.0]))
    mask = data.draw(st.permutations([1] * active + [0] * (size - active)))
    weights = [m * s * v for m, s, v in zip(mask, signs, values, strict=True)]
    table = Table("rigl", mask, weights, drop_fraction=zeta)
    table.step([s * g for s, g in zip(reversed(signs), gradient, strict=True)])

    k = int(round(zeta * active, 9))
    kept = set(sorted((i for i in range(size) if mask[i]), key=lambda i: abs(weights[i]))[k:])
    grown = set(sorted((i for i in range(size) if i not in kept), key=lambda i: -gradient[i])[:k])
    assert {i for i in range(size) if table.mask[i]} == kept | grown
    assert table.values == [weights[i] if i in kept | grown else 0 for i in range(size)]


RULES = """
import torch

def last(layer):
    "the highest index"
    return torch.arange(layer.weight.numel(), dtype=torch.float32).reshape(layer.weight.shape)

def smallest_gradient(layer):
    return -layer.gradient.abs()

def wrong_shape(layer):
    return torch.zeros(3)

def magnitude_and_gradient(layer):
    return layer.weight.abs() + layer.gradient.abs()
"""


@pytest.fixture
def own_rules(tmp_path, monkeypatch):
    """The name of a module of the user's own with rules in it."""
    (tmp_path / "my_growth_rules.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_growth_rules"


def test_a_growth_rule_of_the_users_own_is_named_by_module_and_function(own_rules):
    table = Table("rigl", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.34, growth=f"{own_rules}:last")
    table.step([9.0, 9, 9, 9, 9, 0])
    assert table.mask == [1, 0, 1, 0, 0, 1]


def test_a_growth_rule_of_the_users_own_may_read_the_dense_gradient(own_rules):
    growth = f"{own_rules}:smallest_gradient"
    table = Table("set-itop", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.33, growth=growth)
    table.step([0.0, 0.5, 0, 2, -0.25, 1])
    assert table.mask == [1, 0, 1, 0, 1, 0]


def test_a_drop_rule_of_the_users_own_may_read_the_dense_gradient(own_rules):
    drop = f"{own_rules}:magnitude_and_gradient"
    table = Table("set", [1, 1, 1, 0, 0, 0], [3.0, -1, 2, 0, 0, 0], drop_fraction=0.33, drop=drop)
    # after the step: 3, -5, 1.5; |w| + |g|: 3, 9, 2 → index 2 is dropped
    table.step([0.0, 4, 0.5, 0, 0, 0])
    assert (table.mask[0], table.mask[1]) == (1, 1)


def test_a_rule_of_the_wrong_shape_is_an_error(own_rules):
    table = Table("rigl", [1, 1, 0, 0], [3.0, -1, 0, 0], drop_fraction=0.5, growth=f"{own_rules}:wrong_shape")
    with pytest.raises(ValueError, match="shape"):
        table.step([1.0, 1, 1, 1])


def test_a_rule_of_the_users_own_that_does_not_exist_is_the_users_error(own_rules):
    with pytest.raises(UserError, match="Did you mean 'last'"):
        Table("rigl", [1, 0], [1.0, 0], growth=f"{own_rules}:lasst")
    with pytest.raises(UserError, match="no_such_module"):
        Table("rigl", [1, 0], [1.0, 0], growth="no_such_module:grow")


def test_an_update_needs_no_gradient_where_growth_is_random():
    model = mlp(10, 10)
    sparse = SparseTraining(model, plain_sgd(model), "set-itop", sparsity=0.5, total_steps=9, update_interval=1)
    assert sparse.step().moved > 0
    assert sum(update.moved for update in train(model, sparse, (10,), range(3)) if update) > 0
