"""Whatever is killed, whenever: no finished result is lost, no run is made twice, and every number is right."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from itopctl.store.journal import read_journal
from itopctl.store.rundir import Results
from tests import share
from tests.chaos.check import different_files, different_stores, different_when_rebuilt, left_behind, wrong_journals
from tests.chaos.harness import Chaos
from tests.chaos.processes import need_proc, two_cores
from tests.helpers import started, write_spec

pytestmark = pytest.mark.alone
SEED = int(os.environ.get("ITOPCTL_CHAOS_SEED") or share.chosen().replace("all", "0"))
BASE: dict[str, Any] = {
    "dataset": "digits", "model": "lenet-300-100", "update_interval": 7, "batch_size": 64,
    "checkpoint_minutes": 0.0002,  # every few steps: much of the time a checkpoint is just being written
}  # fmt: skip


def few(epochs: int) -> dict[str, Any]:
    """Nine runs of five methods."""
    return {
        "base": {**BASE, "epochs": epochs, "sparsity": 0.9},
        "grid": {"method": ["static", "set-itop", "rigl-itop", "snfs"], "seed": 2},
        "include": [{"base": {"method": "dense"}}],
    }


def many(epochs: int, seeds: int) -> dict[str, Any]:
    """Fifteen runs for each seed, of eight methods at two sparsities."""
    methods = ["static", "set-itop", "rigl-itop", "snfs", "mest", "dst-ee", "gse"]
    return {
        "base": {**BASE, "epochs": epochs},
        "grid": {"method": methods, "sparsity": [0.8, 0.95], "seed": seeds},
        "include": [{"base": {"method": "dense"}, "grid": {"seed": seeds}}],
    }


def survive(folder: Path, kills: int, sections: dict[str, Any]) -> None:
    """Run a sweep in peace, then under fire; all that it leaves must be the same."""
    need_proc()
    spec = write_spec(folder, **sections)
    reference, results = Results(folder / "in peace" / "results"), Results(folder / "under fire" / "results")
    for one in (reference, results):
        one.path.parent.mkdir()
    with two_cores():
        began = time.monotonic()
        never = ("--set", "checkpoint_minutes=1000")  # what is saved, and when, may not matter either
        peace = started("sweep", spec, "--results", reference.path, "--workers", "2", *never)
        assert peace.returncode == 0, peace.stdout + peace.stderr
        middle = time.monotonic()
        chaos = Chaos(spec, "trial", results, tuple(reference.run_ids()), SEED, kills)
        chaos.carry_out()
        (folder / "kills.txt").write_text("".join(f"{kill}\n" for kill in chaos.kills))
        print(f"{middle - began:.0f} s in peace, {time.monotonic() - middle:.0f} s under fire")
    again = started("sweep", spec, "--results", results.path, "--workers", "2")
    checked = started("store", "check", "--json", "--results", results.path)
    wrong = [
        *chaos.wrong, *different_stores(results, reference), *different_files(results, reference),
        *wrong_journals(results, reference, chaos.kills), *left_behind(results),
        *different_when_rebuilt(results, folder),
    ]  # fmt: skip
    if not re.match(rf"Plan: 0 new, {len(chaos.run_ids)} done, 0 running, 0 failed", again.stdout):
        wrong.append(f"a further sweep says: {again.stdout}{again.stderr}")
    if checked.returncode != 0:
        wrong.append(f"store check says: {checked.stdout}{checked.stderr}")
    print(f"commands typed: {dict(chaos.typed)}; killed: {dict(Counter(kill.whom for kill in chaos.kills))}")
    starts = [e for i in chaos.run_ids for e in read_journal(results.run(i).journal).events if e["event"] == "started"]
    resumed, interrupted = sum(e["step"] > 0 for e in starts), sum(kill.run is not None for kill in chaos.kills)
    print(f"{len(starts)} attempts, {resumed} from a checkpoint; {interrupted} kills with a run in hand")
    wrong = list(dict.fromkeys(wrong))
    told = "\n".join([f"seed {SEED} (ITOPCTL_CHAOS_SEED), {len(wrong)} things are wrong:", *wrong[:60]])
    assert not wrong, told
    assert len(chaos.kills) >= kills, f"only {len(chaos.kills)} kills hit"
    assert interrupted >= kills / 10, "most kills hit nothing that mattered: the test says nothing"
    assert resumed >= max(kills // 40 - 1, int(kills >= 60)), "nothing went on from a checkpoint: the test says nothing"


def test_a_sweep_that_is_killed_twenty_times_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    survive(tmp_path, 20, few(epochs=20))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_sweep_of_many_methods_that_is_killed_again_and_again_ends_as_if_nothing_had_been(tmp_path: Path) -> None:
    """Two hundred times where every exhaustive case is asked for, otherwise sixty."""
    kills, seeds = (200, 3) if share.chosen() == "all" else (60, 1)
    survive(tmp_path, kills, many(epochs=24, seeds=seeds))
