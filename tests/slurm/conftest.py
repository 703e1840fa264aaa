"""The cluster that the tests of this folder run on, and a place of its own for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import Place


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster that `make slurm-up` made. Where none is up the tests are skipped, or fail if there must be one."""
    found = Cluster()
    if not found.running():
        if os.environ.get("ITOPCTL_TEST_SLURM_REQUIRED"):
            pytest.fail("no SLURM cluster is up: make slurm-up")
        pytest.skip("no SLURM cluster is up: make slurm-up")
    return found


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """Where a test submits; its jobs end with it."""
    made = Place(tmp_path, cluster)
    yield made
    made.end_jobs()
