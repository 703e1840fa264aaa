"""The dense gradient of a sparse layer, not multiplied out."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from itopctl.dst.sparse.convolution import SparseConv2d
from itopctl.dst.sparse.linear import SparseLinear


@dataclass
class FactoredGradient:
    """The dense gradient of a layer as what it is made of: inputs, and gradients of outputs, of every backward pass.

    It is multiplied out where it is read, and not kept: one layer's dense gradient is in memory at a time.
    """

    module: SparseLinear | SparseConv2d
    factors: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def dense(self) -> Tensor:
        """∂L/∂w of all weights, in the weight's shape."""
        if not self.factors:
            weight = self.module.weight
            return torch.zeros(self.module.dense_shape, dtype=weight.dtype, device=weight.device)
        first, *others = (self.module.dense_gradient(*pair) for pair in self.factors)
        for other in others:
            first += other
        return first
