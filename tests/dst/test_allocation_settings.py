"""Settings that change an allocation: layers kept dense or given a density, RigL's budget, rules of the user's own."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from itopctl.dst import Rules, SparseTraining
from itopctl.dst.allocation import allocate, layer_densities
from itopctl.errors import UserError
from tests.dst.nets import mlp, modest, plain_sgd

pytestmark = pytest.mark.filterwarnings("ignore:sparsity .* gives less than one weight")

SHAPES = {"first": (10, 3, 3, 3), "middle": (20, 10, 3, 3), "wide": (40, 20, 3, 3), "last": (10, 400)}
SIZES = {name: math.prod(shape) for name, shape in SHAPES.items()}
TOTAL = sum(SIZES.values())

linear_shapes = st.tuples(st.integers(1, 40), st.integers(1, 40))
conv_shapes = st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
networks = st.lists(linear_shapes | conv_shapes, min_size=1, max_size=6).map(
    lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)}
)
densities = st.floats(0.01, 1.0) | st.sampled_from([0.05, 0.1, 0.25, 0.5, 1.0])
sparsities = st.floats(0.0, 1.0, exclude_max=True) | st.sampled_from([0.5, 0.8, 0.9, 0.95])


def named_in(error: UserError) -> float:
    match = re.search(r"(?:largest|smallest|only) reachable sparsity is ([0-9.e-]*[0-9])", str(error))
    assert match, str(error)
    return float(match[1])


class Net(nn.Module):
    """One layer of every kind that a setting may name."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.depth = nn.Conv2d(12, 12, 3, groups=12)
        self.grouped = nn.Conv2d(12, 12, 3, groups=3)
        self.special = Special(12, 20, 1)
        self.flat = nn.Conv1d(20, 20, 3)
        self.hidden = nn.Linear(20, 30)
        self.head = nn.Linear(30, 10)


class Special(nn.Conv2d):
    """A convolution of the user's own."""


def active(method: str = "static", sparsity: float = 0.8, **settings: object) -> dict[str, float]:
    """Density of every layer of `Net`."""
    model = Net()
    sparse = SparseTraining(model, plain_sgd(model), method, sparsity=sparsity, total_steps=10, **settings)
    assert sparse.active == sum(layer.active for layer in sparse.layers())
    if settings.get("dense_in_budget", True):
        assert sparse.active == round((1 - sparsity) * sparse.maskable)
    return {layer.name.removesuffix(".weight"): layer.active / layer.size for layer in sparse.layers()}


def dense_among(found: dict[str, float]) -> set[str]:
    return {name for name, density in found.items() if density == 1.0}


# uniform-plus ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.79, 0.81, 0.9])
def test_uniform_plus_keeps_the_first_layer_dense_within_the_exact_budget(sparsity):
    counts = allocate(SHAPES, sparsity, "uniform-plus")
    assert sum(counts.values()) == round((1 - sparsity) * TOTAL)
    assert counts["first"] == SIZES["first"]
    assert counts["middle"] / SIZES["middle"] == pytest.approx(counts["wide"] / SIZES["wide"], abs=1e-3)


def test_uniform_plus_leaves_the_last_layer_a_fifth_where_the_network_has_less():
    # 3.9 % of the budget goes to the first and 800 weights to the last layer; the rest is shared alike.
    counts = allocate(SHAPES, 0.85, "uniform-plus")
    left = round(0.15 * TOTAL) - 270 - 800
    assert counts["last"] == 800
    assert counts["middle"] == pytest.approx(left * 1800 / 9000, abs=1)


def test_uniform_plus_treats_the_last_layer_as_the_others_where_the_network_has_a_fifth_or_more():
    found = layer_densities(SHAPES, 0.8 - 1e-9, "uniform-plus")
    assert found["last"] == found["middle"] == found["wide"] == pytest.approx((0.2 * TOTAL - 270) / (TOTAL - 270))


def test_uniform_plus_at_sparsity_zero_is_dense():
    assert allocate(SHAPES, 0.0, "uniform-plus") == SIZES


