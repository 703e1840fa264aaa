"""What a field of a record is: its unit, what stands above it, which end of it is better, where it comes from.

Everything that is made of fields follows from these declarations: columns of the store, the order of fields in JSON and
CSV, headings, how a value is written, what `--where` takes for a percentage, the documentation.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError
from pydantic import Field as Limits


class Unit(Enum):
    """What a number counts; how it is written follows from it."""

    NONE = "none"
    """A text, a truth, a list; or a number that stands for itself."""
    ACCURACY = "accuracy"
    """A share of samples, in [0, 1], written in percent."""
    EXPLORATION = "exploration"
    """An exploration rate, in [0, 1]."""
    SPARSITY = "sparsity"
    """A share of zero weights, in [0, 1], written in percent."""
    SHARE = "share"
    """Another part of a whole, in [0, 1]."""
    RATIO = "ratio"
    """How many times what dense training takes."""
    FLOPS = "flops"
    """Operations; a multiplication and an addition are two."""
    SECONDS = "seconds"
    BYTES = "bytes"
    JOULES = "joules"
    IDENTITY = "identity"
    """A number that names something, such as a seed: every digit counts."""

    @property
    def is_fraction(self) -> bool:
        """Whether values lie in [0, 1], so that a larger number is a percentage that lacks its sign."""
        return self in (Unit.ACCURACY, Unit.EXPLORATION, Unit.SPARSITY, Unit.SHARE)


class Better(Enum):
    """Which of two values is the better one."""

    HIGHER = "higher"
    LOWER = "lower"


class Source(Enum):
    """Where a value comes from."""

    STORE = "store"
    """It is worked out when results are taken into the store."""
    CONFIG = "config"
    JOURNAL = "journal"
    RESULT = "result"
    """`result.json`, which a run writes when it has come to its end."""
    JOB = "job"
    """The scheduler that was asked to run it."""


# What values may be: each kind is one that SQLite and PostgreSQL hold alike. ----------------------------------------


def _storable(value: Any) -> Any:
    """A text without characters that no database holds; anything else as it is."""
    return value.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00") if type(value) is str else value


def _plain(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return value


Text = Annotated[str, BeforeValidator(_storable)]
Small = Annotated[int, Limits(ge=-(2**31 - 1), le=2**31 - 1)]
Large = Annotated[int, Limits(ge=-(2**63 - 1), le=2**63 - 1)]
Real = Annotated[float, Limits(gt=-1e300, lt=1e300, allow_inf_nan=False)]
Flag = Annotated[bool, Limits()]
Mapped = Annotated[dict[str, Any], AfterValidator(_plain)]
Counts = Annotated[dict[str, int], AfterValidator(_plain)]
Listed = Annotated[list[Any], AfterValidator(_plain)]


@functools.cache
def _reader(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


@dataclass(frozen=True)
class Field:
    """A field of a record.

    Attributes:
        name: in Python, in the database, and in JSON and CSV: there it never changes.
        kind: what a value may be: `Text`, `Small`, `Large`, `Real`, `Flag`, `Mapped`, `Counts`, `Listed`.
        meaning: what it is, in words.
        source: where it comes from.
        unit: what a number counts.
        heading: what stands above a column of it.
        better: which end of it is the better one, where there is one.
        written: its name in the file that it comes from.
        listed: whether lists of runs have it, in JSON and CSV.
        stored: whether the table of its record has a column of it.
        key: whether it tells records from each other.
        needed: whether there is no record without it.
        indexed: whether the store looks for records by it.
        repeats: whether the same run measures the same again, wherever it is made.
    """

    name: str
    kind: Any
    meaning: str
    source: Source
    unit: Unit = Unit.NONE
    heading: str = ""
    better: Better | None = None
    written: str = ""
    listed: bool = False
    stored: bool = True
    key: bool = False
    needed: bool = False
    indexed: bool = False
    repeats: bool = True

    def fitting(self, value: Any) -> Any:
        """The value as every database can hold it; None where it is of no such kind, as a damaged file may say."""
        if value is None:
            return None
        try:
            return _reader(self.kind).validate_python(value, strict=True)
        except ValidationError:
            return None


def declared(source: Source, meaning: str, unit: Unit = Unit.NONE, heading: str = "", **more: Any) -> Any:
    """A field of a record, for its class body; `more` as in `Field`. It is None where nothing is known."""
    told = {"source": source, "meaning": meaning, "unit": unit, "heading": heading, **more}
    return dataclasses.field(default=None, metadata={"field": told})


@functools.cache
def fields_of(record: type) -> Mapping[str, Field]:
    """Name → field of a record's class, in the order of its declaration."""
    hints = typing.get_type_hints(record, include_extras=True)
    found = {}
    for field in dataclasses.fields(record):
        told = field.metadata["field"]
        found[field.name] = Field(
            field.name, _kind(hints[field.name]), **{**told, "written": told.get("written") or field.name}
        )
    return types.MappingProxyType(found)


def _kind(hint: Any) -> Any:
    """Of `kind | None` the kind."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not types.NoneType]
    return kinds[0] if types.NoneType in typing.get_args(hint) else hint
