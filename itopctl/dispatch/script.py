"""The batch script of a submission, which submitit writes, and handing it to SLURM.

submitit's own submission takes the first "job N" that sbatch prints for the id, a banner's too, and kills an sbatch
that prints anything but UTF-8. So sbatch is called here.

What a job runs is not pickled: the script names the submission's folder, which has all that the job needs before SLURM
knows of it. So a job whose submitter died is as good as any other, and no pickle is ever read.
"""

from __future__ import annotations

import shlex
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from submitit.slurm import slurm as submitit_slurm

from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.scheduler import SchedulerError
from itopctl.dispatch.slurm import complaint, finished, submitted_id
from itopctl.dispatch.start import from_path
from itopctl.errors import UserError, quoted
from itopctl.store.files import explained

SIGNAL_DELAY_S = 90
"""Seconds before the time limit at which a run is saved, as a rule."""

_SUBMIT_SECONDS = 600.0
"""For sbatch, which itself waits and asks again where SLURM has too much to do."""

DEPENDENCY_NEVER = "kill-on-invalid-dep"


def script_text(
    folder: Path, name: str, jobs: int, options: SlurmOptions, throttle: int | None, dependency: str | None,
    snapshot: Path | None, workdir: Path, module: str = "itopctl.dispatch.job", imports: Sequence[Path] = (),
) -> str:  # fmt: skip
    """The batch script of an array of jobs.

    Args:
        folder: of the submission; logs go there.
        name: of the jobs.
        jobs: how many.
        options: what each asks for.
        throttle: how many may run at one time; None: as many as there is room for.
        dependency: in sbatch's words, or None.
        snapshot: folder of the code to run; None: whatever is installed when a job starts.
        workdir: folder that jobs run in.
        imports: folders in the snapshot that modules are looked for in before its top.
        module: what each process of a job runs, with the submission's folder as its argument.

    Raises:
        UserError: a path that SLURM would read as something else.
    """
    for path, forbidden in ((folder.absolute(), "%\\\n\r"), (workdir, "%\\\n\r"), (snapshot, ":")):
        found = next((sign for sign in forbidden if sign in str(path or "")), None)
        if found is not None:
            raise UserError(f"{path}: {found!r} means something else in a path to SLURM or Python; use another folder.")
    command = shlex.join([*from_path(module), str(folder.absolute())])
    search = [*imports, snapshot] if snapshot is not None else []
    parameters = _parameters(name, jobs, options, throttle, dependency, search, workdir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # submitit's, on options that it does not know of
        return submitit_slurm._make_sbatch_string(command=command, folder=folder, **parameters)


def _parameters(
    name: str, jobs: int, options: SlurmOptions, throttle: int | None, dependency: str | None, search: Sequence[Path],
    workdir: Path,
) -> dict[str, Any]:  # fmt: skip
    """What submitit is told; None leaves a parameter out."""
    further: dict[str, Any] = {}
    for key, value in (options.additional_parameters or {}).items():
        if value is not False:
            further[key.replace("_", "-")] = value
    further.update({"requeue": True, "chdir": str(workdir)})
    if dependency is not None and "afterok" in dependency:
        further[DEPENDENCY_NEVER] = "yes"
    exports = []
    if search:
        exports.append(f"export PYTHONPATH={shlex.quote(':'.join(map(str, search)))}${{PYTHONPATH:+:$PYTHONPATH}}")
    step = [f"--cpus-per-task={options.cpus_per_task}"] if options.cpus_per_task else []  # not inherited since 22.05
    if options.distributed:
        step.append("--kill-on-bad-exit=1")  # one that is gone would keep the others waiting
    return {
        "job_name": name,
        "map_count": jobs,
        "array_parallelism": throttle or jobs,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "constraint": options.constraint,
        "gpus_per_node": options.gpus_per_node,
        "cpus_per_task": options.cpus_per_task,
        "mem": options.mem,
        "time": options.timeout_min,
        "ntasks_per_node": options.processes if options.distributed else 1,
        "signal_delay_s": signal_delay(options),
        "dependency": dependency,
        "wckey": None,
        "setup": [*(options.setup or []), *exports] or None,
        "srun_args": step,
        "additional_parameters": further,
    }


def signal_delay(options: SlurmOptions) -> int:
    """Seconds before the time limit at which a run is saved: less where the limit is short."""
    if options.signal_delay_s is not None or options.timeout_min is None:
        return options.signal_delay_s or SIGNAL_DELAY_S
    return min(SIGNAL_DELAY_S, options.timeout_min * 15)


class UnnamedJobsError(SchedulerError):
    """sbatch ended well and named no job: it may have submitted the jobs, or not."""


def submit_script(folder: Path, script: str) -> str:
    """Hand a script to SLURM; returns the array's id as sbatch says it. A copy stays in the folder.

    Raises:
        UnnamedJobsError: sbatch ended well, and what it printed names no job, or several.
        SchedulerError: SLURM refused it, or gave no answer.
    """
    if shutil.which("srun") is None:
        raise SchedulerError("SLURM cannot be used: no srun on the PATH of this machine.")
    path = folder / "submission.sh"
    with explained(path):
        path.write_text(script, encoding="utf-8")
    done = finished("sbatch", str(path), timeout=_SUBMIT_SECONDS)
    if done.returncode != 0:
        raise SchedulerError(f"SLURM refused the jobs: {complaint('sbatch', done)}")
    job_id = submitted_id(done.stdout)
    if job_id is None:
        said = " ".join(done.stdout.split())
        raise UnnamedJobsError(f"sbatch did not say which job it submitted, but {quoted(said)}.")
    return job_id
