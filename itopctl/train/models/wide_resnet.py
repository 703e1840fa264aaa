"""Wide residual networks (Zagoruyko and Komodakis 2016): pre-activation blocks, no dropout."""

from __future__ import annotations

from torch import Tensor, nn


class _Block(nn.Module):
    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(n_in)
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False) if n_in != n_out else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.relu(self.norm1(x))
        passed = x if self.shortcut is None else self.shortcut(activated)
        inner = self.conv1(activated)
        out: Tensor = passed + self.conv2(self.relu(self.norm2(inner)))
        return out


class WideResNet(nn.Module):
    """WRN-depth-width for small images.

    Args:
        depth: 6n + 4; n blocks in each of three groups.
        width: factor on the channels 16, 32, 64.
        input_shape: channels, height, width of the images.
        classes: number of labels.
    """

    def __init__(self, depth: int, width: int, input_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        if (depth - 4) % 6:
            raise ValueError(f"depth {depth} is not 6n + 4")
        blocks = (depth - 4) // 6
        self.stem = nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False)
        layers: list[nn.Module] = []
        channels = 16
        for group, n_out in enumerate((16 * width, 32 * width, 64 * width)):
            for block in range(blocks):
                layers.append(_Block(channels, n_out, stride=2 if group and not block else 1))
                channels = n_out
        self.blocks = nn.Sequential(*layers)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Sequential(nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.head(self.norm(self.blocks(self.stem(x)))))
        return logits
