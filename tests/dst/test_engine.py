"""What holds after every step, whatever the model, method, optimizer and gradients."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from itopctl.catalogue import METHODS
from itopctl.dst import SparseTraining
from itopctl.dst.rules import Rules
from itopctl.errors import UserError
from tests.dst.nets import (
    OPTIMIZERS,
    assert_masked,
    backward,
    conv_net,
    make_batch,
    make_optimizer,
    mlp,
    modest,
    plain_sgd,
    set_by_hand,
    slots,
    train,
)

DYNAMIC = ["set", "rigl", "set-itop", "rigl-itop"]
SPARSE = ["static", *DYNAMIC]

widths = st.lists(st.integers(1, 12), min_size=2, max_size=4)
networks = widths.map(lambda w: (lambda: mlp(*w), (w[0],))) | st.integers(1, 5).map(
    lambda channels: (lambda: conv_net(channels), (2, 6, 6))
)


def try_to_make(model: nn.Module, optimizer: torch.optim.Optimizer, *args, **kwargs) -> SparseTraining:
    """Skip the examples whose sparsity would leave a layer without a weight."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return SparseTraining(model, optimizer, *args, **kwargs)
        except UserError:
            assume(False)
            raise


@modest(150)
@given(
    networks,
    st.floats(0.0, 0.97),
    st.sampled_from(SPARSE),
    st.sampled_from(OPTIMIZERS),
    st.integers(1, 4),
    st.sampled_from(["erk", "er", "uniform"]),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.sampled_from(["floor", "ceil"]),
    st.integers(0, 2**40),
)
def test_counts_are_exact_and_everything_is_zero_off_the_mask_after_every_step(
    network, sparsity, method, optimizer_name, interval, allocation, zeta, rounding, seed
):
    make_model, shape = network
    torch.manual_seed(seed % 1000)
    model = make_model()
    optimizer = make_optimizer(optimizer_name, model)
    steps = 8
    sparse = try_to_make(
        model, optimizer, method, sparsity=sparsity, total_steps=steps, seed=seed, update_interval=interval,
        allocation=allocation, drop_fraction=zeta, replace_rounding=rounding,
    )  # fmt: skip
    assert sparse.active == round((1.0 - sparsity) * sparse.maskable)
    counts = {layer.name: layer.active for layer in sparse.layers()}
    assert_masked(model, sparse)
    rate = sparse.exploration_rate
    for step, update in enumerate(train(model, sparse, shape, range(steps)), start=1):
        assert_masked(model, sparse)
        assert {layer.name: layer.active for layer in sparse.layers()} == counts
        due = method != "static" and step % interval == 0 and step < (0.75 if method == "rigl" else 1.0) * steps
        assert (update is not None) == due
        assert sparse.density - 1e-12 <= sparse.exploration_rate <= 1.0
        if update is None:
            assert sparse.exploration_rate == rate
        else:
            assert update.step == step
            assert 0 <= update.new <= update.moved <= update.replaced
            assert (update.exploration_rate - rate) * sparse.maskable == pytest.approx(update.new, abs=1e-6)
            assert update.exploration_rate == sparse.exploration_rate
        rate = sparse.exploration_rate


