"""One topology update: drop, share out, grow. Chooses new masks; changes nothing itself.

Exact by construction, and asserted in the code that runs: so many weights grow as were dropped, kept and grown are
disjoint, and randomness depends on (seed, layer, update) alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from itopctl.catalogue import DROPS, GROWTHS, REDISTRIBUTIONS, Catalogue
from itopctl.dst.apportion import apportion
from itopctl.dst.gradients import DenseGradients
from itopctl.dst.layer import Layer
from itopctl.dst.layer_view import LayerView
from itopctl.dst.random_streams import keyed_generator
from itopctl.dst.rules import Rules
from itopctl.dst.top_k import HighestSoFar, highest, lowest

_SNFS_DENSE = 0.2  # sparsity below which redistribution spares a layer that is to gain (sparse_learning, core.py)


@dataclass(frozen=True)
class Rule:
    """A rule's function, with its settings filled in, and what is declared about it."""

    name: str
    function: Callable[..., Any]
    chooses: bool
    network: bool
    gradient: bool
    elementwise: bool

    @classmethod
    def of(cls, kind: str, catalogue: Catalogue, name: str, rules: Rules) -> Rule:
        """The rule of this name; imports a user's module."""
        options, function = catalogue.options(name), catalogue.function(name)
        return cls(
            name,
            functools.partial(function, **rules.settings_for(kind, catalogue, name)),
            chooses=options.get("chooses", False),
            network=options.get("scope") == "network",
            gradient="gradient" in options.get("needs", ()),
            elementwise=options.get("elementwise", False),
        )


@dataclass(frozen=True)
class Dropped:
    """The weights of a layer that an update keeps, as flat positions, ascending; `removed` of the active ones go."""

    kept: Tensor
    removed: int


@dataclass(frozen=True)
class NewTopology:
    """What an update chose for a layer: a topology, as `Layer.take` has it, and how many weights were replaced."""

    topology: Tensor
    replaced: int


class TopologyRules:
    """The rules of a dynamic method, ready to be applied.

    Args:
        rules: a dynamic method.
        seed: of the training.
    """

    def __init__(self, rules: Rules, seed: int) -> None:
        assert rules.drop and rules.growth
        self._rules, self._seed = rules, seed
        self._drop = Rule.of("drop", DROPS, rules.drop, rules)
        self._growth = Rule.of("growth", GROWTHS, rules.growth, rules)
        share = rules.redistribution
        self._redistribution = None if share == "none" else Rule.of("redistribution", REDISTRIBUTIONS, share, rules)

    @property
    def drop_reads_gradient(self) -> bool:
        """Whether the drop must be chosen while the weights are those of the gradient."""
        return self._drop.gradient or (self._redistribution is not None and self._redistribution.gradient)

    def drop(self, layers: list[Layer], zeta: float, step: int, update: int, gradients: DenseGradients) -> Drops:
        """Choose what each layer keeps, by the weights as they are."""
        if not layers:  # at sparsity 0 every layer is dense for good
            return Drops([], [], [], None)
        views = [self._view(layer, zeta, step, update, gradients) for layer in layers]
        shares = None
        if self._redistribution is not None:
            shares = [float(self._redistribution.function(view)) for view in views]
            if not all(math.isfinite(share) and share >= 0 for share in shares):
                raise ValueError(f"redistribution {self._redistribution.name!r} gave {shares}; 0 or more expected")
            views = [
                replace(view, drop_fraction=own) if own != zeta else view
                for view, own in zip(views, _fractions(layers, shares, zeta), strict=True)
            ]
        dropped = (
            self._drop_over_network(views, zeta, update) if self._drop.network else [*map(self._drop_in_layer, views)]
        )
        return Drops(layers, views, dropped, shares)

    def grow(self, drops: Drops, step: int) -> list[NewTopology]:
        """Choose what grows, and so the new topologies; as many weights in all as were dropped."""
        layers = drops.layers
        removed = [dropped.removed for dropped in drops.dropped]
        grown = removed if drops.shares is None else _redistribute(layers, drops.dropped, drops.shares)
        return [
            self._grow_in_layer(layer, view.growing(dropped.kept, step), dropped, count)
            for layer, view, dropped, count in zip(layers, drops.views, drops.dropped, grown, strict=True)
        ]

    def _view(self, layer: Layer, zeta: float, step: int, update: int, gradients: DenseGradients) -> LayerView:
        generator = keyed_generator(self._seed, layer.index, update, device=layer.parameter.device)
        active = layer.active_positions()
        return LayerView(
            layer.name, layer.shape, step, update, zeta, generator, kept=active, entries=active,
            _layer=layer, _gradient=gradients.mean.get(layer.name), _momentum=gradients.momentum.get(layer.name),
        )  # fmt: skip

    def _drop_in_layer(self, view: LayerView) -> Dropped:
        active, count = view.indices, self._rules.count_to_replace(view.active_count, view.drop_fraction)
        if self._drop.chooses:
            goes = self._drop.function(view, count)
            if goes.dtype != torch.bool or goes.shape != active.shape:
                raise ValueError(
                    f"drop rule {self._drop.name!r} must return a bool for each of {active.numel()} weights"
                )
        else:
            goes = _lowest_flags(self._drop_scores(view), count, view.generator)
        return _dropped(view, goes)

    def _drop_over_network(self, views: list[LayerView], zeta: float, update: int) -> list[Dropped]:
        """The lowest scores of all layers together; as many as the rounding makes of ζ times all active weights."""
        scores = [self._drop_scores(view) for view in views]
        together = torch.cat(scores)
        generator = keyed_generator(self._seed, "network", update, device=together.device)
        goes = _lowest_flags(together, self._rules.count_to_replace(together.numel(), zeta), generator)
        return [*map(_dropped, views, goes.split([score.numel() for score in scores]))]

    def _drop_scores(self, view: LayerView) -> Tensor:
        return _checked(self._drop.function(view), view.indices.numel(), "drop", self._drop.name, view.name)

    def _grow_in_layer(self, layer: Layer, view: LayerView, dropped: Dropped, count: int) -> NewTopology:
        if self._growth.chooses:
            grown = self._growth.function(view, count)
        elif self._growth.elementwise and len(layer.row_blocks) > 1:
            grown = self._highest_by_blocks(layer, view, dropped, count)
        else:
            grown = highest(self._growth_scores(view, layer.size), count, view.generator, dropped.kept)
        if grown.numel() and int(grown.min()) < 0:
            raise ValueError(f"growth rule {self._growth.name!r} gave a position below 0")
        if grown.numel() and int(grown.max()) >= layer.size:
            raise IndexError(
                f"growth rule {self._growth.name!r} gave a position beyond the {layer.size} of {layer.name}"
            )
        topology = layer.joined(dropped.kept, grown)
        active = layer.counted(topology)
        if active != dropped.kept.numel() + count:
            raise AssertionError(f"{layer.name}: {active} active weights, not {dropped.kept.numel() + count}")
        return NewTopology(topology, dropped.removed)

    def _highest_by_blocks(self, layer: Layer, view: LayerView, dropped: Dropped, count: int) -> Tensor:
        """What scores highest, without all scores of the layer in memory."""
        width = layer.size // layer.shape[0]
        found = HighestSoFar(count, view.generator, dropped.kept)
        for start, stop in layer.row_blocks:
            found.add(self._growth_scores(view.of_rows(start, stop), (stop - start) * width), start * width)
        return found.positions()

    def _growth_scores(self, view: LayerView, count: int) -> Tensor:
        return _checked(self._growth.function(view), count, "growth", self._growth.name, view.name)


