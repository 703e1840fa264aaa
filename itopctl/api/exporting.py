"""The trained network of a run as a file for others."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.api.files import check_folder, ending_of
from itopctl.catalogue import modules_named
from itopctl.errors import DataUnfitError, EnvironmentUnfitError, ItopctlError, UserError, unknown
from itopctl.places import current_folder

if TYPE_CHECKING:
    from torch import Tensor

    from itopctl.api.workplace import Workplace
    from itopctl.config.own_code import OwnCode
    from itopctl.config.run_config import RunConfig
    from itopctl.report.table import Record
    from itopctl.store.rundir import RunDirectory
    from itopctl.train.export import Format
    from itopctl.train.export.check import Timing
    from itopctl.train.export.network import TrainedNetwork


@dataclass(frozen=True)
class Wanted:
    """How a network is to be written.

    Attributes:
        format: `torch`: a program that multiplies by nonzeros alone; `onnx`: a graph with sparse weights;
            `safetensors`: nonzeros and where they stand. None: as the ending of the file's name says, else `torch`.
        dense: whether weights are written whole, zeros included.
        benchmark: whether it is timed beside the network with whole weights in PyTorch.
        trust: whether code of a results folder that is neither itopctl's nor the user's own may run.
    """

    format: str | None = None
    dense: bool = False
    benchmark: bool = False
    trust: bool = False


@dataclass(frozen=True)
class Exported:
    """A file with the trained network of a run.

    Attributes:
        run_id: the run.
        format: `torch`, `onnx` or `safetensors`.
        dense: whether weights were written whole.
        path: the file.
        bytes: its size.
        dense_bytes: size of all numbers of the network at four bytes each.
        numbers: weights and other numbers of the network.
        nonzeros: of these, those that are not 0.
        test_accuracy: of the file, read back, on the test set; a fraction, None where it was not measured.
        recorded_test_accuracy: of the run.
        timings: seconds of a pass beside the network with whole weights in PyTorch; empty where it was not timed.
        threads: that were used for these.
        notes: sentences on what was left out, and why.
    """

    run_id: str
    format: str
    dense: bool
    path: Path
    bytes: int
    dense_bytes: int
    numbers: int
    nonzeros: int
    test_accuracy: float | None
    recorded_test_accuracy: float | None
    timings: Sequence[Timing]
    threads: int | None
    notes: Sequence[str]

    def record(self) -> Record:
        """For programs; names are stable."""
        timings = [vars(timing) for timing in self.timings]
        return {**vars(self), "path": str(self.path), "timings": timings, "notes": list(self.notes)}


def export(project: Workplace, run: str, output: Path | None, wanted: Wanted) -> Exported:
    """Write the trained network of a finished run to a file that is read without itopctl.

    The file is read back and compared before it is written, on the test set where that is here.

    Args:
        project: whose run it is.
        run: its id, or first digits.
        output: the file; None: `RUN.pt2`, `.onnx` or `.safetensors`, `RUN-dense` for whole weights, in this folder.
        wanted: how.

    Raises:
        UserError: no such run, one that is not finished or kept no network, a name that fits no format.
        EnvironmentUnfitError: a package is missing, or what the run kept is damaged.
        ItopctlError: the model cannot be written in this format.
    """
    from itopctl.config.own_code import OwnCode
    from itopctl.store.files import write_whole
    from itopctl.store.queries import find_run, run_details
    from itopctl.train.export.check import accuracy, check_alike, few_threads, timings

    kind, dense = _kind(project, wanted.format, output), wanted.dense
    current_folder()  # is there: PyTorch ends the process where it is not
    check_folder(output)
    missing = [package for package in kind.packages if importlib.util.find_spec(package) is None]
    if missing:
        said = project.spell("format", kind.name)
        raise EnvironmentUnfitError(f"{said} needs {', '.join(missing)}: pip install 'itopctl[export]'.")
    with project.opened() as store:
        details = run_details(store, find_run(store, run))
    network = _network(project, details, wanted.trust)
    path = _target(project, output or Path(f"{network.run_id}{'-dense' * dense}{kind.suffix}"))
    found, timed, threads, notes = None, [], None, _changed(network.config, OwnCode())
    with _explained(project, kind, network, dense):
        module = kind.load()
        data = module.written(network, not dense)
        read: Callable[[Tensor], Tensor] | None = module.reader(data, network)
        if read is None:
            notes.append("Not read back: onnxruntime is not installed here.")
        else:
            check_alike(network, read)
            try:
                found = accuracy(read, _images(network.config, project.data).test)
            except DataUnfitError as error:
                notes.append(f"Accuracy not measured: {error}")
            if wanted.benchmark and kind.computes:
                with few_threads() as threads:
                    timed = list(timings(network, module.reader(data, network)))  # which counts threads when it is made
    if wanted.benchmark and not kind.computes:
        notes.append("Not timed: weights alone compute nothing.")
    write_whole(path, data)
    return Exported(
        network.run_id, kind.name, dense, path, len(data), 4 * network.parameters, network.parameters,
        network.nonzeros, found, details["test_accuracy"], timed, threads, notes,
    )  # fmt: skip


@contextlib.contextmanager
def _explained(project: Workplace, kind: Format, network: TrainedNetwork, dense: bool) -> Iterator[None]:
    """Raise ItopctlError for whatever goes wrong where a network is written down and read again."""
    from itopctl.dispatch.recorder import one_line

    try:
        yield
    except ItopctlError:
        raise
    except Exception as error:  # whatever a model does that cannot be written down
        said = re.sub(r"\x1b\[[0-9;]*m", "", one_line(error))
        others = [project.spell("dense", True)] if kind.computes and not dense else []
        others += [f"{project.spell('format', 'safetensors')}, which is weights alone,"] if kind.computes else []
        raise ItopctlError(
            f"model {network.config.model!r} cannot be written as {kind.name}: {said}"
            + f". {' or '.join(others)} may do." * bool(others)
        ) from error


def _kind(project: Workplace, name: str | None, output: Path | None) -> Format:
    """The format asked for: by name, by the output's ending, else the first. Raises UserError where these disagree."""
    from itopctl.train.export import FORMATS

    ending = ending_of(output) if output is not None else ""
    said = next((one for one in FORMATS.values() if one.suffix == ending), None)
    if name is None:
        if ending and said is None:
            endings = [one.suffix for one in FORMATS.values()]
            raise UserError(
                f"{output}: {unknown('ending', ending, endings)} Or name the {project.spell('format', None)}."
            )
        return said or next(iter(FORMATS.values()))
    if name not in FORMATS:
        raise UserError(f"{project.spell('format', None)}: {unknown('format', name, FORMATS)}")
    if said is not None and said.name != name:
        fits, given = project.spell("format", said.name), project.spell("format", name)
        raise UserError(f"{output}: {ending} is the ending of {fits}, and {given} was given.")
    return FORMATS[name]


