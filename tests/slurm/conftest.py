"""The cluster that the tests of this folder run on, and a place of its own for each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster
from tests.slurm.place import Place, a_place, using

_NONE_UP = "no SLURM cluster is up: make slurm-up"


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """The cluster of `make slurm-up`. Where there is none the tests are skipped, or fail if there must be one."""
    found = Cluster()
    if found.folder.exists():
        with using(found):
            found.up()  # what an interrupted test left down
    elif os.environ.get("ITOPCTL_TEST_SLURM_REQUIRED"):
        pytest.fail(_NONE_UP, pytrace=False)
    else:
        pytest.skip(_NONE_UP)
    return found


@pytest.fixture
def place(cluster: Cluster, tmp_path: Path) -> Iterator[Place]:
    """Where a test submits; its jobs end with it."""
    with a_place(tmp_path, cluster) as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out, and why."""
    skipped = [report for report in terminalreporter.stats.get("skipped", []) if _NONE_UP in str(report.longrepr)]
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests on SLURM skipped: {_NONE_UP}")
