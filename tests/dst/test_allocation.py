from __future__ import annotations

import math
import re
import warnings
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torchvision.models import resnet34, resnet50

from itopctl.catalogue import ALLOCATIONS
from itopctl.dst.allocation import allocate, layer_densities
from itopctl.dst.maskable import maskable_weights
from itopctl.errors import UserError
from tests.dst.nets import modest

pytestmark = pytest.mark.filterwarnings("ignore:sparsity .* gives less than one weight")

LENET = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
MLP_CIFAR = {"fc1": (1024, 3072), "fc2": (512, 1024), "fc3": (10, 512)}

linear_shapes = st.tuples(st.integers(1, 60), st.integers(1, 60))
conv_shapes = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 5), st.integers(1, 5))
networks = st.lists(linear_shapes | conv_shapes, min_size=1, max_size=6).map(
    lambda shapes: {f"layer{i}": shape for i, shape in enumerate(shapes)}
)
sparsities = st.floats(0.0, 1.0, exclude_max=True)
allocations = st.sampled_from(["uniform", "er", "erk"])
powers = st.sampled_from([0.0, 0.5, 1.0, 2.0])


def sizes_of(shapes: dict) -> dict[str, int]:
    return {name: math.prod(shape) for name, shape in shapes.items()}


def resnet34_for_100_classes() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = resnet34(num_classes=100)
        model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    return {name: tuple(weight.shape) for name, weight in maskable_weights(model).items()}


def resnet50_for_imagenet() -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        model = resnet50()
    return {name: tuple(weight.shape) for name, weight in maskable_weights(model).items()}


def named_in(error: UserError) -> float:
    match = re.search(r"(?:largest|only) reachable sparsity is ([0-9.e-]*[0-9])", str(error))
    assert match, str(error)
    return float(match[1])


def capped_densities(shapes: dict, sparsity: float, share, keep_dense=()) -> dict[str, Fraction]:
    """Iterative capping, step by step and in exact fractions; layers kept dense are in the dense set from the start."""
    size = {name: Fraction(math.prod(shape)) for name, shape in shapes.items()}
    zeros = {name: Fraction(sparsity) * size[name] for name in shapes}
    ones = {name: size[name] - zeros[name] for name in shapes}
    raw = {name: share(shape) for name, shape in shapes.items()}
    dense = set(keep_dense)
    while True:
        others = [name for name in shapes if name not in dense]
        if not others:
            return dict.fromkeys(shapes, Fraction(1))
        budget = sum(ones[name] for name in others) - sum(zeros[name] for name in dense)
        eps = budget / sum(raw[name] * size[name] for name in others)
        largest = max(raw[name] for name in others)
        if eps * largest <= 1:
            return {name: Fraction(1) if name in dense else eps * raw[name] for name in shapes}
        dense |= {name for name in others if raw[name] == largest}


def erk_share(shape: tuple[int, ...]) -> Fraction:
    return Fraction(sum(shape), math.prod(shape))


def er_share(shape: tuple[int, ...]) -> Fraction:
    return Fraction(shape[0] + shape[1], shape[0] * shape[1])


@modest(300)
@given(networks, sparsities, allocations, powers)
def test_counts_sum_to_the_budget_and_every_layer_keeps_one_to_all_of_its_weights(shapes, sparsity, rule, power):
    sizes = sizes_of(shapes)
    target = round((1.0 - sparsity) * sum(sizes.values()))
    assume(target >= len(shapes))
    counts = allocate(shapes, sparsity, rule, power)
    assert list(counts) == list(shapes)
    assert sum(counts.values()) == target
    assert all(1 <= counts[name] <= sizes[name] for name in shapes)
    assert all(isinstance(count, int) for count in counts.values())


@modest(200)
@given(networks, st.data())
def test_dense_layers_stay_dense_inside_the_budget_or_the_error_names_what_can_be_reached(shapes, data):
    kept = data.draw(st.sets(st.sampled_from(sorted(shapes))))
    sizes = sizes_of(shapes)
    total = sum(sizes.values())
    least = sum(sizes[name] if name in kept else 1 for name in shapes)
    near_the_limit = st.floats(-8, 3).map(lambda more: min(max(0.0, 1.0 - (least + more) / total), 0.999999))
    sparsity = data.draw(sparsities | near_the_limit)
    try:
        counts = allocate(shapes, sparsity, "erk", fixed=dict.fromkeys(kept, 1.0))
    except UserError as error:
        assert (1.0 - sparsity) * total < least + 0.5
        sparsity = named_in(error)
        assert (1.0 - sparsity) * total < least + 0.5 + 1e-6 * total
        counts = allocate(shapes, sparsity, "erk", fixed=dict.fromkeys(kept, 1.0))
    assert sum(counts.values()) == round((1.0 - sparsity) * total)
    assert all(counts[name] == sizes[name] for name in kept)
    assert all(1 <= counts[name] <= sizes[name] for name in shapes)


