"""Whether a saved state of a sparse training is one for this model, these rules and this length, and its weights are
there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from itopctl.dst.layer import Layer
from itopctl.dst.optimizers import Optimizers
from itopctl.dst.rules import Rules
from itopctl.errors import UserError

_RIGHT_ORDER = (
    "Make the model, the optimizer and SparseTraining first; then load the states of the model, of the optimizer and "
    "of SparseTraining."
)
_PARTS = {"steps_done", "updates_done", "total_steps", "seed", "layers"}


def check_saved(state: dict[str, Any], layers: Sequence[Layer], rules: Rules, **position: int) -> None:
    """Raise ValueError unless a training like this one gave a state; nothing is changed.

    Args:
        state: of `SparseTraining.state_dict`.
        layers: those that have inactive weights.
        rules: of the training.
        **position: `total_steps` and `seed` of the training.
    """
    missing = _PARTS - set(state)
    if missing:
        raise ValueError(f"this is no state of a sparse training: it lacks {', '.join(sorted(missing))}")
    saved, names = state["layers"], [layer.name for layer in layers]
    if list(saved) != names:
        raise ValueError(
            f"the saved state has masks for {list(saved)}, this training for {names}: it is of another model, or of "
            "another sparsity or allocation"
        )
    for key, own in position.items():
        if state[key] != own:
            raise ValueError(f"the saved state has {key} {state[key]}, this training {own}")
    own_rules = asdict(rules)
    other = [name for name, value in state.get("rules", own_rules).items() if own_rules.get(name) != value]
    if other:
        raise ValueError(f"the saved state is of a training with other rules: {', '.join(other)}")
    for layer in layers:
        layer.check_saved(saved[layer.name])
    _check_counts(saved, layers, shared=rules.redistribution != "none")


def _check_counts(saved: dict[str, Any], layers: Sequence[Layer], shared: bool) -> None:
    """Raise ValueError unless as many weights are active as have to be, in each layer or, `shared`, in all."""
    found = {layer.name: layer.saved_count(saved[layer.name]) for layer in layers}
    if shared:
        total = sum(layer.active_count for layer in layers)
        if sum(found.values()) != total:
            raise ValueError(f"{sum(found.values())} weights saved, {total} expected")
        return
    for layer in layers:
        if found[layer.name] != layer.active_count:
            raise ValueError(f"{layer.name}: {found[layer.name]} weights saved, {layer.active_count} expected")


class Awaited:
    """Whether the weights that belong to a loaded state are there.

    `SparseTraining` zeroes weights when it is made. Where a model's state was loaded before, the weights that the saved
    masks call active are gone then; where it is still to be loaded, they are not there yet. What tells is that weights
    are zero which were not when the state was saved. `SparseTraining` clears optimizer state, too. What tells of that
    is that the optimizer still has the state that it had then.

    Args:
        layers: before they take the state over.
        saved: name of each → its saved entry.
        optimizers: of a training that has made no step yet.
        versions: name of each sparse layer → version of its weight when the training last wrote it.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        saved: dict[str, Any],
        optimizers: Optimizers | None,
        versions: Mapping[str, int],
    ) -> None:
        self._layers, self._saved, self._optimizers, self._versions = layers, saved, optimizers, versions
        self._before = {layer.name: layer.active_positions() for layer in layers}

    def check(self) -> None:
        """Raise UserError where the weights, or the optimizer's state, are not there."""
        self._check_weights()
        self._check_optimizers()

    def _check_weights(self) -> None:
        missing = 0
        for layer in self._layers:
            now = layer.active_positions()
            new = self._new(layer)
            if layer.backend == "sparse":
                if self._versions[layer.name] == layer.parameter._version:
                    missing += new.numel()
            elif new.numel() and "nonzeros" in self._saved[layer.name]:  # states of old do not say it
                if bool(layer.values(new).any()):
                    return
                missing += max(0, self._saved[layer.name]["nonzeros"] - int(torch.count_nonzero(layer.values(now))))
        if missing:
            raise UserError(
                f"the weights are not those of the loaded state: {missing:,} that are active in it are not there. "
                f"{_RIGHT_ORDER}"
            )

    def _check_optimizers(self) -> None:
        if self._optimizers is None or not self._optimizers.begun_with_state():
            return
        if any(layer.backend == "masked" and self._new(layer).numel() for layer in self._layers):
            raise UserError(
                "the optimizer's state is not that of the loaded state: it was loaded before SparseTraining was made, "
                f"which cleared some of it. {_RIGHT_ORDER}"
            )

    def _new(self, layer: Layer) -> Tensor:
        """Flat positions, active now, that were not before the state was taken over."""
        now = layer.active_positions()
        return now[~torch.isin(now, self._before[layer.name])]
