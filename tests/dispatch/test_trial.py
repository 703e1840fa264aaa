"""Models are made before any run is started, each in a process of its own, and what they do there stays there."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from itopctl.catalogue import DATASETS, MODELS
from itopctl.dispatch.trial import SURE_SPARSITY, is_sure, try_out
from itopctl.dst.network_outline import Outline
from itopctl.errors import UserError
from itopctl.plan.forecast import Impossible
from itopctl.plan.unmade import check_makeable, sentences
from itopctl.train.model_outline import outline_of
from tests.helpers import run_config

MINE = """
import os, signal, sys, time
import torch
from torch import nn

def good(input_shape, classes):
    assert torch.get_default_dtype() == torch.float32
    assert torch.get_float32_matmul_precision() == "highest" and "SET_BY_A_MODEL" not in os.environ
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Linear(32, classes))

def hostile(input_shape, classes):
    os.environ["SET_BY_A_MODEL"] = "1"
    os.chdir("/")
    torch.set_float32_matmul_precision("medium")
    print("printed", flush=True)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def broken(input_shape, classes):
    raise RuntimeError("no such thing")

def leaves(input_shape, classes):
    os._exit(7)

def crashes(input_shape, classes):
    os.kill(os.getpid(), signal.SIGSEGV)

def is_killed(input_shape, classes):
    os.kill(os.getpid(), signal.SIGKILL)

def hangs(input_shape, classes):
    with open("process", "w") as file:
        file.write(str(os.getpid()))
    time.sleep(1000)

def wants_a_gpu(input_shape, classes):
    raise RuntimeError("No CUDA GPUs are available")

def lacks_a_package(input_shape, classes):
    import no_such_package

def lacks_a_file(input_shape, classes):
    open("/no/such/weights.pt")

def wants_memory(input_shape, classes):
    raise MemoryError

def forbids(input_shape, classes):
    torch.set_default_dtype(torch.float64)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))

def good_again(input_shape, classes):
    return good(input_shape, classes)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"trial_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return name


def of(module: str, function: str, **settings: Any) -> Any:
    return run_config(model=f"{module}:{function}", **settings)


def test_each_model_is_made_apart_and_told_apart(mine: str, capfd: pytest.CaptureFixture[str]) -> None:
    names = [line.split("(")[0][4:] for line in MINE.splitlines() if line.startswith("def ")]
    configs = {name: of(mine, name) for name in names}
    configs["good at 99 %"] = of(mine, "good", sparsity=0.99)
    configs["good at 99.999 %"] = of(mine, "good", sparsity=0.99999)
    look = try_out([*configs.values(), *(of(mine, name, seed=1) for name in names)], lambda text: None, limit=3)
    found = {name: look(config) for name, config in configs.items()}
    assert {name for name, what in found.items() if isinstance(what, Outline)} == {
        "good", "hostile", "good_again", "good at 99 %"
    }  # fmt: skip
    sys.path.insert(0, str(Path.cwd()))
    try:
        assert found["good"] == outline_of(configs["good"])
    finally:
        sys.path.remove(str(Path.cwd()))
    told = {name: (what.fault, what.reason) for name, what in found.items() if isinstance(what, Impossible)}
    line = {name: 1 + MINE.splitlines().index(f"def {name}(input_shape, classes):") for name in names}
    assert told.pop("good at 99.999 %")[0] == "model"
    # A run that fails by what its own module sets, and harms no other: such a sweep is started.
    fault, reason = told.pop("forbids")
    assert fault == "settings" and f"the default dtype of the process was set to torch.float64, by {mine}" in reason
    assert told == {
        "broken": ("model", f"{mine}.py:{line['broken'] + 1}: RuntimeError: no such thing"),
        "leaves": ("model", f"{mine}.py:{line['leaves']}: its process ended with exit code 7."),
        "crashes": ("model", f"{mine}.py:{line['crashes']}: its process was killed by SIGSEGV."),
        "hangs": ("unknown", f"{mine}.py:{line['hangs']}: it was not made in 3 s."),
        "is_killed": ("unknown", f"{mine}.py:{line['is_killed']}: its process was killed by SIGKILL."),
        "wants_a_gpu": (
            "machine", f"{mine}.py:{line['wants_a_gpu'] + 1}: RuntimeError: No CUDA GPUs are available"
        ),
        "lacks_a_package": (
            "machine",
            f"{mine}.py:{line['lacks_a_package'] + 1}: ModuleNotFoundError: No module named 'no_such_package'",
        ),
        "lacks_a_file": (
            "machine",
            f"{mine}.py:{line['lacks_a_file'] + 1}: FileNotFoundError: [Errno 2] No such file or directory: "
            "'/no/such/weights.pt'",
        ),
        "wants_memory": ("unknown", f"{mine}.py:{line['wants_memory'] + 1}: MemoryError"),
    }  # fmt: skip
    assert capfd.readouterr().out == "" and "SET_BY_A_MODEL" not in os.environ


