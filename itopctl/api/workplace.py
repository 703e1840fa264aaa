"""Where results and data sets lie, and whom to tell what a person should know."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.api.opening import Tell, look, open_results, results_folder, say
from itopctl.errors import UserError

if TYPE_CHECKING:
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results

Spell = Callable[[str, Any], str]
"""How an argument is called where the user gives it, with the value that it has there or None: for sentences."""


def as_argument(name: str, value: Any = None) -> str:
    """An argument as Python has it: `best_by`, `table='paper'`."""
    return name if value is None else f"{name}={value!r}"


@dataclass(frozen=True)
class Place:
    """Where results lie; of one folder and one store these belong together, of several each stands for itself.

    Attributes:
        results: folders; none: the usual one, unless there are several stores.
        stores: SQLAlchemy URLs.
    """

    results: Sequence[Path] = ()
    stores: Sequence[str] = ()


class Workplace:
    """One results folder with its store, or several to be reported on together; and the data sets.

    Args:
        place: the folders and stores.
        data: folder of data sets; None: the usual one.
        tell: called with each sentence that a person should know.

    Attributes:
        spell: how arguments are called in sentences.
    """

    def __init__(self, place: Place, data: Path | str | None, tell: Tell) -> None:
        self.place, self.tell, self._data = place, tell, data
        self.spell: Spell = as_argument

    def __repr__(self) -> str:
        named = ", ".join(map(str, [*self.place.results, *self.place.stores]))
        return f"{type(self).__name__}({named or results_folder(None)})"

    @cached_property
    def folder(self) -> Results:
        """The results folder. Raises UserError where there are several."""
        from itopctl.store.rundir import Results

        self._one()
        return Results(results_folder(next(iter(self.place.results), None)))

    @property
    def url(self) -> str | None:
        """URL of another store than the folder's."""
        self._one()
        return next(iter(self.place.stores), None)

    @cached_property
    def data(self) -> Path:
        """The folder of data sets."""
        from itopctl.train.data.catalogue import data_folder

        return data_folder(None if self._data is None else Path(self._data))

    def _one(self) -> None:
        if len(self.place.results) > 1 or len(self.place.stores) > 1:
            raise UserError("several results folders or stores can be reported on together; this takes one.")

    @contextlib.contextmanager
    def opened(self, first: Callable[[Results], None] = lambda folder: None, writes: bool = False) -> Iterator[Store]:
        """The store, brought up to date with the run directories.

        Args:
            first: called before it is brought up to date.
            writes: whether results are written afterwards.

        Raises:
            EnvironmentUnfitError: there are no results yet.
        """
        store = open_results(self.folder, self.url, self.tell, first, writes)
        try:
            yield store
        finally:
            store.close()

    def look(self, folder: Results) -> None:
        """Ask the cluster, where jobs are on one, how they are; tells what a person should know."""
        say(look(folder), self.tell)

    def refuse_untrusted(self, names: Iterable[str], instead: str = "", also: Iterable[str] = ()) -> None:
        """Raise UserError where a results folder has something run that is not itopctl's; for who did not say `trust`.

        A function of the user's own is trusted without it where its module is the very code that made the results,
        found outside of the folder (`itopctl.config.own_code.OwnCode.is_trusted`).

        Args:
            names: of that: code, lines for a shell, options of sbatch.
            instead: what else there is to do, as the rest of the sentence.
            also: further sentences.
        """
        if found := sorted(set(names)):
            said = f"this would run what stands in the results folder: {', '.join(found)}. If you made or trust these "
            raise UserError(" ".join([f"{said}results, add {self.spell('trust', True)}{instead}.", *also]))
