"""`itopctl plot`: figures of results."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.cli.common import StoreOption, SweepsArgument, check_folder, open_results
from itopctl.errors import EnvironmentUnfitError, UserError, unknown

if TYPE_CHECKING:
    from itopctl.store.database import Store


def _complete_figures(incomplete: str) -> list[str]:
    from itopctl.report.figures.catalogue import FIGURES

    return [name for name in FIGURES.names() if name.startswith(incomplete)]


def _complete_widths(incomplete: str) -> list[str]:
    from itopctl.report.figures.style import WIDTHS

    return [name for name in WIDTHS if name.startswith(incomplete)]


def _complete_best_by(incomplete: str) -> list[str]:
    from itopctl.report.groups import BEST_BY

    return [name for name in BEST_BY if name.startswith(incomplete)]


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
            autocompletion=_complete_best_by,
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
    from itopctl.api.figures import material_of
    from itopctl.report.figures.catalogue import FIGURES
    from itopctl.report.figures.make import ENDINGS, as_csv, encoded, figure_records, picture
    from itopctl.report.figures.style import WIDTHS, Look
    from itopctl.report.groups import BEST_BY
    from itopctl.report.versions import version_notes
    from itopctl.store.queries import check_sweeps

    entry = FIGURES.get(figure)
    if width not in WIDTHS:
        raise UserError(f"--width: {unknown('width', width, WIDTHS)}")
    if best_by not in BEST_BY:
        raise UserError(f"--best-by: {unknown('choice', best_by, BEST_BY)}")
    output = output or Path(f"{figure}.svg")
    ending = output.suffix.lower().removeprefix(".")
    if not ending:
        raise UserError(f"-o {output}: it has no ending; .png, .svg or .pdf says what to write.")
    if ending not in ENDINGS:
        raise UserError(f"-o {output}: {unknown('ending', output.suffix, [f'.{name}' for name in ENDINGS])}")
    if len(results or []) > 1:
        raise UserError("--results: a figure is made from one results folder; found several.")
    check_folder(output)
    _, opened = open_results(next(iter(results or []), None), store)
    check_sweeps(opened, sweeps or [])
    runs = _runs(opened, sweeps or [], best_by)
    for note in version_notes(runs):
        typer.echo(f"itopctl: {note}", err=True)
    material = material_of(runs, opened, best_by, [entry])
    records = figure_records(figure, material)
    drawn = encoded(picture(figure, records, Look(width, title, best_by)), ending)
    data = output.with_suffix(".csv")
    for path, content in ((output, drawn), (data, as_csv(records).encode())):
        _write(path, content)
    typer.echo(f"{output}, and its data: {data}")


def _runs(store: Store, sweeps: list[str], best_by: str) -> list[dict[str, Any]]:
    """What figures need of runs, as the store has it."""
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


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise EnvironmentUnfitError(f"{path} cannot be written: {error.strerror}.") from error
