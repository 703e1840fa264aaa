"""`itopctl sweep`: plan the runs of some specs, and run what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.cli.common import (
    DataDirOption,
    FormatOption,
    ResultsOption,
    StoreOption,
    check_format,
    project_of,
    tell,
    warn,
)
from itopctl.cli.run_options import (
    AcceptOption,
    AfterOption,
    ClusterOption,
    FirstOption,
    RunsPerGpuOption,
    SlurmOption,
    SnapshotOption,
    WaitOption,
    WorkersOption,
    carry_out,
)

if TYPE_CHECKING:
    from itopctl.plan import Plan


def sweep(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="YAML files that describe sweeps.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of every run; repeatable."),
    ] = None,
    accept_code: AcceptOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    cluster: ClusterOption = "local",
    slurm: SlurmOption = None,
    wait: WaitOption = False,
    first: FirstOption = 0,
    after: AfterOption = None,
    snapshot: SnapshotOption = True,
    workers: WorkersOption = None,
    runs_per_gpu: RunsPerGpuOption = 1,
    max_runs: Annotated[int, typer.Option("--max-runs", min=1, help="Refuse a spec that expands to more.")] = 10_000,
    results: ResultsOption = None,
    data_dir: DataDirOption = None,
    store: StoreOption = None,
    format_: FormatOption = "rich",
) -> None:
    """Run the sweeps that the specs describe; whatever is finished already is left alone.

    A model that cannot be made is refused, with its file and line, before anything starts.

    Here, Ctrl-C stops after the current step of each run; the same command goes on from there. On a cluster the
    command submits jobs and returns at once.
    """
    from itopctl.api.cluster import There, reach
    from itopctl.api.running import Here
    from itopctl.api.worklist import check_models
    from itopctl.cli.cluster import print_scripts
    from itopctl.cli.run_options import check_place
    from itopctl.report.formats import make_console

    project = project_of(results, store, data_dir)
    check_place(project, cluster, slurm or [], after or [], workers, runs_per_gpu, wait)
    style = check_format(format_, json=False)
    console = make_console()
    plan = project.plan(specs, set_ or [], max_runs=max_runs, accept_code=accept_code or [])
    work = project.work_of(plan, cluster, slurm or [])
    there = There(first, after or [], snapshot, wait)
    if dry_run:
        _print_plan(plan, style)
        if cluster == "slurm" and style == "rich":
            print_scripts(project, work, there)
        warn(check_models(work, cluster, tell))
        return
    if cluster == "slurm" and work.to_run:
        reach(project, there.after)
    warn(project.check(work, cluster))
    with project.begun(plan, work, cluster) as (opened, keep):
        for line in (plan.summary, *plan.notes, *plan.warnings):
            console.print(line)
        names = [planned.spec.name for planned in plan.sweeps]
        how = Here(workers, runs_per_gpu, first, console.print) if cluster == "local" else there
        failed = carry_out(project, work, opened, console, names, how, keep)
    raise typer.Exit(1 if failed else 0)


def _print_plan(plan: Plan, style: str) -> None:
    from itopctl.cli.common import print_tables
    from itopctl.cli.tables import plan_table

    if style == "rich":
        for line in (plan.summary, *plan.notes, *plan.warnings):
            typer.echo(line)
    print_tables([plan_table(plan)], style)
