"""The layers that have inactive weights, and their topology updates: what is chosen is checked and taken over here."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from itopctl.dst.gradients import DenseGradients, finite
from itopctl.dst.layer import Layer
from itopctl.dst.masked_layer import MaskedLayer
from itopctl.dst.optimizers import Optimizers
from itopctl.dst.parallel import Ranks
from itopctl.dst.reports import TopologyUpdate
from itopctl.dst.rules import Rules
from itopctl.dst.scope import Scope
from itopctl.dst.update import Drops, TopologyRules


class Topology:
    """The topology of a network in training.

    Args:
        layers: those that have inactive weights.
        rules, seed: of the training.
        scope: which weights are trained.
        optimizers: that train them.
        gradients: what rules read of dense gradients.
        ranks: that train together.

    Attributes:
        updates_done: topology updates so far, skipped ones included.
    """

    def __init__(
        self, layers: list[Layer], rules: Rules, seed: int, scope: Scope, optimizers: Optimizers,
        gradients: DenseGradients, ranks: Ranks,
    ) -> None:  # fmt: skip
        self.layers = layers
        self.updates_done = 0
        self._rules, self._scope, self._optimizers = rules, scope, optimizers
        self._gradients, self._ranks = gradients, ranks
        self._chooser = TopologyRules(rules, seed) if rules.dynamic else None
        self._maskable = sum(weight.size for weight in scope.weights.values())
        self._device = next(iter(scope.weights.values())).parameter.device

    @property
    def exploration_rate(self) -> float:
        """R_s: weights ever active ÷ maskable weights."""
        unexplored = sum(layer.explored.size - layer.explored.count for layer in self.layers)
        return (self._maskable - unexplored) / self._maskable

    @property
    def drop_reads_gradient(self) -> bool:
        """Whether the drop must be chosen while the weights are those of the gradient."""
        return self._chooser is not None and self._chooser.drop_reads_gradient

    def drop(self, zeta: float, step: int) -> Drops:
        """Choose what an update drops, by the weights as they are.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        assert self._chooser is not None
        self._check_weights(step)
        live = self._scope.live(self.layers, self._optimizers)
        self._mask_woken_weights(step)
        return self._chooser.drop(live, zeta, step, self.updates_done + 1, self._gradients)

    @torch.no_grad()
    def update(self, zeta: float, step: int, possible: bool, drops: Drops | None) -> TopologyUpdate:
        """Make an update.

        Args:
            zeta: the drop fraction.
            step: optimizer steps done.
            possible: whether the gradients allow it.
            drops: what is dropped, where that was chosen already.
        """
        assert self._chooser is not None
        if possible and drops is None:
            drops = self.drop(zeta, step)
        elif possible:  # chosen before the optimizer's step, which may have broken the weights
            self._check_weights(step)
        self.updates_done += 1
        if drops is None:
            self._gradients.forget()
            return TopologyUpdate(step, zeta, 0, 0, 0, self.exploration_rate, skipped=True)
        chosen = self._chooser.grow(drops, step)
        self._gradients.forget()
        moved, new = self._take(drops.layers, [choice.topology for choice in chosen])
        for layer, choice in zip(drops.layers, chosen, strict=True):
            layer.dropped += choice.replaced
        replaced = sum(choice.replaced for choice in chosen)
        return TopologyUpdate(step, zeta, replaced, moved, new, self.exploration_rate)

    def _take(self, layers: Sequence[Layer], topologies: Sequence[Tensor]) -> tuple[int, int]:
        """Take over topologies, the same on all ranks; how many weights are active that were not before, or never."""
        agreed = self._ranks.agree(list(topologies))  # of several ranks all have masks
        counts = [layer.take(topology, self._optimizers) for layer, topology in zip(layers, agreed, strict=True)]
        return sum(moved for moved, _ in counts), sum(new for _, new in counts)

    def _check_weights(self, step: int) -> None:
        """Raise FloatingPointError, on all ranks, where a weight is not finite."""
        broken = [layer.name for layer in self.layers if not finite(layer.weight)]
        if not self._ranks.all(not broken, self._device):
            where = broken[0] if broken else "a layer on another rank"
            raise FloatingPointError(f"{where} has a weight that is not finite after step {step}")

    def _mask_woken_weights(self, step: int) -> None:
        for layer in self.layers:
            if not isinstance(layer, MaskedLayer):
                continue
            woken = int(torch.count_nonzero(layer.weight.detach().bool() & ~layer.keep.bool()))
            if woken > 0:
                layer.home.mask(self._optimizers)
                warnings.warn(
                    f"{layer.name}: {woken:,} weights off the mask were not zero before the update after step "
                    f"{step}; they are now. Either optimizer.step() is called beside step(), which makes the step of "
                    "the optimizer itself: leave it out. Or weights or gradients are changed through .data or by "
                    "NumPy: call mask_gradients() after that.",
                    stacklevel=6,
                )
