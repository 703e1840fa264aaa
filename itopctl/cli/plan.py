"""`itopctl plan`: what the runs of some specs will explore and cost, before any of them is made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.api.opening import results_folder
from itopctl.cli.common import FormatOption, JsonOption, ResultsOption, StoreOption, check_format
from itopctl.cli.launch import AcceptOption, RunsPerGpuOption, WorkersOption
from itopctl.errors import UserError, plural

if TYPE_CHECKING:
    from itopctl.cli.plan_tables import PlannedRun
    from itopctl.plan import Plan
    from itopctl.plan.history import History
    from itopctl.plan.totals import Machine
    from itopctl.store.database import Store


def plan(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="YAML files that describe sweeps.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of every run; repeatable."),
    ] = None,
    accept_code: AcceptOption = None,
    runs: Annotated[
        bool, typer.Option("--runs", help="One row a run, not one for all that differ in the seed alone.")
    ] = False,
    workers: WorkersOption = None,
    runs_per_gpu: RunsPerGpuOption = 1,
    max_runs: Annotated[int, typer.Option("--max-runs", min=1, help="Refuse a spec that expands to more.")] = 10_000,
    results: ResultsOption = None,
    store: StoreOption = None,
    format_: FormatOption = "rich",
    json: JsonOption = False,
) -> None:
    """Say what the runs of some specs will explore and cost; nothing is started.

    Steps, topology updates, the exploration rate they will reach, training FLOPs against dense, memory and disk; time,
    where this machine has finished such runs before. To see a run's layers the command makes each model once, your own
    ones in a process apart; where one cannot be made, it says so with file and line, and ends with 2.
    """
    from itopctl.api.opening import known_runs
    from itopctl.api.planning import planned, read_specs
    from itopctl.cli.common import tell
    from itopctl.cli.plan_tables import changed_notes, groups_table, planned_runs, runs_table, unmade_of
    from itopctl.dispatch.trial import outlines_of
    from itopctl.places import current_folder
    from itopctl.plan.forecast import forecasts
    from itopctl.plan.unmade import refused_of
    from itopctl.store.queries import masked_weights
    from itopctl.store.rundir import Results

    current_folder()  # is there: PyTorch ends the process where it is not

    style, folder = check_format(format_, json), results_folder(results)
    sweeps = read_specs(specs, set_ or [], max_runs)
    with known_runs(Results(folder), store, tell) as known:
        made = planned(sweeps, known, accept_code or [])
        # First: its child processes can use CUDA only if this one has not.
        found = forecasts(made.configs, outlines_of(made.configs.values(), tell))
        machine = _machine(made, workers, runs_per_gpu, folder)
        history = _history(made, known, machine)
        masked = masked_weights(known, made.done) if known is not None and made.done else {}
    foreseen = planned_runs(made, found, history, machine)
    tables = runs_table(foreseen) if runs else groups_table(foreseen)
    _print(made, tables, foreseen, machine, style, changed_notes(foreseen, masked))
    refused = refused_of(unmade_of(foreseen))
    if refused:
        raise UserError(f"{plural(len(refused), 'run')} cannot be made; `itopctl sweep` starts nothing of this.")


def _print(
    made: Plan, tables: Sequence[object], foreseen: Sequence[PlannedRun], machine: Machine, style: str,
    marks: Sequence[str],
) -> None:  # fmt: skip
    """The table, totals and warnings; beside a table for programs, these two go to standard error."""
    from itopctl.cli.common import print_tables
    from itopctl.cli.plan_tables import total_lines, warning_lines

    counts = "Plan: " + ", ".join(f"{count:,} {kind}" for kind, count in made.counts.items()) + "."
    rich = style == "rich"
    if rich:
        typer.echo(counts)
    for line in (*made.notes, *marks):
        typer.echo(line, err=not rich)
    print_tables(tables, style)  # type: ignore[arg-type]
    for line in total_lines(foreseen, machine):
        typer.echo(line, err=not rich)
    for line in (*made.warnings, *warning_lines(foreseen, machine)):
        typer.secho(f"Warning: {line}", fg="yellow", err=not rich)


def _machine(made: Plan, workers: int | None, runs_per_gpu: int, results: Path) -> Machine:
    """This machine, as a sweep would use it."""
    import shutil

    import torch

    from itopctl.dispatch.slots import available_cores, plan_slots, visible_gpus
    from itopctl.plan.totals import Machine
    from itopctl.train.measure import memory_capacity

    wanted = made.to_run or tuple(made.configs)
    on_gpu = torch.cuda.is_available() and any(made.configs[run_id].device != "cpu" for run_id in wanted)
    gpus = visible_gpus() if on_gpu else []
    slots = plan_slots(workers, runs_per_gpu, available_cores(), gpus)[: max(1, len(wanted))]
    there = next(path for path in [results.absolute(), *results.absolute().parents] if path.exists())
    return Machine(
        device="cuda" if gpus else "cpu",
        at_once=len(slots),
        sharing=-(-len(slots) // len(gpus)) if gpus else len(slots),
        memory_bytes=memory_capacity(torch.device("cuda" if gpus else "cpu")),
        free_disk_bytes=shutil.disk_usage(there).free,
    )


def _history(made: Plan, known: Store | None, machine: Machine) -> History:
    """What such runs took on this machine before."""
    import socket

    from itopctl.plan.history import History

    if known is None:
        return History()
    from itopctl.store.queries import finished_on

    models = sorted({config.model for config in made.configs.values()})
    return History(finished_on(known, socket.gethostname(), models), machine.device)
