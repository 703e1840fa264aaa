"""Versions of the user's own code among the runs of a report: which count as the same, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from itopctl.catalogue import OWN_CODE
from itopctl.errors import plural
from itopctl.report.table import Record

Accepted = Mapping[str, Sequence[str]]
"""Module of the user's own → versions of it that the user declared to be the same."""


def same_code(run: Record, accepted: Iterable[Accepted]) -> Record:
    """Name of a setting → what stands for its value, where a version of a run was declared to be the same as others.

    Args:
        run: with `settings`, in which `own_code.my_models` is the version of a module.
        accepted: of the sweeps that the run is reported with.
    """
    found: Record = {}
    for versions_of in accepted:
        for module, versions in versions_of.items():
            if run["settings"].get(f"{OWN_CODE}{module}") in versions:
                found[f"{OWN_CODE}{module}"] = "/".join(sorted(versions))
    return found


def version_notes(runs: Iterable[Record]) -> list[str]:
    """A sentence on each module of which several versions made the runs. Records as `same_code` takes them."""
    made: dict[str, Counter[str]] = {}
    same: dict[str, dict[str, None]] = {}
    for run in runs:
        for name, version in run["settings"].items():
            if name.startswith(OWN_CODE):
                made.setdefault(name, Counter())[version] += 1
        for name, versions in run.get("same_code", {}).items():
            same.setdefault(name, {})[versions] = None
    notes = []
    for name, counts in made.items():
        if len(counts) > 1:
            said = ", ".join(f"{version} made {plural(count, 'run')}" for version, count in counts.most_common())
            alike = [" and ".join(one.split("/")) for one in same.get(name, ())]
            declared = "".join(f" {one} count as the same (--accept-code): one run a seed." for one in alike)
            notes.append(f"Versions of {name.removeprefix(OWN_CODE)}: {said}.{declared}")
    return notes