def _target(project: Workplace, path: Path) -> Path:
    """Where to write: what a link leads to. Raises UserError for what is no place for a file."""
    if not path.name or (path.exists() and not path.is_file()):
        raise UserError(f"{project.spell('output', None)}: {str(path)!r} is no file.")
    return path.resolve() if path.is_symlink() else path


def _images(config: RunConfig, data: Path) -> Any:
    import torch

    from itopctl.train.data.tensors import load_images

    return load_images(config.dataset, config.validation, data.resolve(), torch.device("cpu"))


def _network(project: Workplace, details: Record, trust: bool) -> TrainedNetwork:
    """The trained network of a run.

    Raises:
        UserError: it is not finished, or kept none. EnvironmentUnfitError: what it kept is damaged.
    """
    from itopctl.config.own_code import OwnCode
    from itopctl.dispatch.recorder import one_line
    from itopctl.dispatch.run_files import load_config
    from itopctl.train.export.network import trained_network

    run, state = project.folder.run(details["run_id"]), details["state"]
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
        named = {config.model} & own_code.untrusted(config, project.folder.path)
        project.refuse_untrusted(named, also=_changed(config, own_code))
    kept = _kept(run)
    try:
        if "mean" not in kept:  # a checkpoint
            images = _images(config, project.data)
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
