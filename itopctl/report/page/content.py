"""What stands on the page, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itopctl.report.table import Record, Table


@dataclass(frozen=True)
class Section:
    """Tables under a heading.

    Attributes:
        title: the heading.
        tables: in order.
        text: a sentence under the heading; may be empty.
    """

    title: str
    tables: Sequence[Table]
    text: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture with its data.

    Attributes:
        name: as `itopctl plot` knows it.
        title, caption: above and below it.
        svg: the picture.
        csv: its data; may be empty.
    """

    name: str
    title: str
    caption: str
    svg: str
    csv: str = ""


@dataclass(frozen=True)
class Attempt:
    """One try at a run, in words: where, which code, from when to when, and how it ended."""

    where: str
    code: str
    started: str
    ended: str
    outcome: str


@dataclass(frozen=True)
class RunEntry:
    """A run with its config.

    Attributes:
        record: its fields in the store (`itopctl.store.queries.RUN_COLUMNS`); at least `run_id`.
        settings: everything that defines the experiment, flat, by dotted name.
        attempts: at it, in order.
        log: the last lines that it printed, where it failed.
    """

    record: Record
    settings: Mapping[str, Any]
    attempts: Sequence[Attempt] = ()
    log: str = ""

    @property
    def run_id(self) -> str:
        return str(self.record["run_id"])


@dataclass(frozen=True)
class Spec:
    """A spec as it was written, and what was set on the command line.

    Attributes:
        sweep: its name.
        text: the file; empty where it was not recorded.
        path: where it lay when the sweep was started.
        overrides: arguments of `--set`.
        description: what it says of itself.
        date: when the sweep was recorded last.
        accepted: modules of the user's own, each with the versions that count as the same (`--accept-code`).
    """

    sweep: str
    text: str
    path: str = ""
    overrides: tuple[str, ...] = ()
    description: str = ""
    date: str = ""
    accepted: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Environment:
    """What something was made with: one property, and each value that it had.

    Attributes:
        name: of the property, such as `torch`.
        values: value → how many runs have it.
    """

    name: str
    values: Mapping[str, int]


@dataclass(frozen=True)
class Page:
    """The page.

    Attributes:
        title: what it is about.
        made_at: when, in words.
        command: the command line that made it.
        sections: tables of results, in order; what is read first.
        verdicts: the tables of claims; may be empty.
        figures: in order; may be empty.
        further: tables that come after the figures.
        runs_table: one row a run; the ids in it lead to the runs' details.
        runs: every run, in the order of that table.
        specs: one for each sweep.
        environment: what the runs were made with.
        commit: the commit to check out, where all runs are of one.
        dirty: whether files differed from it.
        left_out: sentences about what could not be shown, and why.
        version: of what made the page.
    """

    title: str
    made_at: str
    command: str
    sections: Sequence[Section] = ()
    verdicts: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    further: Sequence[Section] = ()
    runs_table: Table | None = None
    runs: Sequence[RunEntry] = ()
    specs: Sequence[Spec] = ()
    environment: Sequence[Environment] = ()
    commit: str = ""
    dirty: bool = False
    left_out: Sequence[str] = field(default_factory=tuple)
    version: str = ""
