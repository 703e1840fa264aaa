"""`Project`: a results folder, its store and the data sets, with everything that can be done with them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from itopctl.api.opening import Tell
from itopctl.api.project_results import Showing
from itopctl.api.project_runs import Making
from itopctl.api.project_upkeep import Keeping
from itopctl.api.workplace import Place


def _tell(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)


class Project(Making, Showing, Keeping):
    """Runs, their results and their data: what the command line does, for a notebook or a program.

    Args:
        results: folder of runs and store; by default `$ITOPCTL_RESULTS` or `./results`. Several folders can be reported
            on together.
        store: SQLAlchemy URL of another store than the folder's; several: those are reported on together.
        data: folder of data sets; by default `$ITOPCTL_DATA` or `./data`.
        tell: called with each sentence that a person should know; by default a warning of Python is made of it.
    """

    def __init__(
        self,
        results: Path | str | Sequence[Path | str] | None = None,
        store: str | Sequence[str] | None = None,
        data: Path | str | None = None,
        tell: Tell = _tell,
    ) -> None:
        folders = [] if results is None else [results] if isinstance(results, (str, Path)) else list(results)
        urls = [] if store is None else [store] if isinstance(store, str) else list(store)
        super().__init__(Place([Path(folder) for folder in folders], urls), data, tell)
