"""SLURM's commands, pretended: what `fake_slurm.py` puts on the PATH. Each is a process: the standard library must do.

They speak the options and formats that the package and submitit use, as SLURM 22.05 was seen to do, and refuse others.
All they know lies in one JSON file of the folder that `FAKE_SLURM` names.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

NO_CONTROLLER = "Unable to contact slurm controller (connect failure)"
ENDED = frozenset({
    "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "DEADLINE", "PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "OUT_OF_MEMORY",
    "LAUNCH_FAILED", "RECONFIG_FAIL", "REVOKED",
})  # fmt: skip
OPTIONS = frozenset({
    "account", "array", "chdir", "comment", "constraint", "cpus-per-task", "dependency", "error", "exclude",
    "exclusive", "gpus-per-node", "hold", "job-name", "kill-on-invalid-dep", "mail-type", "mail-user", "mem", "nice",
    "nodelist", "nodes", "ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue", "reservation",
    "signal", "time",
})  # fmt: skip

State = dict[str, Any]


@contextlib.contextmanager
def board(folder: str) -> Iterator[State]:
    """What the pretended cluster knows, for one process at a time; changes are kept."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        path = Path(folder, "state.json")
        before = path.read_text()
        state: State = json.loads(before)
        yield state
        after = json.dumps(state)
        if after != before:
            new = path.with_suffix(".new")
            new.write_text(after)
            new.replace(path)
    finally:
        os.close(handle)


def fail(complaint: str) -> NoReturn:
    print(complaint, file=sys.stderr)
    sys.exit(1)


def task_of(state: State, job: str) -> dict[str, Any] | None:
    """A job of an array, by `12_3`."""
    array, _, index = job.partition("_")
    tasks: dict[str, dict[str, Any]] = state["arrays"].get(array, {}).get("tasks", {})
    return tasks.get(index)


def set_word(state: State, task: dict[str, Any], word: str, exit_code: str = "0:0", reason: str = "None") -> None:
    """A job's new state, in the queue and, unless it lags, in the accounts."""
    task.update(word=word, exit=exit_code, reason=reason)
    if not state["lag"]:
        account(task)


def account(task: dict[str, Any]) -> None:
    """The accounts know what the controller knows."""
    if task["word"] != "PENDING" or task["restarts"]:
        over = task["word"] in ENDED
        word = f"CANCELLED by {os.getuid()}" if task["word"] == "CANCELLED" else task["word"]
        task["account"] = [word, task["exit"], time.strftime("%Y-%m-%dT%H:%M:%S") if over else "Unknown"]


# The commands -----------------------------------------------------------------------------------------------


