"""Whether the kernel ended a process for want of memory, where that can be told."""

from __future__ import annotations

from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")


def oom_kills() -> int | None:
    """Processes that were killed for want of memory in this process's control group; None where nothing counts them.

    A process that is killed so has no last words: only the count tells it from any other SIGKILL.
    """
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            file = _CGROUPS / path.lstrip("/") / "memory.events"
        elif "memory" in controllers.split(","):
            file = _CGROUPS / "memory" / path.lstrip("/") / "memory.oom_control"
        else:
            continue
        count = _count(file)
        if count is not None:
            return count
    return None


def _count(file: Path) -> int | None:
    try:
        for line in file.read_text().splitlines():
            name, _, value = line.partition(" ")
            if name == "oom_kill":
                return int(value)
    except (OSError, ValueError):
        pass
    return None
