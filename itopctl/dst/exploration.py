"""The exploration rate R_s: which weights were ever active, and what random growth is expected to reach.

R_s = Σ_l |ever active in l| / Σ_l N_l over maskable layers (Liu et al. 2021, section 3.2). Dense training has
R_s = 1, static sparse training R_s = density.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class ExploredSet:
    """The weights of one layer that were ever active, one bit each.

    Args:
        active: bool tensor, the initial mask.
    """

    def __init__(self, active: Tensor) -> None:
        self.size = active.numel()
        self.bits = pack_bits(active)
        self.count = int(active.sum())

    def add(self, active: Tensor) -> int:
        """Mark the active weights as explored; returns how many were so for the first time."""
        self.bits |= pack_bits(active)
        before, self.count = self.count, int(unpack_bits(self.bits, self.size).sum())
        return self.count - before

    @property
    def rate(self) -> float:
        """Share of the layer's weights that were ever active, in [0, 1]."""
        return self.count / self.size


def pack_bits(mask: Tensor) -> Tensor:
    """A bool tensor of n entries as ⌈n/8⌉ bytes, row-major, lowest bit first, on the same device."""
    import numpy as np
    import torch

    flat = mask.reshape(-1)
    if flat.device.type == "cpu":
        return torch.from_numpy(np.packbits(flat.numpy(), bitorder="little"))
    padded = torch.nn.functional.pad(flat.to(torch.uint8), (0, -flat.numel() % 8)).view(-1, 8)
    packed = padded[:, 0].clone()
    for bit in range(1, 8):
        packed |= padded[:, bit] << bit
    return packed


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Inverse of `pack_bits`: a flat bool tensor of `size` entries."""
    import numpy as np
    import torch

    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=size, bitorder="little").view(np.bool_))
    positions = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(1) >> positions) & 1).to(torch.bool).reshape(-1)[:size]


def expected_exploration(density: float, drop_fractions: Iterable[float]) -> float:
    """Expected R of one layer under exact-k uniform random growth, after updates with the given ζ.

    Derived, not published: an unexplored weight is inactive at every update whatever the drop rule, and is one
    of N(1 − d(1 − ζ)) candidates for N·d·ζ places, so it stays unexplored with probability
    (1 − d) / (1 − d(1 − ζ)).

    Args:
        density: the layer's density d, in (0, 1].
        drop_fractions: ζ of each update, in [0, 1].
    """
    unexplored = 1.0 - density
    for zeta in drop_fractions:
        unexplored *= (1.0 - density) / (1.0 - density * (1.0 - zeta)) if density < 1.0 else 0.0
    return 1.0 - unexplored


def expected_total_exploration(counts: Sequence[int], sizes: Sequence[int], drop_fractions: Sequence[float]) -> float:
    """Expected R_s of a network: the size-weighted mean of `expected_exploration` over its layers."""
    explored = math.fsum(
        size * expected_exploration(count / size, drop_fractions) for count, size in zip(counts, sizes, strict=True)
    )
    return explored / sum(sizes)
