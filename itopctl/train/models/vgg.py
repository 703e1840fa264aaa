"""VGG with batch norm, as the sparse-training papers use it on small images.

`vgg16-c` and `vgg16-c-itop` are two networks. VGG-C has a 1×1 convolution at the end of its last three blocks. The ITOP
paper's code, which follows a PyTorch version of SNIP (mi-lad/snip), pads these by 1, as it does the 3×3 ones: each
makes the image two pixels larger.
Images of 32×32 then have sides of 32, 16, 8 → 10, 5 → 7, 3 → 5, and 2 after the last pool, where `vgg16-c` has 1.
Their classifier takes all 512 × 2 × 2 = 2,048 numbers: 11,307,712 maskable weights for ten classes, where `vgg16-c` has
10,521,280. They leave biases and the initial weights of convolutions as PyTorch makes them, and put batch norm after
ReLU in the classifier.
"""

from __future__ import annotations

from torch import nn

from itopctl.errors import UserError

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


def vgg16_c_itop(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """VGG-C as the code of the ITOP paper has it (Shiweiliuiiiiiii/In-Time-Over-Parameterization, `VGG16`).

    Raises:
        UserError: the image is too small for five pools.
    """
    channels, *sides = input_shape
    layers: list[nn.Module] = []
    for entry in _LAYERS["C"]:
        if entry == "M":
            if min(sides) < 2:
                raise UserError(f"vgg16-c-itop needs images of 4×4 or more; found {input_shape[1]}×{input_shape[2]}.")
            layers.append(nn.MaxPool2d(2))
            sides = [side // 2 for side in sides]
            continue
        kernel, width = entry if isinstance(entry, tuple) else (3, int(entry))
        layers += [nn.Conv2d(channels, width, kernel, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        sides = [side + 3 - kernel for side in sides]
        channels = width
    features = channels * sides[0] * sides[1]
    layers.append(nn.Flatten())
    for _ in range(2):
        layers += [nn.Linear(features, 512), nn.ReLU(inplace=True), nn.BatchNorm1d(512)]
        features = 512
    return nn.Sequential(*layers, nn.Linear(features, classes))


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
