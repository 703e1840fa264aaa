"""Models of the user's own with attention, recurrent layers and parameters that belong to no layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Transformer(nn.Module):
    """An encoder layer over the rows of an image, whose positions are learned."""

    def __init__(self, rows: int, width: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(width, 16)
        self.positions = nn.Parameter(0.02 * torch.randn(rows, 16))
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.out = nn.Linear(16, classes)

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.encoder(self.embed(images.squeeze(1)) + self.positions)
        logits: Tensor = self.out(tokens.mean(1))
        return logits


class Rows(nn.Module):
    """An LSTM over the rows of an image."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, 12, batch_first=True)
        self.out = nn.Linear(12, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.out(self.lstm(images.squeeze(1))[0][:, -1])
        return logits


class Product(nn.Module):
    """A product with a matrix that belongs to no layer."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        self.matrix = nn.Parameter(0.1 * torch.randn(pixels, classes))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.matrix


def transformer(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    _, height, width = input_shape
    return Transformer(height, width, classes)


def lstm(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Rows(input_shape[2], classes)


def product(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    return Product(input_shape[0] * input_shape[1] * input_shape[2], classes)
