"""Whether this machine, and the cluster, are fit to run sweeps."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from itopctl.api.specs import MOST_RUNS
from itopctl.errors import ItopctlError
from itopctl.places import current_folder

if TYPE_CHECKING:
    from itopctl.api.specs import Spec
    from itopctl.api.workplace import Workplace
    from itopctl.config.slurm import SlurmOptions
    from itopctl.dispatch.slurm import Slurm


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        kind: `ok`, `note`, or `problem` where runs cannot be made as it is.
        subject: what was looked at.
        answer: what was found.
    """

    kind: Literal["ok", "note", "problem"]
    subject: str
    answer: str


def diagnose(
    project: Workplace, specs: Sequence[Spec], slurm: Sequence[str], probe: bool, minutes: int
) -> list[Finding]:
    """Look whether SLURM is there, which partitions and GPUs it has, and whether results and data can be reached.

    Args:
        project: results folder and data sets.
        specs: whose data sets and options to look at.
        slurm: further options of jobs, as `KEY=VALUE`.
        probe: whether to submit a test job that looks from a compute node.
        minutes: how long to wait for that job.
    """
    datasets, options = _wanted(project, specs, slurm)
    findings = [*_here(project, datasets), *_cluster()]
    if not probe:
        return findings
    if any(finding.subject == "SLURM" and finding.kind == "problem" for finding in findings):
        return [*findings, Finding("problem", "probe", "not submitted")]
    return [*findings, *_from_a_node(project, datasets, options, minutes)]


def _wanted(project: Workplace, specs: Sequence[Spec], slurm: Sequence[str]) -> tuple[list[str], SlurmOptions]:
    """Data sets of the specs, and what their jobs would ask for."""
    from itopctl.api.specs import read_specs
    from itopctl.config.slurm import check_together, defaults, merged, parse_options

    sweeps = read_specs(specs, (), MOST_RUNS)
    names = [config.dataset for sweep in sweeps for config in sweep.expansion.runs.values()]
    options = merged(
        defaults(), *(sweep.spec.slurm for sweep in sweeps), parse_options(slurm, project.spell("slurm", None))
    )
    check_together(options)
    return list(dict.fromkeys(names)), options


def _here(project: Workplace, datasets: Sequence[str]) -> Iterator[Finding]:
    from itopctl.store.filesystem import file_system, is_shared
    from itopctl.train.data.catalogue import locate

    folder = project.folder
    yield Finding("ok", "Python", f"{sys.version.split()[0]}, {sys.executable}")
    there = next(path for path in [folder.path.absolute(), *folder.path.absolute().parents] if path.exists())
    kind = file_system(there)
    shared = "shared between machines" if is_shared(there) else "of this machine alone, as far as its type tells"
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding("problem", "results folder", f"{folder.path} cannot be written")
    else:
        yield Finding("ok", "results folder", f"{folder.path} can be written from here")
    yield Finding("ok" if is_shared(there) else "note", "file system", f"{kind or 'unknown'}: {shared}")
    for name in datasets:
        try:
            found = locate(name, project.data)
            yield Finding("ok", f"data set {name}", f"{found}" if found else "built in")
        except ItopctlError as error:
            yield Finding("problem", f"data set {name}", str(error))


def _cluster() -> Iterator[Finding]:
    from itopctl.config.slurm import profile_path
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import Slurm

    scheduler = Slurm()
    try:
        cluster = scheduler.cluster()
        yield Finding("ok", "SLURM", f"{scheduler.version()}, cluster {cluster.name}, user {cluster.user}")
    except SchedulerError as error:
        yield Finding("problem", "SLURM", str(error))
        return
    yield from _partitions(scheduler)
    yield Finding("ok", "arrays", f"at most {cluster.largest_array:,} jobs each; larger sweeps are split")
    yield _accounts(scheduler, cluster.accounts)
    requeue = scheduler.setting("JobRequeue")
    yield Finding("ok", "requeue", f"preemption {scheduler.setting('PreemptMode')}, JobRequeue {requeue}")
    profile = profile_path()
    yield Finding("ok" if profile else "note", "profile", str(profile) if profile else "none: no site defaults")


def _partitions(scheduler: Slurm) -> Iterator[Finding]:
    from itopctl.dispatch.scheduler import SchedulerError

    try:
        partitions = scheduler.partitions()
    except SchedulerError as error:
        yield Finding("problem", "partitions", str(error))
        return
    for one in partitions:
        gpus = "no GPUs" if one["gres"] in ("(null)", "") else one["gres"]
        answer = (
            f"{one['state']}, nodes: {one['nodes']} with {one['cpus']} CPUs, {one['memory']} MB and {gpus}; "
            f"time limit {one['time_limit']}"
        )
        yield Finding("ok" if one["state"] == "up" else "note", f"partition {one['partition']}", answer)
    if not partitions:
        yield Finding("problem", "partitions", "none")


def _accounts(scheduler: Slurm, kept: bool) -> Finding:
    from itopctl.dispatch.scheduler import SchedulerError

    if not kept:
        return Finding("note", "accounting", "none: a job that the queue has forgotten is judged by its files alone")
    try:
        scheduler.accounts(["itopctl-doctor"], days=1)
    except SchedulerError as error:
        return Finding("problem", "accounting", str(error))
    return Finding("ok", "accounting", "sacct answers")


def _from_a_node(project: Workplace, datasets: Sequence[str], options: SlurmOptions, minutes: int) -> Iterator[Finding]:
    from itopctl.api.cluster import Patience
    from itopctl.dispatch.probe import probe
    from itopctl.dispatch.scheduler import SchedulerError
    from itopctl.dispatch.slurm import Slurm
    from itopctl.dispatch.snapshot import take

    until = time.monotonic() + 60 * minutes

    waiting = Patience(first=1.0, most=15.0)

    def goes_on(word: str | None) -> bool:
        time.sleep(waiting.after(changed=False))
        return time.monotonic() < until

    try:
        code = take(project.folder, current_folder(), project.data, ())
        answer = probe(project.folder, Slurm(), options, code, project.data, datasets, goes_on)
    except (SchedulerError, OSError) as error:
        yield Finding("problem", "probe", str(error))
        return
    if answer.seen is None:
        left = f"its job was {answer.word} after {minutes} min" if answer.word else "its job is nowhere"
        yield Finding("problem", "probe", f"no answer: {left}. {answer.complaint}".strip())
        return
    yield from _seen_from(answer.seen, datasets, options)


def _seen_from(seen: dict[str, Any], datasets: Sequence[str], options: SlurmOptions) -> Iterator[Finding]:
    host = seen["host"]
    yield Finding("ok", f"node {host}", f"Python {seen['python']}; writes the results folder, and it is seen here")
    if "torch_error" in seen:
        yield Finding("problem", f"node {host}: torch", seen["torch_error"])
    else:
        yield Finding("ok", f"node {host}: torch", f"{seen['torch']}, finds {seen['torch_gpus']} GPUs")
    asked = options.gpu_count
    if asked or seen["gpus"]:
        good = len(seen["gpus"]) >= asked and seen.get("torch_gpus", 0) >= asked
        answer = f"{asked} asked for, SLURM gives {len(seen['gpus'])}, PyTorch finds {seen.get('torch_gpus', 0)}"
        yield Finding("ok" if good else "problem", f"node {host}: GPUs", answer)
    for name in datasets:
        found = seen["data"].get(name, {"missing": "not looked for"})
        kind: Literal["ok", "problem"] = "problem" if "missing" in found else "ok"
        yield Finding(kind, f"node {host}: data set {name}", found.get("folder") or found["missing"])