@modest(60)
@given(networks, st.floats(0.1, 0.95), st.sampled_from(DYNAMIC), st.sampled_from([0.2, 0.5, 0.9]), st.integers(0, 99))
def test_an_update_keeps_as_many_as_it_should_and_grows_as_many_as_it_drops(network, sparsity, method, zeta, seed):
    make_model, shape = network
    torch.manual_seed(seed)
    model = make_model()
    sparse = try_to_make(
        model, plain_sgd(model, 0.05), method, sparsity=sparsity, total_steps=10, seed=seed, update_interval=1,
        drop_fraction=zeta, drop_schedule={"name": "constant"},
    )  # fmt: skip
    for _ in range(4):
        before = {layer.name: sparse.mask(layer.name) for layer in sparse.layers()}
        (update,) = train(model, sparse, shape, range(1))
        moved = replaced = 0
        for layer in sparse.layers():
            mask = sparse.mask(layer.name)
            gone, come = int((before[layer.name] & ~mask).sum()), int((mask & ~before[layer.name]).sum())
            k = 0
            if layer.active < layer.size:
                exact = round(zeta * layer.active, 6)
                k = int(exact) if method == "rigl" else -int(-exact // 1)
            assert gone == come <= k
            moved += come
            replaced += k
        assert (update.moved, update.replaced) == (moved, replaced)


@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_every_optimizer_has_slots_that_the_tests_look_at(optimizer_name):
    model = mlp(6, 6, 3)
    optimizer = make_optimizer(optimizer_name, model)
    sparse = SparseTraining(model, optimizer, "static", sparsity=0.5, total_steps=10)
    list(train(model, sparse, (6,), range(2)))
    found = slots(optimizer, model[0].weight)
    assert found
    assert all(slot.any() for slot in found.values())


@pytest.mark.parametrize("method", DYNAMIC)
@pytest.mark.parametrize("optimizer_name", OPTIMIZERS)
def test_grown_weights_start_at_exactly_zero_with_empty_slots(method, optimizer_name):
    torch.manual_seed(0)
    model = conv_net()
    optimizer = make_optimizer(optimizer_name, model)
    sparse = SparseTraining(model, optimizer, method, sparsity=0.7, total_steps=20, update_interval=3)
    parameters = dict(model.named_parameters())
    seen = 0
    for step in range(12):
        before = {layer.name: sparse.mask(layer.name) for layer in sparse.layers()}
        backward(model, make_batch((2, 6, 6), step))
        if sparse.step():
            for name, old in before.items():
                new = sparse.mask(name) & ~old
                seen += int(new.sum())
                assert not parameters[name][new].any()
                assert not any(slot[new].any() for slot in slots(optimizer, parameters[name]).values())
    assert seen > 20


@pytest.mark.parametrize("method", DYNAMIC)
def test_what_grew_is_trained_afterwards(method):
    torch.manual_seed(0)
    model = mlp(10, 20, 3)
    sparse = SparseTraining(
        model, plain_sgd(model, 0.1), method, sparsity=0.5, total_steps=100, update_interval=5, drop_fraction=0.5
    )
    list(train(model, sparse, (10,), range(4)))
    before = sparse.mask("0.weight")
    list(train(model, sparse, (10,), range(4, 5)))
    new = sparse.mask("0.weight") & ~before
    list(train(model, sparse, (10,), range(5, 8)))
    assert new.sum() > 3
    assert model[0].weight[new].any()


@pytest.mark.parametrize("method", DYNAMIC)
def test_counts_survive_gradients_that_are_zero_everywhere(method):
    model = mlp(12, 10, 4)
    sparse = SparseTraining(model, plain_sgd(model), method, sparsity=0.8, total_steps=20, update_interval=1)
    moved = 0
    for _ in range(10):
        model.zero_grad()
        (model(torch.ones(3, 12)) * 0.0).sum().backward()
        moved += sparse.step().moved
        assert_masked(model, sparse)
        assert sparse.active == round(0.2 * sparse.maskable)
    assert moved > 0


@pytest.mark.parametrize("method", DYNAMIC)
def test_counts_survive_dead_units_and_weights_that_are_all_zero(method):
    model = mlp(12, 10, 10, 4)
    with torch.no_grad():
        model[0].bias.fill_(-100.0)  # no unit of the first layer ever fires
        model[2].weight.zero_()
    sparse = SparseTraining(model, plain_sgd(model, 0.1), method, sparsity=0.7, total_steps=20, update_interval=2)
    for _ in train(model, sparse, (12,), range(14)):
        assert_masked(model, sparse)
        assert sparse.active == round(0.3 * sparse.maskable)


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_layer_with_a_single_weight_and_one_left_with_a_single_weight_are_fine(method):
    model = nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 1), nn.Linear(1, 4))
    with pytest.warns(UserWarning, match="less than one weight"):
        sparse = SparseTraining(
            model, plain_sgd(model, 0.1), method, sparsity=0.76, total_steps=20, update_interval=1,
            allocation="uniform",
        )  # fmt: skip
    assert [(layer.active, layer.size) for layer in sparse.layers()] == [(1, 8), (1, 1), (1, 4)]
    for _ in train(model, sparse, (8,), range(14)):
        assert_masked(model, sparse)
        assert sparse.active == 3


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_layer_at_density_one_is_never_changed_and_counts_as_explored(method):
    torch.manual_seed(0)
    model = mlp(20, 30, 3)
    sparse = SparseTraining(
        model, plain_sgd(model, 0.0), method, sparsity=0.8, total_steps=20, update_interval=1, keep_dense=("2",)
    )
    before = model[2].weight.clone()
    list(train(model, sparse, (20,), range(14)))
    first, last = sparse.layers()
    assert (last.active, last.explored, last.density, last.exploration_rate) == (90, 90, 1.0, 1.0)
    assert torch.equal(model[2].weight, before)
    assert sparse.mask("2.weight").all()
    assert sparse.maskable == 690
    assert sparse.active == 138 == first.active + 90
    assert sparse.exploration_rate == pytest.approx((first.explored + 90) / 690)


