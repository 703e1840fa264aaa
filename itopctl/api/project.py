"""`Project`: a results folder, its store and the data sets, with everything that can be done with them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.api.asking import Asked, Spell, as_argument, names_of
from itopctl.api.opening import Tell, known_runs, look, make_results, say
from itopctl.api.planning import Overrides, Spec, as_texts, planned, read_specs
from itopctl.api.reporting import Report, page_of, report_of
from itopctl.api.running import Here, Listener, Progress
from itopctl.api.workplace import Place, Workplace
from itopctl.errors import EnvironmentUnfitError, UserError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from itopctl.api.worklist import Work
    from itopctl.plan import Plan, PlannedSweep
    from itopctl.report.figures.style import Look
    from itopctl.store.database import Store

Record = dict[str, Any]
MOST_RUNS = 10_000
"""What a spec may expand to, unless more are allowed."""


@dataclass(frozen=True)
class Outcome:
    """How runs that were made here ended.

    Attributes:
        states: run id → `done`, `failed`, `cancelled`, `elsewhere` (another command was at it), of those started.
        failed: records of the plan's runs that failed or were lost, with `cause` and `message`.
        stopped: None; `interrupted`; `failures`, after too many quick ones alike in a row; `error`.
        common_cause: cause and message of the last of those failures.
    """

    states: Mapping[str, str] = field(default_factory=dict)
    failed: Sequence[Record] = ()
    stopped: str | None = None
    common_cause: tuple[str, str] | None = None

    @property
    def done(self) -> list[str]:
        """Ids of the runs that finished."""
        return [run_id for run_id, state in self.states.items() if state == "done"]

    @property
    def ok(self) -> bool:
        """Whether all went well."""
        return not self.failed and self.stopped is None and set(self.states.values()) <= {"done", "elsewhere"}


def _tell(sentence: str) -> None:
    warnings.warn(sentence, stacklevel=3)


class Project(Workplace):
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

    # Before anything runs -----------------------------------------------------------------------------------------

    def plan(
        self, spec: Spec | Sequence[Spec], set: Overrides = (), *, max_runs: int = MOST_RUNS,
        accept_code: Sequence[str] = (),
    ) -> Plan:  # fmt: skip
        """What is to be done with the runs of some specs: which are new, done, running, failed.

        Args:
            spec: a spec, or several.
            set: setting → value for every run, in place of what the specs say; or `KEY=VALUE` texts.
            max_runs: refuse a spec that expands to more.
            accept_code: modules of the user's own whose change does not matter: runs by their earlier code count.

        Raises:
            UserError: something in a spec makes no sense.
        """
        return self.plan_of(self.read(spec, set, max_runs), accept_code)

    def read(self, spec: Spec | Sequence[Spec], set: Overrides = (), max_runs: int = MOST_RUNS) -> list[PlannedSweep]:
        """Specs with the runs that they expand to. Arguments and errors as of `plan`."""
        single = isinstance(spec, (str, Path, Mapping))
        return read_specs([spec] if single else list(spec), set, max_runs)  # type: ignore[list-item, arg-type]

    def plan_of(self, sweeps: Sequence[PlannedSweep], accept_code: Sequence[str] = ()) -> Plan:
        """The plan of specs that were read."""
        with known_runs(self.folder, self.url, self.tell) as known:
            return planned(sweeps, known, accept_code)

    # Running ------------------------------------------------------------------------------------------------------

    def run(
        self, spec: Spec | Sequence[Spec] | Plan, set: Overrides = (), *,
        workers: int | None = None, runs_per_gpu: int = 1, first: int = 0, progress: Progress = lambda event: None,
        max_runs: int = MOST_RUNS, accept_code: Sequence[str] = (),
    ) -> Outcome:  # fmt: skip
        """Run on this machine what is missing of some specs, until all of it has ended.

        Runs that fail are values of the outcome, not exceptions. An interrupt stops each run after its present step;
        the same call goes on from there.

        Args:
            spec, set, max_runs, accept_code: as of `plan`; or a plan.
            workers: runs at one time; by default one a GPU, or one a core.
            runs_per_gpu: runs that share a GPU.
            first: run so many alone first, and the others only if these succeed.
            progress: called with what happens: mappings with `event` (`given`, `started`, `progress`, `evaluated`,
                `topology`, `ended`, `note`), `run_id`, and what that is about.

        Raises:
            UserError: something in a spec makes no sense, or a model cannot be made.
            EnvironmentUnfitError: a data set is missing, or the folder cannot be written.
        """
        from itopctl.plan import Plan

        if isinstance(spec, Plan) and (set or accept_code):
            raise UserError("set and accept_code belong to `plan`: this plan is made already.")
        plan = spec if isinstance(spec, Plan) else self.plan(spec, set, max_runs=max_runs, accept_code=accept_code)
        work = self.work_of(plan)
        for warning in self.check(work):
            self.tell(warning)
        with self.begun(plan, work, as_texts(set)) as (store, keep):
            how = Here(workers, runs_per_gpu, first, self.tell)
            return self.carry_out(work, store, lambda show: Listener(show, progress), how, keep)

    def work_of(self, plan: Plan, cluster: str = "local", slurm: Sequence[str] = ()) -> Work:
        """What of a plan is to be run, and what its jobs ask for."""
        from itopctl.api.worklist import Work, job_options, share_out

        options = job_options(cluster, {planned.spec.name: planned.spec.slurm for planned in plan.sweeps}, slurm)
        members = {planned.spec.name: list(planned.expansion.runs) for planned in plan.sweeps}
        return Work(share_out(members, plan.to_run), plan.configs, options)

    def check(self, work: Work, cluster: str = "local") -> list[str]:
        """Make the networks of the runs once, before anything starts; returns warnings.

        Raises:
            UserError: a model cannot be made, or does not take the data, or the sparsity cannot be reached.
            EnvironmentUnfitError: a data set is missing on this machine, where they are to be made on it.
        """
        from itopctl.api.worklist import check_data, check_models

        if cluster == "local":
            check_data(work, self.data)
        return check_models(work, cluster, self.tell)

    @contextlib.contextmanager
    def begun(
        self, plan: Plan, work: Work, overrides: Sequence[str] = (), cluster: str = "local"
    ) -> Iterator[tuple[Store, Callable[[], None]]]:
        """Write down what is about to happen; gives the store, and what keeps the records right meanwhile."""
        from itopctl.dispatch.manifest import SweepRecords
        from itopctl.store.database import open_store
        from itopctl.store.ingest import ingest

        make_results(self.folder)
        store = open_store(self.folder.database, self.url)
        try:
            records = SweepRecords(self.folder, plan, overrides, cluster, work.slurm)
            records.write()
            ingest(store, self.folder)
            yield store, records.keep
        finally:
            store.close()

    def carry_out(
        self, work: Work, store: Store, watch: Any, how: Here, keep: Callable[[], None] = lambda: None
    ) -> Outcome:
        """Run on this machine, and say how it ended (`itopctl.api.running.run_here`)."""
        from itopctl.api.running import run_here
        from itopctl.store.ingest import ingest
        from itopctl.store.queries import failures

        ended = run_here(self, work, store, watch, how, keep)
        ingest(store, self.folder)
        failed = failures(store, list(work.configs))
        if ended is None:
            return Outcome(failed=failed)
        return Outcome(dict(ended.states), failed, ended.stopped, ended.common_cause)

    # Results ------------------------------------------------------------------------------------------------------

    def status(self, *sweeps: str) -> DataFrame:
        """Per sweep the number of runs by state, and the seconds left. Asks the cluster where jobs are on one."""
        from itopctl.api.frames import frame_of
        from itopctl.store.queries import check_sweeps, sweep_summaries

        with self.opened(first=lambda folder: say(look(folder), self.tell)) as store:
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
        return report_of(self.place, sweeps, asked, self.tell)

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
        self, name: str, *sweeps: str, width: str = "column", title: bool = True, best_by: str = "final",
        spell: Spell = as_argument,
    ) -> tuple[list[Record], Look]:  # fmt: skip
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
            raise UserError(f"{spell('width', None)}: {unknown('width', width, WIDTHS)}")
        if best_by not in BEST_BY:
            raise UserError(f"{spell('best_by', None)}: {unknown('choice', best_by, BEST_BY)}")
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
        made = page_of(self.place, sweeps, Asked(best_by=best_by), self.tell, f"Project.page({str(path)!r})")
        try:
            target.write_text(made, encoding="utf-8", newline="\n")
        except OSError as error:
            raise EnvironmentUnfitError(f"{target} cannot be written: {error.strerror}.") from error
        return target


Names = str | Sequence[str] | None
