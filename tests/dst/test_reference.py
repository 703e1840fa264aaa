"""The engine against a slow, obvious reference: whole topology updates, mask for mask, on values without ties.

The reference is written from the papers' words (dst-spec 1.2 to 1.6) with lists, full sorts and fractions. It shares
no code with the engine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from itopctl.catalogue import DROPS, GROWTHS, REDISTRIBUTIONS
from tests.dst.nets import assert_masked, modest
from tests.dst.tables import Tables

DECAY, LAMBDA, TAU, C, EPSILON = 0.7, 0.3, 0.4, 0.2, 0.5


@dataclass
class Layer:
    """All that the rules look at, as flat lists."""

    rows: int
    mask: list[int]
    explored: list[int]
    times_active: list[int]
    weight: list[float]
    gradient: list[float]
    momentum: list[float]

    @property
    def active(self) -> list[int]:
        return [i for i, active in enumerate(self.mask) if active]

    def mean_over_active(self, values: list[float]) -> float:
        return sum(abs(values[i]) for i in self.active) / len(self.active)


# Drop: the score of active weight i of a layer; the lowest go.
SCORES = {
    "magnitude": lambda layer, i: abs(layer.weight[i]),
    "global-magnitude": lambda layer, i: abs(layer.weight[i]),
    "taylor": lambda layer, i: (layer.weight[i] * layer.gradient[i]) ** 2,
    "sensitivity": lambda layer, i: abs(layer.weight[i] * layer.gradient[i]),
    "mest": lambda layer, i: abs(layer.weight[i]) + LAMBDA * abs(layer.gradient[i]),
}
# Growth: the score of candidate i of a layer at step t; the highest come.
CANDIDATES = {
    "gradient": lambda layer, i, t: abs(layer.gradient[i]),
    "sampled-gradient": lambda layer, i, t: abs(layer.gradient[i]),  # with a sample of all candidates
    "momentum": lambda layer, i, t: abs(layer.momentum[i]),
    "gradient-plus-exploration": lambda layer, i, t: (
        abs(layer.gradient[i]) + C * math.log(t) / (layer.times_active[i] + EPSILON)
    ),
}
SHARES = {
    "momentum": lambda layer: layer.mean_over_active(layer.momentum),
    "magnitude": lambda layer: layer.mean_over_active(layer.weight),
    "nonzeros": lambda layer: float(len(layer.active)),
}


def rounded(number: float, rounding: str) -> int:
    return int({"floor": math.floor, "ceil": math.ceil}[rounding](round(number, 7)))


def share_out(weights: list[float], total: int, caps: list[int]) -> list[int]:
    """Proportional under caps, by largest remainder: fix the layers that overflow, share the rest anew."""
    fixed: dict[int, int] = {i: 0 for i, cap in enumerate(caps) if cap == 0}
    while True:
        rest = [i for i in range(len(weights)) if i not in fixed]
        left = total - sum(fixed.values())
        whole = sum(Fraction(weights[i]) for i in rest)
        exact = {i: left * (Fraction(weights[i]) / whole if whole else Fraction(1, len(rest))) for i in rest}
        overflowing = [i for i in rest if exact[i] >= caps[i]]
        if not overflowing:
            break
        fixed |= {i: caps[i] for i in overflowing}
    counts = fixed | {i: math.floor(share) for i, share in exact.items()}
    by_remainder = sorted(exact, key=lambda i: math.floor(exact[i]) - exact[i])
    for i in by_remainder[: total - sum(counts.values())]:
        counts[i] += 1
    return [counts[i] for i in range(len(weights))]


def kept_of_layer(layer: Layer, drop: str, zeta: float, k: int) -> list[int]:
    if drop == "threshold":
        return [i for i in layer.active if abs(layer.weight[i]) > TAU]
    if drop == "sign-split":
        positive = sorted((i for i in layer.active if layer.weight[i] > 0), key=lambda i: layer.weight[i])
        negative = sorted((i for i in layer.active if layer.weight[i] <= 0), key=lambda i: -layer.weight[i])
        k_positive = min(k, round(zeta * len(positive)))
        k_positive = max(k_positive, k - len(negative))
        return sorted(positive[k_positive:] + negative[k - k_positive :])
    return sorted(sorted(layer.active, key=lambda i: SCORES[drop](layer, i))[k:])


def kept_of_all(layers: list[Layer], drop: str, zeta: float, zetas: list[float], rounding: str) -> list[list[int]]:
    if drop != "global-magnitude":
        return [
            kept_of_layer(layer, drop, mine, rounded(mine * len(layer.active), rounding))
            for layer, mine in zip(layers, zetas, strict=True)
        ]
    everything = [(SCORES[drop](layer, i), index, i) for index, layer in enumerate(layers) for i in layer.active]
    staying = sorted(everything)[rounded(zeta * len(everything), rounding) :]
    return [sorted(i for _, of, i in staying if of == index) for index in range(len(layers))]


def grown_in_layer(layer: Layer, kept: list[int], growth: str, count: int, t: int) -> list[int]:
    candidates = [i for i in range(len(layer.mask)) if i not in kept]
    if growth != "momentum-neuron":
        return sorted(candidates, key=lambda i: CANDIDATES[growth](layer, i, t), reverse=True)[:count]
    width = len(layer.mask) // layer.rows
    means = [sum(map(abs, layer.momentum[row * width : (row + 1) * width])) / width for row in range(layer.rows)]
    of_row = [[i for i in candidates if i // width == row] for row in range(layer.rows)]
    shares = share_out(means, count, [len(free) for free in of_row])
    best = [
        sorted(free, key=lambda i: -abs(layer.momentum[i]))[:share] for free, share in zip(of_row, shares, strict=True)
    ]
    return list(chain(*best))


def updated(layers: list[Layer], after_step: list[list[float]], rules: dict, t: int) -> list[tuple[list, list | int]]:
    """Kept positions of every layer, and those grown (their number, where growth is random)."""
    drop, growth, zeta, rounding = rules["drop"], rules["growth"], rules["drop_fraction"], rules["replace_rounding"]
    if drop not in ("taylor", "sensitivity", "mest"):  # those look at the weights that the gradient is of
        for layer, weight in zip(layers, after_step, strict=True):
            layer.weight = weight
    zetas = [zeta] * len(layers)
    shares = None
    if rules["redistribution"] != "none":
        shares = [SHARES[rules["redistribution"]](layer) for layer in layers]
        for index, layer in enumerate(layers):
            sparsity = Fraction(len(layer.mask) - len(layer.active), len(layer.mask))
            if sparsity < Fraction(1, 5) and shares[index] > sum(shares) / len(shares):
                zetas[index] = min(float(sparsity), zeta)
    kept = kept_of_all(layers, drop, zeta, zetas, rounding)
    grow = [len(layer.active) - len(stays) for layer, stays in zip(layers, kept, strict=True)]
    if shares is not None:
        least = [int(not stays) for stays in kept]
        room = [len(layer.mask) - len(stays) - one for layer, stays, one in zip(layers, kept, least, strict=True)]
        more = share_out(shares, sum(grow) - sum(least), room)
        grow = [one + extra for one, extra in zip(least, more, strict=True)]
    if growth.startswith("random"):
        return list(zip(kept, grow, strict=True))
    return [
        (stays, grown_in_layer(layer, stays, growth, count, t))
        for layer, stays, count in zip(layers, kept, grow, strict=True)
    ]


def flat(tensor: torch.Tensor) -> list[float]:
    return tensor.detach().double().flatten().tolist()


shapes = st.lists(st.tuples(st.integers(1, 4), st.integers(2, 7)), min_size=1, max_size=3)


def run_both(shapes, seed: int, densities: list[float], updates: int, rules: dict) -> None:
    """Train on random gradients and compare every update."""
    generator = torch.Generator().manual_seed(seed)
    normal = lambda shape: torch.randn(shape, generator=generator)  # noqa: E731
    masks = []
    for (rows, columns), density in zip(shapes, densities, strict=True):
        count = min(rows * columns - 1, max(1, round(density * rows * columns)))
        order = torch.randperm(rows * columns, generator=generator)
        masks.append((order < count).int().reshape(rows, columns).tolist())
    method = "rigl" if rules["update_replaces_step"] else "rigl-itop"
    tables = Tables(
        method, masks, [[[0.0] * columns] * rows for rows, columns in shapes], lr=0.125, update_interval=2,
        momentum_decay=DECAY, gradient_weight=LAMBDA, drop_threshold=TAU, exploration_weight=C,
        exploration_offset=EPSILON, sampled_share=1e9, seed=seed, **rules,
    )  # fmt: skip
    layers = [
        Layer(len(mask), *(list(chain(*mask)) for _ in range(3)), *([0.0] * sum(map(len, mask)) for _ in range(3)))
        for mask in masks
    ]
    for t in range(1, 2 * updates + 1):
        # New weights before every step, lest what has just grown be equal to zero and to each other.
        for index, layer in enumerate(layers):
            tables.set_values(index, (normal(shapes[index]) * tables.sparse.mask(tables.name(index))).tolist())
            layer.weight = flat(tables.weights[index])
        gradients = [normal(shape) for shape in shapes]
        for layer, gradient in zip(layers, gradients, strict=True):
            layer.gradient = flat(gradient)
            layer.momentum = [DECAY * m + (1 - DECAY) * g for m, g in zip(layer.momentum, layer.gradient, strict=True)]
        update = tables.step(*(gradient.tolist() for gradient in gradients))
        stepped = [
            [w - 0.125 * g * m for w, g, m in zip(layer.weight, layer.gradient, layer.mask, strict=True)]
            for layer in layers
        ]
        if t % 2:
            assert update is None
            continue
        after = [layer.weight for layer in layers] if rules["update_replaces_step"] else stepped
        outcome = updated(layers, after, rules, t)
        replaced = moved = new = 0
        for index, (layer, (kept, grown)) in enumerate(zip(layers, outcome, strict=True)):
            mask = [int(x) for x in flat(tables.sparse.mask(tables.name(index)))]
            if isinstance(grown, int):  # random: any of the candidates, the unexplored first
                assert all(mask[i] for i in kept)
                assert sum(mask) == len(kept) + grown
                if rules["growth"] == "random-unexplored":
                    unexplored = [i for i, explored in enumerate(layer.explored) if not explored]
                    assert sum(mask[i] for i in unexplored) == min(grown, len(unexplored))
            else:
                assert [i for i, active in enumerate(mask) if active] == sorted(kept + grown)
            replaced += len(layer.active) - len(kept)
            moved += sum(now and not before for now, before in zip(mask, layer.mask, strict=True))
            new += sum(now and not before for now, before in zip(mask, layer.explored, strict=True))
            regrown = [w if now else 0.0 for w, now in zip(after[index], mask, strict=True)]
            assert flat(tables.weights[index]) == pytest.approx(
                [w if before else 0.0 for w, before in zip(regrown, layer.mask, strict=True)], abs=1e-5
            )
            layer.mask = mask
            layer.explored = [int(a or b) for a, b in zip(layer.explored, mask, strict=True)]
            layer.times_active = [n + m for n, m in zip(layer.times_active, mask, strict=True)]
        assert (update.replaced, update.moved, update.new, update.step) == (replaced, moved, new, t)
        assert not update.skipped
        explored, size = (sum(map(count, layers)) for count in (lambda x: sum(x.explored), lambda x: len(x.mask)))
        assert update.exploration_rate == pytest.approx(explored / size)
        assert_masked(tables.model, tables.sparse)


@pytest.mark.parametrize(("drop", "growth"), list(product(DROPS.names(), GROWTHS.names())))
@modest(12)
@given(
    shapes,
    st.integers(0, 10**6),
    st.lists(st.floats(0.05, 0.95), min_size=3, max_size=3),
    st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]),
    st.sampled_from(["floor", "ceil"]),
    st.booleans(),
    st.sampled_from(REDISTRIBUTIONS.names()),
)
def test_an_update_equals_the_slow_reference(
    drop, growth, shapes, seed, densities, zeta, rounding, replaces, redistribution
):
    rules = {"drop": drop, "growth": growth, "redistribution": redistribution, "drop_fraction": zeta,
             "replace_rounding": rounding, "update_replaces_step": replaces}  # fmt: skip
    run_both(shapes, seed, densities[: len(shapes)], 3, rules)


@pytest.mark.parametrize("redistribution", REDISTRIBUTIONS.names())
@pytest.mark.parametrize("growth", ["gradient", "momentum-neuron", "random-unexplored"])
def test_many_updates_of_larger_layers_equal_the_slow_reference(growth, redistribution):
    rules = {"drop": "magnitude", "growth": growth, "redistribution": redistribution, "drop_fraction": 0.3,
             "replace_rounding": "ceil", "update_replaces_step": False}  # fmt: skip
    run_both([(12, 20), (20, 12), (3, 12)], 1, [0.1, 0.2, 0.85], 10, rules)


def test_the_reference_knows_every_rule():
    """A rule that is added to a catalogue must be added here."""
    assert set(DROPS.names()) == {*SCORES, "sign-split", "threshold"}
    assert set(GROWTHS.names()) == {*CANDIDATES, "momentum-neuron", "random", "random-unexplored"}
    assert set(REDISTRIBUTIONS.names()) == {*SHARES, "none"}
