"""Runs whose networks cannot be made: which of them stop a sweep before it starts, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from itopctl.config.run_config import RunConfig
from itopctl.errors import UserError, plural
from itopctl.plan.forecast import Fault, Impossible
from itopctl.plan.warnings import which_runs

Unmade = Sequence[tuple[RunConfig, Impossible]]

_SAID: Mapping[Fault, str] = {
    "model": "cannot be made",
    "machine": "cannot be made on this machine",
    "unknown": "may not be possible",
    "settings": "will fail",
}
_ON_NODES = " The nodes may have what this machine lacks: `--first 1` tries one run before the others."
_HERE = " Nodes of a cluster may have what this machine lacks: `--cluster slurm` leaves it to them."


def sentences(found: Unmade, on_nodes: bool = False) -> list[str]:
    """One sentence for each reason, with the runs that it stops.

    Args:
        found: runs that are to be made, and why they cannot be.
        on_nodes: whether nodes of a cluster are to make them.
    """
    alike: dict[Impossible, list[RunConfig]] = {}
    for config, why in found:
        alike.setdefault(why, []).append(config)
    hint = _ON_NODES if on_nodes else _HERE
    return [
        f"{which_runs(runs)} {_SAID[why.fault]}: {why.reason.rstrip('.')}.{hint * (why.fault == 'machine')}"
        for why, runs in alike.items()
    ]


def check_makeable(found: Unmade, runs: int, on_nodes: bool) -> list[str]:
    """Sentences on runs that may not be possible, though that is not sure.

    Args:
        found: as in `sentences`.
        runs: how many are to be made in all.
        on_nodes: as there.

    Raises:
        UserError: some cannot be made, for sure. It names each reason once.
    """
    refused = refused_of(found, on_nodes)
    if refused:
        which = plural(runs, "run") if runs == len(refused) else f"{len(refused):,} of {plural(runs, 'run')}"
        remedy = "Correct this, or leave these runs out of the spec."
        raise UserError("\n".join([f"nothing is started: {which} cannot be made.", *sentences(refused), remedy]))
    return sentences(found, on_nodes)


def refused_of(found: Unmade, on_nodes: bool = False) -> Unmade:
    """Those that cannot be made, for sure: what a machine lacks, a node of a cluster may have."""
    faults = ("model",) if on_nodes else ("model", "machine")
    return [(config, why) for config, why in found if why.fault in faults]
