"""The fields that a run has, by name: for filters, for rows, columns and cells of tables, and for their order.

A field is one of a run's record (`accuracy`, `state`), or one of its settings, by dotted name (`optimizer.lr`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from itopctl.errors import UserError, unknown
from itopctl.report.conditions import is_number
from itopctl.report.groups import SHORT_NAMES, Study, hashable, in_words, measured_fields, short_name
from itopctl.report.number_text import (
    duration,
    number,
    percent,
    plus_minus,
    quantity,
    rate,
    significant,
    size,
    sparsity,
)
from itopctl.report.quantity import MISSING, Quantity
from itopctl.report.table import Record
from itopctl.schema import Run, Source, Unit, fields_of

_FIELDS = fields_of(Run)
_ALIASES = {short: name for name, short in SHORT_NAMES.items() if short.isalpha()}  # as they stand in tables
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Fields:
    """The names that fields may have.

    Attributes:
        names: of all fields and settings.
        best_by: which accuracy `accuracy` is, and which exploration rate `R_s` (`groups.BEST_BY`).
        unsaid: setting → its value where a run's settings do not name it.
    """

    names: tuple[str, ...]
    best_by: str = "final"
    unsaid: Mapping[str, Any] = field(default_factory=dict)

    @property
    def aliases(self) -> dict[str, str]:
        """Other name → field: `accuracy` and `R_s`, and what a setting is called in tables (ΔT, lr)."""
        accuracy, rate = measured_fields(self.best_by)
        return {"accuracy": accuracy, "R_s": rate, **_ALIASES}

    def resolve(self, name: str, also: Iterable[str] = ()) -> str:
        """The field that a name means; one of `also` means itself. Raises UserError with the nearest valid word."""
        found = self.aliases.get(name, name)
        if found in self.names or found in also:
            return found
        raise UserError(unknown("field", name, [*also, *self.aliases, *self.names]))

    def value(self, run: Record, name: str) -> Any:
        """A run's value of a field, or None; a list as it stands in tables, such as `0.5/0.75`."""
        found = run[name] if name in run else run.get("settings", {}).get(name, self.unsaid.get(name))
        if found is None and name == "density" and run.get("sparsity") is not None:
            return round(1.0 - run["sparsity"], 12)
        return in_words(hashable(found)) if isinstance(found, (list, tuple, dict)) else found


def kind_of(value: Any) -> str:
    """What a value is, in words."""
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, (int, float)) else "a text"


def kinds_of(runs: Iterable[Record], name: str, fields: Fields) -> dict[str, list[Any]]:
    """Kind → the different values of that kind which runs have of a field, in the order they come."""
    found: dict[str, dict[Any, None]] = {}
    for _, value in dict.fromkeys((type(value), value) for value in (fields.value(run, name) for run in runs)):
        if value is not None:
            found.setdefault(kind_of(value), {})[value] = None
    return {kind: list(values) for kind, values in found.items()}


def unit_of(name: str) -> Unit:
    """What the numbers of a field count; `Unit.NONE` for a setting that is no field of runs."""
    return _FIELDS[name].unit if name in _FIELDS else Unit.NONE


def meaning_of(name: str) -> str:
    """What runs measure under a name, in words; empty for what they do not measure."""
    found = _FIELDS.get(name)
    return found.meaning if found is not None and found.source is Source.RESULT else ""


def header(name: str) -> str:
    """What stands above a column of a field's values."""
    return (_FIELDS[name].heading if name in _FIELDS else "") or short_name(name)


def is_right(name: str, runs: Iterable[Record], fields: Fields) -> bool:
    """Whether the values are numbers, which are set right."""
    return set(kinds_of(runs, name, fields)) <= {"a number"}


def shown(name: str, value: Any, digits: int | None = None) -> str | Quantity:
    """A run's value of a field, as people read it.

    Args:
        digits: significant digits of what was measured; None: as many as each field usually has.
    """
    if value is None:
        return MISSING
    if not is_number(value):
        return in_words(hashable(value))
    match unit_of(name):
        case Unit.SPARSITY:
            return sparsity(value)
        case Unit.ACCURACY:
            return percent(value) if digits is None else significant(100 * value, digits)
        case Unit.EXPLORATION:
            return rate(value) if digits is None else significant(value, digits)
        case Unit.RATIO:
            return replace(number(value, 2) if digits is None else significant(value, digits), unit="×")
        case Unit.FLOPS:
            return quantity(value, digits=digits or 3)
        case Unit.JOULES:
            return quantity(value, "J", digits or 3)
        case Unit.SECONDS:
            return duration(value)
        case Unit.BYTES:
            return size(value)
        case Unit.IDENTITY:
            return Quantity.of(value, "")
    return Quantity.of(value, "," if isinstance(value, int) else "g")


