"""torchvision's ResNets with the stem for small images: a 3×3 convolution of stride 1 and no max-pool."""

from __future__ import annotations

from torch import nn
from torchvision import models


def small_image_resnet(name: str, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """`resnet18`, `resnet34` or `resnet50` for images of 32×32 or so."""
    model: nn.Module = models.get_model(name, weights=None, num_classes=classes)
    stem = nn.Conv2d(input_shape[0], 64, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = stem
    model.maxpool = nn.Identity()
    return model
