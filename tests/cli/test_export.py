"""`itopctl export`: files that other programs read, which have never heard of itopctl."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from itopctl.train.checkpoint import decode, encode
from itopctl.train.export.check import few_threads
from tests.conftest import FinishedSweep
from tests.helpers import itopctl, write_spec

_DIGITS = """
import sys
sys.modules["itopctl"] = None  # whoever asks for it gets an ImportError
import numpy as np, torch
from sklearn.datasets import load_digits
path = sys.argv[1]
from sklearn.model_selection import train_test_split
data = load_digits()
split = {"test_size": 360, "random_state": 0, "stratify": data.target}
_, images, _, labels = train_test_split(data.images.astype(np.uint8)[:, None], data.target, **split)
"""
_READERS = {
    "torch": """
extra = {"itopctl.json": ""}
program = torch.export.load(path, extra_files=extra)
logits = program.module()(torch.from_numpy(images)).numpy()
about = extra["itopctl.json"]
""",
    "onnx": """
import onnx, onnxruntime
graph = onnx.load(path)
onnx.checker.check_model(graph, full_check=True)
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
(logits,) = session.run(None, {"images": images})
(about,) = [entry.value for entry in graph.metadata_props if entry.key == "itopctl"]
""",
    "safetensors": """
import json
from safetensors import safe_open
with safe_open(path, "np") as file:
    about = file.metadata()["itopctl"]
    tensors = {name: file.get_tensor(name) for name in file.keys()}
told = json.loads(about)
weights = {}
for name, tensor in tensors.items():
    if name.endswith(".values"):
        name = name.removesuffix(".values")
        weights[name] = np.zeros(told["shapes"][name], np.float32)
        weights[name].flat[tensors[f"{name}.positions"]] = tensor
    elif not name.endswith(".positions"):
        weights[name] = tensor
values = ((images - np.array(told["mean"])[:, None, None]) / np.array(told["std"])[:, None, None]).reshape(360, -1)
layers = sorted({int(name.split(".")[0]) for name in weights})
for layer in layers:
    values = values @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
    values = np.maximum(values, 0) if layer != layers[-1] else values
