"""Runs trained by several real processes on gloo, and by one: what each of them saw, for `test_ranks.py`."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import set_forkserver_preload
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, multiprocessing

from itopctl.config.run_config import RunConfig
from itopctl.train import loop
from itopctl.train.loop import Training, TrainingDivergedError, TrainingStoppedError
from itopctl.train.ranks import ALONE, Rank, joined
from itopctl.train.setup import be_deterministic, choose_device
from tests.helpers import run_config

DATA = Path("data")
TIMES = ("wall_seconds", "steps_per_second", "peak_memory_bytes", "energy_joules")
TRAINED_ON = 1293  # images of digits, without those held out

OWN_MODELS = """
import torch
from torch import nn

def norm(input_shape, classes):
    "Batch norm over no more values than there are samples: it refuses a batch of one."
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, classes),
    )

class Dropping(nn.Sequential):
    "Keeps what its dropout let pass at the last step."
    def forward(self, images):
        hidden = self[1](self[0](images))
        dropped = self[2](torch.ones_like(hidden))
        if self.training:
            self.passed = dropped[:8] != 0
        return self[3](torch.relu(hidden) * dropped)

class LeavingOut(nn.Module):
    "Half of its parameters have no part in the loss."
    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(64, 10), nn.Linear(64, 10)
    def forward(self, images):
        return self.used(images.flatten(1))

def leaving_out(input_shape, classes):
    return LeavingOut()

def dropping(input_shape, classes):
    return Dropping(nn.Flatten(), nn.Linear(64, 32), nn.Dropout(0.5), nn.Linear(32, classes))
