"""The general table: any fields of runs as rows and columns, means over the runs that fall into a cell.

What a cell averages over beside the seed is said under the table, by name and values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from itopctl.catalogue import METHODS
from itopctl.errors import UserError, plural
from itopctl.report.fields import (
    Fields,
    Order,
    clean,
    header,
    in_order,
    is_right,
    kinds_of,
    labelled,
    meaning_of,
    shown,
    shown_mean,
)
from itopctl.report.groups import (
    in_words,
    measured_fields,
    plain_settings,
    unfinished_in_words,
    value_order,
    varying,
)
from itopctl.report.number_text import NOTHING, sparsity
from itopctl.report.quantity import MISSING, Quantity
from itopctl.report.statistics import Summary, summarise, summary_fields
from itopctl.report.table import Cell, Column, Record, Table

COUNT = "n"
"""The field of a cell that is the number of its finished runs."""
USUAL_CELLS = ("accuracy", "R_s", COUNT)
MOST_COLUMNS = 100

_COORDINATES = ("dataset", "model", "method", "sparsity")
_UNFINISHED = "*"
_LISTED = 6  # values that a note lists
_Settings = Mapping[str, Any]
_Key = tuple[tuple[str, Any], ...]
"""(name, value) of the fields that a row or column stands for."""


@dataclass(frozen=True)
class Pivot:
    """What a table shows.

    Attributes:
        rows: names of fields; none: the method, and what tells its runs apart.
        columns: names of fields; none: a column for each field of `cells`. Where neither rows nor columns are given,
            columns are sparsities.
        cells: fields with numbers, or `n`: of a cell, the first as mean ± standard deviation, the others as means.
        order: of the rows; none: as in a paper's table, dense first.
        digits: significant digits of standard deviations; None: two decimals of percentages and rates.
        apart: fields that are the same in all runs of the table, and said elsewhere.
    """

    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    cells: tuple[str, ...] = USUAL_CELLS
    order: Order = ()
    digits: int | None = None
    apart: tuple[str, ...] = ("dataset", "model")


def pivot_table(
    runs: Sequence[Record], pivot: Pivot, fields: Fields, method_order: Sequence[str] = (), title: str = ""
) -> Table:
    """One table of all runs that say what they are.

    Args:
        runs: records with `state, test_accuracy`, the fields that are asked for, and `settings`.
        method_order: methods in the order their rows should have; `dense` always comes first.

    Raises:
        UserError: an unknown field, a field that stands both in rows and columns, a cell that holds no numbers, too
            many columns.
    """
    return _Maker([run for run in runs if run.get("method") is not None], pivot, fields, method_order).table(title)


@dataclass(frozen=True)
class _Group:
    """The runs of one cell, as places among all, and what they differ in beside the seed."""

    row: _Key
    column: _Key
    members: tuple[int, ...]
    averaged_over: dict[str, list[Any]]


class _Maker:
    def __init__(self, runs: list[Record], pivot: Pivot, fields: Fields, method_order: Sequence[str]) -> None:
        self.runs, self.pivot, self.fields, self.methods = runs, pivot, fields, method_order
        self.rows = tuple(map(fields.resolve, pivot.rows))
        self.columns = tuple(map(fields.resolve, pivot.columns))
        if not pivot.rows and not pivot.columns:
            self.columns = ("sparsity",)
        self.cells = tuple(dict.fromkeys(fields.resolve(name, also=(COUNT,)) for name in pivot.cells))
        self.plain = [{name: clean(value) for name, value in plain_settings(run).items()} for run in runs]
        self.finished = [run["state"] == "done" and run["test_accuracy"] is not None for run in runs]
        for name in self.rows:
            if name in self.columns:
                raise UserError(f"{name} stands in both --rows and --columns.")
        for name in self.cells:
            kinds = set() if name == COUNT else set(kinds_of(runs, name, fields)) - {"a number"}
            if kinds:
                raise UserError(f"--cell: {name} is {' or '.join(sorted(kinds))}; a cell holds means of numbers.")

    def table(self, title: str) -> Table:
        """The table; its groups of runs are lists of places in `self.runs`."""
        by_row: dict[_Key, dict[_Key, list[int]]] = {}
        for index, row in enumerate(self.row_keys()):
            by_row.setdefault(row, {}).setdefault(self.key(index, self.columns), []).append(index)
        columns = sorted({column for cells in by_row.values() for column in cells}, key=self.place)
        if len(columns) > MOST_COLUMNS:
            names = ",".join(self.columns)
            raise UserError(f"--columns {names}: {len(columns):,} columns; at most {MOST_COLUMNS} are drawn.")

        def runs_of(row: _Key) -> list[Record]:
            return [self.runs[index] for members in by_row[row].values() for index in members]

        rows = in_order(sorted(by_row, key=self.place), self.pivot.order, self.fields, runs_of)
        cells = [
            _Group(row, column, tuple(by_row[row][column]), self.averaged_over(by_row[row][column]))
            for row in rows for column in columns if column in by_row[row]
        ]  # fmt: skip
        drawn = [self.drawn(row, by_row[row], columns) for row in rows]
        headers = self.headers(rows[0][0][0] if rows else "method", columns)
        return Table(title, headers, drawn, [self.record(cell) for cell in cells], self.notes(cells))

    def row_keys(self) -> list[_Key]:
        """Of every run; where no rows are given, a method is told apart by what varies among its runs."""
        if self.rows:
            return [self.key(index, self.rows) for index in range(len(self.runs))]
        used = {*self.columns, *self.pivot.apart, "seed", "method"}
        if "method" in self.columns:
            names = [name for name in _different(self.plain) if name not in used]
            names = names or [next(name for name in ("sparsity", "dataset", "seed") if name not in self.columns)]
            return [self.key(index, names) for index in range(len(self.runs))]
        shared = [name for name in _coordinates_of(self.plain) if name not in used]
        by_method: dict[str, list[_Settings]] = {}
        for settings in self.plain:
            by_method.setdefault(settings["method"], []).append(settings)
        own = {method: [n for n in varying(found) if n not in used] for method, found in by_method.items()}
        return [self.key(i, ("method", *shared, *own[s["method"]])) for i, s in enumerate(self.plain)]

    def key(self, index: int, names: Sequence[str]) -> _Key:
        return tuple((name, clean(self.fields.value(self.runs[index], name))) for name in names)

    def place(self, key: _Key) -> tuple[Any, ...]:
        """Where a row or column belongs: dense first, methods in their order, other values by size."""
        return tuple(self.method_place(value) if name == "method" else value_order(value) for name, value in key)

    def method_place(self, method: str) -> tuple[bool, float, str]:
        known = method in self.methods
        return (method != "dense", list(self.methods).index(method) if known else len(self.methods), method)

    def headers(self, first: str, columns: Sequence[_Key]) -> list[Column]:
        if self.columns:
            return [Column(header(first)), *(Column(_column_name(key), "right") for key in columns)]
        return [
            *(
                Column(header(name), "right" if is_right(name, self.runs, self.fields) else "left")
                for name in self.rows
            ),
            *(Column(self.head(name), "right", rank=rank) for rank, name in enumerate(self.cells)),
        ]

    def head(self, name: str) -> str:
        """What a cell's field is called: the accuracy that counts is the accuracy, where there is no other."""
        usual = dict(zip(measured_fields(self.fields.best_by), measured_fields("final"), strict=True)).get(name, name)
        return COUNT if name == COUNT else header(name if usual in self.cells else usual)

    def drawn(self, row: _Key, cells: Mapping[_Key, list[int]], columns: Sequence[_Key]) -> list[Cell]:
        if self.columns:
            return [_label(row), *(self.cell(cells[key]) if key in cells else Cell("") for key in columns)]
        members, mark = cells[()], self.mark(cells[()])
        heads = [Cell(shown(name, value)) for name, value in row]
        values = [self.value(name, members) for name in self.cells]
        return [*heads, Cell(values[0].marked(mark)), *map(Cell, values[1:])]

    def cell(self, members: Sequence[int]) -> Cell:
        """The first field as mean ± deviation, the others below it as means."""
        (first, *others), mark = self.cells, self.mark(members)
        if not any(self.finished[index] for index in members):
            return Cell(NOTHING + mark)
        value = self.value(first, members)
        second = ", ".join(f"{self.head(name)} {self.value(name, members, spread=False)}" for name in others)
        return Cell(value, second + mark) if others else Cell(value.marked(mark))

    def mark(self, members: Sequence[int]) -> str:
        return "" if all(self.finished[index] for index in members) else _UNFINISHED

    def value(self, name: str, members: Sequence[int], spread: bool = True) -> Quantity:
        count = sum(self.finished[index] for index in members)
        if name == COUNT:
            return Quantity.of(count, "")
        summary = self.summary(name, members)
        if summary is None:
            return MISSING
        mean = shown_mean(name, summary.mean, summary.std if spread else None, self.pivot.digits)
        return mean if summary.n == count else mean.within(after=f" ({summary.n} of {count})")

    def summary(self, name: str, members: Sequence[int]) -> Summary | None:
        """Of the finished runs that have a value."""
        values = [self.fields.value(self.runs[index], name) for index in members if self.finished[index]]
        return summarise([value for value in values if value is not None])

    def record(self, cell: _Group) -> Record:
        count = sum(self.finished[index] for index in cell.members)
        record: Record = {**dict(cell.row), **dict(cell.column), "runs": len(cell.members), "runs_finished": count}
        for name in self.cells:
            if name != COUNT:
                summary = self.summary(name, cell.members)
                record |= {**summary_fields(name, summary), f"{name}_n": summary.n if summary else 0}
        return {**record, "averaged_over": cell.averaged_over}

    def averaged_over(self, members: Sequence[int]) -> dict[str, list[Any]]:
        """Name → values of what is not the same in all finished runs of a cell, the seed aside."""
        settings = [self.plain[index] for index in members if self.finished[index]]
        return {
            name: sorted({mapping.get(name) for mapping in settings}, key=value_order) for name in _different(settings)
        }

    def notes(self, cells: Sequence[_Group]) -> list[str]:
        meanings = {name: meaning_of(name) for name in self.cells}
        said = [f"{self.head(name)}: {meaning}" for name, meaning in meanings.items() if meaning]
        how = "mean ± standard deviation over the finished runs of a cell"
        if self.columns and any(name != COUNT for name in self.cells[1:]):
            how += ", below it means alone"
        notes = ["; ".join([*said, how]) + ("; n: how many." if COUNT in self.cells else ".")]
        averaged: dict[str, dict[Any, None]] = {}
        for cell in cells:
            for name, values in cell.averaged_over.items():
                averaged.setdefault(name, {}).update(dict.fromkeys(values))
        for name, found in averaged.items():
            count = sum(name in cell.averaged_over for cell in cells)
            where = "" if count == len(cells) else f" (in {count:,} of {plural(len(cells), 'cell')})"
            notes.append(f"Averaged over {name} {_listed(name, found)}{where}.")
        unfinished = unfinished_in_words(self.runs[index] for cell in cells for index in cell.members)
        if unfinished:
            notes.append(f"{_UNFINISHED} {unfinished}")
        return notes