def sbatch(state: State, arguments: Sequence[str]) -> None:
    (path,) = map(Path, arguments)
    script = path.read_text()
    asked: dict[str, Any] = {}
    for line in script.splitlines():
        if line.startswith("#SBATCH "):
            for word in words_of(line.removeprefix("#SBATCH ")):
                key, given, value = word.removeprefix("--").partition("=")
                if key not in OPTIONS:
                    fail(f"sbatch: unrecognized option '{word}'\nTry \"sbatch --help\" for more information")
                asked[key] = value if given else True
        elif line and not line.startswith("#"):
            break
    if asked.get("partition", state["partitions"][0]) not in state["partitions"]:
        fail(
            f"sbatch: error: invalid partition specified: {asked['partition']}\n"
            "sbatch: error: Batch job submission failed: Invalid partition name specified"
        )
    match = re.fullmatch(r"0-(\d+)(?:%(\d+))?", asked.get("array", ""))
    if match is None or int(match[1]) >= int(state["config"]["MaxArraySize"]):
        fail("sbatch: error: Batch job submission failed: Invalid job array specification")
    array = str(state["next_id"])
    state["next_id"] += int(match[1]) + 1
    reason = "Dependency" if "dependency" in asked else "JobHeldUser" if "hold" in asked else "Resources"
    state["arrays"][array] = {
        "name": asked.get("job-name", path.name), "user": [str(os.getuid())], "asked": asked,
        "throttle": int(match[2] or 0), "script": script, "cwd": str(Path.cwd()),
        "tasks": {
            str(index): {"word": "PENDING", "reason": reason, "exit": "0:0", "restarts": 0, "queued": True,
                         "account": None, "shown": {}, "started": None}
            for index in range(int(match[1]) + 1)
        },
    }  # fmt: skip
    if state["answers_lost"]:
        fail("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    print(f"Submitted batch job {array}")


def squeue(state: State, arguments: Sequence[str]) -> None:
    given = options(arguments, {"noheader", "array", "states", "user", "name", "jobs", "format"})
    if "jobs" in given and given.get("format") == "%i|%T":
        shown = told_of(state, given["jobs"], lambda task: task["word"] if task["queued"] else None)
        if not shown:
            fail("slurm_load_jobs error: Invalid job id specified")
        print("\n".join(shown))
        return
    if given.get("states") != "all" or given.get("format") != "%F|%K|%T|%r|%j" or "array" not in given:
        fail(f"squeue: error: not what the package asks: {arguments}")
    for array, job in chosen(state, given):
        if job.get("folded"):
            print(f"{array}|N/A|CANCELLED|JobHeldUser|{job['name']}")
            continue
        for index, task in job["tasks"].items():
            if task["queued"]:
                print(f"{array}|{index}|{task['word']}|{task['reason']}|{job['name']}")


def sacct(state: State, arguments: Sequence[str]) -> None:
    known = {"noheader", "parsable2", "allocations", "user", "starttime", "name", "jobs", "format"}
    given = options(arguments, known)
    if not state["accounting"]:
        fail("Slurm accounting storage is disabled")
    if state["accounts_down"]:
        fail("sacct: error: Problem talking to the database: Connection refused")
    if "jobs" in given and given.get("format") == "JobID,State":
        print("\n".join(told_of(state, given["jobs"], lambda task: (task["account"] or [None])[0])))
        return
    if not re.fullmatch(r"now-\d+days", given.get("starttime", "")) or "allocations" not in given:
        fail(f"sacct: error: not what the package asks: {arguments}")
    if given.get("format") != "JobID,State,ExitCode,End,JobName%250":
        fail(f"sacct: error: not what the package asks: {arguments}")
    for array, job in chosen(state, given):
        waiting = [int(i) for i, task in job["tasks"].items() if task["account"] is None and task["queued"]]
        if waiting and not job.get("folded"):
            print(f"{array}_[{ranges(waiting)}]|PENDING|0:0|Unknown|{job['name']}")
        for index, task in job["tasks"].items():
            if task["account"] is not None:
                print("|".join([f"{array}_{index}", *task["account"], job["name"]]))


def scancel(state: State, arguments: Sequence[str]) -> None:
    for job in (word for word in arguments if not word.startswith("--")):
        if not re.fullmatch(r"\d+(_\d+)?", job):
            fail(f"scancel: error: Invalid job id {job}")
        array = state["arrays"].get(job)
        if array is not None and all(task["word"] == "PENDING" for task in array["tasks"].values()):
            array["folded"] = True
            continue
        names = [job] if array is None else [f"{job}_{index}" for index in array["tasks"]]
        for name in names:
            task = task_of(state, name)
            if task is not None and task["word"] == "PENDING" and not task["restarts"]:
                task["queued"] = False  # and never comes to the accounts
                task["word"] = "CANCELLED"
            elif task is not None and task["word"] not in ENDED:
                set_word(state, task, "CANCELLED", "0:15")


def scontrol(state: State, arguments: Sequence[str]) -> None:
    match list(arguments):
        case ["show", "config"]:
            print("Configuration data as of 2026-01-01T00:00:00")
            for name, value in state["config"].items():
                print(f"{name:<23} = {value}")
        case ["requeue", job]:
            task = task_of(state, job)
            if task is None:
                fail(f"Invalid job id specified for job {job}")
            requeue(state, task)
        case ["show", "job", "--oneliner", job]:
            task = task_of(state, job)
            if task is None:
                fail("slurm_load_jobs error: Invalid job id specified")
            array, _, index = job.partition("_")
            limit = state["arrays"][array]["asked"].get("time")
            shown = {
                "ArrayJobId": array, "ArrayTaskId": index, "JobName": state["arrays"][array]["name"],
                "JobState": task["word"], "Reason": task["reason"], "Restarts": task["restarts"],
                "RunTime": duration(time.time() - (task["started"] or time.time())),
                "TimeLimit": "UNLIMITED" if limit is None else duration(60 * int(limit)), **task["shown"],
            }  # fmt: skip
            print(" ".join(f"{name}={value}" for name, value in shown.items()))
        case _:
            fail(f"scontrol: error: not what the package asks: {arguments}")


def requeue(state: State, task: dict[str, Any]) -> None:
    """Back to the queue; the accounts show the newest incarnation only."""
    task.update(restarts=task["restarts"] + 1, shown={}, started=None, queued=True)
    set_word(state, task, "PENDING", reason="BeginTime")


def sinfo(state: State, arguments: Sequence[str]) -> None:
    if list(arguments) == ["--noheader", "--format=%P|%a|%D|%l|%c|%m|%G"]:
        for number, name in enumerate(state["partitions"]):
            print(f"{name}{'' if number else '*'}|up|2|infinite|4|4000|gpu:2")
    else:
        fail(f"sinfo: error: not what the package asks: {arguments}")


def srun(folder: str, arguments: Sequence[str]) -> NoReturn:
    """Start the command once for each task, with its output where it is wanted."""
    words = list(arguments)
    files = {}
    while words and words[0].startswith("--"):
        word = words.pop(0)
        if word in ("--output", "--error"):
            files[word] = words.pop(0)
    count = int(os.environ.get("SLURM_NTASKS", "1"))
    children = []
    for rank in range(count):
        pid = 0 if count == 1 else os.fork()
        if pid == 0:
            os.environ.update(SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank), SLURM_STEP_ID="0")
            for number, word in ((1, "--output"), (2, "--error")):
                if word in files:
                    handle = os.open(filled_in(files[word]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
                    os.dup2(handle, number)
                    os.close(handle)
            Path(folder, "steps", f"{job_here()}.{rank}").write_text(str(os.getpid()))
            os.execvp(words[0], words)
        children.append(pid)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children))


