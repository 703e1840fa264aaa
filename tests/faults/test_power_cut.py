"""The power goes, at any moment: what was flushed is there, the rest may be or not.

What is left can be read, and the run goes on from it to the same end, bit for bit.
"""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from itopctl.store.checkpoints import checkpoints
from itopctl.store.files import Change, read_json
from itopctl.store.journal import holds
from itopctl.train.checkpoint import decode
from tests.dispatch.told import files_of
from tests.faults.disk import CUTS, KILL, Cut, Left, digest, lay_out, moments
from tests.faults.trials import ATTEMPT, RUN, Undisturbed, begun, check_the_end, check_what_readers_see
from tests.faults.typed import look_with_every_command
from tests.faults.zygote import Zygote
from tests.share import of_share

T = TypeVar("T")

QUICK = 5
"""Every so many states, one is taken where there is no time for all."""


@dataclass(frozen=True)
class Recorded:
    """All changes that the run made in a results folder, from the run's own folder on."""

    results: Path
    changes: list[Change]

    def states(self, cuts: Sequence[Cut]) -> Iterator[tuple[str, Left]]:
        """All that is left by cuts at every moment, each once; named by its moment."""
        seen: set[str] = set()
        for number, disk in moments(self.results, self.changes):
            for cut in cuts:
                left = disk.left_by(cut)
                if digest(left) not in seen:
                    seen.add(digest(left))
                    yield f"{number} {cut.content} {cut.names}", left


def record(zygote: Zygote, folder: Path, tidy: bool) -> Recorded:
    (folder / "results").mkdir()
    about = {"results": str(folder / "results"), "record": str(folder / "changes"), "tidy": tidy}
    assert zygote.call(ATTEMPT, **about).value["state"] == "done"
    return Recorded(folder / "results", pickle.loads((folder / "changes").read_bytes()))


@pytest.fixture(scope="session")
def recorded(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The run, which keeps its last checkpoints."""
    return record(zygote, tmp_path_factory.mktemp("recorded"), tidy=False)


@pytest.fixture(scope="session")
def recorded_tidy(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The run where it keeps none."""
    return record(zygote, tmp_path_factory.mktemp("recorded tidy"), tidy=True)


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["some of them", "a share of all"])
def step(request: pytest.FixtureRequest) -> int:
    """Every so many states is taken."""
    return 1 if request.param else QUICK


def taken(states: Sequence[T], step: int, name: str) -> list[tuple[int, T]]:
    """Every `step`-th state with its number; of all, this run's share."""
    numbered = list(enumerate(states))
    return numbered[::step] if step > 1 else of_share(numbered, name)


def test_changes_that_were_recorded_make_what_the_run_left(recorded: Recorded) -> None:
    """But for its log, which need not survive."""
    *_, (_, disk) = moments(recorded.results, recorded.changes)
    made = {name: content for name, content in disk.left_by(KILL).items() if content is not None}
    there = {name: content for name, content in files_of(recorded.results).items() if not name.endswith("log.txt")}
    assert made == there
    assert disk.left_by(CUTS[0]).items() >= {name: c for name, c in made.items() if "journal" not in name}.items()


def test_what_a_run_told_is_on_disk_when_it_has_ended_and_what_was_flushed_stays(recorded: Recorded) -> None:
    name, flushed = f"runs/{RUN}/journal.jsonl", b""
    for number, disk in moments(recorded.results, recorded.changes):
        told = disk.left_by(KILL).get(name) or b""
        if number and (recorded.changes[number - 1].kind, recorded.changes[number - 1].path.suffix) == (
            "flush", ".jsonl",
        ):  # fmt: skip
            flushed = told
        for cut in CUTS:
            assert (disk.left_by(cut).get(name) or b"").startswith(flushed), (number, cut)
    assert flushed == told
    assert b'"finished"' in flushed


