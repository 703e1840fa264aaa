"""What the runs of a plan will explore and cost, before any of them is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from itopctl.errors import UserError, plural

if TYPE_CHECKING:
    from pandas import DataFrame

    from itopctl.api.reporting import Report
    from itopctl.api.workplace import Workplace
    from itopctl.plan import Plan
    from itopctl.plan.history import History
    from itopctl.plan.planned_run import PlannedRun
    from itopctl.plan.totals import Machine
    from itopctl.store.database import Store


@dataclass(frozen=True)
class Forecasts:
    """What the runs of a plan will explore and cost.

    Attributes:
        plan: the plan.
        runs: each with steps, topology updates, exploration rate, FLOPs, memory, disk and, where this machine has
            finished such runs before, time.
        machine: what they were forecast for.
        remarks: sentences on finished runs whose models have another number of maskable weights today.
    """

    plan: Plan
    runs: Sequence[PlannedRun] = field(repr=False)
    machine: Machine
    remarks: Sequence[str] = ()

    def tables(self, each_run: bool = False) -> Report:
        """A table for each data set and model: a row for all runs that differ in the seed alone, or for each run."""
        from itopctl.api.reporting import Report
        from itopctl.plan.tables import groups_table, runs_table

        return Report(runs_table(self.runs) if each_run else groups_table(self.runs))

    def to_frame(self) -> DataFrame:
        """One row a run."""
        return self.tables(each_run=True).to_frame()

    def _repr_html_(self) -> str:
        return self.tables()._repr_html_()

    @property
    def totals(self) -> list[str]:
        """What all runs that are to be made take together, in sentences."""
        from itopctl.plan.tables import total_lines

        return total_lines(self.runs, self.machine)

    @property
    def warnings(self) -> list[str]:
        """What is likely a mistake, in sentences."""
        from itopctl.plan.tables import warning_lines

        return [*self.plan.warnings, *warning_lines(self.runs, self.machine)]

    def check(self) -> None:
        """Raise UserError where a run cannot be made."""
        from itopctl.plan.tables import unmade_of
        from itopctl.plan.unmade import refused_of

        if refused := refused_of(unmade_of(self.runs)):
            raise UserError(f"{plural(len(refused), 'run')} cannot be made; `itopctl sweep` starts nothing of this.")


def forecasts_of(
    project: Workplace, plan: Plan, known: Store | None, workers: int | None, runs_per_gpu: int
) -> Forecasts:
    """Forecast the runs of a plan.

    Args:
        project: where they would be made.
        plan: the plan.
        known: what is recorded of earlier runs; None: nothing.
        workers, runs_per_gpu: how they would be run here.
    """
    from itopctl.dispatch.trial import outlines_of
    from itopctl.plan.forecast import forecasts
    from itopctl.plan.planned_run import planned_runs
    from itopctl.plan.tables import changed_notes
    from itopctl.store.queries import masked_weights

    # First: its child processes can use CUDA only if this one has not.
    found = forecasts(plan.configs, outlines_of(plan.configs.values(), project.tell))
    machine = _machine(project, plan, workers, runs_per_gpu)
    runs = planned_runs(plan, found, _history(plan, known, machine), machine)
    masked = masked_weights(known, plan.done) if known is not None and plan.done else {}
    return Forecasts(plan, runs, machine, changed_notes(runs, masked))


def _machine(project: Workplace, plan: Plan, workers: int | None, runs_per_gpu: int) -> Machine:
    """This machine, as a sweep would use it."""
    import shutil

    import torch

    from itopctl.dispatch.slots import available_cores, plan_slots, visible_gpus
    from itopctl.plan.totals import Machine
    from itopctl.train.measure import memory_capacity

    wanted = plan.to_run or tuple(plan.configs)
    on_gpu = torch.cuda.is_available() and any(plan.configs[run_id].device != "cpu" for run_id in wanted)
    gpus = visible_gpus() if on_gpu else []
    slots = plan_slots(workers, runs_per_gpu, available_cores(), gpus)[: max(1, len(wanted))]
    folder = project.folder.path.absolute()
    there = next(path for path in [folder, *folder.parents] if path.exists())
    return Machine(
        device="cuda" if gpus else "cpu",
        at_once=len(slots),
        sharing=-(-len(slots) // len(gpus)) if gpus else len(slots),
        memory_bytes=memory_capacity(torch.device("cuda" if gpus else "cpu")),
        free_disk_bytes=shutil.disk_usage(there).free,
    )


def _history(plan: Plan, known: Store | None, machine: Machine) -> History:
    """What such runs took on this machine before."""
    import socket

    from itopctl.plan.history import History

    if known is None:
        return History()
    from itopctl.store.queries import finished_on

    models = sorted({config.model for config in plan.configs.values()})
    return History(finished_on(known, socket.gethostname(), models), machine.device)
