"""SLURM, by its own commands: one call each, whatever the number of jobs.

What the commands print is read line by line, and a line counts only if it has the form of an answer and names a job
that was asked for. So a site's banners and the `CLUSTER: name` headings, which SLURM prints where SLURM_CLUSTERS names
several clusters, are passed over.
"""

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
        wanted = set(names)
        for some in _chunks(names):
            text = run(
                "squeue", "--noheader", "--array", "--states=all", f"--user={os.getuid()}",
                f"--name={','.join(some)}", f"--format={_QUEUE_FIELDS}",
            )  # fmt: skip
            for line in text.splitlines():
                array_id, index, word, reason, name = _fields(line, 5)
                if array_id.isdigit() and index.isdigit() and name in wanted:
                    why = None if reason in ("None", "") else reason
                    seen.append(SeenJob(name, array_id, int(index), word, why))
        return seen

    def accounts(self, names: Sequence[str], days: int) -> list[SeenJob]:
        seen: list[SeenJob] = []
        wanted = set(names)
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
                if array_id.isdigit() and name in wanted:
                    places = [int(index)] if index.isdigit() else _bracket(index)
                    seen.extend(SeenJob(name, array_id, i, word, None, exit_code) for i in places)
        return seen

    def cancel(self, job_ids: Sequence[str]) -> dict[str, str]:
        answers: dict[str, str] = {}
        for some in _chunks(job_ids):
            try:
                done = finished("scancel", *some)
            except SchedulerError as error:
                answers.update(dict.fromkeys(some, str(error)))
                continue
            named = _refusals(done.stderr, some)
            if done.returncode != 0 and not named:
                named = dict.fromkeys(some, f"SLURM: {complaint('scancel', done)}")
            answers.update(named)
        errors = [answer for answer in answers.values() if not _is_over(answer)]
        if errors and len(answers) == len(job_ids):
            raise SchedulerError(errors[0])
        return answers

    def words_of(self, job_id: str) -> list[str]:
        """States of a job, or of all of an array; none where there is no such job. SLURM itself takes it for over."""
        shown = run(
            "squeue", "--noheader", "--array", "--states=all", f"--jobs={job_id}", "--format=%i|%T",
            tolerated=_NO_SUCH_JOB,
        )  # fmt: skip
        found = _words_in(shown, job_id)
        if not found and self.cluster().accounts:
            shown = run(
                "sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job_id}", "--format=JobID,State"
            )
            found = _words_in(shown, job_id)
        return found

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
        lines = [line for line in text.splitlines() if line.count("|") >= len(names) - 1]
        return [dict(zip(names, _fields(line, len(names)), strict=True)) for line in lines]

    def setting(self, name: str) -> str | None:
        """A line of the cluster's configuration."""
        return self._config.get(name)

    def version(self) -> str:
        """Such as `slurm 22.05.8`."""
        lines = run("sinfo", "--version").split("\n")
        return next((line.strip() for line in lines if line.startswith("slurm")), "")


def run(*command: str, tolerated: Sequence[str] = (), timeout: float = _SECONDS) -> str:
    """Run one of SLURM's commands; returns what it printed.

    Args:
        command: the program and its arguments.
        tolerated: complaints after which a failure is none.
        timeout: seconds after which it is given up.

    Raises:
        SchedulerError: there is no such program, it failed, or it did not end.
    """
    done = finished(*command, timeout=timeout)
    said = complaint(command[0], done)
    if done.returncode != 0 and not any(text in said for text in tolerated):
        raise SchedulerError(f"SLURM: {said}")
    return done.stdout


def finished(*command: str, timeout: float = _SECONDS) -> subprocess.CompletedProcess[str]:
    """Run one of SLURM's commands, whatever its exit code. Raises SchedulerError if it cannot start or does not end."""
    program = shutil.which(command[0])
    if program is None:
        raise SchedulerError(f"SLURM is not there: no {command[0]} on the PATH of this machine.")
    try:
        return subprocess.run(
            [program, *command[1:]], capture_output=True, text=True, errors="replace", timeout=timeout,
            env=environment(), stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise SchedulerError(f"SLURM did not answer {command[0]} within {timeout:.0f} s.") from None
    except OSError as error:
        raise SchedulerError(f"{command[0]} cannot be started: {error.strerror}.") from error


def complaint(program: str, done: subprocess.CompletedProcess[str]) -> str:
    """What a command wrote to standard error, in one line after its name."""
    lines = (" ".join(line.split()) for line in done.stderr.splitlines())
    said = "; ".join(line.removeprefix(f"{program}: ") for line in lines if line)
    return f"{program}: {said[-500:] or f'exit code {done.returncode}'}"


def environment() -> dict[str, str]:
    """This process's environment without what speaks to SLURM's commands beside their arguments.

    That is what SLURM gives to a job, and the user's own defaults; of these, `itopctl.config.slurm` takes up what it
    knows. SLURM is told not to cut off lists of an array's jobs.
    """
    ours = ("SLURM_CONF", "SLURM_CLUSTERS")
    foreign = (
        "SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_", "PMI_", "PMIX_",
        "SBATCH_", "SQUEUE_", "SACCT_", "SCANCEL_", "SCONTROL_", "SINFO_",  # they would overrule what we say
    )  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name in ours or not name.startswith(foreign)}
    return {**kept, "SLURM_BITSTR_LEN": "0"}


_SUBMITTED = re.compile(r"Submitted batch job (\d+)(?: on cluster \S+)?")


def submitted_id(answer: str) -> str | None:
    """The job's id in what sbatch printed; None where it names none, or several.

    The sentence must be a whole line: a site's banner may speak of jobs, too. `--parsable` would leave a bare number,
    which a banner is likelier to print, and which a site's own sbatch may not know.
    """
    found = {match[1] for line in answer.splitlines() if (match := _SUBMITTED.fullmatch(line.strip()))}
    return found.pop() if len(found) == 1 else None


def _is_over(answer: str) -> bool:
    """Whether scancel refused a job only because there is nothing left of it to end."""
    return any(text in answer for text in (*_NO_SUCH_JOB, "already completing or completed"))


def _refusals(text: str, job_ids: Sequence[str]) -> dict[str, str]:
    """What scancel wrote about single jobs: id → why it did not end that job."""
    found = re.findall(r"\bjob id (\d+_\d+):? (.+)", text)
    return {job_id: f"SLURM: scancel: {' '.join(why.split())}" for job_id, why in found if job_id in job_ids}


def _words_in(text: str, job_id: str) -> list[str]:
    """States in lines `id|state` that are about a job, or about the jobs of an array."""
    pairs = [_fields(line, 2) for line in text.splitlines()]
    own = re.compile(rf"{job_id}(_(\d+|\[.*\]))?")
    return [word.split()[0] for shown, word in pairs if own.fullmatch(shown) and word]


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
    """Places in an array, as sacct writes them after `id_`: `[3,5-7%2]` as 3, 5, 6, 7, and `[0-8:4]` as 0, 4, 8.

    Where the list is cut off (`[0,2,...]`), the places before that; nothing for what is no such list (`4.batch`).
    """
    match = re.fullmatch(r"\[([\d,:.-]+)(%\d+)?\]", text)
    found: list[int] = []
    for part in match[1].split(",") if match else []:
        if numbers := re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part):
            first, last, step = int(numbers[1]), int(numbers[2] or numbers[1]), int(numbers[3] or 1)
            found.extend(range(first, last + 1, max(1, step)))
    return found


def _seconds(text: str) -> float | None:
    """`1-02:03:04`, `03:04` or `INVALID` in seconds."""
    match: Any = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60.0 + seconds
