"""Running on this machine: a pool of workers, and a display."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from itopctl.errors import ItopctlError, plural

if TYPE_CHECKING:
    from rich.console import Console

    from itopctl.api.worklist import Work
    from itopctl.dispatch.pool import Outcome
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results


def run_here(
    work: Work, folder: Results, data: Path, store: Store, console: Console, workers: int | None, runs_per_gpu: int,
    first: int = 0, keep: Callable[[], None] = lambda: None,
) -> Outcome | None:  # fmt: skip
    """Run on this machine; None where there is nothing to run."""
    from itopctl.store.files import remove

    to_run = work.to_run
    for run_id in to_run:
        remove(folder.run(run_id).cancel)
    if not to_run:
        return None
    parts = [to_run[:first], to_run[first:]] if 0 < first < len(to_run) else [to_run]
    for number, part in enumerate(parts, 1):
        outcome = _run_pool(work, part, folder, data, store, console, workers, runs_per_gpu, keep)
        if outcome.stopped is not None:
            break
        if number < len(parts) and set(outcome.states.values()) - {"done", "elsewhere"}:
            left = plural(len(to_run) - first, "run was", "runs were")
            console.print(f"The other {left} not started, since not all of the first succeeded.")
            break
    return outcome


def _run_pool(
    work: Work, to_run: Sequence[str], folder: Results, data: Path, store: Store, console: Console,
    workers: int | None, runs_per_gpu: int, keep: Callable[[], None],
) -> Outcome:  # fmt: skip
    import signal

    from itopctl.cli.live import SweepDisplay
    from itopctl.dispatch.manifest import record_config
    from itopctl.dispatch.pool import Pool
    from itopctl.dispatch.records import Job
    from itopctl.dispatch.slots import available_cores, plan_slots, visible_gpus
    from itopctl.dispatch.snapshot import code_here, modules_of
    from itopctl.spec.config import calls_own_code
    from itopctl.store.ingest import ingest_runs

    configs = work.configs
    wants_gpu = any(configs[run_id].device != "cpu" for run_id in to_run)
    slots = plan_slots(workers, runs_per_gpu, available_cores(), visible_gpus() if wants_gpu else [])
    slots = slots[: len(to_run)]

    def take_in(run_id: str) -> None:
        try:
            ingest_runs(store, folder, [run_id])
        except ItopctlError as error:  # the database is an index: it must not stop a training
            display.note(f"{error} The sweep goes on; the store is brought up to date at its end.")

    display = SweepDisplay(console, configs, to_run, len(slots), on_end=take_in)

    def prepare(run_id: str) -> None:
        record_config(folder, run_id, configs[run_id])
        keep()

    code = code_here([folder.path, data], modules_of(configs.values()))
    own_code = {run_id for run_id in to_run if calls_own_code(configs[run_id])}
    pool = Pool(folder, data, slots, display, prepare, Job(code=code.of_attempt()), own_code)

    def interrupt(*_: object) -> None:
        pool.stop()
        display.stopping()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with display:
            return pool.run(to_run)
    finally:
        signal.signal(signal.SIGINT, before)
