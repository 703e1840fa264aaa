"""`itopctl export`: the trained network of a run as a file for others."""

from __future__ import annotations

import contextlib
import importlib.util
import json as json_module
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from itopctl.catalogue import modules_named
from itopctl.cli.common import (
    DataDirOption,
    ResultsOption,
    RunArgument,
    StoreOption,
    TrustOption,
    check_folder,
    ending_of,
    open_results,
    print_tables,
    refuse_untrusted,
)
from itopctl.errors import DataUnfitError, EnvironmentUnfitError, ItopctlError, UserError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from itopctl.report.table import Record
    from itopctl.spec.config import RunConfig
    from itopctl.spec.own_code import OwnCode
    from itopctl.store.rundir import Results, RunDirectory
    from itopctl.train.export import Format
    from itopctl.train.export.network import TrainedNetwork


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
    from itopctl.places import current_folder
    from itopctl.report.export import export_tables
    from itopctl.spec.own_code import OwnCode
    from itopctl.store.files import write_whole
    from itopctl.store.queries import find_run, run_details
    from itopctl.train.data.catalogue import data_folder
    from itopctl.train.export.check import accuracy, check_alike, few_threads, timings

    kind = _kind(format_, output)
    current_folder()  # is there: PyTorch ends the process where it is not
    check_folder(output)
    missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise EnvironmentUnfitError(f"--format {kind.name} needs {', '.join(missing)}: pip install 'itopctl[export]'.")
    folder, opened = open_results(results, store)
    details = run_details(opened, find_run(opened, run))
    data_sets = data_folder(data_dir)
    network = _network(folder, details, data_sets, trust)
    path = _target(output or Path(f"{network.run_id}{'-dense' * dense}{kind.suffix}"))
    found, timed, threads, notes = None, [], None, _changed(network.config, OwnCode())
    with _explained(kind, network, dense):
        module = kind.load()
        data = module.written(network, not dense)
        read: Callable[[Tensor], Tensor] | None = module.reader(data, network)
        if read is None:
            notes.append("Not read back: onnxruntime is not installed here.")
        else:
            check_alike(network, read)
            try:
                found = accuracy(read, _images(network.config, data_sets).test)
            except DataUnfitError as error:
                notes.append(f"Accuracy not measured: {error}")
            if benchmark and kind.computes:
                with few_threads() as threads:
                    timed = list(timings(network, module.reader(data, network)))  # which counts threads when it is made
    if benchmark and not kind.computes:
        notes.append("Not timed: weights alone compute nothing.")
    write_whole(path, data)
    record: Record = {
        "run_id": network.run_id, "format": kind.name, "dense": dense, "path": str(path), "bytes": len(data),
        "dense_bytes": 4 * network.parameters, "numbers": network.parameters, "nonzeros": network.nonzeros,
        "test_accuracy": found, "recorded_test_accuracy": details["test_accuracy"],
        "timings": [vars(timing) for timing in timed], "threads": threads,
        "notes": notes,
    }  # fmt: skip
    if json:
        typer.echo(json_module.dumps(record, indent=1))
    else:
        print_tables(export_tables(record), "rich")


@contextlib.contextmanager
def _explained(kind: Format, network: TrainedNetwork, dense: bool) -> Iterator[None]:
    """Raise ItopctlError for whatever goes wrong where a network is written down and read again."""
    from itopctl.dispatch.recorder import one_line

    try:
        yield
    except ItopctlError:
        raise
    except Exception as error:  # whatever a model does that cannot be written down
        said = re.sub(r"\x1b\[[0-9;]*m", "", one_line(error))
        others = ["--dense"] if kind.computes and not dense else []
        others += ["--format safetensors, which is weights alone,"] if kind.computes else []
        raise ItopctlError(
            f"model {network.config.model!r} cannot be written as {kind.name}: {said}"
            + f". {' or '.join(others)} may do." * bool(others)
        ) from error


def _kind(name: str | None, output: Path | None) -> Format:
    """The format asked for: by name, by the output's ending, else the first. Raises UserError where these disagree."""
    from itopctl.train.export import FORMATS

    ending = ending_of(output) if output is not None else ""
    said = next((one for one in FORMATS.values() if one.suffix == ending), None)
    if name is None:
        if ending and said is None:
            endings = [one.suffix for one in FORMATS.values()]
            raise UserError(f"-o {output}: {unknown('ending', ending, endings)} Or name the --format.")
        return said or next(iter(FORMATS.values()))
    if name not in FORMATS:
        raise UserError(f"--format: {unknown('format', name, FORMATS)}")
    if said is not None and said.name != name:
        raise UserError(f"-o {output}: {ending} is the ending of --format {said.name}, and --format {name} was given.")
    return FORMATS[name]


def _target(path: Path) -> Path:
    """Where to write: what a link leads to. Raises UserError for what is no place for a file."""
    if not path.name or (path.exists() and not path.is_file()):
        raise UserError(f"--output: {str(path)!r} is no file.")
    return path.resolve() if path.is_symlink() else path


def _images(config: RunConfig, data: Path) -> Any:
    import torch

    from itopctl.train.data.tensors import load_images

    return load_images(config.dataset, config.validation, data.resolve(), torch.device("cpu"))


def _network(folder: Results, details: Record, data: Path, trust: bool) -> TrainedNetwork:
    """The trained network of a run.

    Raises:
        UserError: it is not finished, or kept none. EnvironmentUnfitError: what it kept is damaged.
    """
    from itopctl.dispatch.recorder import one_line
    from itopctl.dispatch.run_files import load_config
    from itopctl.spec.own_code import OwnCode
    from itopctl.train.export.network import trained_network

    run, state = folder.run(details["run_id"]), details["state"]
    if state != "done":
        raise UserError(
            f"run {run.run_id} is not finished ({state}): its network is exported when training has come to the end."
        )
    try:
        config = load_config(run)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EnvironmentUnfitError(f"what run {run.run_id} was cannot be read: {one_line(error)}") from error
    own_code = OwnCode()
    if not trust:
        named = {config.model} & own_code.untrusted(config, folder.path)
        refuse_untrusted(named, also=_changed(config, own_code))
    kept = _kept(run)
    try:
        if "mean" not in kept:  # a checkpoint
            images = _images(config, data)
            kept = {**kept, "mean": images.mean, "std": images.std}
        return trained_network(run.run_id, config, kept)
    except ItopctlError:
        raise
    except Exception as error:  # a file of somebody else's, or another model under the same name, may make it any
        raise EnvironmentUnfitError(
            f"the network that run {run.run_id} kept does not fit its model: {one_line(error)}"
        ) from error


def _changed(config: RunConfig, own_code: OwnCode) -> list[str]:
    """A sentence where the model is not the code that the run was made by."""
    differences = own_code.differences(config)
    return [differences[module] for module in modules_named([config.model]) if module in differences]


def _kept(run: RunDirectory) -> dict[str, Any]:
    """What a finished run kept of its network: that alone, or its last checkpoint."""
    from itopctl.store.checkpoints import checkpoints
    from itopctl.store.files import read_bytes
    from itopctl.train.checkpoint import decode

    try:
        if run.network.exists():
            return decode(read_bytes(run.network))
        for newest in checkpoints(run):
            return decode(newest.read())
    except (OSError, ValueError, MemoryError) as error:
        raise EnvironmentUnfitError(f"the network that run {run.run_id} kept cannot be read: {error}") from error
    raise UserError(
        f"run {run.run_id} kept no network: it was trained with keep_network: false or by an older itopctl, or was "
        f"imported, which brings none. Remove {run.path} and sweep again to train it anew."
    )
