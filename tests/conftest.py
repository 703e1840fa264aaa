"""A results folder with a real, finished sweep in it, made once for all tests that only look."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers import itopctl, write_spec


@dataclass(frozen=True)
class FinishedSweep:
    """A sweep called `trial`: dense, static and two dynamic methods at two sparsities, two seeds each."""

    spec: Path
    results: Path
    output: str


@pytest.fixture(scope="session")
def finished_sweep(tmp_path_factory: pytest.TempPathFactory) -> FinishedSweep:
    folder = tmp_path_factory.mktemp("finished sweep")  # with a space in its path
    spec = write_spec(
        folder,
        base={"dataset": "digits", "model": "lenet-300-100", "epochs": 4, "method": "dense"},
        grid={"method": ["set-itop", "rigl-itop"], "sparsity": [0.8, 0.9], "update_interval": [5], "seed": 2},
        include=[
            {"base": {"method": "static"}, "grid": {"sparsity": [0.8, 0.9], "seed": 2}},
            {"base": {"method": "dense"}, "grid": {"seed": 2, "sparsity": [0.8, 0.9]}},
        ],
    )
    done = itopctl("sweep", spec, "--results", folder / "results")
    assert done.returncode == 0, done.stdout + done.stderr
    return FinishedSweep(spec, folder / "results", done.stdout)
