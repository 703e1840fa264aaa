"""What is recorded: counts, frames, tables, figures, one page of everything, logs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.api.files import check_folder, write_file
from itopctl.api.report_request import Asked, names_of
from itopctl.api.reporting import Report, page_of, report_of
from itopctl.api.workplace import Workplace
from itopctl.errors import UserError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from itopctl.report.figures.style import Look
    from itopctl.store.database import Store

Record = dict[str, Any]
Names = str | Sequence[str] | None


class Showing(Workplace):
    """Reading results; nothing is changed but the store, which is brought up to date."""

    def status(self, *sweeps: str) -> DataFrame:
        """Per sweep the number of runs by state, and the seconds left. Asks the cluster where jobs are on one."""
        from itopctl.api.frames import frame_of
        from itopctl.store.queries import check_sweeps, sweep_summaries

        with self.opened(first=self.look) as store:
            check_sweeps(store, sweeps)
            return frame_of(sweep_summaries(store, sweeps))

    def report(
        self, *sweeps: str, table: str | None = None, where: str | Sequence[str] = (), rows: Names = None,
        columns: Names = None, cell: Names = None, sort: Names = None, group_by: Names = None,
        best_by: str | None = None, digits: int | None = None, margin: float | None = None,
        confidence: float | None = None,
    ) -> Report:  # fmt: skip
        """Tables of the runs of some sweeps, or of all.

        Args:
            *sweeps: names.
            table: `paper` (the usual), `exploration`, `claims`, `layers`, `cost`, `runs` or `pivot`.
            where: conditions on runs, such as `"sparsity >= 90% and method in (set-itop, rigl-itop)"`.
            rows, columns, cell: fields of a pivot; `columns` also of the table `runs`.
            sort: order of rows: fields, `-name` from the largest down.
            group_by: a table for each value of these fields; `"none"`: a single one.
            best_by: `final` or `validation`: the accuracy that counts.
            digits: significant digits.
            margin: of claims, in percentage points.
            confidence: of claims, as a fraction.

        Raises:
            UserError: something that is asked for makes no sense, or no run is such.
            EnvironmentUnfitError: there are no runs yet.
        """
        asked = Asked(
            table, [where] if isinstance(where, str) else where, names_of(rows), names_of(columns), names_of(cell),
            names_of(sort), names_of(group_by), best_by, digits, margin, confidence,
        )  # fmt: skip
        return report_of(self, sweeps, asked)

    def runs(self, *sweeps: str, where: str | Sequence[str] = ()) -> DataFrame:
        """The runs of some sweeps, or of all: one row a run, one column a field or setting (`optimizer.lr`).

        `itopctl list fields` says what the fields are; accuracies and rates are fractions.
        """
        from itopctl.api.frames import frame_of
        from itopctl.store.queries import RUN_COLUMNS

        made = self.report(*sweeps, table="runs", where=where)
        return frame_of((record for table in made for record in table.records), RUN_COLUMNS)

    def history(self, *names: str) -> DataFrame:
        """What runs measured after each epoch, and at each topology update: one row each, in order.

        Args:
            *names: sweeps, or runs by their first digits; none: all runs.
        """
        from itopctl.schema import Evaluation
        from itopctl.store.queries import histories_of

        return self._of_runs(names, histories_of, Evaluation)

    def layers(self, *names: str) -> DataFrame:
        """The layers of finished runs: one row a layer, in the order of the network; `names` as of `history`."""
        from itopctl.schema import Layer
        from itopctl.store.queries import layers_of

        return self._of_runs(names, layers_of, Layer)

    def _of_runs(
        self, names: Sequence[str], ask: Callable[[Store, Sequence[str]], Mapping[str, list[Record]]], record: type
    ) -> DataFrame:
        """What is recorded of each of some runs, with the run's id."""
        from itopctl.api.frames import frame_of
        from itopctl.schema import fields_of
        from itopctl.store.queries import named_runs

        with self.opened() as store:
            run_ids = named_runs(store, names)
            found = ask(store, run_ids)
        return frame_of(
            ({"run_id": run_id, **row} for run_id in run_ids for row in found.get(run_id, ())), fields_of(record)
        )

    def figure(
        self, name: str, *sweeps: str, width: str = "column", title: bool = True, best_by: str = "final"
    ) -> Figure:
        """A figure of matplotlib from the runs of some sweeps, or of all; a notebook shows it.

        Args:
            name: `exploration`, `interval`, `rs-accuracy`, `sparsity`, `layers` or `learning`.
            *sweeps: names.
            width: `column` or `page`, of a paper in two columns.
            title: whether model and data set stand above it.
            best_by: the accuracy that counts, `final` or `validation`.

        Raises:
            UserError: there is no such figure, sweep or choice.
            EnvironmentUnfitError: there is nothing to show in it.
        """
        from itopctl.report.figures.make import picture

        records, look = self.figure_data(name, *sweeps, width=width, title=title, best_by=best_by)
        return picture(name, records, look)

    def figure_data(
        self, name: str, *sweeps: str, width: str = "column", title: bool = True, best_by: str = "final"
    ) -> tuple[list[Record], Look]:
        """What a figure shows, and how it is to look; arguments and errors as of `figure`."""
        from itopctl.api.figures import material_of, runs_for_figures
        from itopctl.report.figures.catalogue import FIGURES
        from itopctl.report.figures.make import figure_records
        from itopctl.report.figures.style import WIDTHS, Look
        from itopctl.report.groups import BEST_BY
        from itopctl.report.versions import version_notes
        from itopctl.store.queries import check_sweeps

        entry = FIGURES.get(name)
        if width not in WIDTHS:
            raise UserError(f"{self.spell('width', None)}: {unknown('width', width, WIDTHS)}")
        if best_by not in BEST_BY:
            raise UserError(f"{self.spell('best_by', None)}: {unknown('choice', best_by, BEST_BY)}")
        with self.opened() as store:
            check_sweeps(store, sweeps)
            runs = runs_for_figures(store, sweeps, best_by)
            for note in version_notes(runs):
                self.tell(note)
            records = figure_records(name, material_of(runs, store, best_by, [entry]))
        return records, Look(width, title, best_by)

    def page(self, path: Path | str, *sweeps: str, best_by: str | None = None) -> Path:
        """Write one HTML page with everything there is to say of some sweeps, or of all; it needs no other file."""
        target = Path(path)
        check_folder(target)
        write_file(target, page_of(self, sweeps, Asked(best_by=best_by), f"Project.page({str(path)!r})"))
        return target

    def details(self, run: str) -> Record:
        """Everything that is recorded of one run: metrics, config, attempts, evaluations, layers, folder.

        Args:
            run: its id, or first digits.
        """
        from itopctl.store.queries import find_run, run_details

        with self.opened() as store:
            found = run_details(store, find_run(store, run))
        found["directory"] = str(self.folder.run(found["run_id"]).path)
        return found

    def log(self, run: str) -> str:
        """What one run has printed so far, in all its attempts; `run` as of `details`.

        Raises:
            EnvironmentUnfitError: it has not started yet.
        """
        from itopctl.api.logs import not_started
        from itopctl.store.files import pieces
        from itopctl.store.queries import find_run

        with self.opened() as store:
            directory = self.folder.run(find_run(store, run))
            if not directory.log.exists():
                raise not_started(store, directory)
        return b"".join(pieces(directory.log)).decode(errors="replace")
