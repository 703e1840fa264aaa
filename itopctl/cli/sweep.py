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
    results_folder,
)
from itopctl.errors import EnvironmentUnfitError, ItopctlError, UserError, plural, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from itopctl.dispatch.manifest import SweepRecords
    from itopctl.dispatch.pool import Outcome
    from itopctl.plan import Plan
    from itopctl.store.database import Store

CLUSTERS = ("local",)


def sweep(
    specs: Annotated[list[Path], typer.Argument(metavar="SPEC...", help="YAML files that describe sweeps.")],
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting of every run; repeatable."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan and start nothing.")] = False,
    cluster: Annotated[str, typer.Option("--cluster", help="Where to run: local.")] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers",
            min=1,
            help="Runs at one time.  [default: one a GPU, or one a core]",
            show_default=False,
        ),
    ] = None,
    runs_per_gpu: Annotated[int, typer.Option("--runs-per-gpu", min=1, help="Runs that share a GPU.")] = 1,
    max_runs: Annotated[int, typer.Option("--max-runs", min=1, help="Refuse a spec that expands to more.")] = 10_000,
    results: ResultsOption = None,
    data_dir: DataDirOption = None,
    store: StoreOption = None,
    format_: FormatOption = "rich",
) -> None:
    """Run the sweeps that the specs describe; whatever is finished already is left alone.

    Ctrl-C stops after the current step of each run; the same command goes on from there.
    """
    from itopctl.train.data.catalogue import data_folder, locate

    if cluster not in CLUSTERS:
        raise UserError(f"--cluster: {unknown('cluster', cluster, CLUSTERS)}")
    style = check_format(format_, json=False)
    data = data_folder(data_dir)
    plan = _plan(specs, set_ or [], max_runs, results_folder(results), store)
    if dry_run:
        _print_plan(plan, style)
        return
    configs = plan.configs
    for name in dict.fromkeys(configs[run_id].dataset for run_id in plan.to_run):
        locate(name, data)
    failed = _carry_out(plan, set_ or [], workers, runs_per_gpu, results_folder(results), data, store)
    raise typer.Exit(1 if failed else 0)


def _plan(specs: list[Path], overrides: list[str], limit: int, results: Path, store: str | None) -> Plan:
    from itopctl.plan import PlannedSweep, make_plan
    from itopctl.spec.expand import expand, parse_overrides
    from itopctl.spec.reading import read_file
    from itopctl.spec.sweep import parse_sweep

    settings = parse_overrides(overrides)
    planned: dict[str, PlannedSweep] = {}
    for path in specs:
        spec = parse_sweep(read_file(path))
        if spec.name in planned:
            other = planned[spec.name].spec.document.source
            raise spec.document.error(("name",), f"{spec.name!r} is the name of {other}, too; give each sweep its own.")
        planned[spec.name] = PlannedSweep(spec, expand(spec, settings, limit))
    states = _known_states(results, store, [i for sweep in planned.values() for i in sweep.expansion.runs])
    return make_plan(list(planned.values()), states)


def _known_states(results: Path, url: str | None, run_ids: list[str]) -> dict[str, str]:
    """State of each run that is known, for planning alone: nothing is written where no store is yet."""
    if not results.is_dir():
        return {}
    from itopctl.store.database import Store, open_store
    from itopctl.store.ingest import ingest
    from itopctl.store.queries import run_states
    from itopctl.store.rundir import Results

    folder = Results(results)
    store = open_store(folder.database, url) if url or folder.database.exists() else Store("sqlite://")
    try:
        ingest(store, folder)
        return {run_id: state for run_id, (state, _) in run_states(store, run_ids).items()}
    finally:
        store.close()


