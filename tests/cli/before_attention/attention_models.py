"""A model with attention over the rows of a digit, for runs with a model of the user's own."""

from __future__ import annotations

from torch import Tensor, nn


class Attention(nn.Module):
    """Attention over the rows, and a linear layer over all that it gives."""

    def __init__(self, rows: int, width: int, classes: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.out = nn.Linear(rows * width, classes)

    def forward(self, images: Tensor) -> Tensor:
        rows = images.squeeze(1)
        seen, _ = self.attention(rows, rows, rows)
        return self.out(seen.flatten(1))


def attention(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    _, height, width = input_shape
    return Attention(height, width, classes)
