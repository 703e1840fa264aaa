"""The figures and verdicts of the page of `itopctl report --format html`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from itopctl.errors import EnvironmentUnfitError, UserError

if TYPE_CHECKING:
    from itopctl.report.page import Figure
    from itopctl.report.table import Table
    from itopctl.store.database import Store

Record = dict[str, Any]

_TITLES = {  # in an order that puts figures of one height side by side
    "rs-accuracy": "Accuracy against exploration rate",
    "sparsity": "Accuracy against sparsity",
    "exploration": "Exploration over training",
    "learning": "Learning curves",
    "interval": "Accuracy against update interval",
    "layers": "Density and exploration of layers",
}


def figures_of(runs: Sequence[Record], stores: Sequence[Store], best_by: str) -> tuple[list[Figure], list[str]]:
    """Every figure that can be drawn from some runs, and a sentence for each that cannot.

    Args:
        runs: records as `itopctl.report.groups.studies` takes them, with `run_id`.
        stores: those that have their histories. Averages are made in one store, so with several there are only the
            figures that need no history.
        best_by: which accuracy counts.
    """
    from itopctl.api.figures import material_of, needs_history
    from itopctl.report.figures.catalogue import FIGURES
    from itopctl.report.figures.make import as_csv, encoded, figure_records, picture
    from itopctl.report.figures.style import Look
    from itopctl.report.page import Figure

    begun = [{"final_density": run["density"], **run} for run in runs]
    material = material_of(begun, stores[0] if len(stores) == 1 else None, best_by, FIGURES)
    look = Look(best_by=best_by)
    drawn, left_out = [], []
    for name in dict.fromkeys([*(name for name in _TITLES if name in FIGURES.names()), *FIGURES.names()]):
        entry = FIGURES.get(name)
        if needs_history(entry) and len(stores) > 1:
            left_out.append(f"The figure {name} is left out: the histories of its runs are in several stores.")
            continue
        try:
            records = figure_records(name, material)
            svg = encoded(picture(name, records, look), "svg").decode()
        except (UserError, EnvironmentUnfitError) as error:  # nothing to draw, or too much
            left_out.append(f"The figure {name} is left out: {error}")
            continue
        caption = entry.summary[:1].upper() + entry.summary[1:] + "."
        drawn.append(Figure(name, _TITLES.get(name, name), caption, svg, as_csv(records)))
    return drawn, left_out


def verdicts_of(
    runs: Sequence[Record], best_by: str, margin: float | None = None, confidence: float | None = None
) -> list[Table]:
    """The tables of claims; `margin` and `confidence` as `itopctl.report.claims.claims_tables` has them."""
    from itopctl.catalogue import METHODS
    from itopctl.report.claims import claims_tables

    return [table for table in claims_tables(runs, METHODS.names(), best_by, margin, confidence) if table.rows]
