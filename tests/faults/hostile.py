"""Checkpoints that somebody made to do harm, and such that are of no use: what a run's folder may hold."""

from __future__ import annotations

import copy
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from itopctl.train.checkpoint import encode

State = dict[str, Any]
LARGE = 10**11
"""So many of anything are more than any machine holds."""


class Runs:
    """When it is unpickled, a file appears."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.mark}'",)


def code_in_the_archive(state: State, mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({**state, "extra": Runs(mark)}, buffer)
    return buffer.getvalue()


def code_in_the_old_format(state: State, mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({**state, "extra": Runs(mark)}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def code_in_a_bare_pickle(state: State, mark: Path) -> bytes:
    return pickle.dumps(Runs(mark))


def code_in_every_entry(state: State, mark: Path) -> bytes:
    """An archive whose every part is a pickle that runs code."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(encode(state))) as real, zipfile.ZipFile(buffer, "w") as file:
        for name in real.namelist():
            file.writestr(name, pickle.dumps(Runs(mark), protocol=2))
    return buffer.getvalue()


CODE: dict[str, Callable[[State, Path], bytes]] = {
    one.__name__.replace("_", " "): one
    for one in (code_in_the_archive, code_in_the_old_format, code_in_a_bare_pickle, code_in_every_entry)
}


def compressed(state: State) -> bytes:
    """An archive that is a thousandth of what is in it."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(encode({**state, "extra": torch.zeros(16 << 20)}))) as real,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file,
    ):
        for name in real.namelist():
            file.writestr(name, real.read(name))
    return buffer.getvalue()


def overlapping(state: State, count: int = 64) -> bytes:
    """An archive whose entries are the same bytes: tensors of one size, stored once and read for each."""
    size = 4 << 20
    whole = encode({**state, "extra": [torch.zeros(size // 4) for _ in range(count)]})
    buffer, first = io.BytesIO(), None
    with zipfile.ZipFile(io.BytesIO(whole)) as real, zipfile.ZipFile(buffer, "w") as file:
        for entry in real.infolist():
            if entry.file_size == size and first is not None:
                again = copy.copy(first)
                again.filename = again.orig_filename = entry.filename
                file.filelist.append(again)  # what the directory at the end of the file is made of
                continue
            file.writestr(entry.filename, real.read(entry))
            first = first or (file.getinfo(entry.filename) if entry.file_size == size else None)
    return buffer.getvalue()


def laughing(depth: int = 60) -> Any:
    """A value that is small, and endless for who walks through all of it."""
    value: Any = {"end": 0}
    for _ in range(depth):
        value = {"a": value, "b": value}
    return value


def nested(depth: int = 150) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def huge(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor that takes one number in a file, and says that it has more than any machine holds."""
    return torch.zeros(1, dtype=dtype).expand(LARGE)


def sparse_huge() -> torch.Tensor:
    where = torch.zeros(2, 1, dtype=torch.int64)
    return torch.sparse_coo_tensor(where, torch.ones(1), (10**9, 10**9), check_invariants=False)


# Where a state has what --------------------------------------------------------------------------------------

GONE = object()
"""A value that is taken out."""


def changed(state: State, path: str, value: Any) -> State:
    """A state with another value at `a/b/c`."""
    made = copy.deepcopy(state)
    *above, last = [int(part) if part.isdigit() else part for part in path.split("/")]
    inner = made
    for part in above:
        inner = inner[part]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    return made


MOMENTUM, BIAS = "optimizer/state/0/momentum_buffer", "optimizer/state/1/momentum_buffer"
WEIGHT, MASK = "model/1.weight", "sparse/layers/1.weight/mask"

UNFIT: dict[str, tuple[str, Any]] = {
    **{f"no {part}": (part, GONE) for part in ("model", "optimizer", "sparse", "random", "progress", "journal")},
    "no weight": (WEIGHT, GONE),
    "no entries": (f"{WEIGHT}/entries", GONE),
    "no bias": ("model/1.bias", GONE),
    "no mask": (MASK, GONE),
    "no explored set": ("sparse/layers/1.weight/explored", GONE),
    "no groups": ("optimizer/param_groups", GONE),
    "no step": ("progress/step", GONE),
    "another step": ("progress/step", 2),
    "a weight of another shape": (WEIGHT, torch.zeros(2, 3)),
    "entries of another number": (f"{WEIGHT}/entries", torch.zeros(7)),
    "entries of a layer that is none": (f"{WEIGHT}/active_of", "no.weight"),
    "a mask of another size": (MASK, torch.zeros(7, dtype=torch.uint8)),
    "a mask of other counts": (MASK, torch.zeros(2400, dtype=torch.uint8)),
    "other layers": ("sparse/layers/9.weight", {}),
    "another rule": ("sparse/rules/growth", "random"),
    "another seed": ("sparse/seed", 7),
    "a gigantic weight": (WEIGHT, huge()),
    "gigantic entries": (f"{WEIGHT}/entries", huge()),
    "a gigantic mask": (MASK, huge(torch.uint8)),
    "a gigantic sparse weight": (WEIGHT, sparse_huge()),
    "a gigantic generator": ("random/torch", huge(torch.uint8)),
    "text for a weight": (WEIGHT, "weight"),
    "a list for the model": ("model", []),
    "nothing for the model": ("model", None),
    "a list for progress": ("progress", []),
    "text for the journal's end": ("journal/offset", "here"),
    "nested deeply": ("model/1.bias", nested()),
}
"""What a run cannot go on from: a name → where, and what is there instead."""

UNCHECKED: dict[str, tuple[str, Any]] = {
    "a gigantic step": ("progress/step", huge()),
    "a gigantic sum": ("progress/epoch_loss_sum", huge()),
    "another gigantic generator": ("random/numpy/0", huge(torch.int64)),
    "momentum of another shape": (BIAS, torch.zeros(2, 3)),
    "gigantic momentum": (BIAS, huge()),
    "sparse momentum": (MOMENTUM, sparse_huge()),
    "no momentum": (MOMENTUM, GONE),
    "nothing for momentum": (MOMENTUM, None),
    "text for momentum": (MOMENTUM, "momentum"),
    "entries of no device": (f"{WEIGHT}/entries", torch.empty(2091, device="meta")),
    "a laughing model": ("model/1.bias", laughing()),
    "no position in the schedule": ("sparse/updates_done", None),
    "text for the position": ("sparse/steps_done", "4"),
    "no costs": ("meter", {}),
    "text for costs": ("meter/training_cost", "3.0"),
    **{f"no {name}": (f"progress/{name}", GONE) for name in ("epochs_ended", "epoch_loss_sum", "epoch_loss_steps")},
    **{f"text for {name}": (f"progress/{name}", "1") for name in ("epochs_ended", "epoch_loss_sum", "best")},
    "half of the best": ("progress/best", {"epoch": 1}),
    "a tensor for progress": ("progress", torch.zeros(2)),
    "nothing for the journal": ("journal", None),
    "text for the journal": ("journal", "here"),
}
"""The same, of what was not looked at before it was used."""