@modest(200)
@given(networks, sparsities, st.sampled_from([("er", er_share), ("erk", erk_share)]))
def test_densities_equal_iterative_capping_in_exact_fractions(shapes, sparsity, rule):
    name, share = rule
    expected = capped_densities(shapes, sparsity, share)
    densities = layer_densities(shapes, sparsity, name)
    assert densities == pytest.approx({layer: float(density) for layer, density in expected.items()}, rel=1e-9)


@modest(100)
@given(networks, st.floats(0.0, 0.6), st.data())
def test_densities_with_dense_layers_equal_iterative_capping_that_starts_from_them(shapes, sparsity, data):
    kept = data.draw(st.sets(st.sampled_from(sorted(shapes))))
    sizes = sizes_of(shapes)
    assume((1.0 - sparsity) * sum(sizes.values()) > sum(sizes[name] for name in kept) + 1e-6)
    expected = capped_densities(shapes, sparsity, erk_share, kept)
    densities = layer_densities(shapes, sparsity, "erk", fixed=dict.fromkeys(kept, 1.0))
    assert densities == pytest.approx({layer: float(density) for layer, density in expected.items()}, rel=1e-6)


@modest(150)
@given(networks, sparsities, allocations)
def test_no_count_is_more_than_one_weight_from_its_density_where_no_layer_is_starved(shapes, sparsity, rule):
    sizes = sizes_of(shapes)
    ideal = {name: density * sizes[name] for name, density in layer_densities(shapes, sparsity, rule).items()}
    assume(all(count >= 1.0 for count in ideal.values()))
    counts = allocate(shapes, sparsity, rule)
    assert all(abs(counts[name] - ideal[name]) < 1.0 + 1e-6 for name in shapes)


@modest(100)
@given(networks, sparsities)
def test_power_zero_makes_every_rule_uniform(shapes, sparsity):
    for rule in ("er", "erk"):
        assert layer_densities(shapes, sparsity, rule, power=0.0) == pytest.approx(
            layer_densities(shapes, sparsity, "uniform")
        )


def test_lenet_300_100_has_the_published_erk_densities():
    assert sum(sizes_of(LENET).values()) == 266_200
    densities = layer_densities(LENET, 0.95)
    assert densities["fc1"] == pytest.approx(0.0385, abs=5e-5)
    assert densities["fc3"] == pytest.approx(0.9185, abs=5e-5)
    for name, shape in LENET.items():
        assert densities[name] / erk_share(shape) == pytest.approx(8.3501, abs=5e-5)
    assert sum(allocate(LENET, 0.95).values()) == 13_310


def test_mlp_cifar_has_the_published_erk_densities():
    assert sum(sizes_of(MLP_CIFAR).values()) == 3_675_136
    densities = layer_densities(MLP_CIFAR, 0.95)
    assert [name for name, density in densities.items() if density == 1.0] == ["fc3"]
    assert densities["fc1"] == pytest.approx(0.0413, abs=5e-5)
    assert densities["fc1"] / erk_share(MLP_CIFAR["fc1"]) == pytest.approx(31.7182, abs=5e-5)
    assert allocate(MLP_CIFAR, 0.95)["fc3"] == 5120


def test_resnet34_for_small_images_has_the_published_erk_densities():
    shapes = resnet34_for_100_classes()
    assert sum(sizes_of(shapes).values()) == 21_311_168
    densities = layer_densities(shapes, 0.95)
    dense = {name for name, density in densities.items() if density == 1.0}
    assert dense == {"conv1.weight", "layer2.0.downsample.0.weight"}
    assert densities["fc.weight"] == pytest.approx(0.7594, abs=5e-5)
    assert densities["fc.weight"] / erk_share(shapes["fc.weight"]) == pytest.approx(63.5314, abs=5e-5)
    assert sum(allocate(shapes, 0.95).values()) == round(0.05 * 21_311_168)


def test_resnet50_has_the_published_dense_layers_and_first_density():
    shapes = resnet50_for_imagenet()
    assert len(shapes) == 54
    assert sum(sizes_of(shapes).values()) == 25_502_912
    at_80 = layer_densities(shapes, 0.8)
    assert {name.removesuffix(".weight") for name, density in at_80.items() if density == 1.0} == {
        "layer1.0.conv1", "layer1.0.conv3", "layer1.0.downsample.0", "layer1.1.conv1", "layer1.1.conv3",
        "layer1.2.conv1", "layer1.2.conv3", "layer2.0.conv1",
    }  # fmt: skip
    at_90 = layer_densities(shapes, 0.9)
    assert [name for name, density in at_90.items() if density == 1.0] == ["layer1.0.conv1.weight"]
    assert at_90["conv1.weight"] == pytest.approx(0.4200, abs=5e-5)


