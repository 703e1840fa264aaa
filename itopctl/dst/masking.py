"""Zero what is off a mask, in place: the one operation that every step of training pays for.

A mask is kept as one signed byte a weight, -1 (all bits set) where active and 0 where not, so that masking is a
bitwise AND with the number's own bits: exact, whatever stands off the mask, NaN and infinity included.
"""

from __future__ import annotations

import torch
from torch import Tensor

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_CHUNK = 2**20


class Masker:
    """Applies masks; owns the scratch memory for it, so that masking allocates nothing.

    A CPU operation on tensors of two types first widens one of them into new memory as large as the layer.
    Widening a piece at a time into memory that is there already costs no more, and stays in the cache.
    """

    def __init__(self) -> None:
        self._scratch: dict[torch.dtype, Tensor] = {}

    @torch.no_grad()
    def mask_(self, tensor: Tensor, keep: Tensor) -> None:
        """Zero `tensor` wherever `keep` (int8, -1 or 0, same shape and device) is 0; all else keeps its bits."""
        words = tensor.detach().view(_WORDS[tensor.itemsize])
        if words.device.type != "cpu" or words.dtype == torch.int8 or words.stride() != keep.stride():
            words.bitwise_and_(keep)
            return
        size = words.numel()
        # Both in the order of memory: the strides are the same, and a mask has no gaps.
        words, keep = words.as_strided((size,), (1,)), keep.as_strided((size,), (1,))
        scratch = self._scratch_of(words.dtype, size)
        if size <= scratch.numel():
            widened = scratch[:size]
            widened.copy_(keep)
            words.bitwise_and_(widened)
            return
        for piece, kept in zip(words.split(scratch.numel()), keep.split(scratch.numel()), strict=True):
            widened = scratch[: piece.numel()]
            widened.copy_(kept)
            piece.bitwise_and_(widened)

    def _scratch_of(self, dtype: torch.dtype, size: int) -> Tensor:
        scratch = self._scratch.get(dtype)
        if scratch is None or scratch.numel() < min(size, _CHUNK):
            scratch = self._scratch[dtype] = torch.empty(min(size, _CHUNK), dtype=dtype, device="cpu")
        return scratch
