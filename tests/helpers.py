"""What several tests share: a run config from a few words, and a results folder with real runs in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from itopctl.config.expand import expand
from itopctl.config.reading import read_text
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import parse_sweep
from tests.forked import Server

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def need_fashion_mnist() -> None:
    """Skip the test where Debian's package is not installed; in CI, which installs it, fail."""
    if FASHION_MNIST.is_dir():
        return
    message = "Debian's package dataset-fashion-mnist is not installed"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def run_config(**settings: Any) -> RunConfig:
    """One resolved run; by default two short epochs of SET-ITOP on digits, under masks."""
    base: dict[str, Any] = {
        "dataset": "digits",
        "model": "lenet-300-100",
        "method": "set-itop",
        "sparsity": 0.9,
        "epochs": 2,
        "update_interval": 5,
        "compute": "masked",
    }
    base.update(settings)
    text = yaml.safe_dump({"name": "one", "base": base})
    (config,) = expand(parse_sweep(read_text(text, "one.yaml"))).runs.values()
    return config


def write_spec(folder: Path, **sections: Any) -> Path:
    """A spec file; `name` is `trial` unless given."""
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump({"name": "trial", **sections}))
    return path


_forked = Server()


def itopctl(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command line, in a process of its own, which is forked (`tests.forked`) wherever that is the same."""
    whole = {**os.environ, **environment}
    if _forked.can(whole):
        return _forked(list(map(str, arguments)), cwd or Path.cwd(), whole, timeout=240)
    return started(*arguments, cwd=cwd, **environment)


def started(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command line, started as a user's shell does."""
    return subprocess.run(
        [sys.executable, "-m", "itopctl", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, **environment},
        timeout=240,
        check=False,
    )
