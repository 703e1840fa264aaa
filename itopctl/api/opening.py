"""Opening a results folder and its store, brought up to date with the run directories and with the scheduler."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from itopctl.errors import DiskFullError, EnvironmentUnfitError, NotWritableError

if TYPE_CHECKING:
    from itopctl.dispatch.reconcile import News
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results

Tell = Callable[[str], None]
"""Called with each sentence that a person should know, whatever becomes of the rest."""


def results_folder(given: Path | str | None) -> Path:
    """The results folder: the one given, else `ITOPCTL_RESULTS`, else `./results`."""
    return Path(given or os.environ.get("ITOPCTL_RESULTS") or "results")


def look(folder: Results) -> News:
    """Bring the records of submissions up to date with the scheduler, where there are any that are not over."""
    from itopctl.dispatch.reconcile import reconcile
    from itopctl.dispatch.slurm import Slurm

    return reconcile(folder, Slurm())


def say(news: News, tell: Tell) -> None:
    """Tell what a look brought that a person should know."""
    for note in news.notes:
        tell(note)
    if news.error is not None:
        tell(f"{news.error.rstrip('.')}. What is shown of jobs is what was known before.")


def open_results(
    folder: Results, url: str | None, tell: Tell, first: Callable[[Results], None] = lambda folder: None,
    writes: bool = False,
) -> Store:  # fmt: skip
    """The store of a results folder, brought up to date with the run directories.

    Where the store cannot be written, and nobody needs that, what it would say is read from the run directories.

    Args:
        folder: of the runs.
        url: SQLAlchemy URL of another store than the folder's.
        tell: what to do with a sentence for a person.
        first: called before the store is brought up to date.
        writes: whether results are written afterwards.

    Raises:
        EnvironmentUnfitError: there are no results yet.
    """
    from itopctl.store.database import Store
    from itopctl.store.ingest import ingest

    if writes:
        folder.check()
    if not folder.path.is_dir():
        raise EnvironmentUnfitError(
            f"no results in {folder.path}: nothing was run here yet. Start with: itopctl sweep SPEC.yaml"
        )
    if not url and not writes:
        try:
            return _up_to_date(folder, None, first, tell)
        except (NotWritableError, DiskFullError) as error:
            tell(f"{error} Read from the run directories instead.")
            opened = Store("sqlite://")
            ingest(opened, folder)
            return opened
    return _up_to_date(folder, url, first, tell)


_SLOW_TO_READ = 1000  # runs; that takes seconds


def _up_to_date(folder: Results, url: str | None, first: Callable[[Results], None], tell: Tell) -> Store:
    from itopctl.store.database import open_store
    from itopctl.store.ingest import ingest

    opened = open_store(folder.database, url)
    try:
        if opened.emptied and (runs := len(folder.run_ids())) > _SLOW_TO_READ:
            tell(f"{opened.name} is of an earlier version; it is made anew from {runs:,} run folders, once.")
        first(folder)
        ingest(opened, folder)
    except BaseException:
        opened.close()
        raise
    return opened


@contextlib.contextmanager
def known_runs(folder: Results, url: str | None, tell: Tell) -> Iterator[Store | None]:
    """A store that knows what the results folder does; None where there is no folder, and none is made."""
    if not folder.path.is_dir():
        yield None
        return
    from itopctl.store.database import Store, open_store
    from itopctl.store.ingest import ingest

    say(look(folder), tell)
    store = open_store(folder.database, url) if url or folder.database.exists() else Store("sqlite://")
    try:
        ingest(store, folder)
        yield store
    finally:
        store.close()


def make_results(folder: Results) -> None:
    """Make the folder of runs. Raises NotWritableError where what is written would land elsewhere."""
    from itopctl.store.files import explained, make_folder

    folder.check()
    with explained(folder.runs):
        make_folder(folder.runs)


def store_if_any(folder: Results, url: str | None) -> Store | None:
    """The store, as it is; None where there is none, and none is made."""
    from itopctl.store.database import open_store

    return open_store(folder.database, url) if url or folder.database.exists() else None
