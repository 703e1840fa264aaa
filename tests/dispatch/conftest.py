from __future__ import annotations

from pathlib import Path

import pytest

from tests.dispatch.fake_slurm import FakeSlurm


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A pretended SLURM on this process's PATH."""
    return FakeSlurm.installed(tmp_path / "fake slurm", monkeypatch)