def test_uniform_plus_yields_to_a_density_of_the_users_own():
    found = layer_densities(SHAPES, 0.9, "uniform-plus", fixed={"first": 0.5, "last": 0.1})
    assert (found["first"], found["last"]) == (0.5, 0.1)
    assert found["middle"] == pytest.approx((0.1 * TOTAL - 135 - 400) / 9000)


def test_uniform_plus_beyond_its_budget_names_the_largest_reachable_sparsity():
    with pytest.raises(UserError, match="first") as error:
        allocate(SHAPES, 0.95, "uniform-plus")
    assert named_in(error.value) == pytest.approx(1 - (270 + 800 + 2) / TOTAL, abs=1e-6)
    counts = allocate(SHAPES, named_in(error.value), "uniform-plus")
    assert counts == {"first": 270, "middle": 1, "wide": 1, "last": 800}


def test_uniform_plus_finds_the_first_and_the_last_layer_of_a_model():
    found = active(sparsity=0.7, allocation="uniform-plus")
    assert dense_among(found) == {"stem"}
    found = active(sparsity=0.85, allocation="uniform-plus")
    assert dense_among(found) == {"stem"}
    assert found["head"] == 0.2


# Layers by name and type ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "dense"),
    [
        ("type:Conv2d", {"stem", "depth", "grouped", "special"}),
        ("type:Special", {"special"}),
        ("type:Conv1d", {"flat"}),
        ("type:Linear", {"hidden", "head"}),
        ("type:depthwise", {"depth"}),
        ("h*", {"hidden", "head"}),
        ("head.weight", {"head"}),
    ],
)
def test_layers_are_kept_dense_by_name_or_type(pattern, dense):
    assert dense_among(active("set-itop", sparsity=0.6, keep_dense=(pattern,), allocation="uniform")) == dense


def test_several_patterns_keep_all_that_match_any():
    patterns = ("type:depthwise", "head", "h*d")
    assert dense_among(active(sparsity=0.8, keep_dense=patterns, allocation="uniform")) == {"depth", "head"}


@pytest.mark.parametrize("setting", [{"keep_dense": ("type:Conv3d",)}, {"layer_density": {"type:Conv3d": 0.5}}])
def test_a_type_that_no_layer_has_is_answered_with_those_there_are(setting):
    with pytest.raises(UserError, match=r"'type:Conv3d' matches no layer.*type:Conv1d.*type:Special.*type:depthwise"):
        active(**setting)


def test_a_convolution_of_one_channel_is_not_called_depthwise():
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, groups=4))
    with pytest.raises(UserError, match="type:depthwise"):
        SparseTraining(model, plain_sgd(model), "static", sparsity=0.5, total_steps=5, keep_dense=("type:depthwise",))


def test_densities_are_given_by_name_and_type():
    found = active(sparsity=0.9, layer_density={"stem": 0.5, "type:depthwise": 0.25, "type:Special": 0.125})
    assert (found["stem"], found["depth"], found["special"]) == (0.5, 27 / 108, 30 / 240)


def test_pairs_say_the_same_as_a_mapping():
    pairs = active(layer_density=(("head", 0.5), ("hidden", 0.25)))
    assert pairs == active(layer_density={"head": 0.5, "hidden": 0.25})
    assert (pairs["head"], pairs["hidden"]) == (0.5, 0.25)


@pytest.mark.parametrize(
    "settings",
    [
        {"layer_density": {"head": 0.5, "h*": 0.25}},
        {"layer_density": {"h*": 0.25, "head": 0.5}},
        {"layer_density": {"h*": 0.25}, "keep_dense": ("head",)},
    ],
)
def test_two_densities_for_one_layer_are_refused_by_its_name(settings):
    with pytest.raises(UserError, match=r"head\.weight has two densities"):
        active(**settings)


def test_one_density_may_be_given_to_a_layer_twice():
    found = active(layer_density={"head": 1.0, "h*": 1.0}, keep_dense=("head",), sparsity=0.5)
    assert dense_among(found) >= {"head", "hidden"}


def test_the_other_layers_pay_for_given_densities():
    alone, beside = layer_densities(SHAPES, 0.9), layer_densities(SHAPES, 0.9, fixed={"last": 0.01})
    assert beside["last"] == 0.01
    assert all(beside[name] >= alone[name] for name in ("first", "middle", "wide"))
    assert math.fsum(beside[name] * SIZES[name] for name in SHAPES) == pytest.approx(0.1 * TOTAL)


