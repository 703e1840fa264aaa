"""Multi-layer perceptrons and LeNet-5."""

from __future__ import annotations

import itertools
import math

from torch import nn

_SMALL_SIDE = 20


def mlp(input_shape: tuple[int, int, int], hidden: tuple[int, ...], classes: int) -> nn.Module:
    """Fully connected layers with ReLU between them."""
    widths = (math.prod(input_shape), *hidden)
    layers: list[nn.Module] = [nn.Flatten()]
    for n_in, n_out in itertools.pairwise(widths):
        layers += [nn.Linear(n_in, n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], classes))


def lenet5(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """LeNet-5 in Caffe's form; on images under 20 pixels the 5×5 convolutions are padded, or nothing would be left."""
    channels, height, width = input_shape
    padding = 2 if min(height, width) < _SMALL_SIDE else 0

    def after(side: int) -> int:
        for _ in range(2):
            side = (side + 2 * padding - 4) // 2
        return side

    return nn.Sequential(
        nn.Conv2d(channels, 20, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5, padding=padding),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(50 * after(height) * after(width), 500),
        nn.ReLU(),
        nn.Linear(500, classes),
    )
