"""From spec files to a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from itopctl.errors import UserError

if TYPE_CHECKING:
    from itopctl.config.reading import Document
    from itopctl.config.run_config import RunConfig
    from itopctl.plan import Plan, PlannedSweep
    from itopctl.store.database import Store

MOST_RUNS = 10_000
"""What a spec may expand to, unless more are allowed."""
Spec = Path | str | Mapping[str, Any]
"""A spec: the path of its file, or what would stand in the file as plain data."""
Overrides = Mapping[str, Any] | Sequence[str]
"""Setting → value for every run, or `KEY=VALUE` texts."""


def read_specs(specs: Sequence[Spec], overrides: Overrides, limit: int, option: str = "--set") -> list[PlannedSweep]:
    """Specs with their runs.

    Args:
        specs: paths of files, or what would stand in one, as plain data.
        overrides: setting → value, or `KEY=VALUE` texts.
        limit: the most runs a spec may have.
        option: what errors call the place where the overrides were given.

    Raises:
        UserError: for two of one name, and for whatever is wrong in them.
        EnvironmentUnfitError: the current folder is gone, where the user's modules, jobs and PyTorch are at home.
    """
    from itopctl.config.expand import expand, parse_overrides
    from itopctl.config.own_code import OwnCode
    from itopctl.config.sweep import parse_sweep
    from itopctl.places import current_folder
    from itopctl.plan import PlannedSweep

    current_folder()
    texts, own_code = as_texts(overrides), OwnCode()
    settings = parse_overrides(texts, option)
    found: dict[str, PlannedSweep] = {}
    for written in specs:
        spec = parse_sweep(_document(written))
        if spec.name in found:
            other = found[spec.name].spec.document.source
            raise spec.document.error(("name",), f"{spec.name!r} is the name of {other}, too; give each sweep its own.")
        expansion = expand(spec, settings, limit, solve_interval, own_code)
        found[spec.name] = PlannedSweep(spec, expansion, overrides=tuple(texts))
    return list(found.values())


def as_list(spec: Spec | Sequence[Spec]) -> list[Spec]:
    """Specs, where one was given or several."""
    return [spec] if isinstance(spec, (str, Path, Mapping)) else list(spec)


def _document(spec: Spec) -> Document:
    from itopctl.config.reading import read_file, read_text

    if not isinstance(spec, Mapping):
        return read_file(Path(spec))
    return read_text(_yaml(spec, "the spec"), "the spec")


def as_texts(overrides: Overrides) -> list[str]:
    """Settings for every run as `KEY=VALUE` texts, as `--set` takes them and manifests record them."""
    if not isinstance(overrides, Mapping):
        return [overrides] if isinstance(overrides, str) else list(overrides)
    return [f"{name}={_yaml(value, name, flow=True)}" for name, value in overrides.items()]


def _yaml(data: Any, what: str, flow: bool | None = False) -> str:
    """Plain data as YAML. Raises UserError for anything else, such as an array."""
    import yaml

    try:
        text: str = yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=flow, width=1 << 30)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{what}: plain data expected (texts, numbers, lists and mappings of these): {reason}."
        ) from error
    return text.removesuffix("...\n").strip()


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
    from itopctl.train.model_outline import outline_of

    return interval_for(reach, config, outline_of)