def shown_mean(name: str, mean: float, std: float | None, digits: int | None = None) -> Quantity:
    """Mean ± standard deviation of a field, as people read it; `digits` as `words.plus_minus` has them."""
    match unit_of(name):
        case Unit.ACCURACY:
            return plus_minus(100 * mean, None if std is None else 100 * std, digits)
        case Unit.EXPLORATION:
            return plus_minus(mean, std, digits)
        case Unit.FLOPS:
            return _beside(quantity(mean), quantity(std or None, digits=digits or 2))
        case Unit.JOULES:
            return _beside(quantity(mean, "J"), quantity(std or None, "J", digits or 2))
        case Unit.SECONDS:
            return _beside(duration(mean), duration(std))
        case Unit.BYTES:
            return _beside(size(round(mean)), size(round(std) if std else None))
    found = plus_minus(mean, std or None, digits, decimals=None)
    return replace(found, unit="×") if unit_of(name) is Unit.RATIO and not found.spread else found


def _beside(mean: Quantity, std: Quantity) -> Quantity:
    """A mean and its deviation, each with a unit of its own."""
    return mean.within(after=f" ± {std}") if std != MISSING else mean


Order = Sequence[tuple[str, bool]]
"""Names of fields, the first first, each with whether the largest value comes first."""


def in_order(
    items: Sequence[_Item], order: Order, fields: Fields, runs_of: Callable[[_Item], Sequence[Record]]
) -> list[_Item]:
    """Rows in the order of some fields; those without a value come last, whichever the direction.

    Args:
        runs_of: the runs that a row stands for. Of several with numbers the mean counts, of others the first text.
    """
    found = list(items)
    for name, descending in reversed(order):
        keyed = [(_key([fields.value(run, name) for run in runs_of(item)]), item) for item in found]
        valued = [(key, item) for key, item in keyed if key is not None]
        valued.sort(key=lambda pair: pair[0], reverse=descending)
        found = [item for _, item in valued] + [item for key, item in keyed if key is None]
    return found


def ordered(study: Study, order: Order, fields: Fields) -> Study:
    """A study whose kinds are in the order of some fields."""
    if not order:
        return study
    kinds = in_order(
        study.kinds, order, fields, lambda kind: [run for g in study.groups if g.kind == kind for run in g.runs]
    )
    return replace(study, groups=tuple(sorted(study.groups, key=lambda group: kinds.index(group.kind))))


def _key(values: Sequence[Any]) -> tuple[bool, float, str] | None:
    present = [value for value in values if value is not None]
    numbers = [value for value in present if is_number(value)]
    if not present:
        return None
    return (False, sum(numbers) / len(numbers), "") if numbers else (True, 0.0, str(present[0]))


def split(runs: Sequence[Record], names: Sequence[str], fields: Fields) -> list[tuple[dict[str, Any], list[Record]]]:
    """Runs that have the same values of some fields together, in the order in which the first of each comes."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for run in runs:
        found.setdefault(tuple(clean(fields.value(run, name)) for name in names), []).append(run)
    return [(dict(zip(names, values, strict=True)), members) for values, members in found.items()]


def clean(value: Any) -> Any:
    """A value without the dust of floating point, so that equal ones are one."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def heading(values: Mapping[str, Any]) -> str:
    """A title for the runs that have these values: `lenet-5 on digits, lr 0.1`."""
    rest = dict(values)
    parts = ["{} on {}".format(rest.pop("model"), rest.pop("dataset"))] if {"model", "dataset"} <= set(rest) else []
    return ", ".join([*parts, *(labelled(name, value) for name, value in rest.items())])


def labelled(name: str, value: Any) -> str:
    """A value with the name of its field where it does not speak for itself: `ΔT 40`, `sparsity 90 %`, `set-itop`."""
    if name in ("method", "model", "dataset") and value is not None:
        return str(value)
    return f"{header(name)} {shown(name, value)}"
