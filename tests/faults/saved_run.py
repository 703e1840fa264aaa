"""A run that was killed and has checkpoints, of which the newest is made unfit in some way; and what becomes of it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itopctl.store.checkpoints import Checkpoint, checkpoints, save_checkpoint
from itopctl.store.rundir import Results
from itopctl.train.checkpoint import decode, encode
from tests.faults.trials import ATTEMPT, RUN, Undisturbed, begun, check_journal, check_what_readers_see, numbers
from tests.faults.zygote import Zygote
from tests.store.builders import Lab

MOST_MEMORY = 6 << 30
"""Bytes that an attempt may take: what is gigantic fails, rather than this machine."""


@dataclass(frozen=True)
class SavedRun:
    """The run, killed after its fourth step was saved."""

    results: Results
    zygote: Zygote
    undisturbed: Undisturbed

    @property
    def newest(self) -> Checkpoint:
        return checkpoints(self.results.run(RUN))[0]

    def state(self) -> dict[str, Any]:
        return decode(self.newest.read())

    def copied(self, folder: Path) -> Lab:
        """The same elsewhere, with a store."""
        shutil.copytree(self.results.runs, folder / "runs")
        return begun(folder)

    def with_newest(self, folder: Path, data: bytes | dict[str, Any]) -> Lab:
        """The same elsewhere, with another content of the newest checkpoint, and the digest of that in its name."""
        lab = self.copied(folder)
        run = lab.results.run(RUN)
        (run.path / self.newest.path.name).unlink()
        save_checkpoint(run, self.newest.step, data if isinstance(data, bytes) else encode(data))
        return lab

    def check_goes_on(self, lab: Lab, step: int) -> None:
        """It goes on from the checkpoint of this step, 0: from the start, and ends as if nothing had happened."""
        fate = self.zygote.call(ATTEMPT, results=str(lab.results.path), memory=MOST_MEMORY)
        assert fate.value["state"] == "done", fate
        assert check_what_readers_see(lab, self.undisturbed.numbers) == "done"
        numbers(lab).check(self.undisturbed.numbers)
        check_journal(lab.results.run(RUN))
        assert lab.attempts(RUN)[-1]["resumed_from_step"] == step


def killed_after_the_fourth_step(zygote: Zygote, undisturbed: Undisturbed, folder: Path) -> SavedRun:
    saved = [number for number, kind in enumerate(undisturbed.changes) if kind == "rename"][4]  # after environment.json
    lab = begun(folder)
    assert zygote.call(ATTEMPT, results=str(folder), kill_at=saved + 2).killed
    assert [one.step for one in checkpoints(lab.results.run(RUN))] == [4, 3, 2]
    return SavedRun(lab.results, zygote, undisturbed)