logits = values
""",
}
_TELL = """
import json
print(json.dumps({"accuracy": float((logits.argmax(1) == labels).mean()), "about": json.loads(about)}))
"""


def _runs(sweep: FinishedSweep) -> list[dict[str, Any]]:
    return json.loads(itopctl("report", "-t", "runs", "--json", "--results", sweep.results).stdout)


def _read_elsewhere(format_: str, path: Path) -> dict[str, Any]:
    """What a program finds that has no itopctl."""
    done = subprocess.run(
        [sys.executable, "-c", _DIGITS + _READERS[format_] + _TELL, str(path)], capture_output=True, text=True,
        check=False, cwd=path.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("format_", list(_READERS))
@pytest.mark.parametrize("whole", [False, True])
def test_a_network_is_read_without_itopctl_and_is_as_accurate(
    finished_sweep: FinishedSweep, tmp_path: Path, format_: str, whole: bool
) -> None:
    run = next(run for run in _runs(finished_sweep) if run["method"] == "rigl-itop" and run["sparsity"] == 0.9)
    path = tmp_path / "network"
    options = ["--dense"] if whole else []
    done = itopctl(
        "export", run["run_id"], "-f", format_, "-o", path, "--json", *options, "--results", finished_sweep.results
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    told = json.loads(done.stdout)
    found = _read_elsewhere(format_, path)
    assert found["accuracy"] == told["test_accuracy"] == run["test_accuracy"]
    assert found["about"]["run_id"] == run["run_id"] and found["about"]["image_shape"] == [1, 8, 8]
    assert told["bytes"] == path.stat().st_size
    assert (told["bytes"] < 0.5 * told["dense_bytes"]) == (not whole)
    weights = told["numbers"] - 410
    assert told["nonzeros"] - 410 == pytest.approx(0.1 * weights, abs=1)
    assert "site-packages" not in path.read_bytes().decode("latin-1"), "it tells nobody's paths"


def test_a_dense_run_is_exported_too_and_timed(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    run = next(run for run in _runs(finished_sweep) if run["method"] == "dense")
    done = itopctl("export", run["run_id"][:8], "--benchmark", "--results", finished_sweep.results, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / f"{run['run_id']}.pt2").is_file()
    assert "Inference" in done.stdout and len(re.findall(r"\d×", done.stdout)) == 3
    assert "both by 1 thread" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(
    ("said", "count"), [("", 1), ("2", 2), ("2,1", 2), ("99999", os.cpu_count()), ("0", 1), ("many", 1)]
)
def test_it_is_timed_by_as_many_threads_as_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, said: str, count: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    before = torch.get_num_threads()
    with few_threads() as threads:
        assert torch.get_num_threads() == threads == min(count, os.cpu_count() or 1)
    assert torch.get_num_threads() == before


def test_weights_alone_are_not_timed(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    run = _runs(finished_sweep)[0]["run_id"]
    done = itopctl("export", run, "-f", "safetensors", "--benchmark", "--results", finished_sweep.results, cwd=tmp_path)
    assert done.returncode == 0 and "Not timed" in done.stdout


def test_what_cannot_be_exported_says_why_and_writes_nothing(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    run = _runs(finished_sweep)[0]["run_id"]

    def refused(*arguments: str | Path) -> tuple[int, str]:
        done = itopctl("export", *arguments, "--results", finished_sweep.results, cwd=tmp_path)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr

    assert refused(run, "-f", "onx") == (2, "itopctl: --format: unknown format 'onx'. Did you mean 'onnx'? Allowed: "
                                            "torch, onnx, safetensors.\n")  # fmt: skip
    assert refused("ffff")[0] == 2
    (tmp_path / "file").touch()
    code, said = refused(run, "-o", tmp_path / "file" / "network.pt2")
    assert code == 3 and "there is no folder" in said
    code, said = refused(run, "-o", "network.jpg")
    assert code == 2 and ".safetensors" in said and "--format" in said
    code, said = refused(run, "-o", "network.onnx", "-f", "torch")
    assert code == 2 and "--format onnx" in said and "--format torch" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A spec, and the results folder of its only run."""
    folder = tmp_path_factory.mktemp("one run")
    spec = write_spec(folder, base={"dataset": "digits", "model": "lenet-300-100", "epochs": 1, "method": "set-itop",
                                    "sparsity": 0.9, "update_interval": 5})  # fmt: skip
    assert itopctl("sweep", spec, cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize(
    "damage",
    [
        "gone",
        "cut off",
        "no config",
        "another run's",
        "another model's",
        "nonsense",
        "a folder",
        "a link",
        "a pipe",
        "a vast mask",
    ],
)
def test_a_network_that_is_not_there_any_more_is_told_of(tmp_path: Path, one_run: Path, damage: str) -> None:
    shutil.copytree(one_run, tmp_path, dirs_exist_ok=True)
    (network,) = (tmp_path / "results" / "runs").glob("*/network.pt")
    data = network.read_bytes()
    if damage == "gone":
        network.unlink()
    elif damage == "cut off":
        network.write_bytes(data[: len(data) // 2])
    elif damage == "no config":
        assert itopctl("status", cwd=tmp_path).returncode == 0  # the store knows that it is done
        (network.parent / "config.json").write_text("{}")
    elif damage == "another run's":
        assert itopctl("sweep", "spec.yaml", "--set", "seed=7", cwd=tmp_path).returncode == 0
        (other,) = set((tmp_path / "results" / "runs").glob("*/network.pt")) - {network}
        network.write_bytes(other.read_bytes())
    elif damage == "another model's":
        other = write_spec(tmp_path, base={"dataset": "digits", "model": "mlp-cifar", "epochs": 1, "method": "dense"})
        assert itopctl("sweep", other, "--results", tmp_path / "others", cwd=tmp_path).returncode == 0
        (theirs,) = (tmp_path / "others" / "runs").glob("*/network.pt")
        network.write_bytes(theirs.read_bytes())
    elif damage == "a vast mask":
        state = decode(data)
        for layer in state["sparse"]["layers"].values():
            layer["shape"] = [10**9, 10**9]
        network.write_bytes(encode(state))
    elif damage == "nonsense":
        network.write_bytes(b"nonsense")
    else:
        network.rename(tmp_path / "elsewhere")
        {"a folder": network.mkdir, "a pipe": lambda: os.mkfifo(network)}.get(
            damage, lambda: network.symlink_to(tmp_path / "elsewhere")
        )()
    if damage not in ("gone", "no config", "another run's", "another model's", "a vast mask"):
        assert "network.pt is damaged" in itopctl("store", "check", cwd=tmp_path).stdout
    done = itopctl("export", network.parent.name, cwd=tmp_path)
    assert done.returncode == (2 if damage == "gone" else 3), done.stderr
    assert "Traceback" not in done.stderr and not list(tmp_path.glob("*.pt2"))
    assert network.parent.name in done.stderr


def test_the_last_checkpoint_serves_where_no_network_was_kept(tmp_path: Path) -> None:
    spec = write_spec(tmp_path, base={"dataset": "digits", "model": "lenet-300-100", "epochs": 1, "method": "set-itop",
                                      "sparsity": 0.9, "update_interval": 5, "keep_network": False,
                                      "keep_checkpoints": True})  # fmt: skip
    assert itopctl("sweep", spec, cwd=tmp_path).returncode == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    assert not (run / "network.pt").exists()
    told = json.loads(itopctl("export", run.name, "--json", cwd=tmp_path).stdout)
    assert told["test_accuracy"] == told["recorded_test_accuracy"]


def test_a_model_that_cannot_be_written_down_says_so(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Model(nn.Sequential):\n"
        "    def forward(self, images):\n"
        "        return super().forward(images if float(images.sum()) > 1e9 else images + 0)\n"
        "def make(input_shape, classes):\n"
        "    return Model(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    spec = write_spec(tmp_path, base={"dataset": "digits", "model": "mine:make", "epochs": 1, "method": "static",
                                      "sparsity": 0.7})  # fmt: skip
    assert itopctl("sweep", spec, cwd=tmp_path, PYTHONPATH=str(tmp_path)).returncode == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    for format_ in ("torch", "onnx", "safetensors"):
        done = itopctl("export", run.name, "--trust", "-f", format_, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.returncode == (0 if format_ == "safetensors" else 1), done.stderr
        if format_ != "safetensors":
            assert re.match(f"itopctl: model 'mine:make' cannot be written as {format_}: .* may do.\n$", done.stderr)
        assert "Traceback" not in done.stderr
    assert [path.suffix for path in tmp_path.glob(f"{run.name}*")] == [".safetensors"]


def test_what_a_model_keeps_beside_tensors_costs_no_result(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "class Told(nn.Sequential):\n"
        "    def get_extra_state(self):\n"
        "        return {'a': 1}\n"
        "    def set_extra_state(self, state):\n"
        "        assert state == {'a': 1}\n"
        "class Untold(Told):\n"
        "    def get_extra_state(self):\n"
        "        return lambda: None\n"
        "def told(input_shape, classes):\n"
        "    return Told(nn.Flatten(), nn.Linear(64, classes))\n"
        "def untold(input_shape, classes):\n"
        "    return Untold(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    spec = write_spec(tmp_path, base={"dataset": "digits", "epochs": 1, "method": "static", "sparsity": 0.7},
                      grid={"model": ["mine:told", "mine:untold"]})  # fmt: skip
    assert itopctl("sweep", spec, cwd=tmp_path, PYTHONPATH=str(tmp_path)).returncode == 0
    runs = (tmp_path / "results" / "runs").iterdir()
    kept = {(run / "network.pt").exists(): run for run in runs}
    assert "the trained network is not kept" in (kept[False] / "log.txt").read_text()
    codes = {"torch": 0, "onnx": 0, "safetensors": 2}
    for format_, code in codes.items():
        done = itopctl("export", kept[True].name, "--trust", "-f", format_, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text().replace("state == {'a': 1}", "state is None"))
    done = itopctl("export", kept[True].name, "--trust", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 3 and "does not fit its model: AssertionError" in done.stderr


def test_only_files_are_written_over(finished_sweep: FinishedSweep, tmp_path: Path) -> None:
    run = _runs(finished_sweep)[0]["run_id"]

    def written(path: str | Path) -> int:
        done = itopctl("export", run, "-f", "safetensors", "-o", path, "--results", finished_sweep.results)
        assert "Traceback" not in done.stderr
        return done.returncode

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert [written(path) for path in ("", "/dev/null", tmp_path, tmp_path / "pipe")] == [2, 2, 2, 2]
    assert written(tmp_path / "link") == 0
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").stat().st_size > 1000
    assert Path("/dev/null").is_char_device()


def test_a_model_of_the_users_own_is_run_as_it_was_and_another_one_when_it_is_trusted(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def make(input_shape, classes):\n"
        "    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(2)]\n"
        "    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, classes))\n"
    )
    spec = write_spec(tmp_path, base={"dataset": "digits", "model": "mine:make", "epochs": 1, "method": "set-itop",
                                      "sparsity": 0.7, "update_interval": 5})  # fmt: skip
    assert itopctl("sweep", spec, cwd=tmp_path).returncode == 0
    (run,) = (tmp_path / "results" / "runs").iterdir()
    for format_ in ("torch", "onnx", "safetensors"):
        done = itopctl("export", run.name, "-f", format_, "--json", cwd=tmp_path)
        told = json.loads(done.stdout)
        assert told["test_accuracy"] == told["recorded_test_accuracy"]
        assert not any("Module mine" in note for note in told["notes"])
    source = (tmp_path / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(source.replace("nn.ReLU()", "nn.GELU()"))
    done = itopctl("export", run.name, cwd=tmp_path)
    assert done.returncode == 2 and "mine:make" in done.stderr and "--trust" in done.stderr
    assert f"Module mine ({tmp_path / 'mine.py'}) has changed" in done.stderr
    done = itopctl("export", run.name, "--trust", "-f", "safetensors", "--json", cwd=tmp_path)
    assert any("Module mine" in note for note in json.loads(done.stdout)["notes"])
