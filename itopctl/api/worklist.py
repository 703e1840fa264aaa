"""Runs that are to be made: which, with what configs, and what their jobs ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from itopctl.errors import EnvironmentUnfitError, UserError, unknown

if TYPE_CHECKING:
    from itopctl.api.workplace import Workplace
    from itopctl.config.run_config import RunConfig
    from itopctl.config.slurm import SlurmOptions


CLUSTERS = ("local", "slurm")
"""Where runs can be made."""


def check_place(
    project: Workplace, cluster: str, slurm: Sequence[str], after: Sequence[str], workers: int | None,
    runs_per_gpu: int,
) -> None:  # fmt: skip
    """Raise UserError for an unknown place to run, or for arguments that mean nothing there."""
    if cluster not in CLUSTERS:
        raise UserError(f"{project.spell('cluster', None)}: {unknown('cluster', cluster, CLUSTERS)}")
    foreign = (
        {"slurm": bool(slurm), "after": bool(after)}
        if cluster == "local"
        else {"workers": workers is not None, "runs_per_gpu": runs_per_gpu > 1}
    )
    for name, given in foreign.items():
        if given:
            instead = "" if cluster == "local" else f" (write {project.spell('slurm', 'runs_per_gpu=N')})"
            where = project.spell("cluster", cluster)
            raise UserError(f"{project.spell(name, None)}{instead} means nothing with {where}.")


@dataclass(frozen=True)
class Work:
    """Runs that are to be made.

    Attributes:
        runs: what to run now, sweep by sweep.
        configs: run id → config, of these and of all that the conclusion is about.
        slurm: sweep → what its jobs ask for.
    """

    runs: Mapping[str, tuple[str, ...]]
    configs: Mapping[str, RunConfig]
    slurm: Mapping[str, SlurmOptions]

    @property
    def to_run(self) -> tuple[str, ...]:
        """All that is to be run now, each once."""
        return tuple(dict.fromkeys(run_id for runs in self.runs.values() for run_id in runs))


def share_out(members: Mapping[str, Sequence[str]], to_run: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each run to the first sweep that has it, in the order of `to_run`."""
    owner: dict[str, str] = {}
    for sweep, runs in members.items():
        for run_id in runs:
            owner.setdefault(run_id, sweep)
    return {
        sweep: mine for sweep in members if (mine := tuple(run_id for run_id in to_run if owner.get(run_id) == sweep))
    }


def check_data(work: Work, data: Path) -> None:
    """Raise EnvironmentUnfitError where a data set of the runs is missing on this machine."""
    from itopctl.train.data.catalogue import locate

    for name in dict.fromkeys(work.configs[run_id].dataset for run_id in work.to_run):
        locate(name, data)


def check_models(work: Work, cluster: str, tell: Callable[[str], None]) -> list[str]:
    """Make the networks of the runs once, before anything starts; returns warnings on those that may not be possible.

    Raises:
        UserError: a model cannot be made, or does not take the data, or the sparsity cannot be reached.
    """
    from itopctl.dispatch.trial import is_sure, try_out
    from itopctl.plan.forecast import Impossible
    from itopctl.plan.unmade import check_makeable

    unsure = [config for run_id in work.to_run if not is_sure(config := work.configs[run_id])]
    look = try_out(unsure, tell)
    found = [(config, why) for config in unsure if isinstance(why := look(config), Impossible)]
    return check_makeable(found, len(work.to_run), on_nodes=cluster == "slurm")


def notes_on_data(work: Work, data: Path) -> list[str]:
    """What cannot be seen from this machine of the data sets that jobs will read; nodes may see more."""
    try:
        check_data(work, data)
    except EnvironmentUnfitError as error:
        return [f"From this machine: {error}\nTo look from a node: itopctl doctor SPEC --probe"]
    return []


def job_options(
    project: Workplace, cluster: str, written: Mapping[str, SlurmOptions], typed: Sequence[str]
) -> dict[str, SlurmOptions]:
    """Sweep → what its jobs ask for: the site's defaults, what its spec says, the command line's `--slurm`.

    Raises:
        UserError: options that make no sense, or not together.
    """
    from itopctl.config.slurm import SlurmOptions, check_together, defaults, merged, parse_options

    weakest = defaults() if cluster == "slurm" else SlurmOptions()
    strongest = parse_options(typed, project.spell("slurm", None))
    options = {name: merged(weakest, own, strongest) for name, own in written.items()}
    for one in options.values():
        check_together(one)
    return options
