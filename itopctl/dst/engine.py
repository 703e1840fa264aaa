"""The sparse-training engine: masks on a model, kept by every step, changed by topology updates.

Order of operations (dst-spec 1.2). An ordinary step masks the gradients and lets the optimizer step: weights
and optimizer state that are zero off the mask stay exactly zero, whatever the weight decay or momentum. At an
update the dense gradient of that step is set aside first if growth needs it; then either the optimizer steps and
the update follows (SET, ITOP), or the update takes the step's place (RigL).

All randomness is keyed by (seed, layer, update), so masks depend on neither data order nor thread count, and a
resumed training draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.catalogue import DROPS, GROWTHS
from itopctl.dst.allocation import allocate
from itopctl.dst.keyed import keyed_generator
from itopctl.dst.layers import maskable_weights, matching
from itopctl.dst.masked_layer import MaskedLayer
from itopctl.dst.rules import LayerView, Rules
from itopctl.dst.schedule import drop_fraction_at
from itopctl.dst.select import highest, lowest
from itopctl.errors import UserError


@dataclass(frozen=True)
class TopologyUpdate:
    """What one drop-and-grow did, over all layers.

    Attributes:
        step: optimizer steps (or steps replaced by an update) done so far, this one included.
        drop_fraction: ζ at this update.
        replaced: weights dropped, which is also the number grown.
        moved: weights active now that were not before (regrown ones are not counted).
        new: weights active now for the first time.
        exploration_rate: R_s after the update.
        skipped: True where a non-finite gradient made the update impossible; nothing was changed.
    """

    step: int
    drop_fraction: float
    replaced: int
    moved: int
    new: int
    exploration_rate: float
    skipped: bool = False


@dataclass(frozen=True)
class LayerReport:
    """One maskable layer as it is now: `size` weights, of which `active`; `explored` were ever active."""

    name: str
    shape: tuple[int, ...]
    size: int
    active: int
    explored: int

    @property
    def density(self) -> float:
        return self.active / self.size

    @property
    def exploration_rate(self) -> float:
        return self.explored / self.size


class SparseTraining:
    """Sparse training of one model: call `step()` in place of `optimizer.step()`.

    Args:
        model: its linear and convolution weights are masked in place, at once.
        optimizer: any torch optimizer over the model's parameters. One that is not known to treat every weight for
            itself (Muon, say) is followed by another masking of weights and state.
        method: name in `itopctl list methods`; its preset gives the rules.
        sparsity: global fraction of zero weights over maskable layers, in [0, 1); `dense` needs none.
        total_steps: optimizer steps of the whole training, for the schedule of ζ.
        rules: explicit rules, in place of a method.
        seed: of the initial masks and of every random choice.
        **overrides: single settings of the method's preset, such as `update_interval=500`.

    A weight that grows starts at zero with empty optimizer state. Under Adam, whose step count is not reset, the
    first step of such a weight is about (1 − β₁) / √(1 − β₂) ≈ 3 times lr, whatever its gradient.

    Raises:
        UserError: unknown names, a sparsity that cannot be reached, a model without maskable layers.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        method: str | None = None,
        *,
        sparsity: float | None = None,
        total_steps: int,
        rules: Rules | None = None,
        seed: int = 0,
        **overrides: Any,
    ) -> None:
        self.optimizer = optimizer
        self.rules = _choose_rules(method, rules, overrides)
        if self.rules.sparse and sparsity is None:
            raise UserError("a sparse method needs a sparsity.")
        if total_steps < 1:
            raise UserError(f"total_steps is {total_steps}; a training has at least 1 step.")
        self.total_steps = total_steps
        self.seed = seed
        self.steps_done = 0
        self.updates_done = 0
        self._dense_gradients: dict[str, Tensor] = {}
        self._masked_gradients: dict[str, Tensor | None] = {}
        self._drop_rule = DROPS.function(self.rules.drop) if self.rules.drop else None
        self._growth_rule = GROWTHS.function(self.rules.growth) if self.rules.growth else None
        self._needs_gradient = self.rules.needs_gradient
        self._weights = maskable_weights(model)
        if not self._weights:
            raise UserError("the model has no linear or convolution layer to make sparse.")
        self._layers = self._draw_layers(sparsity or 0.0) if self.rules.sparse else []
        self._apply_masks()

    # Reading ----------------------------------------------------------------------------------------------

    @property
    def maskable(self) -> int:
        """N: maskable weights, masked or not."""
        return sum(weight.numel() for weight in self._weights.values())

    @property
    def active(self) -> int:
        """Weights that are active now; exactly round((1 − sparsity)·N)."""
        return self.maskable - sum(layer.weight.numel() - layer.active_count for layer in self._layers)

    @property
    def density(self) -> float:
        """D: active ÷ maskable weights."""
        return self.active / self.maskable

    @property
    def exploration_rate(self) -> float:
        """R_s: weights ever active ÷ maskable weights; 1 for dense training."""
        unexplored = sum(layer.explored.size - layer.explored.count for layer in self._layers)
        return (self.maskable - unexplored) / self.maskable

    def layers(self) -> Iterator[LayerReport]:
        """Every maskable layer, in the model's order; a layer without a mask is fully active and explored."""
        masked = {layer.name: layer for layer in self._layers}
        for name, weight in self._weights.items():
            size = weight.numel()
            layer = masked.get(name)
            active, explored = (layer.active_count, layer.explored.count) if layer else (size, size)
            yield LayerReport(name, tuple(weight.shape), size, active, explored)

    def mask(self, name: str) -> Tensor:
        """Bool tensor of the weight's shape, True where active."""
        for layer in self._layers:
            if layer.name == name:
                return layer.active
        return torch.ones_like(self._weights[name], dtype=torch.bool)

    # Stepping ---------------------------------------------------------------------------------------------

    def mask_gradients(self) -> None:
        """Zero the gradients of inactive weights; call it before clipping by global norm.

        `step()` calls it in any case. The dense gradient that an update needs is set aside first, once for each
        backward pass (told by a new gradient tensor, as `zero_grad()` leaves it by default). With a scaler the
        order is: `scaler.unscale_(optimizer)`, `mask_gradients()`, clip, `step(scaler)`, `scaler.update()`.
        """
        due = self.dense_gradient_due()
        for layer in self._layers:
            gradient = layer.weight.grad  # None where a layer had no part in the loss
            seen = layer.name in self._masked_gradients and self._masked_gradients[layer.name] is gradient
            if due and not seen:
                self._dense_gradients[layer.name] = (
                    torch.zeros_like(layer.weight) if gradient is None else gradient.clone()
                )
            if gradient is not None:
                gradient.masked_fill_(layer.inactive, 0)
            self._masked_gradients[layer.name] = gradient

    def step(self, scaler: torch.amp.GradScaler | None = None) -> TopologyUpdate | None:
        """One training step, in place of `optimizer.step()`: after `backward()`, before `zero_grad()`.

        Args:
            scaler: a gradient scaler, if the loss was scaled; `scaler.update()` stays with the caller.

        Returns:
            What the topology update did, where one was due.

        Raises:
            FloatingPointError: an update was due and a weight is not finite.
        """
        if scaler is not None:
            _unscale_once(scaler, self.optimizer)
        self.mask_gradients()
        zeta = self._due()
        self.steps_done += 1
        if zeta is None or not self.rules.update_replaces_step:
            if scaler is not None:
                scaler.step(self.optimizer)
            else:
                self.optimizer.step()
            if type(self.optimizer) not in _ELEMENTWISE:
                self._apply_masks()
        update = None if zeta is None else self._update_topology(zeta)
        self._dense_gradients.clear()
        self._masked_gradients.clear()
        return update

    def update_due(self) -> bool:
        """Whether the coming step updates the topology."""
        return self._due() is not None

    def dense_gradient_due(self) -> bool:
        """Whether the coming step reads the dense gradient (it costs a dense backward pass)."""
        return self._needs_gradient and self.update_due()

    def _due(self) -> float | None:
        return drop_fraction_at(self.rules, self.steps_done + 1, self.total_steps)

    # Topology ---------------------------------------------------------------------------------------------

    def _draw_layers(self, sparsity: float) -> list[MaskedLayer]:
        shapes = {name: tuple(weight.shape) for name, weight in self._weights.items()}
        dense = matching(list(shapes), self.rules.keep_dense)
        assert self.rules.allocation is not None
        counts = allocate(shapes, sparsity, self.rules.allocation, self.rules.allocation_power, dense)
        return [
            MaskedLayer(index, name, weight, counts[name], self.seed)
            for index, (name, weight) in enumerate(self._weights.items())
            if counts[name] < weight.numel()
        ]

    @torch.no_grad()
    def _update_topology(self, zeta: float) -> TopologyUpdate:
        self.updates_done += 1
        for layer in self._layers:
            if not layer.weight.isfinite().all():
                raise FloatingPointError(f"{layer.name} has a weight that is not finite after step {self.steps_done}")
        if not all(gradient.isfinite().all() for gradient in self._dense_gradients.values()):
            return TopologyUpdate(self.steps_done, zeta, 0, 0, 0, self.exploration_rate, skipped=True)
        replaced = moved = new = 0
        for layer in self._layers:
            count = self._count_to_replace(layer.active_count, zeta)
            before = layer.active
            self._drop_and_grow(layer, count)
            replaced += count
            moved += int((layer.active & ~before).sum())
            new += layer.explored.add(layer.active)
        self._apply_masks()
        return TopologyUpdate(self.steps_done, zeta, replaced, moved, new, self.exploration_rate)

    def _count_to_replace(self, active: int, zeta: float) -> int:
        exact = round(zeta * active, 9)
        return math.floor(exact) if self.rules.replace_rounding == "floor" else math.ceil(exact)

    def _drop_and_grow(self, layer: MaskedLayer, count: int) -> None:
        assert self._drop_rule and self._growth_rule
        weight = layer.weight.detach()
        generator = keyed_generator(self.seed, layer.index, self.updates_done, device=weight.device)
        active = layer.active
        view = LayerView(layer.name, weight, active, self._dense_gradients.get(layer.name), self.steps_done, generator)
        kept = active.reshape(-1).clone()
        kept[lowest(_scores(self._drop_rule, view), count, active, generator)] = False
        grown = highest(_scores(self._growth_rule, view), count, ~kept, generator)
        if bool(kept[grown].any()):
            raise AssertionError(f"{layer.name}: kept and grown weights overlap")
        kept[grown] = True
        if int(kept.sum()) != layer.active_count:
            raise AssertionError(f"{layer.name}: {int(kept.sum())} active weights, not {layer.active_count}")
        layer.set_active(kept)

    @torch.no_grad()
    def _apply_masks(self) -> None:
        """Zero weights, gradients and every optimizer slot of a weight's shape, off the mask.

        What has just been grown was off the mask until now, so it starts at zero, with empty slots; a weight
        dropped and regrown in one update keeps both.
        """
        for layer in self._layers:
            layer.weight.masked_fill_(layer.inactive, 0)
            if layer.weight.grad is not None:
                layer.weight.grad.masked_fill_(layer.inactive, 0)
            for slot in self.optimizer.state.get(layer.weight, {}).values():
                if isinstance(slot, Tensor) and slot.shape == layer.weight.shape:
                    slot.masked_fill_(layer.inactive, 0)

    # State ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Masks and explored sets as bits, and the position in the schedule; tensors and plain values only."""
        return {
            "steps_done": self.steps_done,
            "updates_done": self.updates_done,
            "total_steps": self.total_steps,
            "seed": self.seed,
            "layers": {layer.name: layer.saved() for layer in self._layers},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state saved by `state_dict` for the same model, rules, sparsity and seed.

        Raises:
            ValueError: other layers, shapes, counts, seed or training length than this object has.
        """
        saved = state["layers"]
        if list(saved) != [layer.name for layer in self._layers]:
            raise ValueError(
                f"the saved masks are for {list(saved)}, this model's for {[x.name for x in self._layers]}"
            )
        for key in ("total_steps", "seed"):
            if state[key] != getattr(self, key):
                raise ValueError(f"the saved state has {key} {state[key]}, this training {getattr(self, key)}")
        taken = [layer.check_saved(saved[layer.name]) for layer in self._layers]
        for layer, (active, explored) in zip(self._layers, taken, strict=True):
            layer.set_active(active)
            layer.explored.bits = explored
            layer.explored.add(layer.active)
        self.steps_done = state["steps_done"]
        self.updates_done = state["updates_done"]
        self._apply_masks()


# Optimizers that change a weight by what they know of that weight alone: where gradient, weight and state are zero
# they stay zero, so masking the gradient is all that is needed.
_ELEMENTWISE = {
    getattr(torch.optim, name) for name in ("SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop")
}


def _choose_rules(method: str | None, rules: Rules | None, overrides: dict[str, Any]) -> Rules:
    if rules is None:
        return Rules.of_method(method or "set-itop", **overrides)
    if method is not None or overrides:
        given = ", ".join([*(["a method"] if method else []), *overrides])
        raise UserError(f"explicit rules and {given} both given; put everything into the rules.")
    return rules


def _unscale_once(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
    """Unscale the gradients, unless the caller has done so to clip them."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise


def _scores(rule: Any, view: LayerView) -> Tensor:
    scores: Tensor = rule(view)
    if scores.shape != view.weight.shape:
        raise ValueError(f"a rule gave scores of shape {tuple(scores.shape)} for {tuple(view.weight.shape)}")
    return scores
