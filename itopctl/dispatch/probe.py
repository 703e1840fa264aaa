"""A job of a minute that tells what a node can see: the code, the data, the results folder, its GPUs.

On the node it is started with its folder as the argument, by a batch script like that of any other job.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from itopctl.config.slurm import SlurmOptions
from itopctl.dispatch.scheduler import Scheduler
from itopctl.dispatch.script import UnnamedJobsError, script_text, submit_script
from itopctl.dispatch.slots import visible_gpus
from itopctl.dispatch.slurm_states import meaning_of
from itopctl.dispatch.snapshot import Code
from itopctl.errors import ItopctlError
from itopctl.store.files import read_json, write_json
from itopctl.store.rundir import Results

PROBE_MINUTES = 1


@dataclass(frozen=True)
class Answer:
    """What came of a probe.

    Attributes:
        seen: what the node saw, or None where it never said anything.
        word: the state of its job at the end, in the scheduler's word.
        complaint: the end of what the job printed.
    """

    seen: dict[str, Any] | None
    word: str | None
    complaint: str


def probe(
    results: Results, scheduler: Scheduler, options: SlurmOptions, code: Code, data_dir: Path, datasets: Sequence[str],
    goes_on: Callable[[str | None], bool],
) -> Answer:  # fmt: skip
    """Submit a probe and wait for its answer; nothing of it stays.

    Args:
        results: the results folder.
        scheduler: where to submit.
        options: what runs would ask for; the time limit is a minute.
        code: what runs would run.
        data_dir, datasets: what the node is to look for.
        goes_on: asked again and again with the job's state; False gives up.

    Raises:
        SchedulerError: SLURM refused it.
    """
    name = f"itopctl-probe-{secrets.token_hex(4)}"
    folder = results.submissions.absolute() / f".{name}"
    folder.mkdir(parents=True)
    short = options.model_copy(update={"timeout_min": PROBE_MINUTES, "distributed": None})
    submitted, seen = False, None
    try:
        write_json(folder / "question.json", {"data_dir": str(data_dir.absolute()), "datasets": list(datasets)})
        snapshot = Path(code.snapshot) if code.snapshot else None
        workdir = Path(code.workdir)
        script = script_text(folder, name, 1, short, None, None, snapshot, workdir, module="itopctl.dispatch.probe")
        submitted = True
        with contextlib.suppress(UnnamedJobsError):  # its name tells
            submit_script(folder, script)
        word = None
        while (seen := read_json(folder / "answer.json")) is None:
            jobs = scheduler.queue([name])
            word = jobs[0].word if jobs else None
            meaning = meaning_of(word) if word else None
            over = meaning is not None and meaning.phase == "ended"
            if over or not goes_on(word):
                time.sleep(1.0)
                seen = read_json(folder / "answer.json")
                break
        return Answer(seen, word, _printed(folder))
    finally:
        try:
            if submitted and seen is None:  # an id that sbatch names may be misread, and another's: the name is ours
                scheduler.cancel([f"{job.array_id}_{job.index}" for job in scheduler.queue([name])])
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _printed(folder: Path) -> str:
    paths = sorted(folder.glob("*_log.err"))
    lines = [line for path in paths for line in path.read_text(errors="replace").splitlines()]
    return "\n".join(line for line in lines if line.strip())[-1000:]


def look_around(folder: Path) -> dict[str, Any]:
    """What this process can see."""
    question = read_json(folder / "question.json") or {}
    seen: dict[str, Any] = {
        "host": socket.gethostname(), "python": sys.version.split()[0], "workdir": str(Path.cwd()),
        "cpus": os.environ.get("SLURM_CPUS_ON_NODE"), "gpus": visible_gpus(), "data": {},
    }  # fmt: skip
    from itopctl.train.data.catalogue import locate

    for name in question.get("datasets", []):
        try:
            found = locate(name, Path(question["data_dir"]))
            seen["data"][name] = {"folder": str(found) if found else "built in"}
        except ItopctlError as error:
            seen["data"][name] = {"missing": str(error)}
    try:
        import torch

        seen["torch"] = torch.__version__
        seen["torch_gpus"] = torch.cuda.device_count()
    except Exception as error:
        seen["torch_error"] = f"{type(error).__name__}: {error}"
    return seen


if __name__ == "__main__":
    write_json(Path(sys.argv[1]) / "answer.json", look_around(Path(sys.argv[1])))
