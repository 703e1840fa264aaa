"""`itopctl plot`: figures of results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itopctl.api.files import check_folder, write_file
from itopctl.cli.common import StoreOption, SweepsArgument, complete_best_by, project_of
from itopctl.errors import UserError, unknown


def _complete_figures(incomplete: str) -> list[str]:
    from itopctl.report.figures.catalogue import FIGURES

    return [name for name in FIGURES.names() if name.startswith(incomplete)]


def _complete_widths(incomplete: str) -> list[str]:
    from itopctl.report.figures.style import WIDTHS

    return [name for name in WIDTHS if name.startswith(incomplete)]


def plot(
    figure: Annotated[
        str,
        typer.Argument(
            metavar="FIGURE",
            help="exploration: R_s over training; interval: accuracy against ΔT, R_s as colour; rs-accuracy: every run "
            "a point; sparsity: accuracy against sparsity; layers: density and R_s per layer; learning: curves.",
            autocompletion=_complete_figures,
        ),
    ],
    sweeps: SweepsArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write it: .svg, .pdf or .png; the data goes beside it, as .csv. Default: FIGURE.svg.",
            show_default=False,
        ),
    ] = None,
    width: Annotated[
        str,
        typer.Option("--width", help="column or page, of a paper in two columns.", autocompletion=_complete_widths),
    ] = "column",
    title: Annotated[bool, typer.Option("--title/--no-title", help="Model and data set above it.")] = True,
    best_by: Annotated[
        str,
        typer.Option(
            "--best-by",
            help="final: the accuracy after the last step; validation: at the best validation accuracy.",
            autocompletion=complete_best_by,
        ),
    ] = "final",
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--results", help="Folder of runs and store. Default: $ITOPCTL_RESULTS or ./results.", show_default=False
        ),
    ] = None,
    store: StoreOption = None,
) -> None:
    """Draw a figure from the runs of some sweeps, or of all; its data is written beside it as CSV."""
    from itopctl.report.figures.catalogue import FIGURES
    from itopctl.report.figures.make import ENDINGS, as_csv, encoded, picture

    FIGURES.get(figure)
    output = output or Path(f"{figure}.svg")
    ending = output.suffix.lower().removeprefix(".")
    if not ending:
        raise UserError(f"-o {output}: it has no ending; .png, .svg or .pdf says what to write.")
    if ending not in ENDINGS:
        raise UserError(f"-o {output}: {unknown('ending', output.suffix, [f'.{name}' for name in ENDINGS])}")
    if len(results or []) > 1:
        raise UserError("--results: a figure is made from one results folder; found several.")
    check_folder(output)
    project = project_of(results, store)
    records, look = project.figure_data(figure, *(sweeps or []), width=width, title=title, best_by=best_by)
    drawn = encoded(picture(figure, records, look), ending)
    data = output.with_suffix(".csv")
    for path, content in ((output, drawn), (data, as_csv(records).encode())):
        write_file(path, content)
    typer.echo(f"{output}, and its data: {data}")
