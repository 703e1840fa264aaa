"""The dense gradient, for the rules that read it: kept aside before gradients are masked.

Two things are made of it. The mean over the last `gradient_batches` steps before an update (RigL, with the accumulation
of rigl-torch: mean first, absolute value after); its memory is held only in that window. And, where a rule reads
momentum, a moving average over all steps (SNFS): of the *dense* gradient, so that an inactive weight has one, too. Of a
sparse layer the mean of one step is kept as the factors of the gradient, and multiplied out when it is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from itopctl.dst.layer import Layer
from itopctl.dst.rules import Rules
from itopctl.dst.schedule import next_update
from itopctl.dst.sparse.factored import FactoredGradient

DenseGradient = Tensor | FactoredGradient
"""The dense gradient of a layer: of a masked one as it is, of a sparse one as what it is made of."""


def multiplied_out(gradient: DenseGradient) -> Tensor:
    """A dense gradient as a tensor of the weight's shape."""
    return gradient.dense() if isinstance(gradient, FactoredGradient) else gradient


class DenseGradients:
    """What rules need of the dense gradients of the masked layers.

    Args:
        layers: those that have inactive weights.
        rules: say what is needed.
        total_steps: of the training.
    """

    def __init__(self, layers: list[Layer], rules: Rules, total_steps: int) -> None:
        needs = rules.needs if layers else frozenset()
        self._layers, self._rules, self._total_steps = layers, rules, total_steps
        self._window = int(rules.needed("gradient_batches")) if "gradient" in needs else 0
        self._decay = float(rules.needed("momentum_decay"))
        self.momentum: dict[str, Tensor] = {}
        if "momentum" in needs:
            self.momentum = {layer.name: layer.zeros() for layer in layers}
        self.mean: dict[str, DenseGradient] = {}
        self._averaged = 0
        self._finite_part: dict[torch.dtype, Tensor] = {}

    def wanted(self, step: int) -> bool:
        """Whether the dense gradient of step `step` (from 1) is read."""
        if not self.momentum and not self._window:
            return False
        due = next_update(self._rules, step, self._total_steps)
        return due is not None and (bool(self.momentum) or due - step < self._window)

    @torch.no_grad()
    def take(self, step: int, gradients: Mapping[str, DenseGradient]) -> None:
        """Take in the dense gradient of a step; called once a step, where it is wanted.

        Args:
            step: from 1.
            gradients: layer → its dense gradient. Tensors are read only, and not held on to.
        """
        due = next_update(self._rules, step, self._total_steps)
        if self._window and due is not None and due - step < self._window:
            self._averaged += 1
            for name, gradient in gradients.items():
                if self._averaged > 1:
                    multiplied_out(self.mean[name]).lerp_(multiplied_out(gradient), 1 / self._averaged)
                elif isinstance(gradient, Tensor):
                    self.mean[name] = gradient.clone()
                else:
                    self.mean[name] = gradient if self._window == 1 else gradient.dense()
        for name, average in self.momentum.items():
            # A gradient that overflowed counts as zero: it must not stay in the average for good.
            average.lerp_(self._without_overflow(multiplied_out(gradients[name]), average), 1.0 - self._decay)

    def forget(self) -> None:
        """Let the mean go: its update is over."""
        self.mean.clear()
        self._averaged = 0

    def state_dict(self) -> dict[str, Any]:
        """Copies of what the next update will read of the steps so far."""
        return {
            "averaged": self._averaged,
            "mean": {name: multiplied_out(mean).clone() for name, mean in self.mean.items()},
            "momentum": {name: momentum.clone() for name, momentum in self.momentum.items()},
        }

    def check_state(self, state: dict[str, Any]) -> None:
        """Raise ValueError unless `state_dict` gave this state for layers and rules like these."""
        shapes = {layer.name: torch.Size(layer.shape) for layer in self._layers}
        for kind, expected in (("momentum", set(self.momentum)), ("mean", set(state["mean"]) and set(shapes))):
            if set(state[kind]) != expected:
                raise ValueError(f"the saved state has the {kind} of the gradients of {sorted(state[kind])}, "
                                 f"this training needs it of {sorted(expected)}")  # fmt: skip
            for name, tensor in state[kind].items():
                if tensor.shape != shapes[name]:
                    raise ValueError(
                        f"{name}: saved {kind} of shape {list(tensor.shape)}, model's {list(shapes[name])}"
                    )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that was checked."""
        zeros = {layer.name: layer.zeros for layer in self._layers}
        self._averaged = state["averaged"]
        self.mean = {name: zeros[name]().copy_(mean) for name, mean in state["mean"].items()}
        for name, momentum in self.momentum.items():
            momentum.copy_(state["momentum"][name])

    def _without_overflow(self, gradient: Tensor, like: Tensor) -> Tensor:
        size = gradient.numel()
        scratch = self._finite_part.get(gradient.dtype)
        if scratch is None or scratch.numel() < size:
            largest = max(layer.size for layer in self._layers)
            scratch = self._finite_part[gradient.dtype] = torch.empty(largest, dtype=gradient.dtype, device=like.device)
        finite = scratch[:size].view(gradient.shape)
        return torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0, out=finite)


def finite(tensor: DenseGradient) -> bool:
    """Whether every entry is finite. Waits for the device."""
    if isinstance(tensor, FactoredGradient):
        return tensor.finite()
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    if tensor.numel() == 0:
        return True
    low, high = tensor.detach().aminmax()
    return bool(low.isfinite() & high.isfinite())
