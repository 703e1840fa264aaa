"""Tables of results, from one or several results folders and stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from itopctl.api.report_request import Asked, Question, question, resolved
from itopctl.errors import EnvironmentUnfitError, UserError, plural
from itopctl.report.kinds import PAGE, TableKind, Wish
from itopctl.report.table import Table

if TYPE_CHECKING:
    from pandas import DataFrame

    from itopctl.api.sources import Gathered
    from itopctl.api.workplace import Workplace
    from itopctl.report.fields import Fields
    from itopctl.report.filters import Filter

Record = dict[str, Any]

_MOST_TABLES = 200


class ReportTable(Table):
    """A table that a notebook shows."""

    def to_frame(self) -> DataFrame:
        """Its records as a pandas frame, one column a field or setting."""
        from itopctl.api.frames import frame_of

        return frame_of(self.records)

    def to_markdown(self) -> str:
        """As Markdown."""
        from itopctl.report.formats import render

        return render([self], "markdown")

    def to_latex(self) -> str:
        """As LaTeX, for booktabs and siunitx."""
        from itopctl.report.formats import render

        return render([self], "latex")

    def _repr_html_(self) -> str:
        from itopctl.report.formats.html import STYLE, html_fragment

        return f"<style>{STYLE}</style>{html_fragment(self)}"


class Report(Sequence[ReportTable]):
    """Tables, as a list of them; a notebook shows them.

    Attributes:
        tables: each with what belongs under it.
        remarks: sentences on the runs, which stand under the last table, too.
    """

    def __init__(self, tables: Sequence[Table], remarks: Sequence[str] = ()) -> None:
        self.tables = [ReportTable(**vars(table)) for table in tables]
        self.remarks = list(remarks)

    def __len__(self) -> int:
        return len(self.tables)

    def __getitem__(self, place: Any) -> Any:
        return self.tables[place]

    def __repr__(self) -> str:
        return self.to_markdown()

    def _repr_html_(self) -> str:
        return "".join(table._repr_html_() for table in self.tables)

    def to_frame(self) -> DataFrame:
        """The records of all tables as one pandas frame, one column a field or setting."""
        from itopctl.api.frames import frame_of

        return frame_of([record for table in self.tables for record in table.records])

    def to_markdown(self) -> str:
        """As Markdown."""
        from itopctl.report.formats import render

        return render(self.tables, "markdown")

    def to_latex(self) -> str:
        """As LaTeX, for booktabs and siunitx."""
        from itopctl.report.formats import render

        return render(self.tables, "latex")


def report_of(project: Workplace, sweeps: Sequence[str], asked: Asked) -> Report:
    """The tables of the runs of some sweeps, or of all.

    Args:
        project: where the runs are.
        sweeps: names, each of a sweep in any of the stores; none: all runs.
        asked: how the tables are wanted.

    Raises:
        UserError: something that is asked for makes no sense, or no run is such.
        EnvironmentUnfitError: a store cannot be read, or there are no runs yet.
    """
    from itopctl.api.sources import gathered

    what, place = question(asked, project.spell), project.place
    with gathered(place.results, place.stores, sweeps, what.wanted, project.tell) as found:
        runs, wish, groups = _chosen(what, found, project)
    made = _tables(what.kind, runs, groups, wish, project)
    notes = [*found.notes, *found.warnings]
    if asked.where and asked.table == "claims":
        notes.append(f"Only runs with {' and '.join(asked.where)}: p is corrected for what is shown alone.")
    if notes and made:
        made[-1] = replace(made[-1], notes=[*made[-1].notes, *notes])
    return Report(made, found.notes)


def page_of(project: Workplace, sweeps: Sequence[str], asked: Asked, command: str) -> str:
    """One HTML page with everything there is to say of the runs; arguments and errors as of `report_of`.

    Args:
        command: what the page says it was made with.
    """
    from itopctl.api.page import html_page
    from itopctl.api.sources import gathered

    what, place = question(asked, project.spell, page=True), project.place
    with gathered(place.results, place.stores, sweeps, what.wanted, project.tell) as found:
        runs, wish, _ = _chosen(what, found, project)
        remarks = [*found.notes, *found.warnings]
        return html_page(
            runs, found.origins, sweeps, wish.best_by, wish.margin, wish.confidence, remarks, command=command
        )


def makes_page(project: Workplace, asked: Asked) -> bool:
    """Whether what is asked for is the page: no table is named, by itself or by arguments that only one has."""
    return question(asked, project.spell, page=True).kind is PAGE


def _chosen(what: Question, found: Gathered, project: Workplace) -> tuple[list[Record], Wish, tuple[str, ...]]:
    """The runs that are meant, and what is asked for with the names of fields that there are."""
    from itopctl.report.versions import version_notes

    for warning in found.warnings:
        project.tell(warning)
    wish, groups = resolved(what, found, project.spell)
    runs = _selected(found, what.filters, wish.fields, what.kind, project)
    if all("settings" in run for run in runs):
        found.notes += version_notes(runs)
    return runs, wish, groups


def _selected(
    found: Gathered, filters: Sequence[Filter], fields: Fields, kind: TableKind, project: Workplace
) -> list[Record]:
    """The runs that meet every condition. Raises where none are left and the table needs some."""
    runs = found.runs
    for condition in filters:
        for remark in condition.check(found.runs, fields):
            project.tell(remark)
        runs = condition.select(runs, fields)
    if kind.may_be_empty:
        return runs
    if found.runs and not runs:
        raise UserError(f"{project.spell('where', None)}: none of {plural(len(found.runs), 'run')} is such.")
    runs = [run for run in runs if all(run[name] is not None for name in ("dataset", "model", "method", "sparsity"))]
    if not runs:
        raise EnvironmentUnfitError("there are no runs to report on yet.")
    return runs


def _tables(kind: TableKind, runs: list[Record], groups: Sequence[str], wish: Wish, project: Workplace) -> list[Table]:
    """The tables of each group of runs."""
    from itopctl.report.fields import heading, split

    if not groups:
        return kind.make(runs, wish)
    parts = split(runs, groups, wish.fields)
    if len(parts) > _MOST_TABLES:
        names = ",".join(groups)
        raise UserError(f"{project.spell('group_by', names)}: {len(parts):,} tables; at most {_MOST_TABLES} are made.")
    tables = []
    for values, members in parts:
        said = heading(values)
        for made in kind.make(members, replace(wish, apart=tuple(values))):
            title = said if said.startswith(made.title) else f"{made.title}, {said}"
            tables.append(replace(made, title=title, records=[{**values, **record} for record in made.records]))
    return tables
