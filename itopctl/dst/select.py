"""Exact k-subsets by score: the only place where weights are ranked.

Ranks, never thresholds alone: exactly k indices come back, whatever the ties. Ties at the k-th score are broken
by a seeded random key; nothing is drawn where there is no tie. Forbidden entries take no part at all, so no
score, not even NaN or -inf, can make them come back.
"""

from __future__ import annotations

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
    allowed = among.reshape(-1).nonzero().squeeze(1)
    if not 0 <= count <= allowed.numel():
        raise ValueError(f"cannot choose {count} of {allowed.numel()} entries")
    if count == 0:
        return allowed[:0]
    if count == allowed.numel():
        return allowed
    values = scores.reshape(-1)[allowed]
    if values.isnan().any():
        raise ValueError("a score is NaN")
    threshold = _kth_lowest(values, count)
    below = values < threshold
    ties = (values == threshold).nonzero().squeeze(1)
    wanted = count - int(below.sum())
    if wanted < ties.numel():
        order = torch.randperm(ties.numel(), generator=generator, device=generator.device)
        ties = ties[order[:wanted].to(ties.device)]
    below[ties] = True
    return allowed[below]


def _kth_lowest(values: Tensor, count: int) -> Tensor:
    if values.device.type == "cpu":
        return torch.kthvalue(values, count).values
    # Elsewhere kthvalue is refused where deterministic algorithms are asked for, though its value would be the same.
    return torch.topk(values, count, largest=False, sorted=False).values.max()


def highest(scores: Tensor, count: int, among: Tensor, generator: torch.Generator) -> Tensor:
    """Flat indices, ascending, of the `count` highest scores among the allowed entries; as `lowest`."""
    return lowest(-scores, count, among, generator)
