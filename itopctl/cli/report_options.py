"""What the options of `itopctl report` say, as values: checked, and completed by the shell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, overload

from itopctl.cli.table_kinds import PAGE, TABLES, TableKind, Wish
from itopctl.errors import UserError, unknown

if TYPE_CHECKING:
    from itopctl.cli.gather import Gathered, Wanted
    from itopctl.report.fields import Fields

_ORIGIN = "results"  # the field that names where a run comes from
_NO_GROUPS = "none"
_PIVOT = "pivot"
_Number = TypeVar("_Number", int, float)


def complete_tables(incomplete: str) -> list[str]:
    """Names of tables."""
    return [name for name in TABLES if name.startswith(incomplete)]


def complete_fields(incomplete: str) -> list[str]:
    """The last name of a list of fields; `-` before it stays."""
    before, comma, last = incomplete.rpartition(",")
    sign = "-" * last.startswith("-")
    names = ["accuracy", "R_s", *_every_name()]
    return [f"{before}{comma}{sign}{name}" for name in names if name.startswith(last[len(sign) :])]


def complete_best_by(incomplete: str) -> list[str]:
    """Which accuracy counts."""
    from itopctl.report.groups import BEST_BY

    return [name for name in BEST_BY if name.startswith(incomplete)]


def kind_of_table(name: str | None, given: Mapping[str, object], html: bool = False) -> TableKind:
    """The table asked for, by name or by options that only one has; else the paper's, or the page of all of them.

    Args:
        given: option → what it was given, None where it was not.
        html: whether it is to be HTML.

    Raises:
        UserError: no table has this name, or it has no use for one of the options.
    """
    if name is None and any(given[option] is not None for option in ("--rows", "--columns", "--cell")):
        name = _PIVOT
    if name is None and html:
        return _fitting(PAGE, "the page; name a --table", given)
    name = name or next(iter(TABLES))
    if name not in TABLES:
        raise UserError(f"--table: {unknown('table', name, TABLES)}")
    return _fitting(TABLES[name], f"--table {name}", given)


def _fitting(kind: TableKind, shown: str, given: Mapping[str, object]) -> TableKind:
    """The kind, if every option that was given means something for it."""
    for option, value in given.items():
        if value is not None and option not in kind.takes:
            names = [name for name, other in TABLES.items() if option in other.takes]
            raise UserError(f"{option} means nothing for {shown}; it goes with --table {' or '.join(names)}.")
    return kind


def best_by(given: str | None) -> str:
    """Which accuracy counts."""
    from itopctl.report.groups import BEST_BY

    if given is None:
        return BEST_BY[0]
    if given not in BEST_BY:
        raise UserError(f"--best-by: {unknown('accuracy', given, BEST_BY)}")
    return given


@overload
def within(option: str, value: _Number, least: _Number, most: _Number) -> _Number: ...
@overload
def within(option: str, value: None, least: _Number, most: _Number) -> None: ...
def within(option: str, value: _Number | None, least: _Number, most: _Number) -> _Number | None:
    """The value, if it lies in a range."""
    if value is not None and not least <= value <= most:
        raise UserError(f"{option}: {value:g} is not allowed; from {least:g} to {most:g}.")
    return value


def names(given: str | None) -> tuple[str, ...]:
    """Names of a list that is separated by commas, each once."""
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in (given or "").split(",")))))


def order(given: str | None) -> list[tuple[str, bool]]:
    """(name, whether the largest comes first) of each field to sort by."""
    return [(name.removeprefix("-"), name.startswith("-")) for name in names(given)]


def groups(kind: TableKind, given: str | None, wish: Wish) -> tuple[str, ...]:
    """Fields for each value of which there is a table.

    Raises:
        UserError: a field is to be in rows or columns, too; there is no single table of this kind.
    """
    if given is None:
        return tuple(name for name in kind.group_by if name not in (*wish.rows, *wish.columns))
    wanted = names(given)
    if wanted == (_NO_GROUPS,):
        if kind.by_study:
            raise UserError(
                f"--group-by {_NO_GROUPS}: there is a table for each data set and model in any case; with --table "
                f"{_PIVOT} they can be one."
            )
        return ()
    for option, others in (("--rows", wish.rows), ("--columns", wish.columns)):
        for name in wanted:
            if name in others and "--rows" in kind.takes:  # elsewhere columns are what is shown
                raise UserError(f"{name} stands in both --group-by and {option}.")
    return tuple(name for name in wanted if not (kind.by_study and name in ("dataset", "model")))


def asked_for(wish: Wish) -> list[str]:
    """Every field that rows, columns, cells and order name."""
    return [*wish.rows, *wish.columns, *wish.cells, *(name for name, _ in wish.order)]


def wanted(kind: TableKind, asked: Sequence[str], fields: Fields) -> Wanted:
    """What must be read of each run for a table and the fields that were asked for."""
    from itopctl.cli.gather import Wanted
    from itopctl.store.queries import RUN_COLUMNS

    real = [fields.aliases.get(name, name) for name in asked]
    if "density" in real:
        real.append("sparsity")
    of_settings = any(name not in (*RUN_COLUMNS, _ORIGIN, "n") for name in real)
    columns = RUN_COLUMNS if kind.columns is None else (*kind.columns, *real)
    return Wanted(tuple(columns), kind.settings or of_settings, kind.further)


def fields_of(best: str | None) -> Fields:
    """The fields that runs may have, whatever runs there are."""
    from itopctl.report.fields import Fields
    from itopctl.spec.config import RunConfig, hashed_fields

    return Fields(tuple(_every_name()), best_by(best), hashed_fields(RunConfig))


def resolved(wish: Wish, groups: Sequence[str], found: Gathered) -> tuple[Wish, tuple[str, ...]]:
    """Wish and groups with the fields that there are, by their own names.

    Raises:
        UserError: an option names a field that is none.
    """
    settings = {
        name: None for run in found.runs for name, value in run.get("settings", {}).items() if value is not None
    }
    fields = replace(wish.fields, names=tuple(dict.fromkeys([*wish.fields.names, *settings])))

    def real(option: str, given: Sequence[str], *also: str) -> tuple[str, ...]:
        try:
            return tuple(fields.resolve(name, also) for name in given)
        except UserError as error:
            raise UserError(f"{option}: {error}") from error

    order = zip(real("--sort", [name for name, _ in wish.order]), (down for _, down in wish.order), strict=True)
    made = replace(
        wish,
        fields=fields,
        rows=real("--rows", wish.rows),
        columns=real("--columns", wish.columns),
        cells=real("--cell", wish.cells, "n"),
        order=list(order),
        several=found.several,
    )
    return made, real("--group-by", groups)


def _every_name() -> list[str]:
    """Fields of records, then settings that define an experiment."""
    from itopctl.spec.config import unhashed_settings
    from itopctl.spec.sweep import SETTINGS
    from itopctl.store.queries import RUN_COLUMNS

    unhashed = unhashed_settings()
    return list(dict.fromkeys([*RUN_COLUMNS, _ORIGIN, *(name for name in SETTINGS if name not in unhashed)]))
