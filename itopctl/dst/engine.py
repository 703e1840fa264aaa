"""The sparse-training engine: masks on a model, kept by every step, changed by topology updates.

Order of operations. An ordinary step masks the gradients and lets the optimizer step: weights and optimizer state that
are zero off the mask stay exactly zero, whatever the weight decay or momentum. Where a rule reads the dense gradient,
it is taken in before that. At an update either the optimizer steps and the update follows
(SET, ITOP), or the update takes the step's place (RigL).

All randomness is keyed by (seed, layer, update), so masks depend on neither data order nor thread count, and a
resumed training draws what the uninterrupted one would have drawn.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.backends import Chosen
from itopctl.dst.compressed_layer import CompressedLayer
from itopctl.dst.gradient_masks import GradientMasks
from itopctl.dst.gradients import DenseGradients, finite
from itopctl.dst.layer import Layer
from itopctl.dst.loaded_state import Awaited, check_saved
from itopctl.dst.maskable import active_counts
from itopctl.dst.masked_layer import MaskedLayer
from itopctl.dst.masking import Masker
from itopctl.dst.network import SparseNetwork
from itopctl.dst.optimizers import Optimizers
from itopctl.dst.parallel import Ranks, is_compiled, is_replicated, unwrapped
from itopctl.dst.reports import TopologyUpdate
from itopctl.dst.rules import Rules
from itopctl.dst.schedule import drop_fraction_at
from itopctl.dst.scope import Scope
from itopctl.dst.speed import LayerWork, measure
from itopctl.dst.step_gradients import StepGradients
from itopctl.dst.topology import Topology
from itopctl.dst.update import Drops
from itopctl.dst.writes import Writes
from itopctl.errors import UserError


class SparseTraining(SparseNetwork):
    """Sparse training of one model: call `step()` in place of `optimizer.step()`.

    Args:
        model: the weights of its linear, convolution, attention and recurrent layers are masked in place, at once. It
            may be wrapped in DistributedDataParallel or `torch.compile`; weights are named as in the model inside.
        optimizer: any torch optimizer over the model's parameters, or a list of optimizers. One that is not known to
            treat every weight for itself (Muon, say) is followed by another masking of weights and state. A weight
            that none of them holds is neither masked nor counted.
        method: name in `itopctl list methods`; its preset gives the rules.
        sparsity: global fraction of zero weights over maskable layers, in [0, 1); `dense` needs none.
        total_steps: optimizer steps of the whole training, for the schedule of ζ.
        rules: explicit rules, in place of a method.
        seed: of the initial masks and of every random choice.
        also_mask: globs of names of further parameters to mask, of two or more dimensions: those of the user's own
            modules, and embeddings.
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

    A weight that grows starts at zero with the optimizer state of a new weight. Under Adam, whose step count is not
    reset, the first step of such a weight is about (1 − β₁) / √(1 − β₂) ≈ 3 times lr, whatever its gradient.

    Weights that somebody else writes (`load_state_dict`, `reset_parameters`, any operation in place) are masked again
    before the next forward pass (in a model that is compiled after this was made, by the next step), optimizer state
    that is loaded before the next step. Writes through `.data` or NumPy cannot be noticed; the next topology update, if
    there is one, masks them, and says so. A copy (`copy.deepcopy`, `pickle`) of model, optimizer and training together
    is independent.

    To go on from saved states, make model, optimizer and SparseTraining first, then load the three states.

    Raises:
        UserError: unknown names, a sparsity that cannot be reached, a model without maskable layers, and what cannot
            be masked: lazy, complex, empty, sharded or parametrized weights, numbers on the meta device, LBFGS, an
            optimizer of another model.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer],
        method: str | None = None,
        *,
        sparsity: float | None = None,
        total_steps: int,
        rules: Rules | None = None,
        seed: int = 0,
        also_mask: str | Sequence[str] = (),
        compute: str | Mapping[str, str] = "masked",
        example: Tensor | None = None,
        timed: Callable[[LayerWork], Mapping[str, float]] = measure,
        synchronise: bool = True,
        **overrides: Any,
    ) -> None:
        if torch.is_inference_mode_enabled():
            raise UserError(
                "SparseTraining cannot be made inside torch.inference_mode: what is made there is not trained."
            )
        if not isinstance(model, nn.Module):
            raise UserError(f"the first argument is a {type(model).__name__}; the model expected, then its optimizer.")
        self.rules = _choose_rules(method, rules, overrides)
        if self.rules.sparse and sparsity is None:
            raise UserError("a sparse method needs a sparsity.")
        if sparsity is not None and (isinstance(sparsity, bool) or not isinstance(sparsity, (int, float))):
            raise UserError(f"sparsity is {sparsity!r}; a number in [0, 1) expected.")
        total_steps = _whole("total_steps", total_steps)
        if total_steps < 1:
            raise UserError(f"total_steps is {total_steps}; a training has at least 1 step.")
        self.total_steps = total_steps
        self.steps_done = 0
        self._compiled, self._replicated = is_compiled(model), is_replicated(model)
        wrapper, (model, group) = model, unwrapped(model)
        self._optimizers = Optimizers(optimizer, model)
        globs = [also_mask] if isinstance(also_mask, str) else also_mask
        self._scope = Scope(model, self._optimizers, globs, self.rules.sparse)
        self._weights = self._scope.weights
        self._shapes = {name: weight.shape for name, weight in self._weights.items()}
        self._ranks = Ranks(group if synchronise else None)
        self.seed = self._ranks.first(_whole("seed", seed))
        # Ranks that go their own ways may still share gradients: these are masked when all have been added up.
        self._masked_late = not synchronise and not Ranks(group).alone
        # An eps below this may be zero where it is added; the types of optimizer state are those of the weights.
        self._least = max(torch.finfo(w.parameter.dtype).smallest_normal for w in self._weights.values())
        self._layers: list[Layer] = []
        if self.rules.sparse:
            kinds = {name: weight.kinds for name, weight in self._weights.items()}
            counts = active_counts(self._shapes, kinds, self.rules, sparsity or 0.0)
            counts = {name: count for name, count in counts.items() if count < self._weights[name].size}
            layers = Chosen(model, self._weights, counts, compute, example, timed, self._why_masked())
            self._layers = layers.drawn(
                self.seed, "times_active" in self.rules.needs, Masker(), self._dense_gradient_read
            )
        masked = [layer for layer in self._layers if isinstance(layer, MaskedLayer)]
        self._homes = list({id(layer.home): layer.home for layer in masked}.values())
        self._compressed = [layer for layer in self._layers if isinstance(layer, CompressedLayer)]
        self._gradients = DenseGradients(self._layers, self.rules, total_steps)
        self._gradient_masks = GradientMasks(self._homes, self._left_dense)
        self._step_gradients = StepGradients(self._layers, self._gradient_masks, self._gradients)
        self._topology = Topology(
            self._layers, self.rules, self.seed, self._scope, self._optimizers, self._gradients, self._ranks
        )
        self._reads_dense_gradient = self.rules.reads_dense_gradient  # a user's module is looked at once
        self._awaited: Awaited | None = None
        for compressed in self._compressed:
            compressed.adopt(self._optimizers)
        masks = self._ranks.agree([layer.keep.flatten().clone() for layer in masked])
        for layer, mask in zip(masked, masks, strict=True):
            layer.begin(mask)
        for home in self._homes:
            home.mask(self._optimizers)
        self._writes = Writes(self._homes, wrapper, self._check_loaded)
        self._settle()

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer, where there is one."""
        return self._optimizers.single

    def other_weights(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the model may have other weights for a while, which are not masked."""
        return self._writes.overlooked()

    # Stepping ---------------------------------------------------------------------------------------------

    def mask_gradients(self) -> None:
        """Zero the gradients of inactive weights; call it before clipping by global norm.

        Most gradients are masked in the backward pass already, and `step()` masks the others, so that this is needed
        to clip, and where gradients are changed through `.data` or by NumPy, which nothing can notice. The dense
        gradient that a rule needs is set aside first: call it once, after the last backward pass. With a scaler:
        `scaler.unscale_(optimizer)`, `mask_gradients()`, clip, `step(scaler)`, `scaler.update()`.
        """
        if self._dense_gradient_read():
            self._step_gradients.set_aside()
        self._gradient_masks.mask_all()

    def step(
        self, scaler: torch.amp.GradScaler | Callable[[], Any] | None = None, closure: Callable[[], Any] | None = None
    ) -> TopologyUpdate | None:
        """One training step, in place of `optimizer.step()`: after `backward()`, before `zero_grad()`.

        Args:
            scaler: a gradient scaler, if the loss was scaled; `scaler.update()` stays with the caller.
            closure: as of `optimizer.step`: computes the loss and its gradients. It may stand in the scaler's place.

        Returns:
            What the topology update did, where one was due.

        Raises:
            FloatingPointError: an update was due and a weight is not finite.
            UserError: scaler or closure do not go with this training; the model was changed under it, or a state of
                another topology was loaded into a sparse layer, and none into this object.
        """
        scales: Any = scaler if hasattr(scaler, "unscale_") else None
        closure = closure if scales is scaler else scaler  # type: ignore[assignment]
        self._check_step(scales, closure)
        self._writes.look_at_step()
        for compressed in self._compressed:
            compressed.check_in_step()
        replaced = self._optimizers.states_replaced()  # by those of another training, perhaps a dense one
        self._check_states(replaced)
        if replaced:
            for home in self._homes:
                home.mask_state(self._optimizers)
        zeta = self._due()
        possible, drops = True, None
        if closure is None or self._optimizers.elementwise or (zeta is not None and self.rules.update_replaces_step):
            if closure is not None:
                with torch.enable_grad():
                    closure()
            possible, drops = self._take_gradients(zeta, scales)
            if zeta is None or not self.rules.update_replaces_step:
                self._optimizers.step(scales)
                self._mask_again()
        else:
            possible, drops = self._step_by(closure, zeta)
            self._mask_again()
        update = None if zeta is None else self._topology.update(zeta, self.steps_done, possible, drops)
        self._step_gradients.forget()
        self._settle()
        return update

    def _check_states(self, replaced: bool) -> None:
        """Raise UserError where optimizer state of sparse layers is of other positions than the weights."""
        if not self._compressed:
            return
        if replaced and self._loaded is None and self.updates_done:
            raise UserError(
                "the optimizer's state was loaded, and not that of SparseTraining: with sparse layers the values would "
                "stand at other weights. Load the states of the model, of the optimizer and of SparseTraining."
            )
        if self._loaded and not replaced and self._optimizers.have_state_of(self._compressed[0].parameter):
            raise UserError(
                "the state of SparseTraining was loaded, and not the optimizer's: with sparse layers its values stand "
                "at other weights now. Load the states of the model, of the optimizer and of SparseTraining."
            )

    def _settle(self) -> None:
        """The weights are what this training has made of them."""
        self._loaded: bool | None = None  # since the last step: whether a state was, and whether it moved sparse layers
        self._writes.settle()
        self._settled = {layer.name: layer.parameter._version for layer in self._compressed}

    def _take_gradients(self, zeta: float | None, scaler: torch.amp.GradScaler | None) -> tuple[bool, Drops | None]:
        """Take in the gradients of a step and mask them; whether an update is possible, and what it drops, if known."""
        if scaler is not None:
            for optimizer in self._optimizers.all:
                _unscale_once(scaler, optimizer)
        others = (parameter.grad for parameter in self._optimizers.parameters())
        overflow = zeta is not None and scaler is not None and not self._step_gradients.finite(others)
        if self._dense_gradient_read():
            self._step_gradients.take(self.steps_done + 1)
        self._gradient_masks.mask_rest()
        self.steps_done += 1
        possible = zeta is not None and self._ranks.all(
            not overflow and all(finite(mean) for mean in self._gradients.mean.values()), self._device
        )
        if zeta is not None and possible and self._topology.drop_reads_gradient:
            return possible, self._topology.drop(zeta, self.steps_done)
        return possible, None

    def _step_by(self, closure: Callable[[], Any], zeta: float | None) -> tuple[bool, Drops | None]:
        """Let an optimizer step that calls the closure itself, as often as it likes; see `_take_gradients`."""
        taken: list[tuple[bool, Drops | None]] = []

        def evaluate() -> Any:
            with torch.enable_grad():
                loss = closure()
            if taken:  # at weights that the optimizer tries out
                self._gradient_masks.mask_rest()
            else:
                taken.append(self._take_gradients(zeta, None))
            return loss

        self._optimizers.step(None, evaluate)
        if not taken:
            raise UserError(f"{type(self.optimizer).__name__} did not call the closure: call backward(), then step().")
        return taken[0]

    def _mask_again(self) -> None:
        """After the step of an optimizer that may not keep zeros."""
        if not self._optimizers.keep_zeros(self._least):
            self._optimizers.observe(self._homes)
            for home in self._homes:
                home.mask(self._optimizers)

    def _check_step(self, scaler: torch.amp.GradScaler | None, closure: Callable[[], Any] | None) -> None:
        if scaler is not None and closure is not None:
            raise UserError("a scaler and a closure do not go together.")
        if scaler is not None and self._compressed and scaler.is_enabled():
            raise UserError(
                "a gradient scaler goes with half precision, and sparse layers with float32: compute=masked"
            )
        if closure is not None and len(self._optimizers.all) > 1:
            raise UserError("a closure goes with one optimizer; call backward(), then step().")
        if self._optimizers.groups_changed():
            self._scope.look(self._optimizers)

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

    @property
    def _device(self) -> torch.device:
        return next(iter(self._weights.values())).parameter.device

    def _why_masked(self) -> str | None:
        """Why this training can have no sparse layers, if so."""
        if not self._ranks.alone or self._masked_late:
            return "train in one process"
        if self._replicated:
            return "cannot be copied by nn.DataParallel"
        if self._compiled:
            return "cannot be compiled"
        if not self._optimizers.elementwise:
            return "need an optimizer that treats every weight for itself"
        if "momentum" in self.rules.needs:
            return "keep no moving average of the dense gradient, which a rule here reads"
        return None

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

        First make model, optimizer and this object, then load the three states, in any order. A model or an optimizer
        whose state was loaded before this object was made has lost some of it: the next forward pass or step raises
        UserError. Where several ranks train, all of them call this, and all take over the state that the first was
        given.

        Raises:
            ValueError: other layers, shapes, counts, rules, seed or training length than this object has.
        """
        state = self._ranks.first(state)
        check_saved(state, self._layers, self.rules, total_steps=self.total_steps, seed=self.seed)
        gradients = state.get("gradients", {"averaged": 0, "mean": {}, "momentum": {}})
        self._gradients.check_state(gradients)
        optimizers = None if self.steps_done else self._optimizers
        self._awaited = Awaited(self._layers, state["layers"], optimizers, self._settled)
        before = [layer.standing for layer in self._compressed]
        for layer in self._layers:
            layer.take_over(state["layers"][layer.name])
        self._gradients.load_state_dict(gradients)
        self.steps_done = state["steps_done"]
        self._topology.updates_done = state["updates_done"]
        for home in self._homes:
            home.mask(self._optimizers)
        self._settle()
        now = [layer.standing for layer in self._compressed]
        self._loaded = not all(map(torch.equal, before, now))

    def _check_loaded(self) -> None:
        """Before the first pass after a state was loaded: whether its weights are there."""
        if self._awaited is not None:
            self._awaited.check()
            self._awaited = None

    def __getstate__(self) -> dict[str, Any]:
        """For `copy.deepcopy` and `pickle`, of model, optimizer and training together."""
        if not self._ranks.alone:
            raise UserError("a training by several processes cannot be copied; use state_dict().")
        return self.__dict__.copy()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._gradient_masks.attach()
        self._writes.attach()
        self._settled = {layer.name: layer.parameter._version for layer in self._compressed}
        for compressed in self._compressed:
            compressed.parameter.become_trained()
            compressed.attach(self._dense_gradient_read)


def _choose_rules(method: str | None, rules: Rules | None, overrides: dict[str, Any]) -> Rules:
    if rules is None:
        return Rules.of_method(method or "set-itop", **overrides)
    if method is not None or overrides:
        given = ", ".join([*(["a method"] if method else []), *overrides])
        raise UserError(f"explicit rules and {given} both given; put everything into the rules.")
    return rules


def _whole(name: str, value: Any) -> int:
    """A setting as an int; UserError where it is no whole number."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    try:
        return operator.index(value)
    except TypeError:
        raise UserError(f"{name} is {value!r}; a whole number expected.") from None


def _unscale_once(scaler: torch.amp.GradScaler, optimizer: torch.optim.Optimizer) -> None:
    """Unscale the gradients, unless the caller has done so to clip them."""
    try:
        scaler.unscale_(optimizer)
    except RuntimeError as error:
        if "already been called" not in str(error):
            raise
