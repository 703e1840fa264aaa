from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.chromium import Browser, a_browser, missing
from tests.conftest import NO_BROWSER


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the browser saves files."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def browser(downloads: Path) -> Iterator[Browser]:
    """A browser. Where it cannot be had the tests are skipped, or fail if they must run."""
    lacking = missing()
    if lacking is not None and os.environ.get("ITOPCTL_TEST_BROWSER_REQUIRED"):
        pytest.fail(f"{NO_BROWSER}: {lacking}", pytrace=False)
    if lacking is not None:
        pytest.skip(f"{NO_BROWSER}: {lacking}")
    with a_browser(downloads) as opened:
        yield opened
