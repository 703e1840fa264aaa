"""What holds after every step, whatever the combination of rules, schedule, optimizer and gradients."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from itopctl.catalogue import DROP_SCHEDULES, DROPS, GROWTHS, REDISTRIBUTIONS
from itopctl.dst import SparseTraining
from itopctl.dst.schedule import drop_fraction_at
from itopctl.errors import UserError
from tests.dst.nets import OPTIMIZERS, assert_masked, backward, conv_net, make_batch, make_optimizer, mlp, modest

NAN, STEPS = float("nan"), 10
SCHEDULES = DROP_SCHEDULES.names()

networks = st.lists(st.integers(1, 12), min_size=2, max_size=4).map(
    lambda widths: (lambda: mlp(*widths), (widths[0],))
) | st.integers(1, 4).map(lambda channels: (lambda: conv_net(channels), (2, 6, 6)))


@st.composite
def settings_of_rules(draw) -> dict:
    """Any combination of rules, schedule and order of operations."""
    interval = draw(st.integers(1, 4))
    return {
        "drop": draw(st.sampled_from(DROPS.names())),
        "growth": draw(st.sampled_from(GROWTHS.names())),
        "redistribution": draw(st.sampled_from(REDISTRIBUTIONS.names())),
        "drop_schedule": {
            "name": draw(st.sampled_from(SCHEDULES)),
            "final": draw(st.sampled_from([0.0, 0.1])),
            "stop": draw(st.sampled_from([0.75, 1.0])),
        },
        "drop_fraction": draw(st.sampled_from([0.1, 0.5, 1.0])),
        "update_interval": interval,
        "gradient_batches": draw(st.integers(1, max(1, interval - 1))),
        "replace_rounding": draw(st.sampled_from(["floor", "ceil"])),
        "update_replaces_step": draw(st.booleans()),
        "allocation": draw(st.sampled_from(["erk", "uniform"])),
        "drop_threshold": draw(st.sampled_from([1e-3, 0.1, 10.0])),
        "momentum_decay": draw(st.sampled_from([0.0, 0.9])),
        "sampled_share": draw(st.sampled_from([0.1, 1.0])),
    }


def try_to_make(model: nn.Module, optimizer: torch.optim.Optimizer, sparsity: float, **settings) -> SparseTraining:
    """Skip the examples whose sparsity would leave a layer without a weight."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return SparseTraining(model, optimizer, "set-itop", sparsity=sparsity, total_steps=STEPS, **settings)
        except UserError:
            assume(False)
            raise


def masks_of(sparse: SparseTraining) -> dict[str, torch.Tensor]:
    return {layer.name: sparse.mask(layer.name) for layer in sparse.layers()}


def checked_step(model: nn.Module, sparse: SparseTraining):
    """One step, after which all must hold that always holds."""
    rate, before = sparse.exploration_rate, masks_of(sparse)
    active, counts = sparse.active, {layer.name: layer.active for layer in sparse.layers()}
    weights = dict(model.named_parameters())
    zeta = drop_fraction_at(sparse.rules, sparse.steps_done + 1, STEPS)
    update = sparse.step()
    after = masks_of(sparse)
    assert_masked(model, sparse)
    assert sparse.active == active
    assert sparse.density - 1e-12 <= sparse.exploration_rate <= 1.0
    assert (update is None) == (zeta is None)
    if update is None or update.skipped:
        assert sparse.exploration_rate == rate
        assert all(torch.equal(mask, after[name]) for name, mask in before.items())
        return update
    assert update.drop_fraction == zeta
    assert update.step == sparse.steps_done
    if sparse.rules.redistribution == "none":
        assert {layer.name: layer.active for layer in sparse.layers()} == counts
    come = {name: after[name] & ~mask for name, mask in before.items()}
    assert update.moved == sum(int(mask.sum()) for mask in come.values())
    assert 0 <= update.new <= update.moved <= update.replaced <= active
    assert not any(weights[name][mask].any() for name, mask in come.items())  # what grew stands at zero
    assert update.exploration_rate == sparse.exploration_rate >= rate
    assert (sparse.exploration_rate - rate) * sparse.maskable == pytest.approx(update.new, abs=1e-6)
    return update


@modest(150)
@given(
    networks,
    st.one_of(st.just(0.0), st.floats(0.05, 0.97)),
    settings_of_rules(),
    st.sampled_from(OPTIMIZERS),
    st.integers(0, 10**6),
)
def test_counts_are_exact_and_exploration_grows_by_what_is_new_under_any_rules(
    network, sparsity, settings, optimizer_name, seed
):
    make_model, shape = network
    torch.manual_seed(seed)
    model = make_model()
    sparse = try_to_make(model, make_optimizer(optimizer_name, model), sparsity, seed=seed, **settings)
    assert sparse.active == round((1.0 - sparsity) * sparse.maskable)
    assert_masked(model, sparse)
    for step in range(STEPS):
        backward(model, make_batch(shape, step))
        checked_step(model, sparse)


