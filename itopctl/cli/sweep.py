"""`itopctl sweep`: plan the runs of some specs, and run what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from itopctl.api.opening import results_folder
from itopctl.cli.common import (
    DataDirOption,
    FormatOption,
    ResultsOption,
    StoreOption,
    check_format,
)
from itopctl.cli.launch import (
    AcceptOption,
    AfterOption,
    ClusterOption,
    FirstOption,
    RunsPerGpuOption,
    SlurmOption,
    SnapshotOption,
    WaitOption,
    WorkersOption,
    carry_out_here,
    carry_out_there,
)

if TYPE_CHECKING:
    from rich.console import Console

    from itopctl.api.worklist import Work
    from itopctl.dispatch.manifest import SweepRecords
    from itopctl.plan import Plan
    from itopctl.store.database import Store
    from itopctl.store.rundir import Results


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
    from itopctl.api.opening import known_runs
    from itopctl.api.planning import planned, read_specs
    from itopctl.api.worklist import check_data, check_models
    from itopctl.cli.cluster import reach
    from itopctl.cli.common import tell, warn
    from itopctl.cli.launch import check_cluster
    from itopctl.store.rundir import Results
    from itopctl.train.data.catalogue import data_folder

    check_cluster(cluster, slurm or [], wait, after or [], workers, runs_per_gpu)
    style = check_format(format_, json=False)
    data, folder = data_folder(data_dir), Results(results_folder(results))
    sweeps = read_specs(specs, set_ or [], max_runs)
    with known_runs(folder, store, tell) as known:
        plan = planned(sweeps, known, accept_code or [])
    work = _work(plan, slurm or [], cluster)
    if dry_run:
        _print_plan(plan, style)
        if cluster == "slurm" and style == "rich":
            _print_scripts(work, folder, data, store, first, after or [], snapshot)
        warn(check_models(work, cluster, tell))
        return
    if cluster == "local":
        check_data(work, data)
    elif work.to_run:
        reach(after or [], folder, store)
    warn(check_models(work, cluster, tell))
    records, opened, console = _begin(plan, work, set_ or [], cluster, folder, store)
    names = [planned.spec.name for planned in plan.sweeps]
    if cluster == "local":
        failed = carry_out_here(work, folder, data, opened, console, names, workers, runs_per_gpu, first, records.keep)
    else:
        failed = carry_out_there(work, folder, data, opened, console, names, first, after or [], snapshot, wait)
    raise typer.Exit(1 if failed else 0)


def _work(plan: Plan, slurm: list[str], cluster: str) -> Work:
    """What is to be run, and what its jobs ask for: the site's profile, the spec, the command line."""
    from itopctl.api.worklist import Work, job_options, share_out

    options = job_options(cluster, {planned.spec.name: planned.spec.slurm for planned in plan.sweeps}, slurm)
    members = {planned.spec.name: list(planned.expansion.runs) for planned in plan.sweeps}
    return Work(share_out(members, plan.to_run), plan.configs, options)


def _begin(
    plan: Plan, work: Work, overrides: list[str], cluster: str, folder: Results, url: str | None
) -> tuple[SweepRecords, Store, Console]:
    """Write down what is about to happen, and say so."""
    from itopctl.cli.launch import make_results
    from itopctl.dispatch.manifest import SweepRecords
    from itopctl.report.formats import make_console
    from itopctl.store.database import open_store
    from itopctl.store.ingest import ingest

    console = make_console()
    make_results(folder)
    store = open_store(folder.database, url)
    records = SweepRecords(folder, plan, overrides, cluster, work.slurm)
    records.write()
    ingest(store, folder)
    for line in (_counts(plan), *plan.notes, *plan.warnings):
        console.print(line)
    return records, store, console


def _print_scripts(
    work: Work, folder: Results, data: Path, url: str | None, first: int, after: list[str], snapshot: bool
) -> None:
    from itopctl.api.opening import store_if_any
    from itopctl.cli.cluster import print_scripts

    print_scripts(work, folder, store_if_any(folder, url), data, first, after, snapshot)


def _counts(plan: Plan) -> str:
    return "Plan: " + ", ".join(f"{count:,} {kind}" for kind, count in plan.counts.items()) + "."


def _print_plan(plan: Plan, style: str) -> None:
    from itopctl.cli.common import print_tables
    from itopctl.cli.tables import plan_table

    if style == "rich":
        typer.echo(_counts(plan))
        for note in (*plan.notes, *plan.warnings):
            typer.echo(note)
    print_tables([plan_table(plan)], style)