# How --------------------------------------------------------------------------------------------------------


def words_of(line: str) -> list[str]:
    """Words as sbatch reads them: like a shell's, but a backslash means the same within quotes and without."""
    words, word, quote, escaped = [], "", "", False
    for letter in f"{line} ":
        if escaped:
            word, escaped = word + letter, False
        elif letter == "\\":
            escaped = True
        elif quote:
            word, quote = (word, "") if letter == quote else (word + letter, quote)
        elif letter in "'\"":
            quote = letter
        elif letter.isspace():
            words += [word] if word else []
            word = ""
        else:
            word += letter
    if quote:
        fail(f"sbatch: fatal: Unmatched `{quote}` in [{line}]")
    return words


def options(arguments: Sequence[str], known: set[str]) -> dict[str, str]:
    found = {}
    for word in arguments:
        key, _, value = word.removeprefix("--").partition("=")
        if key not in known or not word.startswith("--"):
            fail(f"error: unrecognized option '{word}'")
        found[key] = value
    return found


def chosen(state: State, given: dict[str, str]) -> list[tuple[str, dict[str, Any]]]:
    """Arrays of a user and of some names."""
    names = given["name"].split(",")
    arrays = state["arrays"].items()
    return [(array, job) for array, job in arrays if job["name"] in names and given["user"] in job["user"]]


def told_of(state: State, job: str, word: Callable[[dict[str, Any]], Any]) -> list[str]:
    """Lines `id|state` of a job, or of all of an array's, that are told."""
    array, _, index = job.partition("_")
    tasks = state["arrays"].get(array, {}).get("tasks", {})
    return [
        f"{array}_{number}|{told}"
        for number, task in tasks.items()
        if index in ("", number) and (told := word(task)) is not None
    ]


def ranges(numbers: Sequence[int]) -> str:
    """`1,3-4`, as sacct writes it."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in parts)


def duration(seconds: float) -> str:
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-" * bool(days) + f"{hours:02d}:{minutes:02d}:{left:02d}"


def job_here() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def filled_in(pattern: str) -> str:
    """A path with what `%` stands for in it."""
    known = {
        "%A": os.environ["SLURM_ARRAY_JOB_ID"], "%a": os.environ["SLURM_ARRAY_TASK_ID"],
        "%j": os.environ["SLURM_JOB_ID"], "%t": os.environ["SLURM_PROCID"], "%%": "%",
    }  # fmt: skip
    return re.sub("%.", lambda match: known[match[0]], pattern)


_UNREACHED = {
    "squeue": f"slurm_load_jobs error: {NO_CONTROLLER}",
    "sbatch": f"sbatch: error: Batch job submission failed: {NO_CONTROLLER}",
    "scontrol": f"slurm_load_ctl_conf error: {NO_CONTROLLER}",
    "scancel": f"scancel: error: Kill job error: {NO_CONTROLLER}",
    "sinfo": f"slurm_load_partitions: {NO_CONTROLLER}",
}
_COMMANDS = {
    "sbatch": sbatch, "squeue": squeue, "sacct": sacct, "scancel": scancel, "scontrol": scontrol, "sinfo": sinfo,
}  # fmt: skip


def main(command: str, arguments: Sequence[str]) -> None:
    """Be one of the commands."""
    folder = os.environ["FAKE_SLURM"]
    with Path(folder, "calls").open("a") as file:
        file.write(json.dumps([command, *arguments]) + "\n")
    if command == "srun":
        srun(folder, arguments)
    if list(arguments) == ["--version"]:
        print("slurm-wlm 22.05.8")
        return
    with board(folder) as state:
        if state["breaks_after"].get(command) == 0:
            state["controller_down"] = True
        if state["controller_down"] and command in _UNREACHED:
            complaint = _UNREACHED[command]
        else:
            if command in state["breaks_after"]:
                state["breaks_after"][command] -= 1
            complaint = _complaint_of(command, state, arguments)
    if complaint is not None:
        fail(complaint)


def _complaint_of(command: str, state: State, arguments: Sequence[str]) -> str | None:
    """Do it; a failure must not lose what was done until then."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        try:
            _COMMANDS[command](state, arguments)
        except SystemExit:
            return said.getvalue().rstrip("\n")
    return None


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