def test_at_sparsity_zero_every_method_is_dense_training():
    for method in METHODS.names():
        torch.manual_seed(0)
        model = mlp(6, 5, 2)
        reference = copy.deepcopy(model)
        optimizer = plain_sgd(reference, 0.1)
        sparse = SparseTraining(model, plain_sgd(model, 0.1), method, sparsity=0.0, total_steps=5, update_interval=100)
        for step in range(5):
            backward(model, make_batch((6,), step))
            sparse.step()
            backward(reference, make_batch((6,), step))
            optimizer.step()
        assert (sparse.density, sparse.exploration_rate) == (1.0, 1.0)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), reference.parameters(), strict=True))


def test_dense_has_density_and_exploration_rate_one_and_ignores_sparsity():
    model = mlp(6, 5, 2)
    before = copy.deepcopy(model.state_dict())
    sparse = SparseTraining(model, plain_sgd(model), "dense", sparsity=0.9, total_steps=5)
    assert (sparse.density, sparse.exploration_rate, sparse.active) == (1.0, 1.0, 40)
    assert [(layer.active, layer.explored) for layer in sparse.layers()] == [(30, 30), (10, 10)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_static_explores_exactly_its_density():
    model = mlp(10, 10, 1)
    for active in range(3, 110):
        sparse = SparseTraining(model, plain_sgd(model, 0.1), "static", sparsity=1 - active / 110, total_steps=5)
        list(train(model, sparse, (10,), range(2)))
        assert sparse.active == active
        assert sparse.exploration_rate == sparse.density
        assert all(layer.exploration_rate == layer.density for layer in sparse.layers())


def test_masks_depend_on_the_seed_alone():
    def masks(seed: int, global_seed: int, threads: int) -> list[torch.Tensor]:
        torch.manual_seed(global_seed)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            model = mlp(40, 50, 60)
            sparse = SparseTraining(
                model, plain_sgd(model), "set-itop", sparsity=0.9, total_steps=9, seed=seed, update_interval=1,
                drop_fraction=1.0, drop_schedule={"name": "constant"},
            )  # fmt: skip
            drawn = [sparse.mask(layer.name) for layer in sparse.layers()]
            # With every weight dropped, growth alone decides, and it must not see data or the global generator.
            for step in range(3):
                backward(model, torch.randn(4, 40) * step)
                sparse.step()
                drawn += [sparse.mask(layer.name) for layer in sparse.layers()]
            return drawn
        finally:
            torch.set_num_threads(before)

    first = masks(seed=7, global_seed=0, threads=1)
    assert all(torch.equal(a, b) for a, b in zip(first, masks(7, global_seed=1, threads=2), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, masks(8, global_seed=0, threads=1), strict=True))


def test_layers_of_one_shape_and_successive_updates_get_different_draws():
    model = mlp(*[30] * 4)
    sparse = SparseTraining(
        model, plain_sgd(model), "set-itop", sparsity=0.8, total_steps=9, update_interval=1, drop_fraction=1.0,
        drop_schedule={"name": "constant"},
    )  # fmt: skip
    drawn = []
    for _ in range(4):
        drawn += [sparse.mask(layer.name) for layer in sparse.layers()]
        sparse.step()
    assert len({tuple(mask.flatten().tolist()) for mask in drawn}) == len(drawn) == 12
    overlap = [int((a & b).sum()) for i, a in enumerate(drawn) for b in drawn[:i]]
    # Two independent draws of 180 of 900 share 36 on average, standard deviation 4.8.
    assert all(abs(shared - 36) < 5 * 4.8 for shared in overlap)


def test_the_initial_mask_is_uniform_over_the_weight():
    model = nn.Linear(50, 40)
    hits = torch.zeros(40, 50)
    for seed in range(100):
        hits += SparseTraining(model, plain_sgd(model), "static", sparsity=0.8, total_steps=5, seed=seed).mask("weight")
    # 100 draws at density .2: a row's mean over 50 weights is 20 ± .57 (std), a column's over 40 is 20 ± .63.
    assert (hits.mean(1) - 20).abs().max() < 5 * 0.57
    assert (hits.mean(0) - 20).abs().max() < 5 * 0.63


def test_sparse_training_does_not_touch_the_global_generator():
    model = mlp(10, 10, 2)
    before = torch.get_rng_state()
    sparse = SparseTraining(model, plain_sgd(model), "set-itop", sparsity=0.5, total_steps=9, update_interval=1)
    list(train(model, sparse, (10,), range(3)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("method", DYNAMIC)
def test_channels_last_weights_are_masked_as_contiguous_ones_are(method):
    def masks(memory_format: torch.memory_format) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = conv_net().double().to(memory_format=memory_format)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        sparse = SparseTraining(model, optimizer, method, sparsity=0.6, total_steps=20, update_interval=2)
        drawn = [sparse.mask(layer.name) for layer in sparse.layers()]
        for step in range(10):
            backward(model, make_batch((2, 6, 6), step).double().to(memory_format=memory_format))
            sparse.step()
            assert_masked(model, sparse)
            drawn += [sparse.mask(layer.name) for layer in sparse.layers()]
        assert model[3].weight.is_contiguous(memory_format=memory_format)
        return drawn

    pairs = zip(masks(torch.contiguous_format), masks(torch.channels_last), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("method", DYNAMIC)
def test_weights_in_bfloat16_keep_exact_counts(method):
    torch.manual_seed(0)
    model = mlp(20, 30, 5).bfloat16()
    sparse = SparseTraining(model, plain_sgd(model, 0.1), method, sparsity=0.9, total_steps=20, update_interval=1)
    for step in range(8):
        backward(model, make_batch((20,), step).bfloat16())
        sparse.step()
        assert_masked(model, sparse)
        assert sparse.active == round(0.1 * sparse.maskable)


@pytest.mark.parametrize("method", DYNAMIC)
def test_a_layer_that_had_no_part_in_the_loss_keeps_its_count(method):
    model = nn.ModuleDict({"used": nn.Linear(6, 6), "unused": nn.Linear(6, 6)})
    sparse = SparseTraining(model, plain_sgd(model), method, sparsity=0.5, total_steps=8, update_interval=1)
    for step in range(4):
        model.zero_grad()
        model["used"](make_batch((6,), step)).square().mean().backward()
        assert sparse.step() is not None
        assert_masked(model, sparse)


def test_unknown_words_are_answered_with_the_nearest_one():
    model = mlp(4, 4)
    for word, kwargs in [
        ("rigl-itop", {"method": "rigl-itp"}),
        ("gradient", {"method": "rigl", "growth": "gradeint"}),
        ("magnitude", {"method": "rigl", "drop": "magnitudes"}),
        ("uniform", {"method": "static", "allocation": "unifrom"}),
        ("update_interval", {"method": "rigl", "update_intervals": 5}),
    ]:
        with pytest.raises(UserError, match=f"Did you mean '{word}'"):
            SparseTraining(model, plain_sgd(model), sparsity=0.5, total_steps=9, **kwargs)


def test_settings_beside_explicit_rules_are_refused_and_not_ignored():
    model = mlp(4, 4)
    rules = Rules.of_method("rigl")
    with pytest.raises((TypeError, ValueError, UserError)):
        SparseTraining(model, plain_sgd(model), rules=rules, sparsity=0.5, total_steps=9, update_interval=5)


def test_an_impossible_sparsity_names_the_largest_reachable_one():
    model = mlp(10, 10, 10)
    with pytest.raises(UserError, match=r"largest reachable sparsity is 0\.99\b"):
        SparseTraining(model, plain_sgd(model), "static", sparsity=0.999, total_steps=9)


def test_setting_a_mask_by_hand_sets_it():
    model = nn.Linear(3, 2, bias=False)
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.5, total_steps=9)
    set_by_hand(sparse, model.weight, "weight", [1, 0, 1, 0, 0, 1], [1.0, 0, 2, 0, 0, 3])
    assert sparse.mask("weight").tolist() == [[True, False, True], [False, False, True]]
    assert model.weight.tolist() == [[1, 0, 2], [0, 0, 3]]
