"""Exact k-subsets by score: the only place where weights are ranked.

Ranks, never thresholds alone: exactly k indices come back, whatever the ties. Ties at the k-th score are broken
by a seeded random key; nothing is drawn where there is no tie. Forbidden entries take no part at all, so no
score, not even NaN or -inf, can make them come back.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def lowest(scores: Tensor, count: int, among: Tensor, generator: torch.Generator) -> Tensor:
    """Flat indices, ascending, of the `count` lowest scores among the allowed entries.

    Args:
        scores: any shape, floating; read in logical (row-major) order.
        count: how many, in [0, number of allowed entries].
        among: bool tensor of the same shape, True where an entry may be chosen.
        generator: breaks ties.

    Raises:
        ValueError: `count` exceeds the allowed entries, or an allowed score is NaN.
    """
    size = int(among.sum())
    if not 0 <= count <= size:
        raise ValueError(f"cannot choose {count} of {size} entries")
    flat, allowed = scores.detach().reshape(-1), among.reshape(-1)
    if flat.device.type == "cpu":
        chosen, ties = _split_on_cpu(flat, allowed, count, size)
    else:
        chosen, ties = _split(flat, allowed, count, size)
    wanted = count - chosen.numel()
    if wanted < ties.numel():
        order = torch.randperm(ties.numel(), generator=generator, device=generator.device)
        ties = ties[order[:wanted].to(ties.device)]
    return torch.cat([chosen, ties]).sort().values


def highest(scores: Tensor, count: int, among: Tensor, generator: torch.Generator) -> Tensor:
    """Flat indices, ascending, of the `count` highest scores among the allowed entries; as `lowest`."""
    return lowest(-scores, count, among, generator)


def _split(flat: Tensor, allowed: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """Indices of the allowed scores below the count-th lowest, and of those equal to it, both ascending."""
    if count in (0, size):
        everything = allowed.nonzero().squeeze(1)
        return everything[:count], everything[:0]
    values = flat[allowed]
    if values.isnan().any():
        raise ValueError("a score is NaN")
    # Not kthvalue: on a GPU it is refused where deterministic algorithms are asked for.
    threshold = torch.topk(values, count, largest=False, sorted=False).values.max()
    below = (flat < threshold) & allowed
    equal = (flat == threshold) & allowed
    return below.nonzero().squeeze(1), equal.nonzero().squeeze(1)


def _split_on_cpu(flat: Tensor, allowed: Tensor, count: int, size: int) -> tuple[Tensor, Tensor]:
    """`_split` with NumPy, whose partition and flatnonzero are many times faster than PyTorch's on a CPU."""
    mask = allowed.numpy()
    if count in (0, size):
        everything = torch.from_numpy(np.flatnonzero(mask))
        return everything[:count], everything[:0]
    if flat.dtype in (torch.bfloat16, torch.float16):
        flat = flat.to(torch.float32)
    scores = flat.numpy()
    values = scores[mask]
    if np.isnan(values).any():
        raise ValueError("a score is NaN")
    threshold = np.partition(values, count - 1)[count - 1]
    below = np.flatnonzero((scores < threshold) & mask)
    equal = np.flatnonzero((scores == threshold) & mask)
    return torch.from_numpy(below), torch.from_numpy(equal)
