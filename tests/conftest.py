"""What is made once for all tests: a results folder with a real, finished sweep in it, and a PostgreSQL server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import share
from tests.browser.chromium import missing as no_browser
from tests.helpers import itopctl, write_spec
from tests.report import latex
from tests.store.postgres import Postgres, a_postgres, missing

_NO_POSTGRES = "no PostgreSQL for the tests"
NO_BROWSER = "no browser for the tests"

LONGEST = (
    "cli/test_robustness.py", "dispatch/test_isolation.py", "dispatch/test_pool.py", "faults/test_power_cut.py",
    "faults/test_killed_submission.py", "faults/test_killed_run.py", "faults/test_unwritable_results.py",
    "train/test_ranks.py", "train/test_loop.py", "fuzz/test_inputs.py", "fuzz/test_found.py", "cli/test_export.py",
    "cli/test_nameless.py", "cli/test_plan.py", "browser/test_page.py", "slurm/test_resuming.py",
    "slurm/test_submitting.py",
)  # fmt: skip
"""Files that are given to processes first: with one of them last, the other processes would wait for it."""


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


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server of the tests' own. Where it cannot be had the tests are skipped, or fail if they must run."""
    lacking = missing()
    if lacking is not None and os.environ.get("ITOPCTL_TEST_POSTGRES_REQUIRED"):
        pytest.fail(f"{_NO_POSTGRES}: {lacking}", pytrace=False)
    if lacking is not None:
        pytest.skip(f"{_NO_POSTGRES}: {lacking}")
    with a_postgres() as server:
        yield server


def pytest_configure(config: pytest.Config) -> None:
    """Choose the share before other processes are started that take it, too."""
    share.chosen()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of cases marked `rotates`, leave those of this run's share; begin with the files that take longest."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("rotates"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    left_out = {item for name, group in cases.items() for item in set(group) - set(share.of_share(group, name))}
    if left_out and not _asked_for_one(config):
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: not item.path.as_posix().endswith(LONGEST))


def _asked_for_one(config: pytest.Config) -> bool:
    """Whether cases were named on the command line: those run, whatever the share is."""
    return any("[" in argument for argument in config.args)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line what was left out, and why; and how to run what failed again."""
    if terminalreporter.stats.get("failed") and share.chosen() != "all":
        terminalreporter.write_line(f"{share.VARIABLE}={share.chosen()} runs the same share of exhaustive cases again")
    for what, lacking in ((_NO_POSTGRES, missing), (latex.NO_LATEX, latex.missing), (NO_BROWSER, no_browser)):
        skipped = [report for report in terminalreporter.stats.get("skipped", []) if what in str(report.longrepr)]
        if skipped:
            terminalreporter.write_line(f"{len(skipped)} tests skipped: {what}: {lacking()}")
