"""Data parallelism: every rank holds the same masks, those of the first rank of the group.

Ranks draw alike (randomness is keyed by layer, update and the seed of the first rank) and see the same all-reduced
gradients, so that they nearly always agree anyhow. "Nearly" is not enough: one bit of another kernel, and they would
diverge permanently. So what the first rank chose is broadcast, after every update and at the start.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from itopctl.dst.explored_set import pack_bits, unpack_bits


class Ranks:
    """The ranks that train one model together; one alone where there is no process group.

    Args:
        group: the process group, or None for a single process.
    """

    def __init__(self, group: distributed.ProcessGroup | None) -> None:
        self._group = group if group is not None and distributed.get_world_size(group) > 1 else None
        self._source = 0 if self._group is None else distributed.get_global_rank(self._group, 0)

    @property
    def alone(self) -> bool:
        """Whether there is one rank only."""
        return self._group is None

    def first(self, value: Any) -> Any:
        """Any value that can be pickled, as the first rank has it."""
        if self._group is None:
            return value
        message = [value]
        distributed.broadcast_object_list(message, src=self._source, group=self._group)
        return message[0]

    def agree(self, masks: list[Tensor]) -> list[Tensor]:
        """Flat int8 masks (-1 or 0) as the first rank has them. Communicates bits, in one message."""
        if self._group is None or not masks:
            return masks
        bits = [pack_bits(mask != 0) for mask in masks]
        message = torch.cat(bits)
        distributed.broadcast(message, src=self._source, group=self._group)
        pieces = message.split([piece.numel() for piece in bits])
        return [
            unpack_bits(piece.contiguous(), mask.numel()).to(torch.int8).neg_()
            for piece, mask in zip(pieces, masks, strict=True)
        ]

    def all(self, condition: bool, device: torch.device) -> bool:
        """Whether a condition holds on every rank."""
        if self._group is None:
            return condition
        flag = torch.tensor(int(condition), device=device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MIN, group=self._group)
        return bool(flag)


def is_compiled(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is compiled: by `torch.compile`, or in place by its method `compile`."""
    return any(
        isinstance(getattr(part, "_orig_mod", None), nn.Module)
        or getattr(part, "_compiled_call_impl", None) is not None
        for part in model.modules()
    )


def is_replicated(model: nn.Module) -> bool:
    """Whether `nn.DataParallel` copies the model, or a part of it, at every step."""
    return any(isinstance(part, nn.DataParallel) for part in model.modules())


def wrappers(model: nn.Module) -> list[nn.Module]:
    """The model, what is inside of it where it wraps another, and so on; the bare model is the last."""
    found = [model]
    while True:
        outer = found[-1]
        inner = outer.module if isinstance(outer, DistributedDataParallel) else getattr(outer, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return found
        found.append(inner)


def unwrapped(model: nn.Module) -> tuple[nn.Module, Any]:
    """The model inside DistributedDataParallel and `torch.compile`, and the process group, if there is one.

    A bare model in a process with several ranks is taken to be trained by all of them.
    """
    *outer, model = wrappers(model)
    groups = [wrapper.process_group for wrapper in outer if isinstance(wrapper, DistributedDataParallel)]
    group: Any = groups[-1] if groups else None
    if group is None and distributed.is_available() and distributed.is_initialized():
        group = distributed.group.WORLD
    return model, group
