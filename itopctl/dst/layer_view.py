"""`LayerView`: what a drop, growth or redistribution rule may look at, one layer at one topology update."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from itopctl.dst.gradients import DenseGradient, multiplied_out
from itopctl.dst.layer import Layer
from itopctl.dst.sparse.factored import FactoredGradient
from itopctl.dst.top_k import distinct, outside, positions


@dataclass(frozen=True)
class LayerView:
    """One layer at one update, as a rule sees it. Everything is read only.

    Quantities are 1-d, one value for each *entry*: for a drop rule the entries are the active weights, for a growth
    rule all weights of the layer. `indices` says where in the (row-major) weight each entry stands.

    Attributes:
        name: the weight's parameter name.
        shape: the weight's shape.
        step: optimizer steps done.
        update: number of this topology update, from 1.
        drop_fraction: ζ at this update.
        generator: seeded by (seed, update, layer), so that a rule's draws depend on nothing else.
        kept: for a growth rule, flat positions, ascending, of the weights that were kept; all others are candidates.
        entries: flat positions of the entries; None where all weights are.
    """

    name: str
    shape: tuple[int, ...]
    step: int
    update: int
    drop_fraction: float
    generator: torch.Generator
    kept: Tensor
    entries: Tensor | None
    _layer: Layer = field(repr=False)
    _gradient: DenseGradient | None = field(repr=False, default=None)
    _momentum: Tensor | None = field(repr=False, default=None)
    _rows: tuple[int, int] | None = field(repr=False, default=None)

    @property
    def active_count(self) -> int:
        """How many weights were active before this update."""
        return self._layer.active_count

    @property
    def indices(self) -> Tensor:
        """Flat position of every entry, int64."""
        if self.entries is not None:
            return self.entries
        span = self._span
        return torch.arange(span.start, span.stop, device=self._layer.parameter.device)

    @property
    def weight(self) -> Tensor:
        """The weights."""
        return self._layer.values(self.entries if self._rows is None else self.indices)

    @property
    def gradient(self) -> Tensor:
        """∂L/∂w, the mean over the last `gradient_batches` steps: for a growth rule at masked weights, too."""
        if self._gradient is None:
            raise RuntimeError('this rule reads layer.gradient: declare it with needs=("gradient",)')
        if self._rows is not None and isinstance(self._gradient, FactoredGradient):
            return self._gradient.rows(*self._rows).reshape(-1)
        return self._at(multiplied_out(self._gradient))

    @property
    def momentum(self) -> Tensor:
        """Exponential moving average of the dense gradient over all steps, with factor `momentum_decay`."""
        if self._momentum is None:
            raise RuntimeError('this rule reads layer.momentum: declare it with needs=("momentum",)')
        return self._at(self._momentum)

    @property
    def times_active(self) -> Tensor:
        """At how many topologies so far, the initial one included, each weight was active; int32."""
        if self._layer.times_active is None:
            raise RuntimeError('this rule reads layer.times_active: declare it with needs=("times_active",)')
        return self._at(self._layer.times_active)

    @property
    def active(self) -> Tensor:
        """Whether each weight was active before this update; bool."""
        return self._at(self._layer.active)

    @property
    def explored(self) -> Tensor:
        """Whether each weight was ever active before this update; bool."""
        return self._at(self._layer.explored.flags())

    def random_scores(self) -> Tensor:
        """Independent uniform scores in [0, 1), one for each entry."""
        count = self._span.stop - self._span.start if self.entries is None else self.entries.numel()
        return torch.rand(count, generator=self.generator, device=self._layer.parameter.device)

    # For growth rules that choose among candidates themselves ---------------------------------------------

    @property
    def candidate_count(self) -> int:
        """How many weights may grow: those that were not kept."""
        return self._layer.size - self.kept.numel()

    def random_candidates(self, count: int) -> Tensor:
        """Flat positions, ascending, of a uniformly random subset of the candidates."""
        return outside(self.random_subset(self.candidate_count, count), self.kept)

    def unexplored_positions(self) -> Tensor:
        """Flat positions, ascending, of all weights that were never active; every one is a candidate."""
        return positions(~self._layer.explored.flags())

    def random_subset(self, population: int, count: int) -> Tensor:
        """A uniformly random subset of 0 … population − 1, ascending."""
        return distinct(population, count, self.generator)

    def growing(self, kept: Tensor, step: int) -> LayerView:
        """The view of a growth rule, after the drop."""
        return replace(self, kept=kept, entries=None, _rows=None, step=step)

    def with_kept(self, kept: Tensor) -> LayerView:
        """The same layer, with these flat positions, ascending, not among the candidates."""
        return replace(self, kept=kept)

    def at(self, entries: Tensor) -> LayerView:
        """The same layer, seen at these flat positions only."""
        return replace(self, entries=entries, _rows=None)

    def of_rows(self, start: int, stop: int) -> LayerView:
        """The same layer, seen at the entries of these rows only (slices along the first dimension)."""
        return replace(self, entries=None, _rows=(start, stop))

    def _at(self, tensor: Tensor) -> Tensor:
        flat = tensor.reshape(-1)
        return flat[self._span] if self.entries is None else flat[self.entries]

    @property
    def _span(self) -> slice:
        """Which flat positions are looked at, where these are no others."""
        start, stop = self._rows or (0, self.shape[0])
        width = self._layer.size // self.shape[0]
        return slice(start * width, stop * width)
