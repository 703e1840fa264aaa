"""LaTeX, for those who compile what reports are written as."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.report.latex import NO_LATEX, Compiled, compile_latex, missing


@pytest.fixture
def latex(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Compiled]:
    """`compile_latex` in a new folder. Where there is no LaTeX the tests are skipped, or fail if they must run."""
    lacking = missing()
    if lacking is not None and os.environ.get("ITOPCTL_TEST_LATEX_REQUIRED"):
        pytest.fail(f"{NO_LATEX}: {lacking}", pytrace=False)
    if lacking is not None:
        pytest.skip(f"{NO_LATEX}: {lacking}")

    def compiled(table: str, siunitx: str = "") -> Compiled:
        folder: Path = tmp_path_factory.mktemp("latex")
        return compile_latex(table, folder, siunitx)

    return compiled
