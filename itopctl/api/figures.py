"""What figures are made from, as stores have it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from itopctl.errors import EnvironmentUnfitError

if TYPE_CHECKING:
    from itopctl.catalogue import Entry
    from itopctl.report.figures.figure_data import Material
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
    from itopctl.report.figures.figure_data import Material, published_points
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


def runs_for_figures(store: Store, sweeps: Sequence[str], best_by: str) -> list[dict[str, Any]]:
    """What figures need of the runs of some sweeps, or of all. Raises EnvironmentUnfitError where there are none."""
    from itopctl.api.sources import add_settings
    from itopctl.report.groups import measured_fields
    from itopctl.store.queries import select_runs

    columns = (
        "run_id", "dataset", "model", "method", "sparsity", "seed", "state", "test_accuracy", "final_density", "config",
        *(name for name in ("exploration_rate", *measured_fields(best_by)) if name != "test_accuracy"),
    )  # fmt: skip
    runs = select_runs(store, sweeps, columns=tuple(dict.fromkeys(columns)))
    if not runs:
        raise EnvironmentUnfitError("there are no runs to draw yet.")
    add_settings(runs, [store], sweeps)
    return runs