@pytest.mark.parametrize("density", [0.0, -0.5, 1.5, math.nan])
def test_a_given_density_outside_its_range_is_the_users_error(density):
    with pytest.raises(UserError, match="layer_density of 'head'"):
        Rules.of_method("static", layer_density={"head": density})


def test_densities_that_leave_too_many_zeros_name_the_smallest_reachable_sparsity():
    shapes = {"a": (10, 10), "b": (10, 10), "c": (20, 10)}
    with pytest.raises(UserError, match=r"given to c leave more zeros") as error:
        allocate(shapes, 0.2, fixed={"c": 0.25})
    assert named_in(error.value) == 0.375
    assert allocate(shapes, 0.375, fixed={"c": 0.25}) == {"a": 100, "b": 100, "c": 50}


# RigL's budget --------------------------------------------------------------------------------------------


def test_outside_the_budget_the_other_layers_share_their_own():
    counts = allocate(SHAPES, 0.9, fixed={"first": 1.0, "last": 0.5}, fixed_in_budget=False)
    assert (counts["first"], counts["last"]) == (270, 2000)
    assert counts["middle"] + counts["wide"] == round(0.1 * 9000)
    rest = {name: SHAPES[name] for name in ("middle", "wide")}
    assert {name: counts[name] for name in rest} == allocate(rest, 0.9)


def test_outside_the_budget_a_model_says_its_true_density():
    model = Net()
    apart = {"keep_dense": ("head", "stem"), "dense_in_budget": False}
    sparse = SparseTraining(model, plain_sgd(model), "rigl", sparsity=0.9, total_steps=10, **apart)
    fixed = 300 + 324
    assert sparse.active == fixed + round(0.1 * (sparse.maskable - fixed))
    assert sparse.density == sparse.exploration_rate == sparse.active / sparse.maskable


def test_outside_the_budget_a_starved_network_names_the_sparsity_of_the_others():
    shapes = {"kept": (10, 10), "a": (10, 10), "b": (10, 10)}
    with pytest.raises(UserError) as error:
        allocate(shapes, 0.999, fixed={"kept": 1.0}, fixed_in_budget=False)
    assert named_in(error.value) == pytest.approx(1 - 2 / 200)
    assert allocate(shapes, 0.99, fixed={"kept": 1.0}, fixed_in_budget=False) == {"kept": 100, "a": 1, "b": 1}


# Rules of the user's own ----------------------------------------------------------------------------------

RULES = """
import math

def by_outputs(shape, power):
    return shape[0] ** power

def share(shape, power):
    return {share}
"""


@pytest.fixture
def own_rule(tmp_path, monkeypatch, request):
    """The name of a module of the user's own, whose `share` returns what the test says."""
    name = f"my_allocation_{re.sub('[^a-z0-9]', '_', request.node.name.lower())}"
    (tmp_path / f"{name}.py").write_text(RULES.replace("{share}", getattr(request, "param", "1")))
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_an_allocation_of_the_users_own_is_named_by_module_and_function(own_rule):
    shapes = {"a": (10, 100), "b": (20, 100), "c": (40, 100)}
    found = layer_densities(shapes, 0.9, f"{own_rule}:by_outputs")
    assert found["b"] / found["a"] == pytest.approx(2.0)
    assert found["c"] / found["a"] == pytest.approx(4.0)
    squared = layer_densities(shapes, 0.9, f"{own_rule}:by_outputs", power=2.0)
    assert squared["c"] / squared["a"] == pytest.approx(16.0)
    model = mlp(20, 30, 10)
    sparse = SparseTraining(
        model, plain_sgd(model), "set-itop", sparsity=0.9, total_steps=10, allocation=f"{own_rule}:by_outputs"
    )
    first, last = sparse.layers()
    assert sparse.active == round(0.1 * 900)
    assert first.density / last.density == pytest.approx(3.0, rel=0.1)


@pytest.mark.parametrize("own_rule", ["0", "-1.0", "math.nan", "math.inf", "None", "'much'"], indirect=True)
def test_a_share_that_is_no_positive_number_is_the_users_error(own_rule):
    with pytest.raises(UserError, match=r"the share .* a finite number above 0 expected"):
        allocate(SHAPES, 0.9, f"{own_rule}:share")


