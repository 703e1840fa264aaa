"""The networks: sizes, shapes, and that each can be made sparse."""

from __future__ import annotations

import pytest
import torch

from itopctl.catalogue import MODELS
from itopctl.dst.layers import maskable_weights

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> torch.nn.Module:
    return MODELS.function(name)(input_shape=shape, classes=classes)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (name, shape)
        for name in MODELS.names()
        for shape in SHAPES
        if name != "wrn-28-10" or shape == (1, 8, 8)  # the larger images are slow, and the code is wrn-22-2's
    ],
)
def test_every_model_takes_every_data_sets_images(name: str, shape: tuple[int, int, int]) -> None:
    model = build(name, shape, classes=7)
    logits = model(torch.zeros(2, *shape))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "classes", "maskable"),
    [
        ("lenet-300-100", (1, 28, 28), 10, 266_200),
        ("lenet-5", (1, 28, 28), 10, 430_500),
        ("mlp-cifar", (3, 32, 32), 10, 3_675_136),
        ("resnet34", (3, 32, 32), 100, 21_311_168),
        ("wrn-22-2", (3, 32, 32), 10, 1_076_912),
        ("vgg16-d", (3, 32, 32), 10, 15_239_872),
        ("vgg19", (3, 32, 32), 100, 20_070_080),
    ],
)
def test_models_have_as_many_weights_as_their_layers_add_up_to(
    name: str, shape: tuple[int, int, int], classes: int, maskable: int
) -> None:
    model = build(name, shape, classes)
    assert sum(weight.numel() for weight in maskable_weights(model).values()) == maskable


def test_the_small_image_stem_keeps_the_image_size() -> None:
    model = build("resnet18")
    assert model.conv1(torch.zeros(1, 3, 32, 32)).shape[-2:] == (32, 32)
    assert isinstance(model.maxpool, torch.nn.Identity)


def test_a_wide_resnet_of_another_depth_is_refused() -> None:
    from itopctl.train.models.wide_resnet import WideResNet

    with pytest.raises(ValueError, match="6n"):
        WideResNet(23, 2, (3, 32, 32), 10)
