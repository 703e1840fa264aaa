from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.desk import Desk
from tests.dispatch.fake_slurm import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    monkeypatch.setattr(os, "fsync", lambda handle: None)
    return FakeSlurm.installed(tmp_path / "fake slurm", monkeypatch)


@pytest.fixture
def desk(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Iterator[Desk]:
    folder = tmp_path / "my work"
    folder.mkdir()
    for name in ("ITOPCTL_RESULTS", "ITOPCTL_DATA", "ITOPCTL_SLURM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder))
    monkeypatch.chdir(folder)
    yield Desk(folder, fake, monkeypatch, capsys)
