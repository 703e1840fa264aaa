"""The sparse-training engine: masks on a model, kept by every step, changed by topology updates.

Order of operations. An ordinary step masks the gradients and lets the optimizer step: weights and optimizer state that
are zero off the mask stay exactly zero, whatever the weight decay or momentum. Where a rule reads the dense gradient,
it is taken in before that. At an update either the optimizer steps and the update follows
(SET, ITOP), or the update takes the step's place (RigL).

All randomness is keyed by (seed, layer, update), so masks depend on neither data order nor thread count, and a
resumed training draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.backends import Chosen
from itopctl.dst.compressed_layer import CompressedLayer
from itopctl.dst.gradient_masks import GradientMasks
from itopctl.dst.gradients import DenseGradient, DenseGradients, finite
from itopctl.dst.layer import Layer
from itopctl.dst.layers import active_counts, kinds_of, maskable_weights
from itopctl.dst.masked_layer import MaskedLayer
from itopctl.dst.masking import Masker
from itopctl.dst.parallel import Ranks, is_compiled, is_replicated, unwrapped
from itopctl.dst.records import LayerReport, TopologyUpdate
from itopctl.dst.rules import Rules
from itopctl.dst.saved import check_saved
from itopctl.dst.schedule import drop_fraction_at
from itopctl.dst.speed import LayerWork, measure
from itopctl.dst.update import Drops, TopologyRules
from itopctl.errors import UserError


class SparseTraining:
    """Sparse training of one model: call `step()` in place of `optimizer.step()`.

    Args:
        model: its linear and convolution weights are masked in place, at once. It may be wrapped in
            DistributedDataParallel or `torch.compile`; the weights are named as in the model inside.
        optimizer: any torch optimizer over the model's parameters. One that is not known to treat every weight for
            itself (Muon, say) is followed by another masking of weights and state.
        method: name in `itopctl list methods`; its preset gives the rules.
        sparsity: global fraction of zero weights over maskable layers, in [0, 1); `dense` needs none.
        total_steps: optimizer steps of the whole training, for the schedule of ζ.
        rules: explicit rules, in place of a method.
        seed: of the initial masks and of every random choice.
        compute: `masked` (dense arithmetic under masks), `sparse` (linear and 2-d convolution layers become sparse ones
            in place: weights, gradients and optimizer state exist only at the nonzeros, and `layer.weight` is
            one-dimensional), `auto` (for each layer what is faster here, by a measurement), or what each layer is to
            be, by name (`itopctl.dst.compressed_layer.BACKENDS`). Sparse layers need float32, one process, a
            model that is neither compiled nor, in whole or in part, in DataParallel, an optimizer that treats every
            weight for itself, and rules without momentum.
        example: a batch as the model will be given it. `auto` needs it; by `sparse`, layers that compute nothing
            themselves (a transformer's, in its fast path) are found by it.
        timed: for `auto`: seconds of a layer's step by kind; by default, measured now.
        synchronise: whether all ranks of the process group (the one of DistributedDataParallel, else the default one,
            if there is any) hold the same masks.
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
        compute: str | Mapping[str, str] = "masked",
        example: Tensor | None = None,
        timed: Callable[[LayerWork], Mapping[str, float]] = measure,
        synchronise: bool = True,
        **overrides: Any,
    ) -> None:
        self.optimizer = optimizer
        self.rules = _choose_rules(method, rules, overrides)
        if self.rules.sparse and sparsity is None:
            raise UserError("a sparse method needs a sparsity.")
        if sparsity is not None and (isinstance(sparsity, bool) or not isinstance(sparsity, (int, float))):
            raise UserError(f"sparsity is {sparsity!r}; a number in [0, 1) expected.")
        if total_steps < 1:
            raise UserError(f"total_steps is {total_steps}; a training has at least 1 step.")
        self.total_steps = total_steps
        self.steps_done = 0
        self.updates_done = 0
        self._compiled, self._replicated = is_compiled(model), is_replicated(model)
        model, group = unwrapped(model)
        self._weights = maskable_weights(model)
        if not self._weights:
            raise UserError("the model has no linear or convolution layer to make sparse.")
        self._shapes = {name: tuple(weight.shape) for name, weight in self._weights.items()}
        self._ranks = Ranks(group if synchronise else None)
        self.seed = int(self._ranks.first(seed))
        # Ranks that go their own ways may still share gradients: these are masked when all have been added up.
        self._masked_late = not synchronise and not Ranks(group).alone
        masker = Masker()
        # An eps below this may be zero where it is added; the types of optimizer state are those of the weights.
        self._least = max(torch.finfo(weight.dtype).smallest_normal for weight in self._weights.values())
        self._set_aside: dict[str, Tensor] = {}
        self._layers: list[Layer] = []
        if self.rules.sparse:
            counts = active_counts(self._shapes, kinds_of(model), self.rules, sparsity or 0.0)
            counts = {name: count for name, count in counts.items() if count < self._weights[name].numel()}
            layers = Chosen(model, self._weights, counts, compute, example, timed, self._why_masked())
            self._layers = layers.drawn(
                self.seed, "times_active" in self.rules.needs, masker, self._dense_gradient_read
            )
        self._masked = [layer for layer in self._layers if isinstance(layer, MaskedLayer)]
        self._compressed = [layer for layer in self._layers if isinstance(layer, CompressedLayer)]
        self._gradients = DenseGradients(self._layers, self.rules, total_steps)
        self._gradient_masks = GradientMasks(self._masked, masker, self._left_dense)
        self._topology = TopologyRules(self.rules, self.seed) if self.rules.dynamic else None
        self._reads_dense_gradient = self.rules.reads_dense_gradient  # a user's module is looked at once
        for compressed in self._compressed:
            compressed.adopt(optimizer)
        masks = self._ranks.agree([layer.keep.flatten().clone() for layer in self._masked])
        for layer, mask in zip(self._masked, masks, strict=True):
            layer.take(mask, optimizer)
            layer.start_over()

    # Reading ----------------------------------------------------------------------------------------------

    @property
    def maskable(self) -> int:
        """N: maskable weights, masked or not."""
        return sum(map(math.prod, self._shapes.values()))

    @property
    def active(self) -> int:
        """Weights that are active now; exactly round((1 − sparsity)·N), where all layers share one budget."""
        return self.maskable - sum(layer.size - layer.active_count for layer in self._layers)

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
        thin = {layer.name: layer for layer in self._layers}
        for name, shape in self._shapes.items():
            layer, size = thin.get(name), math.prod(shape)
            if layer is None:
                yield LayerReport(name, shape, size, size, size)
            else:
                active, explored = layer.active_count, layer.explored.count
                yield LayerReport(name, shape, size, active, explored, layer.dropped, layer.backend)

    def mask(self, name: str) -> Tensor:
        """Bool tensor of the weight's shape, True where active."""
        for layer in self._layers:
            if layer.name == name:
                return layer.active
        return torch.ones_like(self._weights[name], dtype=torch.bool)

    def weight(self, name: str) -> nn.Parameter:
        """The parameter of a maskable layer; of a compressed one, its nonzeros."""
        return self._weights[name]

    @property
    def backends(self) -> dict[str, str]:
        """How each layer that has inactive weights is computed; can be given to another training as `compute`."""
        return {layer.name: layer.backend for layer in self._layers}

    @property
    def compressed(self) -> frozenset[str]:
        """Names of the weights that are kept as their nonzeros alone, in row-major order."""
        return frozenset(layer.name for layer in self._compressed)

    # Stepping ---------------------------------------------------------------------------------------------

    def mask_gradients(self) -> None:
        """Zero the gradients of inactive weights; call it before clipping by global norm.

        Most gradients are masked in the backward pass already, and `step()` masks the others, so that this is needed
        to clip, and where gradients are changed through `.data` or by NumPy, which nothing can notice. The dense
        gradient that a rule needs is set aside first: call it once, after the last backward pass. With a scaler:
        `scaler.unscale_(optimizer)`, `mask_gradients()`, clip, `step(scaler)`, `scaler.update()`.
        """
        if self._dense_gradient_read():
            for layer in self._masked:
                if not self._gradient_masks.has_seen(layer):
                    self._keep_aside(layer.name, self._dense_of(layer))
        self._gradient_masks.mask_all()

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
            if self._compressed and scaler.is_enabled():
                raise UserError(
                    "a gradient scaler goes with half precision, and sparse layers with float32: compute=masked"
                )
            _unscale_once(scaler, self.optimizer)
        zeta = self._due()
        overflow = zeta is not None and scaler is not None and not self._gradients_finite()
        if self._dense_gradient_read():
            self._gradients.take(self.steps_done + 1, {layer.name: self._dense(layer) for layer in self._layers})
        self._gradient_masks.mask_rest()
        self.steps_done += 1
        possible = zeta is not None and self._ranks.all(
            not overflow and all(finite(mean) for mean in self._gradients.mean.values()), self._a_weight.device
        )
        drops = None
        if zeta is not None and possible and self._topology is not None and self._topology.drop_reads_gradient:
            drops = self._drop(zeta)
        if zeta is None or not self.rules.update_replaces_step:
            if scaler is not None:
                scaler.step(self.optimizer)
            else:
                self.optimizer.step()
            if not self._optimizer_keeps_zeros():
                for layer in self._masked:
                    layer.mask(self.optimizer)
        update = None if zeta is None else self._update_topology(zeta, possible, drops)
        if not self._gradients.momentum:  # else it is needed again at the next step
            self._set_aside.clear()
        self._gradient_masks.forget()
        for compressed in self._compressed:
            compressed.forget_gradient()
        return update

    def update_due(self) -> bool:
        """Whether the coming step updates the topology."""
        return self._due() is not None

    def dense_gradient_due(self) -> bool:
        """Whether the coming step reads the gradient of all masked weights (it costs a dense backward pass)."""
        return self._reads_dense_gradient and self._dense_gradient_read()

    def _left_dense(self) -> bool:
        return self._masked_late or self._dense_gradient_read()

    def _dense_gradient_read(self) -> bool:
        """Whether some rule reads the gradient of the coming step before it is masked."""
        return self._gradients.wanted(self.steps_done + 1)

    def _due(self) -> float | None:
        return drop_fraction_at(self.rules, self.steps_done + 1, self.total_steps)

    def _optimizer_keeps_zeros(self) -> bool:
        """Whether zero weights with zero gradient and state stay so: not where an optimizer divides zero by zero."""
        groups = self.optimizer.param_groups
        return type(self.optimizer) in _ELEMENTWISE and all(group.get("eps", 1.0) >= self._least for group in groups)

    def _dense(self, layer: Layer) -> DenseGradient:
        """The dense gradient of this step."""
        if isinstance(layer, CompressedLayer):
            return layer.gradient
        assert isinstance(layer, MaskedLayer)
        return self._dense_of(layer)

    def _dense_of(self, layer: MaskedLayer) -> Tensor:
        if layer.name in self._set_aside and self._gradient_masks.has_seen(layer):
            return self._set_aside[layer.name]
        gradient = layer.weight.grad
        return layer.zeros() if gradient is None else gradient

    @torch.no_grad()
    def _keep_aside(self, name: str, gradient: Tensor) -> None:
        kept = self._set_aside.get(name)
        if kept is None:
            self._set_aside[name] = gradient.clone()
        else:
            kept.copy_(gradient)

    def _gradients_finite(self) -> bool:
        """False where any gradient overflowed under a scaler: the step is skipped then, and so is the update."""
        others = (weight.grad for group in self.optimizer.param_groups for weight in group["params"])
        gradients = [*map(self._dense, self._layers), *(gradient for gradient in others if gradient is not None)]
        return all(map(finite, gradients))

    # Topology ---------------------------------------------------------------------------------------------

    @property
    def _a_weight(self) -> Tensor:
        return next(iter(self._weights.values()))

    def _why_masked(self) -> str | None:
        """Why this training can have no sparse layers, if so."""
        if not self._ranks.alone or self._masked_late:
            return "train in one process"
        if self._replicated:
            return "cannot be copied by nn.DataParallel"
        if self._compiled:
            return "cannot be compiled"
        if type(self.optimizer) not in _ELEMENTWISE:
            return "need an optimizer that treats every weight for itself"
        if "momentum" in self.rules.needs:
            return "keep no moving average of the dense gradient, which a rule here reads"
        return None

    def _drop(self, zeta: float) -> Drops:
        assert self._topology is not None
        self._check_weights()
        self._tell_of_woken_weights()
        return self._topology.drop(self._layers, zeta, self.steps_done, self.updates_done + 1, self._gradients)

    def _check_weights(self) -> None:
        """Raise FloatingPointError, on all ranks, where a weight is not finite."""
        broken = [layer.name for layer in self._layers if not finite(layer.weight)]
        if not self._ranks.all(not broken, self._a_weight.device):
            where = broken[0] if broken else "a layer on another rank"
            raise FloatingPointError(f"{where} has a weight that is not finite after step {self.steps_done}")

    def _tell_of_woken_weights(self) -> None:
        for layer in self._masked:
            woken = int(torch.count_nonzero(layer.weight)) - layer.active_count
            if woken > 0:
                warnings.warn(
                    f"{layer.name}: {woken:,} or more weights off the mask were not zero before the update after step "
                    f"{self.steps_done}; they are now. If gradients are changed through .data or by NumPy, call "
                    "mask_gradients() after that.",
                    stacklevel=4,
                )

    @torch.no_grad()
    def _update_topology(self, zeta: float, possible: bool, drops: Drops | None) -> TopologyUpdate:
        assert self._topology is not None
        if possible and drops is None:
            drops = self._drop(zeta)
        elif possible:  # chosen before the optimizer's step, which may have broken the weights
            self._check_weights()
        self.updates_done += 1
        if drops is None:
            self._gradients.forget()
            return TopologyUpdate(self.steps_done, zeta, 0, 0, 0, self.exploration_rate, skipped=True)
        chosen = self._topology.grow(self._layers, drops, self.steps_done)
        self._gradients.forget()
        moved, new = self._take([choice.topology for choice in chosen])
        for layer, choice in zip(self._layers, chosen, strict=True):
            layer.dropped += choice.replaced
        replaced = sum(choice.replaced for choice in chosen)
        return TopologyUpdate(self.steps_done, zeta, replaced, moved, new, self.exploration_rate)

    def _take(self, topologies: Sequence[Tensor]) -> tuple[int, int]:
        """Take over topologies, the same on all ranks; how many weights are active that were not before, or never."""
        agreed = self._ranks.agree(list(topologies))  # of several ranks all have masks
        counts = [layer.take(topology, self.optimizer) for layer, topology in zip(self._layers, agreed, strict=True)]
        return sum(moved for moved, _ in counts), sum(new for _, new in counts)

    # State ------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Masks and explored sets as bits, the rules and the position in their schedule, and what the gradients made.

        Tensors and plain values only. All draws are keyed by seed and position, which is the random state.
        """
        return {
            "steps_done": self.steps_done,
            "updates_done": self.updates_done,
            "total_steps": self.total_steps,
            "seed": self.seed,
            "rules": asdict(self.rules),
            "layers": {layer.name: layer.saved() for layer in self._layers},
            "gradients": self._gradients.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state saved by `state_dict` for the same model, rules, sparsity and seed.

        Load the model's and the optimizer's state first: what they hold off the masks is zeroed here. Where several
        ranks train, all of them call this, and all take over the state that the first was given.

        Raises:
            ValueError: other layers, shapes, counts, rules, seed or training length than this object has.
        """
        state = self._ranks.first(state)
        check_saved(state, self._layers, self.rules, total_steps=self.total_steps, seed=self.seed)
        gradients = state.get("gradients", {"averaged": 0, "mean": {}, "momentum": {}})
        self._gradients.check_state(gradients)
        for layer in self._layers:
            layer.take_over(state["layers"][layer.name])
        self._gradients.load_state_dict(gradients)
        self.steps_done = state["steps_done"]
        self.updates_done = state["updates_done"]
        for layer in self._masked:
            layer.mask(self.optimizer)


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