def _carry_out(
    plan: Plan, overrides: list[str], workers: int | None, runs_per_gpu: int, results: Path, data: Path, url: str | None
) -> bool:
    """Run what the plan says, and say how it ended; returns whether anything went wrong."""
    from itopctl.dispatch.manifest import SweepRecords
    from itopctl.report.formats import make_console
    from itopctl.store.database import open_store
    from itopctl.store.ingest import ingest
    from itopctl.store.rundir import Results

    console = make_console()
    folder = Results(results)
    try:
        folder.runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentUnfitError(f"{folder.runs} cannot be written: {error.strerror}.") from error
    store = open_store(folder.database, url)
    records = SweepRecords(folder, plan, overrides)
    records.write()
    ingest(store, folder)
    for line in (_counts(plan), *plan.notes):
        console.print(line)
    outcome = _run_pool(plan, records, workers, runs_per_gpu, data, store, console) if plan.to_run else None
    ingest(store, folder)
    return _conclude(plan, store, outcome, console)


def _run_pool(
    plan: Plan,
    records: SweepRecords,
    workers: int | None,
    runs_per_gpu: int,
    data: Path,
    store: Store,
    console: Console,
) -> Outcome:
    import signal

    from itopctl.cli.live import SweepDisplay
    from itopctl.dispatch.manifest import record_config
    from itopctl.dispatch.pool import Pool
    from itopctl.dispatch.slots import available_cores, plan_slots, visible_gpus
    from itopctl.store.ingest import ingest_runs

    folder, configs, to_run = records.results, plan.configs, plan.to_run
    wants_gpu = any(configs[run_id].device != "cpu" for run_id in to_run)
    slots = plan_slots(workers, runs_per_gpu, available_cores(), visible_gpus() if wants_gpu else [])
    slots = slots[: len(to_run)]

    def take_in(run_id: str) -> None:
        try:
            ingest_runs(store, folder, [run_id])
        except ItopctlError as error:  # the database is an index: it must not stop a training
            display.note(f"{error} The sweep goes on; the store is brought up to date at its end.")

    display = SweepDisplay(console, configs, to_run, len(slots), on_end=take_in)

    def prepare(run_id: str) -> None:
        record_config(folder, run_id, configs[run_id])
        records.keep()

    pool = Pool(folder, data, slots, display, prepare)

    def interrupt(*_: object) -> None:
        pool.stop()
        display.stopping()

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        with display:
            return pool.run(to_run)
    finally:
        signal.signal(signal.SIGINT, before)


def _conclude(plan: Plan, store: Store, outcome: Outcome | None, console: Console) -> bool:
    from itopctl.cli.tables import failures_table
    from itopctl.report.formats import rich_tables
    from itopctl.store.queries import failures, run_states

    states = [state for state, _ in run_states(store, list(plan.configs)).values()]
    failed = failures(store, list(plan.configs))
    done, elsewhere, total = states.count("done"), states.count("running"), len(plan.configs)
    left = total - done - elsewhere - len(failed)
    if failed:
        console.print(rich_tables([failures_table(failed)]))
    if outcome and outcome.common_cause:
        cause, message = outcome.common_cause
        console.print(f"Stopped after repeated quick failures. The common cause is {cause}: {message}", markup=False)
    parts = [f"{done:,} of {plural(total, 'run')} done", f"{len(failed):,} failed" * bool(failed)]
    parts += [f"{elsewhere:,} being run by another command" * bool(elsewhere), f"{left:,} not finished" * bool(left)]
    console.print(", ".join(filter(None, parts)) + ".")
    if left:
        interrupted = "Interrupted. " if outcome and outcome.stopped == "interrupted" else ""
        console.print(f"{interrupted}Run the same command again to go on from there.")
    elif done:
        names = " ".join(planned.spec.name for planned in plan.sweeps)
        console.print(f"See the results: itopctl report {names} --table paper")
    return bool(failed) or left > 0


def _counts(plan: Plan) -> str:
    return "Plan: " + ", ".join(f"{count:,} {kind}" for kind, count in plan.counts.items()) + "."


def _print_plan(plan: Plan, style: str) -> None:
    from itopctl.cli.common import print_tables
    from itopctl.cli.tables import plan_table

    if style == "rich":
        typer.echo(_counts(plan))
        for note in plan.notes:
            typer.echo(note)
    print_tables([plan_table(plan)], style)
