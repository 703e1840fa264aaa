"""`itopctl retry`: run again what failed, chosen by why it did."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from itopctl.cli.common import (
    DataDirOption,
    FormatOption,
    ResultsOption,
    StoreOption,
    SweepsArgument,
    TrustOption,
    check_format,
    print_tables,
    project_of,
    warn,
)
from itopctl.cli.run_options import (
    AfterOption,
    FirstOption,
    RunsPerGpuOption,
    SlurmOption,
    SnapshotOption,
    WaitOption,
    WorkersOption,
    carry_out,
    check_place,
    complete_clusters,
)
from itopctl.errors import plural


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
    from itopctl.api.cluster import There
    from itopctl.api.retrying import failed_runs
    from itopctl.api.running import Here
    from itopctl.cli.tables import failures_table
    from itopctl.places import current_folder
    from itopctl.report.formats import make_console

    style = check_format(format_, json=False)
    current_folder()  # is there: jobs and workers need it
    project, console = project_of(results, store, data_dir), make_console()
    causes = [word.strip() for word in (cause or "").split(",") if word.strip()]
    with project.opened(first=project.look, writes=not dry_run) as opened:
        again = failed_runs(
            project, opened, sweeps or [], causes, cluster, slurm or [],
            lambda where: check_place(project, where, slurm or [], after or [], workers, runs_per_gpu, wait),
        )  # fmt: skip
        if again is None:
            if style == "rich":
                typer.echo("0 runs to try again.")
            return
        if dry_run:
            if style == "rich":
                typer.echo(f"{plural(len(again.failed), 'run')} to try again, on {again.cluster}.")
            print_tables([failures_table(again.failed, again=True)], style)
            return
        if not trust:
            again.check_trust(project)
        console.print(f"{plural(len(again.work.to_run), 'run')} to try again.")
        warn(project.check(again.work, again.cluster))
        here = Here(workers, runs_per_gpu, first, console.print)
        how = here if again.cluster == "local" else There(first, after or [], snapshot, wait)
        failed = carry_out(project, again.work, opened, console, list(again.work.runs), how)
    raise typer.Exit(1 if failed else 0)
