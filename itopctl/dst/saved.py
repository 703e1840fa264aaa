"""Whether a saved state of a sparse training is one for this model, these rules and this length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from itopctl.dst.layer import Layer
from itopctl.dst.rules import Rules

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
        raise ValueError(f"the saved masks are for {list(saved)}, this model's for {names}")
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
