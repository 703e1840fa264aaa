from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import trials
from tests.faults.zygote import Zygote


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    """Where attempts are made."""
    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def undisturbed(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> trials.Undisturbed:
    """The run as it is where nothing happens to it."""
    lab = trials.begun(tmp_path_factory.mktemp("undisturbed"))
    fate = zygote.call("tests.faults.trials:attempt", results=str(lab.results.path))
    assert fate.value["state"] == "done", fate
    lab.ingest()
    return trials.Undisturbed(trials.numbers(lab), fate.value["changes"])
