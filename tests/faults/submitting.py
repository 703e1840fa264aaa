"""Commands of a person that hand runs to a pretended SLURM, call them off and look after them; each may be killed."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import submitit  # noqa: F401  what commands import when they need it

from itopctl.cli import cluster, sweep  # noqa: F401
from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.cancellation import carry_out, plan_cancellation
from itopctl.dispatch.reconcile import GRACE_SECONDS, reconcile
from itopctl.dispatch.slurm import Slurm
from itopctl.dispatch.snapshot import Code
from itopctl.dispatch.submitter import Order, Submitter
from itopctl.store import files
from itopctl.store.files import Change
from itopctl.store.rundir import Results
from itopctl.store.submissions import SubmissionDirectory, live_submissions, load_request
from tests.dispatch.fake_slurm import FakeSlurm
from tests.dispatch.fake_slurm_commands import ENDED
from tests.dispatch.told import ToldScheduler, seen
from tests.faults.trials import killer
from tests.faults.typed import typed
from tests.helpers import run_config

CONFIGS: dict[str, RunConfig] = {run_id(config): config for config in (run_config(seed=n) for n in range(4))}
RUNS = tuple(CONFIGS)
FIRST = 2
"""So many of the runs go before the others: an array of their own."""

Site = Callable[[object], tuple[FakeSlurm, Results]]
"""Makes a pretended SLURM and a results folder, under a name."""


def submit_here(results: Results) -> None:
    """Submit whatever of the runs is at no job."""
    scheduler = Slurm()
    code = Code("c0ffee", True, "d" * 12, None, str(results.path))
    one = Submitter(results, Path("data"), scheduler, scheduler.cluster(), CONFIGS, {}, code)
    one.submit(Order("one", RUNS, SlurmOptions(), FIRST))


# In processes of their own; each returns the kinds of the changes that it made ------------------------------------


def submit(results: str, environment: dict[str, str], kill_at: int | None = None, torn: bool = False) -> list[str]:
    kinds = prepare(environment, kill_at, torn)
    submit_here(Results(Path(results)))
    return kinds


def submit_and_record(results: str, environment: dict[str, str], record: str) -> None:
    """Submit; a list of all changes goes into a file, each with what SLURM knew before it, and what it knew at last."""
    prepare(environment, None, False)
    told: list[tuple[Change | None, str]] = []

    def slurm_knows() -> str:
        return Path(environment["FAKE_SLURM"], "state.json").read_text()

    files.watchers.append(lambda change: told.append((change, slurm_knows())))
    submit_here(Results(Path(results)))
    Path(record).write_bytes(pickle.dumps([*told, (None, slurm_knows())]))


def cancel(results: str, environment: dict[str, str], kill_at: int | None = None, torn: bool = False) -> list[str]:
    """Call all the runs off."""
    kinds = prepare(environment, kill_at, torn)
    folder, scheduler = Results(Path(results)), Slurm()
    carry_out(folder, plan_cancellation(folder, RUNS, scheduler.cluster), scheduler)
    return kinds


def look(results: str, words: list[str], kill_at: int | None = None, torn: bool = False) -> list[str]:
    """Look at a scheduler that shows the jobs of `one-x` in these states."""
    kinds = prepare({}, kill_at, torn)
    told = ToldScheduler(shown=[seen(word, index=index) for index, word in enumerate(words)])
    reconcile(Results(Path(results)), told, lambda: 1e6)
    return kinds


def type_in(
    folder: str, line: list[str], environment: dict[str, str], kill_at: int | None = None, torn: bool = False
) -> dict[str, Any]:
    """Type a command in a folder."""
    kinds = prepare(environment, kill_at, torn)
    os.chdir(folder)
    done = typed(*line)
    return {"code": done.code, "out": done.out, "err": done.err, "changes": kinds}


def prepare(environment: dict[str, str], kill_at: int | None, torn: bool) -> list[str]:
    """Make this process one that is killed before or in the middle of a change; returns a list of the kinds of all."""
    os.environ.update(environment)
    os.fsync = lambda handle: None  # what is killed is not the machine
    kinds: list[str] = []
    files.watchers.append(lambda change: kinds.append(change.kind))
    if kill_at is not None:
        files.watchers.append(killer(kill_at, torn))
    return kinds


def kill_around_sbatch(fake: FakeSlurm, call: int, when: str) -> None:
    """Let sbatch kill who calls it for the so-manyth time, from 0.

    `before` or `after` the jobs are accepted; or, `late`, they are accepted some time after, when there is a file `go`
    in the cluster's folder.
    """
    program, count, go = fake.folder / "bin" / "sbatch", fake.folder / "sbatch calls", fake.folder / "go"
    command, kill = program.read_text().splitlines()[1].removeprefix("exec "), "kill -9 $PPID"
    wait = f'while [ ! -e "{go}" ]; do sleep 0.02; done'
    does = {"before": kill, "after": f"{command}; {kill}", "late": f"{kill}; {wait}; {command}"}[when]
    count.write_text("0")
    program.write_text(
        f'#!/bin/sh\nn=$(cat "{count}")\necho $((n + 1)) > "{count}"\n'
        f'if [ "$n" = {call} ]; then {does}; exit; fi\nexec {command}\n'
    )


def jobs_of_runs(fake: FakeSlurm, results: Results) -> dict[str, list[str]]:
    """Run id → the jobs that SLURM has for it and that have not ended. Fails where a job's record is gone."""
    found: dict[str, list[str]] = {}
    for array, about in fake.arrays.items():
        request = load_request(SubmissionDirectory(results.submissions / about["name"]))
        for index, task in about["tasks"].items():
            for run in request.jobs[int(index)] if task["word"] not in ENDED else ():
                found.setdefault(run, []).append(f"{array}_{index}")
    return found


def go_on(fake: FakeSlurm, results: Results, look_first: bool) -> None:
    """Submit and look, again and again, until it is known what became of everything; nothing is ever doubled."""

    def submits() -> None:
        submit_here(results)
        assert all(len(jobs) == 1 for jobs in jobs_of_runs(fake, results).values())

    if not look_first:
        submits()
    for at in (0.0, GRACE_SECONDS + 1):
        reconcile(results, Slurm(), lambda at=at: at)
        submits()
    jobs = jobs_of_runs(fake, results)
    assert sorted(jobs) == sorted(RUNS)
    known = {run: f"{one.id_of(one.index_of(run))}" for one in live_submissions(results) for run in one.live_runs}
    assert known == {run: job for run, (job,) in jobs.items()}, "each is known, and under its id"
