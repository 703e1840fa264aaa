"""Places for workers on this machine: cores divided, and a GPU for each where there are any. No torch here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Slot:
    """A place for one worker: its threads, and the GPU it sees (None: no GPU)."""

    threads: int
    gpu: str | None = None


def plan_slots(workers: int | None, runs_per_gpu: int, cores: int, gpus: Sequence[str]) -> list[Slot]:
    """Places for workers on this machine.

    With GPUs: `runs_per_gpu` on each; without: one a core. `workers` overrides the number. Cores are divided
    among the places, so that a run has the same threads however many runs there are.
    """
    count = workers or (len(gpus) * runs_per_gpu if gpus else cores)
    threads = max(1, cores // count)
    return [Slot(threads, gpus[index % len(gpus)] if gpus else None) for index in range(count)]


def available_cores() -> int:
    """Cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def visible_gpus() -> list[str]:
    """GPUs this process may use, as values for `CUDA_VISIBLE_DEVICES`; asked of the driver's own tool."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() and name.strip() != "-1"]
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, timeout=20,
            check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()
