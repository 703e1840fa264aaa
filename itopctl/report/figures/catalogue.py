"""The figures by name.

A new one is a module here, with one decorated function that draws:

    @FIGURES.add("mine", source="where it comes from", records=my_records, curves=("train_loss",))
    def draw(records, look):
        "One line that `itopctl plot --help` shows."
        ...

`records` makes the figure's data from a `Material`; `curves` names what it reads of the epochs (none if not given), and
`layers=True` says that it reads the layers. The modules are light: matplotlib is imported when one draws.
"""

from __future__ import annotations

from itopctl.catalogue import Catalogue

FIGURES = Catalogue(
    "figure",
    tuple(
        f"itopctl.report.figures.{module}"
        for module in ("exploration", "interval", "rs_accuracy", "sparsity", "layers", "learning")
    ),
)
