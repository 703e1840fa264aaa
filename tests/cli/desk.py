"""A folder with a spec, a pretended SLURM, and commands that are typed there, in this process."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from itopctl.cli import app
from itopctl.store.rundir import Results
from itopctl.store.submissions import live_submissions
from tests.dispatch.fake_slurm import FakeSlurm
from tests.helpers import write_spec

BASE = {"dataset": "digits", "model": "lenet-300-100", "method": "set-itop", "sparsity": 0.9, "update_interval": 5,
        "epochs": 2}  # fmt: skip


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Desk:
    """A folder with a spec of three runs, where commands are typed."""

    def __init__(self, folder: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.folder, self.fake, self.monkeypatch, self.capsys = folder, fake, monkeypatch, capsys
        self.results = Results(folder / "results")
        self.spec = write_spec(folder, base=BASE, grid={"seed": 3}, slurm={"mem": "1G"})

    def __call__(self, *arguments: str | Path) -> Done:
        self.monkeypatch.setattr(sys, "argv", ["itopctl", *map(str, arguments)])
        self.capsys.readouterr()
        try:
            code = app.run()
        except SystemExit as end:
            code = int(end.code or 0)
        seen = self.capsys.readouterr()
        return Done(code, seen.out, seen.err)

    def submit(self, *arguments: str) -> str:
        """Submit the sweep; returns the array's id."""
        done = self("sweep", self.spec, "--cluster", "slurm", *arguments)
        assert done.code == 0, done
        return list(self.fake.arrays)[-1]

    def states(self, *arguments: str) -> dict[str, str]:
        """State of each run, in the order of the sweep."""
        runs = json.loads(self("report", "-t", "runs", "--json", *arguments).out)
        return {run["run_id"]: run["state"] for run in runs}

    @property
    def runs(self) -> list[str]:
        return [run for one in live_submissions(self.results) for run in one.request.runs]
