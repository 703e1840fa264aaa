"""The processes that train one run together: who one of them is, how they meet, and what they agree upon.

Only what `DistributedDataParallel` and the engine leave to the training loop; how processes are started, and where the
first of them listens, is for the caller to know. Alone, everything here does nothing.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, distributed

from itopctl.dst.parallel import Ranks

T = TypeVar("T")

# How long a rank waits for the others. They wait while the first evaluates and saves, which on a CPU may take long. A
# process that ends closes its connections, and is noticed at once by gloo; by NCCL not everywhere.
_PATIENCE = {"gloo": datetime.timedelta(hours=1), "nccl": datetime.timedelta(minutes=20)}

# Threads of gloo let go of the last messages, for which they need the interpreter: a process that ends before they have
# is aborted (github.com/pytorch/pytorch/issues/190489; seen here in one of ten).
_SETTLING_SECONDS = 0.5


@dataclass(frozen=True)
class Rank:
    """One of the processes that train a run.

    Attributes:
        index: which, from 0; process 0 evaluates, tells and saves.
        count: of processes.
        local: which of the processes on this machine, from 0; chooses the GPU.
        master: `host:port` where process 0 listens, the same for all; None where there is one process.
    """

    index: int
    count: int
    local: int
    master: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count or not 0 <= self.local <= self.index:
            raise ValueError(f"process {self.index} of {self.count}, {self.local} on its machine: there is none such")
        if self.count > 1 and self.master is None:
            raise ValueError(f"{self.count} processes cannot meet without the address of the first")

    @property
    def alone(self) -> bool:
        """Whether this is the only process."""
        return self.count == 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that evaluates, tells and saves."""
        return self.index == 0

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over processes, added up in their order: the same bits whatever else is in the tensor."""
        if self.alone or not tensor.numel():
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        distributed.all_gather(parts, tensor)
        return torch.stack(parts).mean(dim=0)

    def most(self, number: int, device: torch.device) -> int:
        """The largest of the processes' numbers."""
        if self.alone:
            return number
        found = torch.tensor(number, device=device)
        distributed.all_reduce(found, op=distributed.ReduceOp.MAX)
        return int(found)

    def first(self, value: T) -> T:
        """Any value that can be pickled, as process 0 has it."""
        found: T = self._ranks.first(value)
        return found

    @property
    def _ranks(self) -> Ranks:
        return Ranks(None if self.alone else distributed.group.WORLD)


ALONE = Rank(0, 1, 0)


@contextlib.contextmanager
def joined(rank: Rank, device: torch.device) -> Iterator[None]:
    """The processes of a run are connected inside, by NCCL between GPUs, else by gloo.

    Args:
        rank: who this process is. All `rank.count` of them come here, or the others wait for them.
        device: where this process computes, from `choose_device(config.device, rank)`.
    """
    if rank.alone:
        yield
        return
    on_gpu = device.type == "cuda"
    backend = "nccl" if on_gpu else "gloo"
    if on_gpu:
        torch.cuda.set_device(device)  # where NCCL sends Python objects from
    distributed.init_process_group(
        backend, init_method=f"tcp://{rank.master}", rank=rank.index, world_size=rank.count,
        timeout=_PATIENCE[backend], device_id=device if on_gpu else None,
    )  # fmt: skip
    try:
        yield
    finally:
        distributed.destroy_process_group()
        if not on_gpu:
            time.sleep(_SETTLING_SECONDS)
