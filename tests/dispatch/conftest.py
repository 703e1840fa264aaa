from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.looks import ID
from tests.dispatch.told import lab_at, on_local_disk
from tests.store.builders import Lab


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    """A pretended SLURM on this process's PATH."""
    return FakeSlurm.installed(tmp_path / "fake slurm", monkeypatch)


@pytest.fixture
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written need not survive a power failure."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def local_disk(monkeypatch: pytest.MonkeyPatch, no_waiting_for_the_disk: None) -> None:
    """What jobs write is seen at once."""
    on_local_disk(monkeypatch)


@pytest.fixture
def lab(tmp_path: Path, local_disk: None) -> Iterator[Lab]:
    """A results folder whose sweep `one` has one run, which one job of a submission is to make."""
    made = lab_at(tmp_path / "my results")
    made.sweep("one", {ID: {"sparsity": 0.9, "seed": 0}})
    made.submitted("one-x", (ID,))
    yield made
    made.store.close()