"""

_PRELOADED = ["tests.train.processes", "torch._inductor.config", "sklearn.datasets"]
"""Modules that take long to import, and that every process needs."""

Spoil = Callable[[Training, int], None]


def train(
    config: RunConfig,
    rank: Rank = ALONE,
    state: dict[str, Any] | None = None,
    stop_at: int | None = None,
    each_step: Spoil = lambda training, step: None,
) -> dict[str, Any]:
    """Train, from a state if one is given; what this process saw.

    Args:
        config, rank, state: what is trained, by whom, and from where.
        stop_at: a stop is wanted in this process after this step, and only then.
        each_step: called after every step.
    """
    events: list[tuple[str, dict[str, Any]]] = []
    saved: list[dict[str, Any]] = []
    masks: list[dict[str, Tensor]] = []

    def after_step() -> bool:
        step = training.progress.step
        if training.sparse.updates_done > len(masks):
            masks.append({layer.name: training.sparse.mask(layer.name).clone() for layer in training.sparse.layers()})
        each_step(training, step)
        return step == stop_at

    training = Training(
        config, DATA, lambda name, fields: events.append((name, fields)), after_step,
        lambda state: saved.append(copy.deepcopy(state)), rank,
    )  # fmt: skip
    if state is not None:
        training.load_state_dict(copy.deepcopy(state))
        masks += [{}] * training.sparse.updates_done
    ended: tuple[Any, ...] = ("done",)
    result: dict[str, Any] = {}
    try:
        result = training.run()
    except TrainingStoppedError as error:
        ended = ("stopped", error.step)
    except TrainingDivergedError as error:
        ended = ("diverged", error.step, error.last_good)
    return {
        "result": {name: value for name, value in result.items() if name not in TIMES},
        "events": [
            (name, {key: value for key, value in fields.items() if key not in TIMES})
            for name, fields in events
            if name != "progress"
        ],
        "saved": saved,
        "masks": masks,
        "explored": {name: layer["explored"] for name, layer in training.sparse.state_dict()["layers"].items()},
        "weights": {name: parameter.detach().clone() for name, parameter in training.model.named_parameters()},
        "ended": ended,
    }


def config_of(case: str) -> RunConfig:
    """The runs that are trained by one process and by several."""
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "compiled": {"compile": True},
        "static": {"method": "static", "update_interval": None},
        "dense": {"method": "dense", "sparsity": None, "update_interval": None},
        "adam": {"method": "rigl-itop", "optimizer": {"name": "adam", "lr": 0.003}},
        "momentum": {"method": "snfs", "update_interval": 4},
        "the update in the step's place": {"method": "rigl", "update_interval": 4, "gradient_batches": 2},
        "an epoch ends with an update": {"update_interval": 11},
        "eight steps an epoch": {"batch_size": 172},
        "augmented": {
            "model": "lenet-5", "augment": "crop-flip", "batch_size": 301, "update_interval": 3,
            "label_smoothing": 0.1,
        },
        "a last batch of two": {"batch_size": TRAINED_ON - 2},
        "a last batch of three": {"batch_size": TRAINED_ON - 3, "update_interval": 1},
        "batches of one": {"batch_size": 1, "update_interval": 3},
        "a window of losses and more": {"batch_size": 16, "epochs": 1, "update_interval": 70},
    }  # fmt: skip
    given = {name: value for name, value in settings[case].items() if value is not None}
    base = {"update_interval": 5, "sparsity": 0.5}
    return run_config(**{name: base[name] for name in base if name not in settings[case]}, **given)


EQUAL = (
    "plain", "static", "dense", "adam", "momentum", "the update in the step's place", "an epoch ends with an update",
    "eight steps an epoch", "augmented", "a last batch of two", "a last batch of three", "a window of losses and more",
)  # fmt: skip
"""Cases that are to come out as in one process."""

STOPPED = ("plain", "adam", "the update in the step's place", "eight steps an epoch")
"""Those of them that are stopped and resumed, too; the last at the end of an epoch."""


def of_own(model: str, **settings: Any) -> RunConfig:
    """A run of one of the models above."""
    return run_config(model=f"own_models_of_ranks:{model}", sparsity=0.5, **settings)


def _spoilt_loss(rank: Rank, bad: float) -> dict[str, Any]:
    """The loss of process 1 is `bad` at step 7."""
    with pytest.MonkeyPatch.context() as patch:
        real, count = torch.nn.functional.cross_entropy, 0

        def poisoned(*arguments: Any, **options: Any) -> Tensor:
            nonlocal count
            count += 1
            loss = real(*arguments, **options)
            return loss * bad if rank.index == 1 and count == 7 else loss

        patch.setattr(loop.functional, "cross_entropy", poisoned)
        return train(config_of("plain"), rank)


def _spoil_a_weight(rank: Rank) -> Spoil:
    """A weight of process 1 is not finite when the update after step 5 begins; its loss was fine."""

    def spoil(training: Training, step: int) -> None:
        if step == 4:
            step_of_optimizer = training.optimizer.step

            def broken(*arguments: Any, **options: Any) -> None:
                step_of_optimizer(*arguments, **options)
                if rank.index == 1:
                    next(iter(training.model.parameters())).data.view(-1)[0] = float("nan")

            training.optimizer.step = broken

    return spoil


def _passed(seen: list[Tensor]) -> Spoil:
    return lambda training, step: seen.append(training.model.passed.clone())


def _saved_by_the_first(rank: Rank, seen: dict[str, Any]) -> Any:
    return rank.first(seen["saved"][0] if rank.leads else None)


def all_cases(rank: Rank, alone: dict[str, Any]) -> dict[str, Any]:
    """What this process sees in every case.

    Args:
        rank: who this is; the processes have joined.
        alone: a checkpoint that one process made, by case.
    """
    found: dict[str, Any] = {case: train(config_of(case), rank) for case in EQUAL}
    found["batches of one"] = train(config_of("batches of one"), rank, stop_at=30)

    for case in STOPPED:
        # Told at different moments: by themselves they would not stop after the same step.
        stopped = train(config_of(case), rank, stop_at=10 + 2 * rank.index)
        found[f"{case}, stopped"] = stopped
        torch.manual_seed(99 + rank.index)
        found[f"{case}, resumed"] = train(config_of(case), rank, _saved_by_the_first(rank, stopped))
        found[f"{case}, begun alone"] = train(config_of(case), rank, alone[case])
    only_the_last = 3 if rank.index == rank.count - 1 else None
    found["a stop in one process"] = train(config_of("plain"), rank, stop_at=only_the_last)
    found["a stop too late"] = train(config_of("plain"), rank, stop_at=21)

    for name, bad in (("nan", float("nan")), ("inf", float("inf"))):
        found[f"loss, {name}"] = _spoilt_loss(rank, bad)
    found["a broken weight"] = train(config_of("plain"), rank, each_step=_spoil_a_weight(rank))

    for size in (TRAINED_ON - 2, TRAINED_ON - 3, 128):
        found[f"batch norm, {size}"] = train(of_own("norm", batch_size=size), rank)
    stopped = train(of_own("norm"), rank, stop_at=16)
    found["batch norm, resumed"] = train(of_own("norm"), rank, _saved_by_the_first(rank, stopped))
    found["batch norm, saved"] = stopped

    passed: list[Tensor] = []
    found["dropout"] = train(of_own("dropping"), rank, each_step=_passed(passed))
    found["dropout, passed"] = passed
    stopped = train(of_own("dropping"), rank, stop_at=16)
    found["dropout, resumed"] = train(of_own("dropping"), rank, _saved_by_the_first(rank, stopped))

    found["parameters left out"] = train(of_own("leaving_out"), rank)
    stopped = train(of_own("leaving_out"), rank, stop_at=16)
    found["parameters left out, resumed"] = train(of_own("leaving_out"), rank, _saved_by_the_first(rank, stopped))

    for name, settings in (
        ("fp16", {"precision": "fp16", "model": "lenet-300-100"}),  # convolutions in fp16 take minutes on a CPU
        ("bf16", {"precision": "bf16"}),
        ("channels last", {"channels_last": True}),
    ):
        found[name] = train(run_config(**{"model": "lenet-5", "epochs": 6, "sparsity": 0.5, **settings}), rank)
    return found


def compiled_case(rank: Rank, alone: dict[str, Any]) -> dict[str, Any]:
    """A compiled network."""
    return {"compiled": train(config_of("compiled"), rank)}


def one_that_fails(rank: Rank, alone: dict[str, Any]) -> dict[str, Any]:
    """Process 1 fails in the middle."""

    def fail(training: Training, step: int) -> None:
        if rank.index == 1 and step == 4:
            raise ZeroDivisionError

    return train(config_of("plain"), rank, each_step=fail)


Cases = Callable[[Rank, dict[str, Any]], dict[str, Any]]


def _work(index: int, rank: Rank, cases: Cases, folder: Path) -> None:
    os.chdir(folder)
    be_deterministic(1)
    rank = replace(rank, index=index, local=index)
    alone = torch.load(folder / "alone.pt", weights_only=False)
    with joined(rank, choose_device("cpu", rank)):
        found = cases(rank, alone)
    torch.save(found, folder / f"rank{index}.pt")


def run_processes(count: int, cases: Cases, folder: Path, alone: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    """Let `count` processes go through cases; what each found.

    Raises:
        multiprocessing.ProcessRaisedException: one of them failed.
    """
    handles = start_processes(count, cases, folder, alone)
    while not handles.join():
        pass
    return [torch.load(folder / f"rank{index}.pt", weights_only=False) for index in range(count)]


def start_processes(count: int, cases: Cases, folder: Path, alone: dict[str, Any] | None = None) -> Any:
    """Start `count` processes that go through cases: forked from one that has computed nothing and has no thread."""
    (folder / "own_models_of_ranks.py").write_text(OWN_MODELS)
    torch.save(alone or {}, folder / "alone.pt")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{found.getsockname()[1]}"
    set_forkserver_preload(_PRELOADED)
    arguments = (Rank(0, count, 0, address), cases, folder)
    return multiprocessing.start_processes(
        _work, args=arguments, nprocs=count, join=False, start_method="forkserver"
    )  # fmt: skip
