from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.dispatch.fake_slurm import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A pretended SLURM on this process's PATH."""
    return FakeSlurm.installed(tmp_path / "fake slurm", monkeypatch)


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written need not survive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)
