"""`itopctl doctor`: is this machine, and the cluster, fit to run sweeps?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from itopctl.cli.common import (
    DataDirOption,
    FormatOption,
    JsonOption,
    ResultsOption,
    check_format,
    print_tables,
    project_of,
)
from itopctl.cli.run_options import SlurmOption
from itopctl.errors import EnvironmentUnfitError

_MARKS = {"ok": "✓", "note": "·", "problem": "✗"}
_STYLES = {"ok": "green", "note": "", "problem": "red"}


def doctor(
    specs: Annotated[
        list[Path] | None, typer.Argument(metavar="[SPEC]...", help="Specs whose data and options to look at.")
    ] = None,
    probe: Annotated[bool, typer.Option("--probe", help="Submit a one-minute test job to a compute node.")] = False,
    patience: Annotated[
        int, typer.Option("--patience", min=1, metavar="MINUTES", help="How long to wait for that job.")
    ] = 10,
    slurm: SlurmOption = None,
    results: ResultsOption = None,
    data_dir: DataDirOption = None,
    format_: FormatOption = "rich",
    json: JsonOption = False,
) -> None:
    """Look whether SLURM is there, which partitions and GPUs it has, and whether results and data can be reached."""
    from itopctl.report.table import Cell, Column, Table

    style = check_format(format_, json)
    findings = project_of(results, data=data_dir).doctor(specs or [], probe=probe, minutes=patience, slurm=slurm or [])
    rows = [
        [Cell(_MARKS[f.kind], style=_STYLES[f.kind]), Cell(f.subject), Cell(f.answer, style=_STYLES[f.kind])]
        for f in findings
    ]
    notes = [] if probe else ["`itopctl doctor SPEC --probe` looks from a node, too."]
    columns = [Column(""), Column("what", whole=True), Column("found")]
    print_tables([Table("", columns, rows, list(map(vars, findings)), notes)], style)
    bad = any(finding.kind == "problem" for finding in findings)
    raise typer.Exit(EnvironmentUnfitError.exit_code if bad else 0)
