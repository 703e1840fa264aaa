"""What a report is asked for, checked: which table, of which runs, by which fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, TypeVar

from itopctl.api.workplace import Spell
from itopctl.errors import UserError, unknown
from itopctl.report.kinds import PAGE, TABLES, TableKind, Wish

if TYPE_CHECKING:
    from itopctl.api.sources import Gathered, Wanted
    from itopctl.report.fields import Fields
    from itopctl.report.filters import Filter

_ORIGIN = "results"  # the field that names where a run comes from
_NO_GROUPS = "none"
_PIVOT = "pivot"
_Number = TypeVar("_Number", int, float)


def names_of(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """Names of a list, or of a text that is separated by commas, each once; None where none were asked for."""
    if given is None:
        return None
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in parts))))


@dataclass(frozen=True)
class Asked:
    """How a report is wanted, as a person says it; None: the usual.

    Attributes:
        table: name of a table (`itopctl.report.kinds.TABLES`); by default `paper`, or `pivot` with `rows` or `cell`.
        where: conditions on runs (`itopctl.report.filters`), of which all must hold.
        rows, columns, cell: names of fields, of a pivot; `columns` also of a table of runs.
        sort: names of fields, `-name` from the largest down.
        group_by: names of fields, for each value of which there is a table; `("none",)`: a single one.
        best_by: `final` or `validation`: the accuracy that counts.
        digits: significant digits.
        margin: in percentage points: accuracies that differ by less count as equal.
        confidence: of intervals and verdicts, as a fraction.
    """

    table: str | None = None
    where: Sequence[str] = ()
    rows: Sequence[str] | None = None
    columns: Sequence[str] | None = None
    cell: Sequence[str] | None = None
    sort: Sequence[str] | None = None
    group_by: Sequence[str] | None = None
    best_by: str | None = None
    digits: int | None = None
    margin: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Question:
    """What was asked for, as far as it can be checked before runs are read.

    Attributes:
        kind: the table.
        wish: how it is wanted.
        groups: fields for each value of which there is a table.
        filters: conditions on runs.
        wanted: what must be read of each run.
    """

    kind: TableKind
    wish: Wish
    groups: tuple[str, ...]
    filters: tuple[Filter, ...]
    wanted: Wanted


def question(asked: Asked, spell: Spell, page: bool = False) -> Question:
    """What was asked for; `page`: where no table is named, the page of all of them.

    Raises:
        UserError: something in it makes no sense.
    """
    from itopctl.catalogue import METHODS
    from itopctl.report.filters import parse

    kind = _kind(asked, spell, page)
    if kind is PAGE and asked.group_by is not None:
        raise UserError(f"{spell('group_by', None)} means nothing for the page; name a {spell('table', None)}.")
    wish = Wish(
        fields=_fields(_best_by(asked.best_by, spell)),
        methods=METHODS.names(),
        best_by=_best_by(asked.best_by, spell),
        digits=_within(spell("digits", None), asked.digits, 1, 10),
        order=[(name.removeprefix("-"), name.startswith("-")) for name in asked.sort or ()],
        rows=tuple(asked.rows or ()),
        columns=tuple(asked.columns or ()),
        cells=tuple(asked.cell or ()),
        margin=_points(_within(spell("margin", None), asked.margin, 0.01, 50.0)),
        confidence=_within(spell("confidence", None), asked.confidence, 0.5, 0.9999),
    )
    groups = _groups(kind, asked.group_by, wish, spell)
    filters = tuple(parse(text) for text in asked.where)
    named = [*wish.rows, *wish.columns, *wish.cells, *(name for name, _ in wish.order), *groups]
    named += [name for condition in filters for name in condition.fields]
    return Question(kind, wish, groups, filters, _wanted(kind, named, wish.fields))


def every_name() -> list[str]:
    """Fields of runs, then settings that define an experiment."""
    from itopctl.config.run_config import unhashed_settings
    from itopctl.config.sweep import SETTINGS
    from itopctl.store.queries import RUN_COLUMNS

    unhashed = unhashed_settings()
    return list(dict.fromkeys([*RUN_COLUMNS, _ORIGIN, *(name for name in SETTINGS if name not in unhashed)]))


def resolved(question: Question, found: Gathered, spell: Spell) -> tuple[Wish, tuple[str, ...]]:
    """Wish and groups with the fields that there are, by their own names.

    Raises:
        UserError: an argument names a field that is none.
    """
    wish = question.wish
    settings = {
        name: None for run in found.runs for name, value in run.get("settings", {}).items() if value is not None
    }
    known = replace(wish.fields, names=tuple(dict.fromkeys([*wish.fields.names, *settings])))

    def real(argument: str, given: Sequence[str], *also: str) -> tuple[str, ...]:
        try:
            return tuple(known.resolve(name, also) for name in given)
        except UserError as error:
            raise UserError(f"{spell(argument, None)}: {error}") from error

    order = zip(real("sort", [name for name, _ in wish.order]), (down for _, down in wish.order), strict=True)
    made = replace(
        wish,
        fields=known,
        rows=real("rows", wish.rows),
        columns=real("columns", wish.columns),
        cells=real("cell", wish.cells, "n"),
        order=list(order),
        several=found.several,
    )
    return made, real("group_by", question.groups)


def _kind(asked: Asked, spell: Spell, page: bool) -> TableKind:
    """The table asked for, by name or by arguments that only one has; else the paper's, or the page of all of them."""
    name = asked.table
    if name is None and not (asked.rows is asked.columns is asked.cell is None):
        name = _PIVOT
    if name is None and page:
        return _fitting(PAGE, f"the page; name a {spell('table', None)}", asked, spell)
    name = name or next(iter(TABLES))
    if name not in TABLES:
        raise UserError(f"{spell('table', None)}: {unknown('table', name, TABLES)}")
    return _fitting(TABLES[name], spell("table", name), asked, spell)


