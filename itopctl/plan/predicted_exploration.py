"""The exploration rate that a run is predicted to reach, from its settings and its layers alone. Light: no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from itopctl.catalogue import GROWTHS
from itopctl.config.run_config import RunConfig
from itopctl.dst.expected import Known, Shares, how_known, predicted_layer_exploration, weighted
from itopctl.dst.rules import Rules
from itopctl.errors import UserError

_ROLES = {"drop": "magnitude", "redistribution": "none", "allocation": None}
"""What stands for the rules of a config where no more than the number of replaced weights is asked for."""


def predicted_exploration(config: Mapping[str, Any], layers: Iterable[Mapping[str, Any]]) -> tuple[float | None, Known]:
    """R_s of a run at the end of its training as it is predicted before, and how well that is known.

    Functions of the user's own that the config names are not imported, so that anybody's results can be looked at.

    Args:
        config: the run's resolved config, as plain data (the store's column `config`).
        layers: its maskable layers, each with `name`, `size` and `active` (the store's table `layers`). Where weights
            move between layers these counts are those at the end, and the prediction is approximate anyway.

    Returns:
        The rate in [0, 1], or None where nothing can be said, and how well it is known
        (`itopctl.dst.expected.Known`).
    """
    shares = {str(layer["name"]): (int(layer["active"]), int(layer["size"])) for layer in layers}
    rates, known = predicted_layers(config, shares)
    return (None, "unknown") if rates is None or not shares else (weighted(rates, shares), known)


def predicted_layers(config: Mapping[str, Any], shares: Shares) -> tuple[dict[str, float] | None, Known]:
    """R of each layer, as in `predicted_exploration`; `shares`: layer → (active weights, weights)."""
    try:
        run = RunConfig.model_validate(config)
        steps = run.total_steps
    except (ValueError, UserError):  # of another version, or of a data set that is not known here
        return None, "unknown"
    if run.drop is None or run.growth is None:
        return predicted_layer_exploration(Rules(), shares, steps)
    known = how_known(run.drop, run.growth, run.redistribution or "none", import_own=False)
    growth = run.growth if run.growth in GROWTHS else "random-unexplored"
    return predicted_layer_exploration(
        Rules.of_settings({**run.model_dump(), **_ROLES, "growth": growth}), shares, steps, known
    )
