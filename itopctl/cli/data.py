"""`itopctl data`: which data sets are there, fetching one, checking one."""

from __future__ import annotations

from typing import Annotated

import typer

from itopctl.cli.common import DataDirOption, FormatOption, JsonOption, check_format, print_tables
from itopctl.errors import EnvironmentUnfitError, ItopctlError

app = typer.Typer(help="List, fetch and check data sets.", no_args_is_help=True)


def _complete_datasets(incomplete: str) -> list[str]:
    from itopctl.catalogue import DATASETS

    return [name for name in DATASETS.names() if name.startswith(incomplete)]


DatasetArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of a data set.", autocompletion=_complete_datasets)
]


@app.command("list")
def list_datasets(data_dir: DataDirOption = None, format_: FormatOption = "rich", json: JsonOption = False) -> None:
    """List the data sets, and whether each is there."""
    from itopctl.catalogue import DATASETS
    from itopctl.report.quantity import Quantity
    from itopctl.report.table import Cell, Column, Table
    from itopctl.train.data.catalogue import data_folder, locate

    style = check_format(format_, json)
    records = []
    for entry in DATASETS:
        try:
            folder = locate(entry.name, data_folder(data_dir))
            where = str(folder) if folder else "built in"
        except EnvironmentUnfitError:
            where = None
        options = entry.options
        records.append({
            "name": entry.name, "train": options["train"], "test": options["test"], "classes": options["classes"],
            "shape": list(options["shape"]), "found": where, "summary": entry.summary,
        })  # fmt: skip
    rows = [
        [
            Cell(r["name"]), Cell(f"{r['train']:,} + {r['test']:,}"), Cell("×".join(map(str, r["shape"]))),
            Cell(Quantity.of(r["classes"], "")), Cell(r["found"] or "missing", style="" if r["found"] else "red"),
        ]
        for r in records
    ]  # fmt: skip
    columns = [
        Column("name"), Column("train + test", "right"), Column("shape", "right"), Column("classes", "right"),
        Column("where"),
    ]  # fmt: skip
    print_tables([Table("", columns, rows, records)], style)


@app.command("fetch")
def fetch(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Download a data set with torchvision, into the data folder."""
    from itopctl.catalogue import DATASETS
    from itopctl.train.data.catalogue import data_folder, locate
    from itopctl.train.data.fetch import download

    options = DATASETS.get(name).options
    folder = data_folder(data_dir)
    if "torchvision" not in options:
        typer.echo(f"{name} is built in; there is nothing to fetch.")
        return
    try:
        typer.echo(f"{name} is there already, in {locate(name, folder)}.")
        return
    except EnvironmentUnfitError:
        pass
    download(name, folder)
    typer.echo(f"{name} is in {locate(name, folder)}.")


@app.command("check")
def check(name: DatasetArgument, data_dir: DataDirOption = None) -> None:
    """Read a data set whole, and compare its files with the published checksums."""
    from itopctl.catalogue import DATASETS
    from itopctl.train.data.catalogue import data_folder, locate
    from itopctl.train.data.fetch import compare_checksums

    DATASETS.get(name)
    folder = locate(name, data_folder(data_dir))
    raw = DATASETS.function(name)(folder)
    options = DATASETS.get(name).options
    counts = (len(raw.train_images), len(raw.test_images))
    if counts != (options["train"], options["test"]):
        raise EnvironmentUnfitError(
            f"{name} has {counts[0]:,} + {counts[1]:,} images where {options['train']:,} + {options['test']:,} belong."
        )
    typer.echo(
        f"{name}: {counts[0]:,} + {counts[1]:,} images of {'×'.join(map(str, raw.train_images.shape[1:]))}, whole."
    )
    if folder is not None:
        found = compare_checksums(name, folder)
        if found.different:
            raise ItopctlError(f"{name}: not as published: {', '.join(found.different)}.")
        if found.same:
            typer.echo(f"As published: {', '.join(found.same)}.")
        if found.repacked:
            typer.echo(f"Packed anew, so its checksum says nothing: {', '.join(found.repacked)}.")
