"""`itopctl retry`: run again what failed, chosen by why it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from itopctl.cli.cluster import There
from itopctl.cli.common import (
    DataDirOption,
    FormatOption,
    ResultsOption,
    StoreOption,
    SweepsArgument,
    TrustOption,
    check_format,
    open_results,
    print_tables,
    refuse_untrusted,
)
from itopctl.cli.launch import (
    AfterOption,
    FirstOption,
    RunsPerGpuOption,
    SlurmOption,
    SnapshotOption,
    WaitOption,
    WorkersOption,
    carry_out_here,
    carry_out_there,
    complete_clusters,
)
from itopctl.errors import UserError, plural, unknown

if TYPE_CHECKING:
    from itopctl.api.worklist import Work
    from itopctl.spec.config import RunConfig
    from itopctl.spec.own_code import OwnCode
    from itopctl.store.rundir import Results


def _complete_causes(incomplete: str) -> list[str]:
    from itopctl.dispatch.causes import Cause

    return [cause for cause in get_args(Cause) if cause.startswith(incomplete)]


def retry(
    sweeps: SweepsArgument = None,
    cause: Annotated[
        str | None,
        typer.Option(
            "--cause", help="Only runs that ended so, such as timeout,node-failure.", autocompletion=_complete_causes
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the runs and start nothing.")] = False,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="Where to run: local or slurm. Default: where the sweep was run last.",
            show_default=False,
            autocompletion=complete_clusters,
        ),
    ] = None,
    slurm: SlurmOption = None,
    wait: WaitOption = False,
    first: FirstOption = 0,
    after: AfterOption = None,
    snapshot: SnapshotOption = True,
    trust: TrustOption = False,
    workers: WorkersOption = None,
    runs_per_gpu: RunsPerGpuOption = 1,
    results: ResultsOption = None,
    data_dir: DataDirOption = None,
    store: StoreOption = None,
    format_: FormatOption = "rich",
) -> None:
    """Run failed and lost runs again, each from its newest checkpoint.

    Their settings come from the results folder. Where these name code outside itopctl that is not your own code as it
    made these runs, --trust is needed to run it. Runs by other code of your own than is here now are left out.

    With --cause also those that were cancelled, if `cancelled` is among the causes.
    """
    from itopctl.api.opening import look
    from itopctl.api.project import Project
    from itopctl.api.running import Here
    from itopctl.cli.cluster import say
    from itopctl.cli.common import tell, warn
    from itopctl.cli.launch import check_cluster
    from itopctl.cli.tables import failures_table
    from itopctl.places import current_folder
    from itopctl.report.formats import make_console
    from itopctl.spec.own_code import OwnCode
    from itopctl.store.queries import check_sweeps, ended_badly

    style = check_format(format_, json=False)
    current_folder()  # is there: jobs and workers need it
    causes = _causes(cause)
    folder, opened = open_results(results, store, first=lambda found: say(look(found)), writes=not dry_run)
    check_sweeps(opened, sweeps or [])
    chosen = ended_badly(opened, sweeps or [], causes)
    manifests = _manifests(folder, sweeps or [])
    where = cluster or _last_place(manifests, {run["run_id"] for run in chosen})
    try:
        check_cluster(where, slurm or [], wait, after or [], workers, runs_per_gpu)
    except UserError as error:
        if cluster is not None or not chosen:
            raise
        raise UserError(f"{error} These runs were run there last; say with --cluster where to run them now.") from None
    if not chosen:
        if style == "rich":
            typer.echo("0 runs to try again.")
        return
    own_code = OwnCode()
    work = _of_this_code(_work(manifests, [run["run_id"] for run in chosen], slurm or [], where), own_code)
    if dry_run:
        tried = [run for run in chosen if run["run_id"] in set(work.to_run)]
        if style == "rich":
            typer.echo(f"{plural(len(tried), 'run')} to try again, on {where}.")
        print_tables([failures_table(tried, again=True)], style)
        return
    if not trust:
        _check_trust(work, where, folder, own_code)
    project, console, names = Project(results, store, data_dir, tell=tell), make_console(), list(work.runs)
    console.print(f"{plural(len(work.to_run), 'run')} to try again.")
    warn(project.check(work, where))
    if where == "local":
        how = Here(workers, runs_per_gpu, first, console.print)
        failed = carry_out_here(project, work, opened, console, names, how)
    else:
        failed = carry_out_there(project, work, opened, console, names, There(first, after or [], snapshot, wait))
    raise typer.Exit(1 if failed else 0)


def _causes(text: str | None) -> list[str]:
    from itopctl.dispatch.causes import Cause

    known = [cause for cause in get_args(Cause) if cause != "finished"]
    causes = [word.strip() for word in (text or "").split(",") if word.strip()]
    for word in causes:
        if word not in known:
            raise UserError(f"--cause: {unknown('cause', word, known)}")
    return causes


def _of_this_code(work: Work, own_code: OwnCode) -> Work:
    """The runs that were planned with the user's own code as it is now; says which are not.

    Raises:
        UserError: none was.
    """
    from itopctl.api.worklist import Work

    differences = {run_id: own_code.differences(work.configs[run_id]) for run_id in work.to_run}
    others = {run_id for run_id, found in differences.items() if found}
    if not others:
        return work
    why = " ".join(dict.fromkeys(sentence for run_id in others for sentence in differences[run_id].values()))
    remedy = "`itopctl sweep SPEC` begins them anew with the code as it is now."
    if len(others) == len(work.to_run):
        raise UserError(f"these runs were planned with other code of your own. {why} {remedy}")
    typer.echo(f"itopctl: {plural(len(others), 'run')} of other code of your own left out. {why} {remedy}", err=True)
    runs = {sweep: tuple(run_id for run_id in ids if run_id not in others) for sweep, ids in work.runs.items()}
    configs = {run_id: config for run_id, config in work.configs.items() if run_id not in others}
    return Work({sweep: ids for sweep, ids in runs.items() if ids}, configs, work.slurm)


def _check_trust(work: Work, where: str, folder: Results, own_code: OwnCode) -> None:
    """Raise UserError where a stored setting would run code that itopctl does not have, and the user did not write."""
    names = {name for run_id in work.to_run for name in own_code.untrusted(work.configs[run_id], folder.path)}
    if where == "slurm":
        for options in work.slurm.values():
            names |= {f"setup {line!r}" for line in options.setup or ()}
            names |= {f"sbatch option {name!r}" for name in options.additional_parameters or {}}
    refuse_untrusted(names, "; `itopctl sweep SPEC` takes it from the spec instead")


def _manifests(folder: Results, sweeps: Sequence[str]) -> dict[str, dict[str, Any]]:
    from itopctl.store.files import read_json

    paths = {path.stem: path for path in folder.manifests()}
    return {name: read_json(path) or {} for name, path in paths.items() if not sweeps or name in sweeps}


def _last_place(manifests: dict[str, dict[str, Any]], runs: set[str]) -> str:
    """Where the sweeps of these runs were last run. Raises UserError where that is not one place."""
    from itopctl.store.manifests import points_of

    places = {
        str(manifest.get("cluster", "local"))
        for manifest in manifests.values()
        if not runs.isdisjoint(points_of(manifest))
    }
    if len(places) > 1:
        raise UserError(f"these runs were made on {' and '.join(sorted(places))}; say where with --cluster.")
    return places.pop() if places else "local"


def _work(manifests: dict[str, dict[str, Any]], chosen: Sequence[str], slurm: Sequence[str], cluster: str) -> Work:
    from itopctl.api.worklist import Work, job_options, share_out
    from itopctl.spec.reading import Document
    from itopctl.spec.slurm import options_of
    from itopctl.store.manifests import points_of

    wanted = set(chosen)
    points = {name: points_of(manifest) for name, manifest in manifests.items()}
    members = {name: [run_id for run_id in runs if run_id in wanted] for name, runs in points.items()}
    configs = {
        run_id: _config(name, run_id, config)
        for name, runs in points.items()
        for run_id, config in runs.items()
        if run_id in wanted
    }
    recorded = {
        name: options_of(Document(f"sweep {name}", "", {}), ("slurm",), manifest.get("slurm"))
        for name, manifest in manifests.items()
    }
    return Work(share_out(members, chosen), configs, job_options(cluster, recorded, slurm))


def _config(sweep: str, run_id: str, stored: dict[str, Any]) -> RunConfig:
    """A run's config from a manifest. Raises UserError where it is none, or another run's."""
    from itopctl.spec.config import RunConfig
    from itopctl.spec.identity import run_id as identity

    try:
        config = RunConfig.model_validate(stored)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"sweep {sweep} holds a config of run {run_id} that makes no sense: {reason}") from error
    if identity(config) != run_id:
        raise UserError(f"sweep {sweep} holds for run {run_id} the config of run {identity(config)}.")
    return config
