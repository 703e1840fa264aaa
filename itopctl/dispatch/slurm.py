"""SLURM, by its own commands: one call each, whatever the number of jobs."""

from __future__ import annotations

import functools
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from itopctl.dispatch.scheduler import Cluster, SchedulerError, SeenJob
from itopctl.dispatch.slurm_states import meaning_of

_SECONDS = 60.0  # a controller that does not answer is given up by SLURM's own commands before that
_NAMES_AT_ONCE = 500  # of submissions; a command line has its limits
_NO_SUCH_JOB = ("Invalid job id",)
_QUEUE_FIELDS = "%F|%K|%T|%r|%j"
_ACCOUNT_FIELDS = "JobID,State,ExitCode,End,JobName%250"
DEFAULT_LARGEST_ARRAY = 1001


@dataclass(frozen=True)
class OwnJob:
    """What a job can learn of itself.

    Attributes:
        running: whether it still counts as running; not after scancel, nor where it has no grace before it ends.
        preempted: whether it is in the grace that a preemption may leave it.
        restarts: how often it was started again; one that is preempted counts so from the moment it is told to end.
        time_is_up: whether its time limit is why it ends.
        seconds_left: to its time limit, if it has one.
    """

    running: bool
    preempted: bool
    restarts: int
    time_is_up: bool
    seconds_left: float | None


class Slurm:
    """The cluster that this machine's SLURM commands talk to."""

    @functools.cached_property
    def _config(self) -> dict[str, str]:
        return _pairs(run("scontrol", "show", "config"))

    def cluster(self) -> Cluster:
        config = self._config
        largest = config.get("MaxArraySize", "")
        return Cluster(
            name=config.get("ClusterName", "cluster"),
            user=_user(),
            largest_array=max(1, int(largest)) if largest.isdigit() else DEFAULT_LARGEST_ARRAY,
            accounts=config.get("AccountingStorageType", "").endswith("slurmdbd"),
        )

    def queue(self, names: Sequence[str]) -> list[SeenJob]:
        seen = []
        for some in _chunks(names):
            text = run(
                "squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}",
                f"--name={','.join(some)}", f"--format={_QUEUE_FIELDS}",
            )  # fmt: skip
            for line in text.splitlines():
                array_id, index, word, reason, name = _fields(line, 5)
                if index.isdigit():
                    why = None if reason in ("None", "") else reason
                    seen.append(SeenJob(name, array_id, int(index), word, why))
        return seen

    def accounts(self, names: Sequence[str], days: int) -> list[SeenJob]:
        seen = []
        for some in _chunks(names):
            text = run(
                "sacct", "--noheader", "--parsable2", "--allocations", f"--user={os.getuid()}",
                f"--starttime=now-{days}days", f"--name={','.join(some)}", f"--format={_ACCOUNT_FIELDS}",
            )  # fmt: skip
            for line in text.splitlines():
                job_id, word, exit_code, end, name = _fields(line, 5)
                if end == "Unknown" and word not in ("PENDING", "RUNNING"):
                    continue  # half written: the database is behind
                array_id, _, index = job_id.partition("_")
                if index.isdigit():  # else a bracket of jobs that never left the queue
                    seen.append(SeenJob(name, array_id, int(index), word, None, exit_code))
                else:
                    seen.extend(SeenJob(name, array_id, i, word, None, exit_code) for i in _bracket(index))
        return seen

    def cancel(self, job_ids: Sequence[str]) -> None:
        for some in _chunks(job_ids):
            run("scancel", "--quiet", *some, tolerated=(*_NO_SUCH_JOB, "already completing or completed"))

    def words_of(self, job_id: str) -> list[str]:
        """States of a job, or of all of an array; none where there is no such job. SLURM itself takes it for over."""
        shown = run(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={job_id}", "--format=%T",
            tolerated=_NO_SUCH_JOB,
        )  # fmt: skip
        if not shown.strip() and self.cluster().accounts:
            shown = run("sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job_id}", "--format=State")
        return [line.split()[0] for line in shown.splitlines() if line.strip()]

    def requeue(self, job_id: str) -> None:
        """Start a job again, from inside it or from outside."""
        run("scontrol", "requeue", job_id)

    def own_job(self, job_id: str, timeout: float) -> OwnJob:
        """A job as the controller has it, asked from within."""
        fields = _pairs(run("scontrol", "show", "job", "--oneliner", job_id, timeout=timeout).replace(" ", "\n"))
        limit, spent = _seconds(fields.get("TimeLimit", "")), _seconds(fields.get("RunTime", ""))
        return OwnJob(
            running=_is_at_a_node(fields.get("JobState", "")),
            preempted=fields.get("PreemptTime", "None") not in ("None", "Unknown"),
            restarts=int(fields.get("Restarts", "0")),
            time_is_up=fields.get("Reason") == "TimeLimit" or fields.get("JobState") == "TIMEOUT",
            seconds_left=limit - spent if limit is not None and spent is not None else None,
        )  # fmt: skip

    def partitions(self) -> list[dict[str, str]]:
        """Partitions as sinfo lists them: name, state, nodes, time limit, CPUs a node, memory in MB, GRES."""
        names = ("partition", "state", "nodes", "time_limit", "cpus", "memory", "gres")
        text = run("sinfo", "--noheader", "--format=%P|%a|%D|%l|%c|%m|%G")
        return [dict(zip(names, _fields(line, len(names)), strict=True)) for line in text.splitlines()]

    def setting(self, name: str) -> str | None:
        """A line of the cluster's configuration."""
        return self._config.get(name)

    def version(self) -> str:
        """Such as `slurm 22.05.8`."""
        return run("sinfo", "--version").strip()


