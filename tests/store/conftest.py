from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.builders import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """An empty results folder, in a place whose name has a space, and its store."""
    made = Lab.at(tmp_path / "my results")
    yield made
    made.store.close()