_ALWAYS = frozenset({"table", "where", "group_by"})  # arguments that mean something for every table


def _fitting(kind: TableKind, shown: str, asked: Asked, spell: Spell) -> TableKind:
    """The kind, if every argument that was given means something for it."""
    for name in (field.name for field in fields(asked) if field.name not in _ALWAYS):
        if getattr(asked, name) is not None and name not in kind.takes:
            others = " or ".join(other for other, found in TABLES.items() if name in found.takes)
            raise UserError(
                f"{spell(name, None)} means nothing for {shown}; it goes with {spell('table', None)} {others}."
            )
    return kind


def _best_by(given: str | None, spell: Spell) -> str:
    from itopctl.report.groups import BEST_BY

    if given is None:
        return BEST_BY[0]
    if given not in BEST_BY:
        raise UserError(f"{spell('best_by', None)}: {unknown('accuracy', given, BEST_BY)}")
    return given


def _within(argument: str, value: _Number | None, least: _Number, most: _Number) -> _Number | None:
    if value is not None and not least <= value <= most:
        raise UserError(f"{argument}: {value:g} is not allowed; from {least:g} to {most:g}.")
    return value


def _points(margin: float | None) -> float | None:
    return None if margin is None else margin / 100


def _groups(kind: TableKind, given: Sequence[str] | None, wish: Wish, spell: Spell) -> tuple[str, ...]:
    """Fields for each value of which there is a table.

    Raises:
        UserError: a field is to be in rows or columns, too; there is no single table of this kind.
    """
    if given is None:
        return tuple(name for name in kind.group_by if name not in (*wish.rows, *wish.columns))
    wanted = tuple(given)
    if wanted == (_NO_GROUPS,):
        if kind.by_study:
            raise UserError(
                f"{spell('group_by', _NO_GROUPS)}: there is a table for each data set and model in any case; with "
                f"{spell('table', _PIVOT)} they can be one."
            )
        return ()
    for argument, others in (("rows", wish.rows), ("columns", wish.columns)):
        for name in wanted:
            if name in others and "rows" in kind.takes:  # elsewhere columns are what is shown
                raise UserError(f"{name} stands in both {spell('group_by', None)} and {spell(argument, None)}.")
    return tuple(name for name in wanted if not (kind.by_study and name in ("dataset", "model")))


def _wanted(kind: TableKind, named: Sequence[str], known: Fields) -> Wanted:
    """What must be read of each run for a table and the fields that are named."""
    from itopctl.api.sources import Wanted
    from itopctl.store.queries import RUN_COLUMNS

    real = [known.aliases.get(name, name) for name in named]
    if "density" in real:
        real.append("sparsity")
    of_settings = any(name not in (*RUN_COLUMNS, _ORIGIN, "n") for name in real)
    columns = RUN_COLUMNS if kind.columns is None else (*kind.columns, *real)
    return Wanted(tuple(columns), kind.settings or of_settings, kind.further)


def _fields(best_by: str) -> Fields:
    """The fields that runs may have, whatever runs there are."""
    from itopctl.config.run_config import RunConfig, hashed_fields
    from itopctl.report.fields import Fields

    return Fields(tuple(every_name()), best_by, hashed_fields(RunConfig))