def run(*command: str, tolerated: Sequence[str] = (), timeout: float = _SECONDS) -> str:
    """Run one of SLURM's commands; returns what it printed.

    Args:
        command: the program and its arguments.
        tolerated: complaints after which a failure is none.
        timeout: seconds after which it is given up.

    Raises:
        SchedulerError: there is no such program, it failed, or it did not end.
    """
    program = shutil.which(command[0])
    if program is None:
        raise SchedulerError(f"SLURM is not there: no {command[0]} on the PATH of this machine.")
    try:
        done = subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, errors="replace", timeout=timeout,
            env=environment(), stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"SLURM did not answer {command[0]} within {timeout:.0f} s.") from None
    except OSError as error:
        raise SchedulerError(f"{command[0]} cannot be started: {error.strerror}.") from error
    lines = (" ".join(line.split()) for line in done.stderr.splitlines())
    complaint = "; ".join(line.removeprefix(f"{command[0]}: ") for line in lines if line)
    if done.returncode != 0 and not any(text in complaint for text in tolerated):
        raise SchedulerError(f"SLURM: {command[0]}: {complaint[:500] or f'exit code {done.returncode}'}")
    return done.stdout


def environment() -> dict[str, str]:
    """This process's environment without what speaks to SLURM's commands beside their arguments.

    That is what SLURM gives to a job, and the user's own defaults; of these, `itopctl.spec.slurm` takes up what it
    knows.
    """
    ours = ("SLURM_CONF", "SLURM_CLUSTERS")
    foreign = (
        "SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_",
        "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_",  # they would overrule what we say
    )  # fmt: skip
    return {name: value for name, value in os.environ.items() if name in ours or not name.startswith(foreign)}


def _is_at_a_node(word: str) -> bool:
    meaning = meaning_of(word)
    return meaning is not None and meaning.phase == "running" and word != "COMPLETING"


def _user() -> str:
    """Who this process is to SLURM, whatever the environment says."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _chunks(items: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), _NAMES_AT_ONCE):
        yield items[start : start + _NAMES_AT_ONCE]


def _fields(line: str, count: int) -> list[str]:
    """Exactly so many fields between bars; the last takes whatever is left."""
    fields = [field.strip() for field in line.split("|", count - 1)]
    return fields + [""] * (count - len(fields))


def _pairs(text: str) -> dict[str, str]:
    """`scontrol show config`: name → value."""
    found = (re.match(r"\s*(\w+)\s*=\s*(.*?)\s*$", line) for line in text.splitlines())
    return {match[1]: match[2] for match in found if match}


def _bracket(text: str) -> list[int]:
    """`[3,5-7%2]` as 3, 5, 6, 7; nothing for what is no such list."""
    match = re.fullmatch(r"\[([\d,-]+)(%\d+)?\]", text)
    found: list[int] = []
    for part in match[1].split(",") if match else []:
        first, _, last = part.partition("-")
        if first.isdigit() and (last.isdigit() or not last):
            found.extend(range(int(first), int(last or first) + 1))
    return found


def _seconds(text: str) -> float | None:
    """`1-02:03:04`, `03:04` or `INVALID` in seconds."""
    match: Any = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