def test_ctrl_c_ends_the_trial_and_all_that_it_started(mine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("itopctl.dispatch.trial._QUIET_SECONDS", 0.2)
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        while not (Path("process").exists() and Path("process").read_text()):
            time.sleep(0.02)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        try_out([of(mine, "hangs")], tell)
    assert told[-1] == f"still making model '{mine}:hangs', to see whether it can be made. Nothing is started yet."
    status = Path("/proc", Path("process").read_text(), "stat")
    deadline = time.monotonic() + 5
    while status.exists() and status.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_is_taken_for_sure_can_be_made_for_every_data_set() -> None:
    for dataset in DATASETS.names():
        for model in MODELS.names():
            for allocation in ("uniform", "er", "erk"):
                config = run_config(dataset=dataset, model=model, allocation=allocation, sparsity=SURE_SPARSITY)
                assert is_sure(config) and outline_of(config).active


@pytest.mark.parametrize(
    "settings",
    [
        {"sparsity": 0.9999}, {"keep_dense": ["conv9"]}, {"layer_density": {"1": 0.5}}, {"allocation": "uniform-plus"},
        {"allocation_power": 3.0}, {"model": "mine:net"}, {"growth": "mine:rule"}, {"allocation": "mine:shares"},
    ],
    ids=str,
)  # fmt: skip
def test_what_may_fail_is_not_taken_for_sure(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text("def net(): ...\ndef rule(): ...\ndef shares(): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert not is_sure(run_config(**settings))


# What stops a sweep -----------------------------------------------------------------------------------------

MODEL = Impossible("mine.py:3: RuntimeError: no", "model")
MACHINE = Impossible("mine.py:9: RuntimeError: No CUDA GPUs are available", "machine")
UNKNOWN = Impossible("mine.py:12: it was not made in 120 s.", "unknown")


def test_runs_that_share_a_reason_share_a_sentence() -> None:
    configs = [run_config(seed=seed) for seed in range(3)]
    assert sentences([(configs[0], MODEL), (configs[1], UNKNOWN), (configs[2], MODEL)]) == [
        "2 runs (set-itop, lenet-300-100 on digits) cannot be made: mine.py:3: RuntimeError: no.",
        "1 run (set-itop, lenet-300-100 on digits) may not be possible: mine.py:12: it was not made in 120 s.",
    ]


def test_a_fault_of_the_model_stops_a_sweep_anywhere_and_all_are_named_at_once() -> None:
    other = Impossible("mine.py:5: ValueError: never", "model")
    for on_nodes in (False, True):
        with pytest.raises(UserError) as caught:
            check_makeable([(run_config(), MODEL), (run_config(seed=1), other)], 5, on_nodes)
        first, *_, last = str(caught.value).splitlines()
        assert first == "nothing is started: 2 of 5 runs cannot be made."
        assert "mine.py:3" in str(caught.value) and "mine.py:5" in str(caught.value)
        assert last == "Correct this, or leave these runs out of the spec."


def test_what_this_machine_lacks_stops_a_sweep_here_and_not_one_on_a_cluster() -> None:
    with pytest.raises(UserError, match=r"cannot be made on this machine: .*`--cluster slurm` leaves it to them\."):
        check_makeable([(run_config(), MACHINE)], 1, on_nodes=False)
    (warning,) = check_makeable([(run_config(), MACHINE)], 1, on_nodes=True)
    assert warning.endswith("The nodes may have what this machine lacks: `--first 1` tries one run before the others.")


def test_what_is_not_known_stops_nothing() -> None:
    assert len(check_makeable([(run_config(), UNKNOWN)], 1, on_nodes=False)) == 1
    assert check_makeable([], 1, on_nodes=False) == []
