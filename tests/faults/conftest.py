from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite(
    "tests.faults.trials", "tests.faults.typed", "tests.faults.submitting", "tests.faults.saved_run"
)

from itopctl.store.rundir import Results  # noqa: E402
from tests.dispatch.fake_slurm import FakeSlurm  # noqa: E402
from tests.dispatch.told import on_local_disk  # noqa: E402
from tests.faults import trials  # noqa: E402
from tests.faults.mounts import SmallDisk, small_disk  # noqa: E402
from tests.faults.saved_run import SavedRun, killed_after_the_fourth_step  # noqa: E402
from tests.faults.submitting import Site  # noqa: E402
from tests.faults.zygote import Zygote  # noqa: E402


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


@pytest.fixture(scope="session")
def saved_run(zygote: Zygote, undisturbed: trials.Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    """The run, killed, with checkpoints to damage in copies."""
    return killed_after_the_fourth_step(zygote, undisturbed, tmp_path_factory.mktemp("saved"))


@pytest.fixture(scope="session")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with small_disk(tmp_path_factory.mktemp("small disk"), megabytes=3) as disk:
        yield disk


@pytest.fixture
def disk(mounted: SmallDisk) -> Iterator[SmallDisk]:
    """A file system of three megabytes, empty."""
    yield mounted
    mounted.read_only(False)
    for path in mounted.path.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """Makes a pretended SLURM, on the PATH, and a results folder."""

    def make(name: object) -> tuple[FakeSlurm, Results]:
        monkeypatch.undo()  # the one before
        on_local_disk(monkeypatch)
        folder = tmp_path / str(name)
        fake = FakeSlurm.installed(folder / "fake", monkeypatch)
        results = Results(folder / "results")
        results.runs.mkdir(parents=True)
        return fake, results

    return make
