"""What figures are made from, as stores have it. What `plot` and the page of `report` share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from itopctl.catalogue import Entry
    from itopctl.report.figures.material import Material
    from itopctl.store.database import Store


def needs_history(figure: Entry) -> bool:
    """Whether a figure reads more than the records of runs: what they measured after each epoch, or their layers."""
    return bool(figure.options.get("curves") or figure.options.get("layers"))


def material_of(
    runs: Sequence[dict[str, Any]], store: Store | None, best_by: str, figures: Iterable[Entry]
) -> Material:  # fmt: skip
    """What some figures need of some runs.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with `run_id` and `final_density`.
        store: that has their histories; None: figures that need them cannot be drawn.
        best_by: which accuracy counts (`itopctl.report.groups.BEST_BY`).
        figures: of `itopctl.report.figures.catalogue.FIGURES`.
    """
    from itopctl.catalogue import METHODS
    from itopctl.report.figures.material import Material, published_points
    from itopctl.report.groups import studies
    from itopctl.store.histories import mean_curves, mean_layers

    found = studies(runs, METHODS.names())
    material = Material(found, best_by, published_points(found))
    if store is None:
        return material
    wanted = list(figures)
    curves = tuple(dict.fromkeys(name for figure in wanted for name in figure.options.get("curves", ())))
    if curves:
        material = replace(material, curves=mean_curves(store, material.run_ids(), curves))
    if any(figure.options.get("layers") for figure in wanted):
        material = replace(material, layers=mean_layers(store, material.run_ids()))
    return material
