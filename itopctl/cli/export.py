"""`itopctl export`: the trained network of a run as a file for others."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from itopctl.cli.common import (
    DataDirOption,
    ResultsOption,
    RunArgument,
    StoreOption,
    TrustOption,
    print_tables,
    project_of,
)


def _complete_exports(incomplete: str) -> list[str]:
    from itopctl.train.export import FORMATS

    return [name for name in FORMATS if name.startswith(incomplete)]


def export(
    run: RunArgument,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            help="torch: a program that multiplies by nonzeros alone; onnx: a graph with sparse weights; safetensors: "
            "nonzeros and where they stand. Default: as the ending of the output says, else torch.",
            autocompletion=_complete_exports,
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Where to write it. Default: RUN.pt2, .onnx or .safetensors; RUN-dense with --dense.",
            show_default=False,
        ),
    ] = None,
    dense: Annotated[bool, typer.Option("--dense", help="Write weights whole, zeros included.")] = False,
    benchmark: Annotated[
        bool,
        typer.Option(
            "--benchmark",
            help="Time it beside the network with whole weights in PyTorch; by one thread, or by OMP_NUM_THREADS.",
        ),
    ] = False,
    trust: TrustOption = False,
    json: Annotated[bool, typer.Option("--json", help="Tell of it as JSON.")] = False,
    results: ResultsOption = None,
    data_dir: DataDirOption = None,
    store: StoreOption = None,
) -> None:
    """Write the trained network of a finished run to a file that is read without itopctl.

    The file is read back and compared before it is written, on the test set where that is here.
    """  # fmt: skip
    from itopctl.report.export import export_tables

    project = project_of(results, store, data_dir)
    made = project.export(run, output, format=format_, dense=dense, benchmark=benchmark, trust=trust).record()
    if json:
        typer.echo(json_module.dumps(made, indent=1))
    else:
        print_tables(export_tables(made), "rich")
