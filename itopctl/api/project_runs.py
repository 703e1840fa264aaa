"""From specs to runs: planning, forecasting, running here or on a cluster, trying again."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from itopctl.api.cluster import Submitted, There, reach
from itopctl.api.opening import known_runs, make_results
from itopctl.api.running import Here, Listener, Progress
from itopctl.api.specs import MOST_RUNS, Overrides, Spec, as_list, as_texts, planned, read_specs
from itopctl.api.workplace import Workplace
from itopctl.errors import UserError

if TYPE_CHECKING:
    from itopctl.api.forecasting import Forecasts
    from itopctl.api.worklist import Work
    from itopctl.plan import Plan, PlannedSweep
    from itopctl.store.database import Store

Record = dict[str, Any]


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


def _listed(words: str | Sequence[str]) -> list[str]:
    return [words] if isinstance(words, str) else list(words)


class Making(Workplace):
    """Planning and running."""

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
        return self.plan_of(self.read(spec, set, max_runs), _listed(accept_code))

    def read(self, spec: Spec | Sequence[Spec], set: Overrides = (), max_runs: int = MOST_RUNS) -> list[PlannedSweep]:
        """Specs with the runs that they expand to. Arguments and errors as of `plan`."""
        return read_specs(as_list(spec), set, max_runs, self.spell("set", None))

    def plan_of(self, sweeps: Sequence[PlannedSweep], accept_code: Sequence[str] = ()) -> Plan:
        """The plan of specs that were read."""
        with known_runs(self.folder, self.url, self.tell) as known:
            return planned(sweeps, known, accept_code)

    def forecast(
        self, spec: Spec | Sequence[Spec] | Plan, set: Overrides = (), *, workers: int | None = None,
        runs_per_gpu: int = 1, max_runs: int = MOST_RUNS, accept_code: Sequence[str] = (),
    ) -> Forecasts:  # fmt: skip
        """What the runs of some specs will explore and cost; nothing is started.

        To see a run's layers each model is made once, the user's own in a process apart.

        Args:
            spec, set, max_runs, accept_code: as of `plan`; or a plan.
            workers, runs_per_gpu: how they would be run here.
        """
        from itopctl.api.forecasting import forecasts_of
        from itopctl.places import current_folder

        current_folder()  # is there: PyTorch ends the process where it is not
        Here(workers, runs_per_gpu)  # is sound
        made = self._made(spec, set, accept_code)
        sweeps = [] if made else self.read(spec, set, max_runs)  # type: ignore[arg-type]
        with known_runs(self.folder, self.url, self.tell) as known:
            plan = made or planned(sweeps, known, _listed(accept_code))
            return forecasts_of(self, plan, known, workers, runs_per_gpu)

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
        how = Here(workers, runs_per_gpu, first, self.tell)
        plan = self._planned(spec, set, max_runs, accept_code)
        work = self.work_of(plan)
        for warning in self.check(work):
            self.tell(warning)
        with self.begun(plan, work) as (store, keep):
            return self.carry_out(work, store, lambda show: Listener(show, progress), how, keep)

    def _planned(
        self, spec: Spec | Sequence[Spec] | Plan, set: Overrides, max_runs: int, accept_code: Sequence[str]
    ) -> Plan:
        """A plan as it is; or the plan of some specs."""
        made = self._made(spec, set, accept_code)
        return made or self.plan(spec, set, max_runs=max_runs, accept_code=accept_code)  # type: ignore[arg-type]

    @staticmethod
    def _made(spec: Spec | Sequence[Spec] | Plan, set: Overrides, accept_code: Sequence[str]) -> Plan | None:
        """A plan as it is; None for specs."""
        from itopctl.plan import Plan

        if not isinstance(spec, Plan):
            return None
        if set or accept_code:
            raise UserError("set and accept_code belong to `plan`: this plan is made already.")
        return spec

    def submit(
        self, spec: Spec | Sequence[Spec] | Plan, set: Overrides = (), *, slurm: Overrides = (), first: int = 0,
        after: str | Sequence[str] = (), snapshot: bool = True, progress: Progress = lambda event: None,
        max_runs: int = MOST_RUNS, accept_code: Sequence[str] = (),
    ) -> Submitted:  # fmt: skip
        """Submit to SLURM what is missing of some specs, and return; `follow` waits until it has ended.

        Args:
            spec, set, max_runs, accept_code: as of `plan`; or a plan.
            slurm: what jobs ask for beyond what the specs say, as `{"mem": "32G"}` or `KEY=VALUE` texts.
            first: run so many alone first, and the others only if these succeed.
            after: runs or jobs that must have succeeded before: `RUN`, `JOB`, or `any:JOB`: it must have ended.
            snapshot: jobs run a copy of the code as it is now; else the code as it is when they start.
            progress: called with a mapping for each array of jobs that SLURM accepted: `event` (`submitted`),
                `submission`.

        Raises:
            UserError: something in a spec makes no sense, a model cannot be made, or a job to wait for is none.
            SchedulerError: SLURM does not answer or refuses.
        """
        plan = self._planned(spec, set, max_runs, accept_code)
        work = self.work_of(plan, "slurm", as_texts(slurm))
        there = There(first, _listed(after), snapshot)
        if work.to_run:
            reach(self, there.after)
        for warning in self.check(work, "slurm"):
            self.tell(warning)
        with self.begun(plan, work, "slurm") as (store, _):
            return self.hand_in(work, store, there, progress)

    def hand_in(
        self, work: Work, store: Store, there: There, progress: Progress = lambda event: None
    ) -> Submitted:  # fmt: skip
        """Submit to SLURM (`itopctl.api.cluster.submit`)."""
        from itopctl.api.cluster import submit
        from itopctl.api.worklist import notes_on_data
        from itopctl.store.ingest import ingest

        if not work.to_run:
            return Submitted()
        for note in notes_on_data(work, self.data):
            self.tell(note)
        submitted = submit(
            self, work, store, there, lambda one: progress({"event": "submitted", "run_id": None, "submission": one})
        )
        ingest(store, self.folder)
        return submitted

    def follow(self, *names: str, progress: Callable[[dict[str, int]], None] = lambda counts: None) -> Outcome:
        """Wait until none of some runs waits or runs any more, wherever they are; an interrupt ends the wait alone.

        Args:
            *names: sweeps, or runs by their first digits; none: all runs.
            progress: called with the number of runs by state, each time it has changed.
        """
        from itopctl.api.cluster import Looks, wait_until_ended
        from itopctl.store.queries import failures, named_runs, run_states

        with self.opened(first=self.look) as store:
            run_ids = named_runs(store, names)
            wait_until_ended(Looks(self, run_ids, store), progress)
            states = {run_id: state for run_id, (state, _) in run_states(store, run_ids).items()}
            return Outcome(states, failures(store, run_ids))

    def retry(
        self, *sweeps: str, cause: str | Sequence[str] = (), cluster: str | None = None, workers: int | None = None,
        runs_per_gpu: int = 1, slurm: Overrides = (), first: int = 0, after: str | Sequence[str] = (),
        snapshot: bool = True, trust: bool = False, progress: Progress = lambda event: None,
    ) -> Outcome | Submitted:  # fmt: skip
        """Run failed and lost runs again, each from its newest checkpoint, with the settings that are recorded.

        Args:
            *sweeps: names; none: all.
            cause: only runs that ended so, such as `timeout`; with `cancelled` also those.
            cluster: `local` or `slurm`; by default where the sweeps were run last.
            workers, runs_per_gpu: on this machine, as of `run`.
            slurm, after, snapshot: on SLURM, as of `submit`.
            first, progress: as of either.
            trust: run code that these results name and that is neither itopctl's nor your own.

        Returns:
            An `Outcome` of runs that were made here; what was `Submitted` to a cluster.
        """
        from itopctl.api.retrying import failed_runs
        from itopctl.api.worklist import check_place

        causes, awaited = _listed(cause), _listed(after)
        asked = as_texts(slurm)
        with self.opened(first=self.look, writes=True) as store:
            again = failed_runs(
                self, store, sweeps, causes, cluster, asked,
                lambda where: check_place(self, where, asked, awaited, workers, runs_per_gpu),
            )  # fmt: skip
            if again is None:
                return Outcome()
            if not trust:
                again.check_trust(self)
            for warning in self.check(again.work, again.cluster):
                self.tell(warning)
            if again.cluster == "slurm":
                return self.hand_in(again.work, store, There(first, awaited, snapshot), progress)
            how = Here(workers, runs_per_gpu, first, self.tell)
            return self.carry_out(again.work, store, lambda show: Listener(show, progress), how)

    def work_of(self, plan: Plan, cluster: str = "local", slurm: Sequence[str] = ()) -> Work:
        """What of a plan is to be run, and what its jobs ask for."""
        from itopctl.api.worklist import Work, job_options, share_out

        written = {planned.spec.name: planned.spec.slurm for planned in plan.sweeps}
        options = job_options(self, cluster, written, slurm)
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
    def begun(self, plan: Plan, work: Work, cluster: str = "local") -> Iterator[tuple[Store, Callable[[], None]]]:
        """Write down what is about to happen; gives the store, and what keeps the records right meanwhile."""
        from itopctl.dispatch.manifest import SweepRecords
        from itopctl.store.database import open_store
        from itopctl.store.ingest import ingest

        make_results(self.folder)
        store = open_store(self.folder.database, self.url)
        try:
            records = SweepRecords(self.folder, plan, cluster, work.slurm)
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