def _different(settings: Sequence[_Settings]) -> list[str]:
    """Names of what is not the same in all of these, the seed aside.

    Where methods are mixed, what a method says by itself is not named beside it, unless it varies within one.
    """
    if len(settings) < 2:
        return []
    names = _coordinates_of(settings)
    of_methods: dict[Any, list[_Settings]] = {}
    for mapping in settings:
        of_methods.setdefault(mapping.get("method"), []).append(mapping)
    if len(of_methods) == 1:
        return names + varying(settings)
    within = {name for mappings in of_methods.values() for name in varying(mappings)}
    return names + [n for n in varying(settings) if n in within or not all(_is_preset(n, found) for found in settings)]


def _coordinates_of(settings: Sequence[_Settings]) -> list[str]:
    return [name for name in _COORDINATES if len({mapping.get(name) for mapping in settings}) > 1]


def _is_preset(name: str, settings: _Settings) -> bool:
    """Whether a setting has the value that the method gives it."""
    part, _, inner = name.partition(".")
    if settings["method"] not in METHODS:
        return False
    options = METHODS.get(settings["method"]).options
    preset = options["preset"].get(part)
    expected = preset.get(inner) if inner and preset is not None else preset
    return bool(settings.get(name) == expected and (part in options["ignores"] or part in options["preset"]))


def _label(row: _Key) -> Cell:
    """The first field, and below it the others by name."""
    (name, value), *others = row
    second = ", ".join(labelled(other, found) for other, found in others if found is not None)
    return Cell(shown(name, value), second)


def _column_name(key: _Key) -> str:
    key = tuple((name, value) for name, value in key if value is not None) or key
    return "dense" if key == (("sparsity", 0.0),) else ", ".join(labelled(name, value) for name, value in key)


def _listed(name: str, values: Mapping[Any, None]) -> str:
    ordered = sorted(values, key=value_order)
    texts = [
        str(sparsity(v)) if name == "sparsity" else "none" if v is None else in_words(v) for v in ordered[:_LISTED]
    ]
    return ", ".join(texts) + (f" and {len(ordered) - _LISTED} more" if len(ordered) > _LISTED else "")