@pytest.mark.parametrize("tidy", [False, True], ids=["keeps checkpoints", "keeps none"])
def test_what_a_power_cut_leaves_can_be_read_and_holds_nothing_wrong(
    recorded: Recorded, recorded_tidy: Recorded, undisturbed: Undisturbed, tmp_path: Path, step: int, tidy: bool
) -> None:
    states = (recorded_tidy if tidy else recorded).states((KILL, *CUTS))
    for number, (moment, left) in taken(list(states), step, f"readable, {tidy}"):
        lab = begun(tmp_path / str(number))
        lay_out(lab.results.runs, left, "runs")
        check_what_readers_see(lab, undisturbed.numbers)
        run = lab.results.run(RUN)
        for one in checkpoints(run):
            state = decode(one.read())
            assert state["progress"]["step"] == one.step, moment
            assert holds(run.journal, state["journal"]), f"{moment}: the journal lacks what led to a checkpoint"
        assert run.result.exists() == (read_json(run.result) is not None), f"{moment}: half a result"


def test_a_run_whose_power_was_cut_goes_on_to_the_same_end(
    zygote: Zygote, recorded: Recorded, undisturbed: Undisturbed, tmp_path: Path, step: int
) -> None:
    states = list(recorded.states(CUTS))
    some = random.Random(step).sample(states, 12 if step > 1 else 80)
    for moment, left in some if step > 1 else of_share(some, "the same end"):
        lab = begun(tmp_path / moment)
        lay_out(lab.results.runs, left, "runs")
        saved = checkpoints(lab.results.run(RUN))
        assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done", moment
        check_the_end(lab, undisturbed.numbers)
        if saved and "result.json" not in {Path(name).name for name in left}:
            assert lab.attempts(RUN)[-1]["resumed_from_step"] == saved[0].step, "nothing saved is lost"


def seen_before(recorded: Recorded) -> Iterator[tuple[int, Left, Left]]:
    """Moments when a power cut takes something: what there was, and what is left where all of that is lost."""
    for number, disk in moments(recorded.results, recorded.changes):
        there, left = disk.left_by(KILL), disk.left_by(CUTS[0])
        if digest(there) != digest(left) and f"runs/{RUN}/config.json" in left:
            yield number, there, left


def had_result(left: Left) -> bool:
    return f"runs/{RUN}/result.json" in left


def check_a_store_that_had_seen(
    there: Left, left: Left, zygote: Zygote, undisturbed: Undisturbed, folder: Path, looks: bool = True
) -> None:
    """A store that knows more than what is left is right once the run is done.

    Args:
        looks: whether somebody looks before the run goes on.
    """
    lab = begun(folder)
    lay_out(lab.results.runs, there, "runs")
    lab.ingest()
    lay_out(lab.results.runs, left, "runs")
    if looks:
        lab.ingest()
    assert zygote.call(ATTEMPT, results=str(lab.results.path)).value["state"] == "done"
    check_the_end(lab, undisturbed.numbers)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param(True, id="somebody looks before it goes on"),
        pytest.param(False, id="nobody looks"),
    ],
)
def test_a_store_that_had_seen_what_the_power_cut_took_is_right_in_the_end(
    zygote: Zygote, recorded: Recorded, undisturbed: Undisturbed, tmp_path: Path, step: int, looks: bool
) -> None:
    """It may have read what was never flushed, and its own file may be on another disk."""
    for _, (number, there, left) in taken(list(seen_before(recorded)), step, f"seen before, {looks}"):
        if not had_result(there):
            check_a_store_that_had_seen(there, left, zygote, undisturbed, tmp_path / str(number), looks)


def test_every_command_that_looks_copes_with_what_a_power_cut_left(
    recorded: Recorded, undisturbed: Undisturbed, tmp_path: Path
) -> None:
    states = list(recorded.states(CUTS))
    for moment, left in random.Random(3).sample(states, 8):
        lab = begun(tmp_path / moment)
        lay_out(lab.results.runs, left, "runs")
        said = look_with_every_command(lab.results.path, RUN)
        (run,) = json.loads(said["report -t runs --json"].out)
        assert run["state"] == check_what_readers_see(lab, undisturbed.numbers)
