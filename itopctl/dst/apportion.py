"""A whole number shared in proportion to weights, under caps: exact integers, by largest remainder."""

from __future__ import annotations

import math
from collections.abc import Sequence


def apportion(weights: Sequence[float], total: int, caps: Sequence[int]) -> list[int]:
    """Integers in proportion to `weights` that sum to exactly `total`, none above its cap.

    What a cap cuts off goes to the others in proportion (water-filling); where all that are left weigh nothing, they
    share alike. Remainders are rounded up where they are largest, the first first.

    Args:
        weights: 0 or more, finite.
        total: in [0, sum of caps].
        caps: 0 or more.

    Raises:
        ValueError: `total` is more than the caps hold.
    """
    if not 0 <= total <= sum(caps):
        raise ValueError(f"cannot share {total} under caps that sum to {sum(caps)}")
    shares = [0.0] * len(weights)
    open_ = [index for index, cap in enumerate(caps) if cap > 0]
    left = total
    while open_ and left > 0:
        weight = math.fsum(weights[index] for index in open_)
        scaled = {index: left * (weights[index] / weight if weight > 0 else 1 / len(open_)) for index in open_}
        full = [index for index in open_ if scaled[index] >= caps[index]]
        if not full:
            for index in open_:
                shares[index] = scaled[index]
            break
        for index in full:
            shares[index] = caps[index]
            left -= caps[index]
        open_ = [index for index in open_ if scaled[index] < caps[index]]
    return _round(shares, total, caps)


def _round(shares: Sequence[float], total: int, caps: Sequence[int]) -> list[int]:
    counts = [min(cap, math.floor(share + 1e-9)) for share, cap in zip(shares, caps, strict=True)]
    while sum(counts) > total:  # float dust in the shares
        index = max((i for i, count in enumerate(counts) if count), key=lambda i: counts[i] - shares[i])
        counts[index] -= 1
    order = sorted(range(len(shares)), key=lambda index: round(counts[index] - shares[index], 9))  # but for float dust
    missing = total - sum(counts)
    while missing:
        for index in order:
            if missing and counts[index] < caps[index]:
                counts[index] += 1
                missing -= 1
    return counts
