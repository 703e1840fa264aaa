"""Runs that failed or were lost, to be tried again: which, with what settings, and where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from itopctl.errors import UserError, plural, unknown

if TYPE_CHECKING:
    from itopctl.api.worklist import Work
    from itopctl.api.workplace import Workplace
    from itopctl.config.own_code import OwnCode
    from itopctl.config.run_config import RunConfig
    from itopctl.store.database import Store

Record = dict[str, Any]


@dataclass(frozen=True)
class Again:
    """Runs to try again.

    Attributes:
        work: the runs, and what their jobs ask for.
        cluster: where, `local` or `slurm`.
        failed: the records of the runs, with `cause` and `message`.
    """

    work: Work
    cluster: str
    failed: Sequence[Record]
    _own_code: OwnCode = field(repr=False)

    def check_trust(self, project: Workplace) -> None:
        """Raise UserError where stored settings would run code that is neither itopctl's nor the user's own."""
        work, folder = self.work, project.folder.path
        names = {name for run_id in work.to_run for name in self._own_code.untrusted(work.configs[run_id], folder)}
        if self.cluster == "slurm":
            for options in work.slurm.values():
                names |= {f"setup {line!r}" for line in options.setup or ()}
                names |= {f"sbatch option {name!r}" for name in options.additional_parameters or {}}
        project.refuse_untrusted(names, "; `itopctl sweep SPEC` takes it from the spec instead")


def failed_runs(
    project: Workplace, store: Store, sweeps: Sequence[str], causes: Sequence[str], cluster: str | None,
    slurm: Sequence[str], check: Callable[[str], None] = lambda cluster: None,
) -> Again | None:  # fmt: skip
    """The runs of some sweeps, or of all, that failed or were lost; None where there are none.

    Runs by other code of the user's own than is here now are left out, and the user is told.

    Args:
        project: whose runs they are.
        store: their records, up to date.
        sweeps: names.
        causes: only runs that ended so; none: any cause but `cancelled`.
        cluster: `local` or `slurm`; None: where the sweeps were run last.
        slurm: `KEY=VALUE` texts, as `--slurm` takes them.
        check: called with where the runs are to be made; raises UserError where the other options do not go with that.

    Raises:
        UserError: an unknown sweep, settings that make no sense, or only runs by other code.
    """
    from itopctl.config.own_code import OwnCode
    from itopctl.dispatch.causes import Cause
    from itopctl.store.queries import check_sweeps, ended_badly

    known = [cause for cause in get_args(Cause) if cause != "finished"]
    for word in causes:
        if word not in known:
            raise UserError(f"{project.spell('cause', None)}: {unknown('cause', word, known)}")
    check_sweeps(store, sweeps)
    chosen = ended_badly(store, sweeps, causes)
    manifests = _manifests(project, sweeps)
    run_ids = [run["run_id"] for run in chosen]
    where = cluster or _last_place(project, manifests, set(run_ids))
    try:
        check(where)
    except UserError as error:
        if cluster is not None or not chosen:
            raise
        said = project.spell("cluster", None)
        raise UserError(f"{error} These runs were run there last; say with {said} where to run them now.") from None
    if not chosen:
        return None
    own_code = OwnCode()
    work = _of_this_code(_work(project, manifests, run_ids, slurm, where), own_code, project.tell)
    wanted = set(work.to_run)
    return Again(work, where, [run for run in chosen if run["run_id"] in wanted], own_code)


def _of_this_code(work: Work, own_code: OwnCode, tell: Callable[[str], None]) -> Work:
    """The runs that were planned with the user's own code as it is now; tells which are not.

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
    tell(f"{plural(len(others), 'run')} of other code of your own left out. {why} {remedy}")
    runs = {sweep: tuple(run_id for run_id in ids if run_id not in others) for sweep, ids in work.runs.items()}
    configs = {run_id: config for run_id, config in work.configs.items() if run_id not in others}
    return Work({sweep: ids for sweep, ids in runs.items() if ids}, configs, work.slurm)


def _manifests(project: Workplace, sweeps: Sequence[str]) -> dict[str, Record]:
    from itopctl.store.files import read_json

    paths = {path.stem: path for path in project.folder.manifests()}
    return {name: read_json(path) or {} for name, path in paths.items() if not sweeps or name in sweeps}


def _last_place(project: Workplace, manifests: Mapping[str, Record], runs: set[str]) -> str:
    """Where the sweeps of these runs were last run. Raises UserError where that is not one place."""
    from itopctl.store.manifests import points_of

    places = {
        str(manifest.get("cluster", "local"))
        for manifest in manifests.values()
        if not runs.isdisjoint(points_of(manifest))
    }
    if len(places) > 1:
        said = project.spell("cluster", None)
        raise UserError(f"these runs were made on {' and '.join(sorted(places))}; say where with {said}.")
    return places.pop() if places else "local"


def _work(
    project: Workplace, manifests: Mapping[str, Record], chosen: Sequence[str], slurm: Sequence[str], cluster: str
) -> Work:
    from itopctl.api.worklist import Work, job_options, share_out
    from itopctl.config.reading import Document
    from itopctl.config.slurm import options_of
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
    return Work(share_out(members, chosen), configs, job_options(project, cluster, recorded, slurm))


def _config(sweep: str, run_id: str, stored: Record) -> RunConfig:
    """A run's config from a manifest. Raises UserError where it is none, or another run's."""
    from itopctl.config.identity import run_id as identity
    from itopctl.config.run_config import RunConfig

    try:
        config = RunConfig.model_validate(stored)
    except ValueError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"sweep {sweep} holds a config of run {run_id} that makes no sense: {reason}") from error
    if identity(config) != run_id:
        raise UserError(f"sweep {sweep} holds for run {run_id} the config of run {identity(config)}.")
    return config
