"""What a run measures of itself and its machine: peak memory, energy, and the environment it ran in."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("itopctl", "torch", "torchvision", "numpy", "scikit-learn")


def reset_peak_memory(device: torch.device) -> None:
    """Start measuring peak memory anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: sets the high-water mark to what is resident now
    except OSError:
        pass


def peak_memory_bytes(device: torch.device) -> int | None:
    """Most memory used since `reset_peak_memory`: allocated on a GPU, else resident of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


class EnergyMeter:
    """The energy that a device has used since this object was made, where it tells.

    A GPU tells through NVML, CPUs through Linux's powercap (RAPL), which often only root may read. Both count for the
    whole device, whoever uses it: runs that share it count each other's energy, too.

    Args:
        device: what a run is trained on.
        powercap: where Linux has the counters of the CPUs.
    """

    def __init__(self, device: torch.device, powercap: Path = Path("/sys/class/powercap")) -> None:
        self._counters = _nvml_counters(device) if device.type == "cuda" else _rapl_counters(powercap)
        self._used = 0.0
        try:
            self._last = [read() for read, _ in self._counters]
        except Exception:  # NVML has errors of its own
            self._counters = []

    @property
    def joules(self) -> float | None:
        """Energy since the start, in joules; None where the device does not tell."""
        self.read()
        return self._used if self._counters else None

    def read(self) -> None:
        """Look at the counters: they begin anew at some value, so that this must be called every few minutes."""
        try:
            for index, (read, most) in enumerate(self._counters):
                now = read()
                self._used += (now - self._last[index]) % most if most else max(0.0, now - self._last[index])
                self._last[index] = now
        except Exception:
            self._counters = []


_Counter = tuple[Callable[[], float], float]  # reads joules; the value at which it begins anew, or 0


def _rapl_counters(powercap: Path) -> list[_Counter]:
    """One for each CPU package; those for its parts, named `intel-rapl:0:1`, are in it."""

    def counter(folder: Path) -> _Counter:
        most = float((folder / "max_energy_range_uj").read_text()) / 1e6
        return lambda: float((folder / "energy_uj").read_text()) / 1e6, most

    try:
        return [counter(path) for path in sorted(powercap.glob("*-rapl:*")) if path.name.count(":") == 1]
    except (OSError, ValueError):
        return []


def _nvml_counters(device: torch.device) -> list[_Counter]:
    try:
        import pynvml

        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return [(lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3, 0.0)]
    except Exception:  # no such package, no such library, a GPU too old: then it does not tell
        return []


def device_name(device: torch.device) -> str:
    """What is trained on: the name of the GPU's or the CPU's model."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()


def environment(device: torch.device) -> dict[str, Any]:
    """Where and with what a run is made, as plain data for `environment.json`; whoever starts it knows the code."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "command": sys.argv,
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def memory_capacity(device: torch.device) -> int | None:
    """Bytes of memory that runs on a device share: the GPU's, else the machine's or what its control group may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    try:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return None
    try:
        group = Path("/proc/self/cgroup").read_text().strip().splitlines()[-1].rpartition(":")[2]
        limit = Path(f"/sys/fs/cgroup{group}/memory.max").read_text().strip()
        most = min(most, int(limit))
    except (OSError, ValueError, IndexError):  # no limit, or another kind of system
        pass
    return most
