"""Running on this machine: a pool of workers, and whoever watches."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from itopctl.errors import ItopctlError, UserError, plural

if TYPE_CHECKING:
    from itopctl.api.worklist import Work
    from itopctl.api.workplace import Workplace
    from itopctl.config.run_config import RunConfig
    from itopctl.dispatch.causes import Cause
    from itopctl.dispatch.pool import Outcome as Ended
    from itopctl.dispatch.pool import Pool
    from itopctl.store.database import Store

Progress = Callable[[dict[str, Any]], None]
"""Called with what happens: `event` (`started`, `evaluated`, …, `ended`, `note`), `run_id`, and what it is about."""


class Watcher(Protocol):
    """Who is told what happens in a pool."""

    def started(self, run_id: str) -> None: ...
    def event(self, event: dict[str, Any]) -> None: ...
    def ended(self, run_id: str, state: str, cause: Cause | None, message: str | None, again: bool) -> None: ...
    def note(self, text: str) -> None: ...
    def tick(self) -> None: ...
    def stopping(self) -> None: ...


@dataclass(frozen=True)
class Show:
    """What there is to watch.

    Attributes:
        configs: run id → config, of all runs of the command.
        to_run: those that are run.
        workers: how many go at once.
        on_end: to be called after each attempt, so that the store keeps up.
    """

    configs: Mapping[str, RunConfig]
    to_run: Sequence[str]
    workers: int
    on_end: Callable[[str], None]


Watch = Callable[[Show], AbstractContextManager[Watcher]]


@dataclass(frozen=True)
class Here:
    """How runs are made on this machine.

    Attributes:
        workers: runs at one time; None: one a GPU, or one a core.
        runs_per_gpu: runs that share a GPU.
        first: so many are run alone first, and the others only if these succeed; 0: all at once.
        say: called with a sentence on what went otherwise than was asked.
    """

    workers: int | None = None
    runs_per_gpu: int = 1
    first: int = 0
    say: Callable[[str], None] = lambda sentence: None

    def __post_init__(self) -> None:
        for name, value, least in (("workers", self.workers, 1), ("runs_per_gpu", self.runs_per_gpu, 1),
                                   ("first", self.first, 0)):  # fmt: skip
            if value is not None and (type(value) is not int or value < least):
                raise UserError(f"{name} is {value!r}; it must be a whole number, {least} or more.")


class Listener:
    """A watcher that hands everything to one function."""

    def __init__(self, show: Show, progress: Progress) -> None:
        self._show, self._progress = show, progress

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, run_id: str) -> None:
        self._progress({"event": "given", "run_id": run_id})

    def event(self, event: dict[str, Any]) -> None:
        self._progress(event)

    def ended(self, run_id: str, state: str, cause: Cause | None, message: str | None, again: bool) -> None:
        self._show.on_end(run_id)
        told = {"state": state, "cause": cause, "message": message, "again": again}
        self._progress({"event": "ended", "run_id": run_id, **told})

    def note(self, text: str) -> None:
        self._progress({"event": "note", "run_id": None, "message": text})

    def tick(self) -> None:
        pass

    def stopping(self) -> None:
        self.note("Stopping after the current step of each run; interrupted again, they are killed.")


def run_here(
    project: Workplace, work: Work, store: Store, watch: Watch, how: Here, keep: Callable[[], None] = lambda: None
) -> Ended | None:
    """Run on this machine; None where there is nothing to run.

    Args:
        project: whose runs they are.
        work: the runs.
        store: where they are recorded.
        watch: makes the watcher.
        how: workers and order.
        keep: called before each run, to keep the sweeps' records right.
    """
    from itopctl.store.files import remove

    to_run = work.to_run
    for run_id in to_run:
        remove(project.folder.run(run_id).cancel)
    if not to_run:
        return None
    parts = [to_run[: how.first], to_run[how.first :]] if 0 < how.first < len(to_run) else [to_run]
    for number, part in enumerate(parts, 1):
        outcome = _run_pool(project, work, part, store, watch, how, keep)
        if outcome.stopped is not None:
            break
        if number < len(parts) and set(outcome.states.values()) - {"done", "elsewhere"}:
            left = plural(len(to_run) - how.first, "run was", "runs were")
            how.say(f"The other {left} not started, since not all of the first succeeded.")
            break
    return outcome


def _run_pool(
    project: Workplace, work: Work, to_run: Sequence[str], store: Store, watch: Watch, how: Here,
    keep: Callable[[], None],
) -> Ended:  # fmt: skip
    from itopctl.config.run_config import calls_own_code
    from itopctl.dispatch.attempt_values import Job
    from itopctl.dispatch.manifest import record_config
    from itopctl.dispatch.pool import Pool
    from itopctl.dispatch.slots import available_cores, plan_slots, visible_gpus
    from itopctl.dispatch.snapshot import code_here, modules_of
    from itopctl.store.ingest import ingest_runs

    configs, folder = work.configs, project.folder
    wants_gpu = any(configs[run_id].device != "cpu" for run_id in to_run)
    slots = plan_slots(how.workers, how.runs_per_gpu, available_cores(), visible_gpus() if wants_gpu else [])
    slots = slots[: len(to_run)]

    def take_in(run_id: str) -> None:
        try:
            ingest_runs(store, folder, [run_id])
        except ItopctlError as error:  # the database is an index: it must not stop a training
            watcher.note(f"{error} The sweep goes on; the store is brought up to date at its end.")

    def prepare(run_id: str) -> None:
        record_config(folder, run_id, configs[run_id])
        keep()

    code = code_here([folder.path, project.data], modules_of(configs.values()))
    own_code = {run_id for run_id in to_run if calls_own_code(configs[run_id])}
    with watch(Show(configs, to_run, len(slots), take_in)) as watcher:
        pool = Pool(folder, project.data, slots, watcher, prepare, Job(code=code.of_attempt()), own_code)
        with _interruptible(pool, watcher):
            return pool.run(to_run)


@contextlib.contextmanager
def _interruptible(pool: Pool, watcher: Watcher) -> Iterator[None]:
    """While it lasts, an interrupt asks the pool to stop; asked again, it kills. Not outside the main thread."""

    def interrupt(*_: object) -> None:
        pool.stop()
        watcher.stopping()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
