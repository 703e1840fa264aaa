"""Drop, growth and redistribution rules of the user's own, in a module of the user's own."""

from __future__ import annotations

import pytest
import torch

from itopctl.dst import SparseTraining
from itopctl.dst.rules import Rules
from tests.dst.nets import assert_masked, mlp, plain_sgd, train
from tests.dst.tables import Table, Tables

RULES = """
import torch

from itopctl.dst import rule


def undecorated_drop(layer):
    "the smallest gradient goes"
    return layer.gradient.abs()


def undecorated_growth(layer):
    return -layer.gradient.abs()


def undecorated_share(layer):
    return float(layer.gradient.abs().sum())


@rule()
def blind(layer):
    return layer.gradient


@rule(needs=("momentum",))
def least_momentum(layer):
    return layer.momentum.abs()


@rule(needs=("times_active",))
def longest_active(layer):
    return -layer.times_active.double()


@rule(settings={"exploration_weight": 2.0, "drop_threshold": None})
def settled(layer, exploration_weight, drop_threshold):
    assert drop_threshold is None
    return (torch.arange(layer.weight.numel()) - exploration_weight).abs().neg()


@rule(chooses=True)
def first_ones_go(layer, count):
    goes = torch.zeros(layer.weight.numel(), dtype=torch.bool)
    goes[:count] = True
    return goes


@rule(chooses=True)
def all_go(layer, count):
    return torch.ones(layer.weight.numel(), dtype=torch.bool)


@rule(chooses=True)
def no_bools(layer, count):
    return torch.zeros(layer.weight.numel())


@rule(chooses=True)
def last_candidates(layer, count):
    candidates = [i for i in range(layer.weight.numel()) if i not in layer.kept.tolist()]
    return torch.tensor(candidates[len(candidates) - count:], dtype=torch.int64)


@rule(chooses=True)
def one_too_few(layer, count):
    return last_candidates(layer, count - 1)


@rule(chooses=True)
def one_twice(layer, count):
    return last_candidates(layer, 1).repeat(count)


@rule(chooses=True)
def kept_ones(layer, count):
    return layer.kept[:count]


@rule(scope="network")
def largest_of_all(layer):
    return -layer.weight.abs()


@rule()
def only_the_first(layer):
    return float(layer.name.startswith("0"))


@rule()
def nan(layer):
    return torch.full((layer.weight.numel(),), float("nan"))


@rule()
def seen(layer):
    entries = layer.indices.numel()
    for quantity in (layer.weight, layer.active, layer.explored, layer.random_scores()):
        assert quantity.shape == (entries,)
    assert (layer.name, layer.shape, layer.step, layer.update, layer.drop_fraction) == ("0.weight", (1, 4), 2, 1, 0.5)
    assert layer.active_count == 2
    growing = layer.entries is None
    assert layer.indices.tolist() == ([0, 1, 2, 3] if growing else [0, 1])
    assert layer.active.tolist() == [True, True, False, False][:entries]
    assert layer.explored.tolist() == [True, True, True, False][:entries]
    assert layer.weight.tolist() == [9.0, 1.0, 0.0, 0.0][:entries]
    assert layer.kept.tolist() == ([0] if growing else [0, 1])
    assert layer.candidate_count == (3 if growing else 2)
    return torch.arange(entries, dtype=torch.float32) if growing else layer.weight.abs()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Names a function of the user's module."""
    (tmp_path / "rules_of_my_own.py").write_text(RULES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "rules_of_my_own:{}".format


def table(method: str = "rigl", **settings) -> Table:
    return Table(method, [1, 1, 0, 0], [9.0, 1, 0, 0], lr=0.0, drop_fraction=0.5, **settings)


def test_an_undecorated_rule_reads_the_dense_gradient(mine):
    mask = table(drop=mine("undecorated_drop"), growth=mine("undecorated_growth"))
    assert mask.sparse.dense_gradient_due()
    # index 0 has the smaller gradient and goes; of the candidates 0, 2 and 3 the smallest is that of index 3
    mask.step([4.0, 5, 3, 2])
    assert mask.mask == [0, 1, 0, 1]


def test_an_undecorated_rule_reads_the_mean_of_gradient_batches(mine):
    mask = table(growth=mine("undecorated_growth"), update_interval=3, gradient_batches=2)
    for gradient in ([9.0, 9, 9, 9], [9.0, 9, 4, 3], [9.0, 9, -4, 3]):
        mask.step(gradient)
    assert mask.mask == [1, 0, 1, 0]


def test_a_rule_that_declares_to_need_nothing_gets_no_gradient_and_costs_none(mine):
    mask = table(growth=mine("blind"))
    assert not mask.sparse.dense_gradient_due()
    with pytest.raises(RuntimeError, match='needs=\\("gradient",\\)'):
        mask.step([1.0, 1, 1, 1])


def test_a_drop_rule_of_the_users_own_is_asked_before_the_step_where_it_reads_the_gradient_and_after_it_else(mine):
    for drop, kept in (("undecorated_drop", [1, 0]), ("least_momentum", [1, 0]), ("largest_of_all", [0, 1])):
        mask = Table("rigl-itop", [1, 1, 0, 0], [3.0, -2, 0, 0], lr=1.0, drop=mine(drop), growth="gradient",
                     drop_fraction=0.5)  # fmt: skip
        # after the step the weights are −4 and −3; of these the larger goes
        mask.step([7.0, 1, 0, 9])
        assert mask.mask == [*kept, 0, 1], drop


def test_a_rule_may_need_how_often_a_weight_was_active(mine):
    mask = table(drop=mine("longest_active"))
    mask.set_history(0, [3, 2, 0, 1])
    mask.step([0.0, 0, 1, 0])
    assert mask.mask == [0, 1, 1, 0]


@pytest.mark.parametrize(("weight", "grown"), [(None, 2), (3.0, 3)])
def test_a_rules_settings_come_as_keywords_with_the_rules_own_defaults(mine, weight, grown):
    mask = table(growth=mine("settled"), exploration_weight=weight)
    mask.step([0.0] * 4)  # the index nearest to exploration_weight grows
    assert [index for index, active in enumerate(mask.mask) if active] == [0, grown]


def test_rules_that_choose_are_given_the_number_and_choose(mine):
    mask = Table(
        "rigl", [1, 1, 1, 1, 0, 0], [1.0, 2, 3, 4, 0, 0], drop=mine("first_ones_go"), growth=mine("last_candidates"),
        drop_fraction=0.5,
    )  # fmt: skip
    assert mask.step([0.0] * 6).replaced == 2
    assert mask.mask == [0, 0, 1, 1, 1, 1]


def test_a_drop_rule_that_chooses_may_drop_another_number_and_as_many_grow(mine):
    mask = Table("rigl", [1, 1, 1, 0, 0, 0], [1.0, 2, 3, 0, 0, 0], drop=mine("all_go"), drop_fraction=0.34)
    assert mask.step([0.0, 0, 4, 3, 2, 1]).replaced == 3
    assert mask.mask == [0, 0, 1, 1, 1, 0]


def test_a_network_wide_drop_rule_ranks_all_layers_together(mine):
    masks = [[1, 1, 0, 0], [1, 1, 0, 0]]
    tables = Tables("rigl", masks, [[1.0, 2, 0, 0], [30.0, 40, 0, 0]], drop=mine("largest_of_all"), drop_fraction=0.5)
    assert tables.step([0.0, 0, 1, 2], [0.0, 0, 1, 2]).replaced == 2
    assert tables.masks == [[1, 1, 0, 0], [0, 0, 1, 1]]


@pytest.mark.parametrize("rule", ["only_the_first", "undecorated_share"])
def test_a_redistribution_of_the_users_own_shares_growth(mine, rule):
    masks = [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    values = [[1.0, 2, 0, 0, 0, 0], [1.0, 2, 0, 0, 0, 0]]
    tables = Tables("rigl", masks, values, growth="random", redistribution=mine(rule), drop_fraction=0.5)
    tables.step([5.0, 5, 0, 0, 0, 0], [0.0, 0, 7, 7, 7, 7])  # a redistribution sees active weights alone
    assert tables.counts == [3, 1]


@pytest.mark.parametrize("replaces", [True, False])
def test_a_rule_sees_the_layer_as_it_is(mine, replaces):
    mask = Table("rigl", [1, 1, 0, 0], [9.0, 1, 0, 0], lr=0.0, drop_fraction=0.5, drop=mine("seen"),
                 growth=mine("seen"), update_interval=2, update_replaces_step=replaces)  # fmt: skip
    mask.set_history(0, [1, 1, 1, 0])
    mask.step([0.0] * 4)
    mask.step([0.0] * 4)
    assert mask.mask == [1, 0, 0, 1]


@pytest.mark.parametrize("growth", ["one_too_few", "one_twice", "kept_ones"])
def test_a_growth_rule_that_chooses_wrongly_is_an_error_and_changes_nothing(mine, growth):
    mask = Table("rigl", [1] * 4 + [0] * 4, [1.0, 2, 3, 4, 0, 0, 0, 0], drop_fraction=0.5, growth=mine(growth))
    with pytest.raises((AssertionError, ValueError)):
        mask.step([0.0] * 8)
    assert mask.mask == [1] * 4 + [0] * 4


@pytest.mark.parametrize("drop", ["no_bools", "nan"])
def test_a_drop_rule_that_returns_something_else_is_an_error(mine, drop):
    with pytest.raises(ValueError, match=r"bool|NaN"):
        table(drop=mine(drop)).step([0.0] * 4)


def test_what_rules_of_the_users_own_need_is_known_before_the_training(mine):
    rules = Rules.of_method("set-itop", drop=mine("least_momentum"), growth=mine("longest_active"))
    assert rules.needs == {"momentum", "times_active"}
    assert not rules.reads_dense_gradient
    assert Rules.of_method("set-itop", growth=mine("undecorated_growth")).reads_dense_gradient


@pytest.mark.parametrize("growth", ["undecorated_growth", "longest_active", "last_candidates"])
@pytest.mark.parametrize("drop", ["undecorated_drop", "least_momentum", "largest_of_all", "first_ones_go"])
def test_a_network_trains_by_rules_of_the_users_own(mine, drop, growth):
    torch.manual_seed(0)
    model = mlp(10, 12, 3)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), "rigl-itop", sparsity=0.7, total_steps=20, update_interval=2,
                            drop=mine(drop), growth=mine(growth), redistribution=mine("only_the_first"))  # fmt: skip
    active = sparse.active
    for _ in train(model, sparse, (10,), range(12)):
        assert_masked(model, sparse)
        assert sparse.active == active