def test_an_allocation_of_the_users_own_that_is_not_there_is_the_users_error(own_rule):
    with pytest.raises(UserError, match="Did you mean 'share'"):
        Rules.of_method("static", allocation=f"{own_rule}:shar")


# Whatever the network -------------------------------------------------------------------------------------


def least_and_most(shapes: dict, fixed: dict[str, float], in_budget: bool) -> tuple[int, int, int]:
    """Weights that must be and that can be active, and those that the budget is a share of."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    free = [name for name in shapes if name not in fixed]
    given = sum(min(sizes[name], max(1, round(density * sizes[name]))) for name, density in fixed.items())
    if not in_budget:
        return len(free), sum(sizes[name] for name in free), sum(sizes[name] for name in free)
    return given + len(free), given + sum(sizes[name] for name in free), sum(sizes.values())


@modest(600)
@given(networks, sparsities, st.sampled_from(["uniform", "er", "erk"]), st.booleans(), st.data())
def test_given_densities_are_kept_and_the_sum_is_exact_or_the_error_names_a_sparsity_that_works(
    shapes, sparsity, rule, in_budget, data
):
    names = data.draw(st.lists(st.sampled_from(sorted(shapes)), unique=True))
    assume(not in_budget or len(names) < len(shapes))
    fixed = {name: data.draw(densities) for name in names}
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    try:
        counts = allocate(shapes, sparsity, rule, fixed=fixed, fixed_in_budget=in_budget)
    except UserError as error:
        sparsity = named_in(error)
        counts = allocate(shapes, sparsity, rule, fixed=fixed, fixed_in_budget=in_budget)
    assert list(counts) == list(shapes)
    assert all(1 <= counts[name] <= sizes[name] for name in shapes)
    for name, density in fixed.items():
        assert counts[name] == min(sizes[name], max(1, round(density * sizes[name])))
    least, most, budgeted = least_and_most(shapes, fixed, in_budget)
    if least < most:  # otherwise nothing is left to be allocated
        shared = sum(counts.values()) - (0 if in_budget else sum(counts[name] for name in fixed))
        assert shared == round((1.0 - sparsity) * budgeted)


def test_the_sparsity_named_works_though_every_given_density_was_rounded_down():
    # Half of five weights is 2.5, which rounds to 2: the layers hold 6 weights, and 7.5 by their densities.
    shapes = {"a": (5, 1), "b": (5, 1), "c": (5, 1), "d": (3, 1)}
    fixed = {"a": 0.5, "b": 0.5, "c": 0.5}
    with pytest.raises(UserError) as error:
        allocate(shapes, 0.9, fixed=fixed)
    assert allocate(shapes, named_in(error.value), fixed=fixed) == {"a": 2, "b": 2, "c": 2, "d": 1}


@pytest.mark.parametrize("sparsity", [0.3, 0.9])
def test_where_every_density_is_given_the_error_names_the_sparsity_they_make(sparsity):
    shapes, fixed = {"a": (10, 10), "b": (10, 10)}, {"a": 0.5, "b": 0.25}
    assert allocate(shapes, 0.625, fixed=fixed) == {"a": 50, "b": 25}
    with pytest.raises(UserError) as error:
        allocate(shapes, sparsity, fixed=fixed)
    assert named_in(error.value) == 0.625


@modest(300)
@given(networks.filter(lambda shapes: len(shapes) > 1), sparsities)
def test_uniform_plus_is_exact_or_names_a_sparsity_that_works(shapes, sparsity):
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    try:
        counts = allocate(shapes, sparsity, "uniform-plus")
    except UserError as error:
        assert named_in(error) < sparsity
        sparsity = named_in(error)
        counts = allocate(shapes, sparsity, "uniform-plus")
    first, last = next(iter(shapes)), list(shapes)[-1]
    assert sum(counts.values()) == round((1.0 - sparsity) * sum(sizes.values()))
    assert counts[first] == sizes[first]
    if 0.0 < 1.0 - sparsity < 0.2:
        assert counts[last] >= round(0.2 * sizes[last])