@dataclass(frozen=True)
class Drops:
    """What a drop chose: what each layer keeps, by which view, and the layers' shares in growth where they differ."""

    layers: list[Layer]
    views: list[LayerView]
    dropped: list[Dropped]
    shares: list[float] | None


def _lowest_flags(scores: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Bool for each score, True for the `count` lowest."""
    flags = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    flags[lowest(scores, count, generator)] = True
    return flags


def _dropped(view: LayerView, goes: Tensor) -> Dropped:
    kept = view.indices[~goes]
    return Dropped(kept, goes.numel() - kept.numel())


def _fractions(layers: list[Layer], shares: list[float], zeta: float) -> list[float]:
    """SNFS: a nearly dense layer whose share is above average loses at most its sparsity, for it cannot regrow."""
    average = sum(shares) / len(shares)
    sparsities = [(layer.size - layer.active_count) / layer.size for layer in layers]
    return [
        min(sparsity, zeta) if sparsity < _SNFS_DENSE and share > average else zeta
        for sparsity, share in zip(sparsities, shares, strict=True)
    ]


def _redistribute(layers: list[Layer], dropped: list[Dropped], shares: list[float]) -> list[int]:
    """How many each layer grows: in proportion to its share, what fits, and one where it would be left with none."""
    least = [0 if drop.kept.numel() else 1 for drop in dropped]
    room = [layer.size - drop.kept.numel() for layer, drop in zip(layers, dropped, strict=True)]
    total = sum(drop.removed for drop in dropped) - sum(least)
    rest = apportion(shares, total, [space - one for space, one in zip(room, least, strict=True)])
    return [one + more for one, more in zip(least, rest, strict=True)]


def _checked(scores: Tensor, count: int, kind: str, name: str, layer: str) -> Tensor:
    """Scores as a flat tensor; ValueError where a rule gave something else, or another number of them."""
    if not isinstance(scores, Tensor) or not scores.is_floating_point():
        what = scores.dtype if isinstance(scores, Tensor) else type(scores).__name__
        raise ValueError(f"{kind} rule {name!r} gave {what} for {layer}; a tensor of floating numbers expected")
    if scores.numel() != count:
        raise ValueError(
            f"{kind} rule {name!r} gave scores of shape {tuple(scores.shape)} for {count} weights of {layer}"
        )
    return scores.reshape(-1)
