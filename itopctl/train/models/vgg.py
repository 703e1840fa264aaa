"""VGG with batch norm, as the sparse-training papers use it on small images."""

from __future__ import annotations

from torch import nn

# Output channels of each 3×3 convolution; (1, n) is a 1×1 convolution; "M" is a max-pool.
_LAYERS: dict[str, tuple[int | str | tuple[int, int], ...]] = {
    "C": (
        64,
        64,
        "M",
        128,
        128,
        "M",
        256,
        256,
        (1, 256),
        "M",
        512,
        512,
        (1, 512),
        "M",
        512,
        512,
        (1, 512),
        "M",
    ),
    "D": (64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"),
    "E": (64, 64, "M", 128, 128, "M", *(256,) * 4, "M", *(512,) * 4, "M", *(512,) * 4, "M"),
}


def vgg(configuration: str, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """Configuration C or D (two hidden linear layers of 512 with batch norm) or E (one linear layer)."""
    channels = input_shape[0]
    layers: list[nn.Module] = []
    for entry in _LAYERS[configuration]:
        if entry == "M":
            # ceil_mode keeps a side of 1 at 1, so that small images pass all five pools.
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            continue
        kernel, width = entry if isinstance(entry, tuple) else (3, int(entry))
        convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        channels = width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if configuration != "E":
        for _ in range(2):
            layers += [nn.Linear(channels, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True)]
            channels = 512
    return nn.Sequential(*layers, nn.Linear(channels, classes))
