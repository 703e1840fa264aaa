"""The explored set: which weights of a layer were ever active, one bit each.

R_s = Σ_l |ever active in l| / Σ_l N_l over maskable layers (Liu et al. 2021, section 3.2). Dense training has
R_s = 1, static sparse training R_s = density. What random growth is expected to reach: `expected.py`.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


class ExploredSet:
    """The weights of one layer that were ever active, one bit each.

    Args:
        size: number of weights.
        bits: the initial mask, as `pack_bits` has it; not copied.
    """

    def __init__(self, size: int, bits: Tensor) -> None:
        self.size, self.bits, self.count = size, bits, count_bits(bits)

    def add(self, active: Tensor) -> int:
        """Mark the active weights as explored; returns how many were so for the first time."""
        self.bits |= pack_bits(active)
        before, self.count = self.count, count_bits(self.bits)
        return self.count - before

    def add_positions(self, positions: Tensor) -> int:
        """Mark distinct flat positions as explored, in time that grows with their number; returns how many were new."""
        byte, bit = positions >> 3, (1 << (positions & 7)).to(torch.uint8)
        new = (self.bits[byte] & bit) == 0
        byte, bit = byte[new], bit[new]
        # Each of these bits is not set and comes once, so that adding sets it.
        self.bits.index_add_(0, byte, bit)
        self.count += byte.numel()
        return byte.numel()

    def flags(self) -> Tensor:
        """Flat bool tensor, True where the weight was ever active."""
        return unpack_bits(self.bits, self.size)

    def take_over(self, bits: Tensor) -> None:
        """Become the set with these bits."""
        self.bits, self.count = bits, count_bits(bits)

    @property
    def rate(self) -> float:
        """Share of the layer's weights that were ever active, in [0, 1]."""
        return self.count / self.size


def pack_bits(mask: Tensor) -> Tensor:
    """A bool tensor of n entries as ⌈n/8⌉ bytes, row-major, lowest bit first, on the same device."""
    flat = mask.reshape(-1)
    if flat.device.type == "cpu":
        return torch.from_numpy(np.packbits(flat.numpy(), bitorder="little"))
    padded = torch.nn.functional.pad(flat.to(torch.uint8), (0, -flat.numel() % 8)).view(-1, 8)
    packed = padded[:, 0].clone()
    for bit in range(1, 8):
        packed |= padded[:, bit] << bit
    return packed


def bits_at(positions: Tensor, size: int) -> Tensor:
    """`pack_bits` of a mask of `size` entries that is True at these distinct flat positions."""
    bits = torch.zeros(-(-size // 8), dtype=torch.uint8, device=positions.device)
    return bits.index_add_(0, positions >> 3, (1 << (positions & 7)).to(torch.uint8))


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Inverse of `pack_bits`: a flat bool tensor of `size` entries."""
    if packed.device.type == "cpu":
        return torch.from_numpy(np.unpackbits(packed.numpy(), count=size, bitorder="little").view(np.bool_))
    positions = torch.arange(8, dtype=torch.uint8, device=packed.device)
    return ((packed.unsqueeze(1) >> positions) & 1).to(torch.bool).reshape(-1)[:size]


def count_bits(packed: Tensor) -> int:
    """How many bits of a uint8 tensor are set."""
    if packed.device.type == "cpu":
        return int(_BITS_IN_BYTE[packed.numpy()].sum(dtype=np.int64))
    return int(torch.from_numpy(_BITS_IN_BYTE).to(packed.device)[packed.long()].sum())


_BITS_IN_BYTE = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