@modest(80)
@given(settings_of_rules(), st.sampled_from(OPTIMIZERS), st.sampled_from(["zero", "dead", "none"]))
def test_they_hold_for_gradients_that_are_zero_everywhere_dead_units_and_layers_without_a_gradient(
    settings, optimizer_name, kind
):
    torch.manual_seed(0)
    model = mlp(8, 9, 7, 4)
    with torch.no_grad():
        if kind == "dead":
            model[0].bias.fill_(-100.0)  # no unit of the first layer ever fires
            model[2].weight.zero_()
    sparse = try_to_make(model, make_optimizer(optimizer_name, model), 0.7, **settings)
    for step in range(STEPS):
        if kind == "zero":
            model.zero_grad()
            (model(torch.ones(3, 8)) * 0.0).sum().backward()
        elif kind == "dead":
            backward(model, make_batch((8,), step))
        else:
            model.zero_grad()
            model[2:](make_batch((9,), step)).square().mean().backward()  # the first layer has no part in it
        checked_step(model, sparse)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@modest(100)
@given(
    settings_of_rules(),
    st.sampled_from(OPTIMIZERS),
    st.integers(1, STEPS),
    st.sampled_from([NAN, float("inf"), -float("inf")]),
)
def test_a_gradient_that_is_not_finite_off_the_mask_skips_the_update_that_reads_it_and_harms_nothing(
    settings, optimizer_name, bad_step, bad
):
    torch.manual_seed(0)
    model = mlp(8, 9, 4)
    sparse = try_to_make(model, make_optimizer(optimizer_name, model), 0.7, **settings)
    weights = dict(model.named_parameters())
    batches = settings["gradient_batches"]
    for step in range(1, STEPS + 1):
        backward(model, make_batch((8,), step))
        if step == bad_step:
            name, mask = next((name, mask) for name, mask in masks_of(sparse).items() if not mask.all())
            weights[name].grad[~mask] = bad
        update = checked_step(model, sparse)
        if update is not None:
            read = step - batches < bad_step <= step
            assert update.skipped == ("gradient" in sparse.rules.needs and read)
        assert all(parameter.isfinite().all() for parameter in model.parameters())


@modest(60)
@given(settings_of_rules(), st.sampled_from(OPTIMIZERS), st.integers(0, 99))
def test_they_hold_for_layers_of_one_weight_and_layers_left_with_one(settings, optimizer_name, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(8, 1), nn.Linear(1, 1), nn.Linear(1, 4))
    sparse = try_to_make(
        model, make_optimizer(optimizer_name, model), 0.76, **{**settings, "allocation": "uniform"}, seed=seed
    )
    assert [(layer.active, layer.size) for layer in sparse.layers()] == [(1, 8), (1, 1), (1, 4)]
    for step in range(STEPS):
        backward(model, make_batch((8,), step))
        checked_step(model, sparse)
        assert next(layer for layer in sparse.layers() if layer.size == 1).active == 1


@modest(40)
@given(settings_of_rules(), st.integers(0, 99))
def test_the_same_seed_gives_the_same_masks_and_weights_under_any_rules(settings, seed):
    def trained(global_seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        model = mlp(8, 9, 4)
        sparse = try_to_make(model, make_optimizer("sgd", model), 0.7, seed=seed, **settings)
        torch.manual_seed(global_seed)  # the global generator has no part in it
        for step in range(STEPS):
            backward(model, make_batch((8,), step))
            sparse.step()
        return [*masks_of(sparse).values(), *(parameter.detach() for parameter in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(trained(1), trained(2), strict=True))


@modest(40)
@given(settings_of_rules(), st.sampled_from(OPTIMIZERS), st.integers(1, STEPS - 1))
def test_a_training_that_is_resumed_goes_on_as_if_it_had_not_been_interrupted_under_any_rules(
    settings, optimizer_name, pause
):
    def trained(pause: int | None) -> list[torch.Tensor]:
        torch.manual_seed(0)
        model = mlp(8, 9, 4)
        optimizer = make_optimizer(optimizer_name, model)
        sparse = try_to_make(model, optimizer, 0.7, **settings)
        for step in range(STEPS):
            if step == pause:
                states = (model.state_dict(), optimizer.state_dict(), sparse.state_dict())
                model = mlp(8, 9, 4)
                optimizer = make_optimizer(optimizer_name, model)
                sparse = try_to_make(model, optimizer, 0.7, **settings)
                for part, state in zip((model, optimizer, sparse), states, strict=True):
                    part.load_state_dict(state)
            backward(model, make_batch((8,), step))
            sparse.step()
        assert sparse.exploration_rate >= sparse.density
        return [*masks_of(sparse).values(), *(parameter.detach() for parameter in model.parameters())]

    assert all(torch.equal(a, b) for a, b in zip(trained(None), trained(pause), strict=True))
