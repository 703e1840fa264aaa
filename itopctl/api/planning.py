"""From spec files to a plan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from itopctl.plan import Plan, PlannedSweep
    from itopctl.spec.config import RunConfig
    from itopctl.store.database import Store


def read_specs(specs: Sequence[Path], overrides: Sequence[str], limit: int) -> list[PlannedSweep]:
    """Specs with their runs.

    Raises:
        UserError: for two of one name, and for whatever is wrong in them.
        EnvironmentUnfitError: the current folder is gone, where the user's modules, jobs and PyTorch are at home.
    """
    from itopctl.places import current_folder
    from itopctl.plan import PlannedSweep
    from itopctl.spec.expand import expand, parse_overrides
    from itopctl.spec.own_code import OwnCode
    from itopctl.spec.reading import read_file
    from itopctl.spec.sweep import parse_sweep

    current_folder()
    settings, own_code = parse_overrides(overrides), OwnCode()
    found: dict[str, PlannedSweep] = {}
    for path in specs:
        spec = parse_sweep(read_file(path))
        if spec.name in found:
            other = found[spec.name].spec.document.source
            raise spec.document.error(("name",), f"{spec.name!r} is the name of {other}, too; give each sweep its own.")
        found[spec.name] = PlannedSweep(spec, expand(spec, settings, limit, solve_interval, own_code))
    return list(found.values())


def planned(sweeps: Sequence[PlannedSweep], known: Store | None, accept: Sequence[str] = ()) -> Plan:
    """The plan of some sweeps against what a store knows; `accept`: `--accept-code` arguments."""
    from itopctl.plan import make_plan
    from itopctl.plan.versions import KnownVersions, check_accepted, settled

    check_accepted(sweeps, accept)
    if known is None:
        return make_plan(sweeps, {})
    from itopctl.store.provenance import accepted_code
    from itopctl.store.queries import run_states, runs_with_own_code

    states = {run_id: state for run_id, (state, _) in run_states(known).items()}
    runs = [(run_id, config) for sweep in sweeps for run_id, config in sweep.expansion.runs.items()]
    if any(config.own_code and (accept or states.get(run_id) != "done") for run_id, config in runs):
        versions = KnownVersions(runs_with_own_code(known), states)
        accepted = accepted_code(known)
        sweeps = [settled(sweep, states, versions, accepted.get(sweep.spec.name, {}), accept) for sweep in sweeps]
    return make_plan(sweeps, states)


def solve_interval(config: RunConfig, reach: float) -> int:
    """The update interval with which a run explores so much; imports torch, and the user's model if it has one."""
    from itopctl.plan.reach import interval_for
    from itopctl.train.outline import outline_of

    return interval_for(reach, config, outline_of)
