"""The models by name. Light: a builder imports torch when it is called.

A builder takes `input_shape` (channels, height, width) and `classes`, and returns a `torch.nn.Module` that maps
[n, channels, height, width] to logits [n, classes]. A user's own, named `package.module:function` in a spec, is
called in the same way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from itopctl.catalogue import MODELS

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, int, int]


@MODELS.add("lenet-300-100", source="LeCun et al. 1998; Han et al. 2015")
def lenet_300_100(input_shape: Shape, classes: int) -> nn.Module:
    """two hidden layers of 300 and 100"""
    from itopctl.train.models.small import mlp

    return mlp(input_shape, (300, 100), classes)


@MODELS.add("lenet-5", source="LeCun et al. 1998, in Caffe's form; Han et al. 2015")
def lenet_5(input_shape: Shape, classes: int) -> nn.Module:
    """two convolutions (20, 50) and a hidden layer of 500"""
    from itopctl.train.models.small import lenet5

    return lenet5(input_shape, classes)


@MODELS.add("mlp-cifar", source="Liu et al. 2021 (arXiv 2102.02887)")
def mlp_cifar(input_shape: Shape, classes: int) -> nn.Module:
    """two hidden layers of 1024 and 512"""
    from itopctl.train.models.small import mlp

    return mlp(input_shape, (1024, 512), classes)


@MODELS.add("resnet18", source="He et al. 2016, with a 3×3 stem and no max-pool")
def resnet18(input_shape: Shape, classes: int) -> nn.Module:
    """ResNet-18 for small images"""
    from itopctl.train.models.resnet import small_image_resnet

    return small_image_resnet("resnet18", input_shape, classes)


@MODELS.add("resnet34", source="He et al. 2016, with a 3×3 stem and no max-pool")
def resnet34(input_shape: Shape, classes: int) -> nn.Module:
    """ResNet-34 for small images"""
    from itopctl.train.models.resnet import small_image_resnet

    return small_image_resnet("resnet34", input_shape, classes)


@MODELS.add("resnet50", source="He et al. 2016, with a 3×3 stem and no max-pool")
def resnet50(input_shape: Shape, classes: int) -> nn.Module:
    """ResNet-50 for small images"""
    from itopctl.train.models.resnet import small_image_resnet

    return small_image_resnet("resnet50", input_shape, classes)


@MODELS.add("vgg16-c", source="Simonyan and Zisserman 2015, C (1×1 in the last three blocks), with batch norm")
def vgg16_c(input_shape: Shape, classes: int) -> nn.Module:
    """VGG-16, configuration C; not the ITOP paper's VGG-C, which is vgg16-c-itop"""
    from itopctl.train.models.vgg import vgg

    return vgg("C", input_shape, classes)


@MODELS.add("vgg16-c-itop", source="Liu et al. 2021 (arXiv 2102.02887), their code")
def vgg16_c_itop(input_shape: Shape, classes: int) -> nn.Module:
    """VGG-C of the ITOP paper: its 1×1 convolutions are padded by 1, its classifier takes 2,048 numbers"""
    from itopctl.train.models.vgg import vgg16_c_itop as make

    return make(input_shape, classes)


@MODELS.add("vgg16-d", source="Simonyan and Zisserman 2015, D, with batch norm")
def vgg16_d(input_shape: Shape, classes: int) -> nn.Module:
    """VGG-16, configuration D"""
    from itopctl.train.models.vgg import vgg

    return vgg("D", input_shape, classes)


@MODELS.add("vgg19", source="Simonyan and Zisserman 2015, E, with batch norm and one linear layer")
def vgg19(input_shape: Shape, classes: int) -> nn.Module:
    """VGG-19"""
    from itopctl.train.models.vgg import vgg

    return vgg("E", input_shape, classes)


@MODELS.add("wrn-22-2", source="Zagoruyko and Komodakis 2016")
def wrn_22_2(input_shape: Shape, classes: int) -> nn.Module:
    """wide ResNet, depth 22, width 2"""
    from itopctl.train.models.wide_resnet import WideResNet

    return WideResNet(22, 2, input_shape, classes)


@MODELS.add("wrn-28-10", source="Zagoruyko and Komodakis 2016")
def wrn_28_10(input_shape: Shape, classes: int) -> nn.Module:
    """wide ResNet, depth 28, width 10"""
    from itopctl.train.models.wide_resnet import WideResNet

    return WideResNet(28, 10, input_shape, classes)
