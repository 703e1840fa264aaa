"""The networks: sizes, shapes, and that each can be made sparse."""

from __future__ import annotations

import pytest
import torch

from itopctl.catalogue import MODELS
from itopctl.dst.flops import layer_costs
from itopctl.dst.maskable import maskable_weights
from itopctl.errors import UserError

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32)]


def build(name: str, shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10) -> torch.nn.Module:
    model: torch.nn.Module = MODELS.function(name)(input_shape=shape, classes=classes)
    return model


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
        ("vgg16-c", (3, 32, 32), 10, 10_521_280),
        ("vgg16-c-itop", (3, 32, 32), 10, 11_307_712),
        ("vgg16-c-itop", (3, 32, 32), 100, 11_353_792),
    ],
)
def test_models_have_as_many_weights_as_their_layers_add_up_to(
    name: str, shape: tuple[int, int, int], classes: int, maskable: int
) -> None:
    model = build(name, shape, classes)
    assert sum(weight.size for weight in maskable_weights(model).values()) == maskable


def test_the_small_image_stem_keeps_the_image_size() -> None:
    model = build("resnet18")
    assert model.conv1(torch.zeros(1, 3, 32, 32)).shape[-2:] == (32, 32)
    assert isinstance(model.maxpool, torch.nn.Identity)


def test_a_wide_resnet_of_another_depth_is_refused() -> None:
    from itopctl.train.models.wide_resnet import WideResNet

    with pytest.raises(ValueError, match="6n"):
        WideResNet(23, 2, (3, 32, 32), 10)


def test_the_vgg_c_of_the_itop_paper_pads_its_1x1_convolutions_and_costs_what_its_images_are() -> None:
    model = MODELS.function("vgg16-c-itop")(input_shape=(3, 32, 32), classes=10)
    costs = list(layer_costs(model, torch.zeros(1, 3, 32, 32)).values())
    thrice = 9 * 512 * 512
    assert [cost.uses * cost.weights for cost in costs] == [
        32**2 * 9 * 3 * 64, 32**2 * 9 * 64 * 64, 16**2 * 9 * 64 * 128, 16**2 * 9 * 128 * 128,
        8**2 * 9 * 128 * 256, 8**2 * 9 * 256 * 256, 10**2 * 256 * 256,  # 8×8, padded and seen pixel by pixel
        5**2 * 9 * 256 * 512, 5**2 * thrice, 7**2 * 512 * 512,
        3**2 * thrice, 3**2 * thrice, 5**2 * 512 * 512,
        2048 * 512, 512 * 512, 512 * 10,
    ]  # fmt: skip


@pytest.mark.parametrize(("side", "features"), [(4, 512), (8, 2048), (28, 2048), (32, 2048), (64, 4608)])
def test_the_classifier_of_that_vgg_c_takes_what_the_last_pool_leaves(side: int, features: int) -> None:
    model = MODELS.function("vgg16-c-itop")(input_shape=(1, side, side), classes=10).eval()
    first = next(module for module in model if isinstance(module, torch.nn.Linear))
    assert first.in_features == features
    assert model(torch.zeros(1, 1, side, side)).shape == (1, 10)


def test_images_too_small_for_that_vgg_c_are_refused() -> None:
    with pytest.raises(UserError, match=r"4×4 or more; found 3×8\."):
        MODELS.function("vgg16-c-itop")(input_shape=(1, 3, 8), classes=10)