def test_the_kernel_counts_in_erk_and_not_in_er():
    shapes = {"a": (10, 20, 3, 3), "b": (50, 20, 1, 1)}
    er = layer_densities(shapes, 0.9, "er")
    erk = layer_densities(shapes, 0.9, "erk")
    assert er["a"] / er["b"] == pytest.approx((30 / 200) / (70 / 1000))
    assert erk["a"] / erk["b"] == pytest.approx((36 / 1800) / (72 / 1000))


def test_uniform_gives_every_layer_the_same_density_the_first_included():
    assert layer_densities(LENET, 0.9, "uniform") == pytest.approx(dict.fromkeys(LENET, 0.1))


@pytest.mark.parametrize("rule", ["uniform", "er", "erk"])
def test_sparsity_zero_is_all_dense(rule):
    assert allocate(LENET, 0.0, rule) == sizes_of(LENET)


def test_capped_layers_hand_their_surplus_to_the_others():
    # ERK shares are 1 and 1/8.5 for sizes 4 and 289: eps = 58.6/(4 + 34), so the small layer is capped.
    shapes = {"small": (2, 2), "large": (17, 17)}
    counts = allocate(shapes, 0.8)
    assert counts == {"small": 4, "large": 55}


def test_rounding_goes_to_the_largest_remainders():
    # Density .5 of 3, 5 and 7 weights: 1.5, 2.5, 3.5; the budget is round(7.5) = 8, so two of three round up.
    counts = allocate({"a": (3, 1), "b": (5, 1), "c": (7, 1)}, 0.5, "uniform")
    assert sorted(counts[name] - low for name, low in [("a", 1), ("b", 2), ("c", 3)]) == [0, 1, 1]


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, math.nan, math.inf])
def test_a_sparsity_outside_the_unit_interval_is_the_users_error(sparsity):
    with pytest.raises(UserError, match="outside"):
        allocate(LENET, sparsity)


def test_dense_layers_beyond_the_budget_are_an_error_that_names_a_reachable_sparsity():
    with pytest.raises(UserError, match="fc1") as error:
        allocate(LENET, 0.5, fixed={"fc1": 1.0})
    reachable = named_in(error.value)
    assert reachable == pytest.approx(1 - (235_200 + 2) / 266_200, abs=2e-6)
    assert allocate(LENET, reachable, fixed={"fc1": 1.0})["fc1"] == 235_200


def test_a_budget_that_leaves_the_other_layers_less_than_a_weight_each_is_an_error_that_names_a_reachable_sparsity():
    # 100 dense weights and 100 of 200 wanted: 0 are left for the second layer, where .495 would leave it one.
    shapes = {"kept": (10, 10), "other": (10, 10)}
    with pytest.raises(UserError) as error:
        allocate(shapes, 0.4999, fixed={"kept": 1.0})
    assert named_in(error.value) == pytest.approx(0.495)
    assert allocate(shapes, 0.495, fixed={"kept": 1.0}) == {"kept": 100, "other": 1}


def test_the_sparsity_named_where_there_are_too_few_weights_counts_the_dense_layers_in():
    # 12 layers, 10 dense weights: at least 21 of 1110 must stay.
    shapes = {"kept": (5, 2), **{f"other{i}": (10, 10) for i in range(11)}}
    with pytest.raises(UserError) as error:
        allocate(shapes, 0.99, fixed={"kept": 1.0})
    assert named_in(error.value) == pytest.approx(1 - 21 / 1110, abs=2e-6)
    assert sum(allocate(shapes, named_in(error.value), fixed={"kept": 1.0}).values()) == 21


def test_more_layers_than_weights_is_an_error_that_names_a_reachable_sparsity():
    with pytest.raises(UserError, match="3 are needed, one a layer") as error:
        allocate(LENET, 0.999999)
    assert named_in(error.value) == pytest.approx(1 - 3 / 266_200, abs=2e-6)
    assert sum(allocate(LENET, named_in(error.value)).values()) >= 3


def test_a_starved_layer_keeps_one_weight_with_a_warning_that_names_it():
    shapes = {"tiny": (2, 2), "large": (100, 100)}
    with pytest.warns(UserWarning, match="one weight to tiny; each keeps one"):
        counts = allocate(shapes, 0.9, "uniform")
    assert counts == {"tiny": 1, "large": 999}


def test_there_is_no_warning_where_every_layer_gets_a_weight():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        allocate(LENET, 0.95)


def test_an_unknown_allocation_is_answered_with_the_nearest_word():
    with pytest.raises(UserError, match="Did you mean 'uniform'"):
        allocate(LENET, 0.9, "unifrom")


def test_every_allocation_in_the_catalogue_keeps_the_budget():
    for name in ALLOCATIONS.names():
        counts = allocate(MLP_CIFAR, 0.1, name)
        assert sum(counts.values()) == round(0.9 * sum(sizes_of(MLP_CIFAR).values()))
