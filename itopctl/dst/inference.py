"""Layers that compute with nonzeros alone and are not trained: made of plain buffers, for `torch.export` to write down.

A weight is kept as its nonzeros and one index for each, whatever the images: which rows of an image meet in a
convolution is worked out at each pass, since written down it would take an index for each nonzero and row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from itopctl.dst.compressed_layer import compressible
from itopctl.dst.maskable import calls_told, modules_of


def with_nonzeros_alone(model: nn.Module, active: Mapping[str, Tensor], example: Tensor | None = None) -> nn.Module:
    """The model with its linear and 2-d convolution layers computing with their nonzeros; for inference, in place.

    Args:
        model: with dense weights.
        active: weight's name → bool tensor of its shape, True where active. A layer of another kind stays dense, and
            one with more than half of its weights, which would take more room.
        example: a batch; layers that are not called where the model is given it, since it takes their weights as they
            are, stay dense.

    Returns:
        The model, or what stands for it where it is a single layer.
    """
    weights = {name: parameter for name, parameter in model.named_parameters() if name in active}
    able = {
        cast("nn.Linear | nn.Conv2d", modules[0]): active[name]
        for name, modules in modules_of(model, weights).items()
        if 2 * int(active[name].sum()) < active[name].numel()
        and compressible(modules)
        and not (modules[0]._forward_hooks or modules[0]._forward_pre_hooks)
    }
    called = able.keys() if example is None else _called(model, example, able)
    thin: dict[nn.Module, nn.Module] = {
        layer: BagLinear(layer, mask) if isinstance(layer, nn.Linear) else BagConv2d(layer, mask)
        for layer, mask in able.items()
        if layer in called
    }
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child in thin:
                setattr(parent, name, thin[child])
    return thin.get(model, model)


@torch.no_grad()
def _called(model: nn.Module, example: Tensor, modules: Iterable[nn.Module]) -> set[nn.Module]:
    """Those of the modules that the model calls."""
    called: set[nn.Module] = set()
    with calls_told(modules, lambda module, input: called.add(module)):
        model(example)
    return called


class BagLinear(nn.Module):
    """A linear layer whose rows are sums of so many inputs, weighted: an embedding bag.

    Args:
        layer: what it stands for.
        active: bool tensor of the weight's shape.

    Attributes:
        values: nonzeros, row-major.
        sources: int32, which input each is multiplied by.
        ends: int32 [out_features + 1], where the nonzeros of each output end; the first is 0.
        bias: as of the layer.
    """

    values: Tensor
    sources: Tensor
    ends: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Linear, active: Tensor) -> None:
        super().__init__()
        weight = layer.weight.detach()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        self.register_buffer("values", weight[active].clone())
        self.register_buffer("sources", active.nonzero()[:, 1].to(torch.int32))
        self.register_buffer("ends", _ends(active))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        """[…, in_features] → […, out_features]."""
        by_feature = input.reshape(-1, self.in_features).t().contiguous()
        output = _bags(self.sources, by_feature, self.ends, self.values).t()
        if self.bias is not None:
            output = output + self.bias
        return output.reshape(*input.shape[:-1], output.shape[-1])


class BagConv2d(nn.Module):
    """A 2-d convolution whose rows of pixels are sums of so many shifted rows, weighted: an embedding bag.

    Images lie as [height, kernel column, channels, width, batch] inside, shifted for each column of the kernel, with a
    border of zeros: so the nonzeros of every row of the output are the same, each a fixed number of rows further on.

    Args:
        layer: what it stands for; pads with zeros.
        active: bool tensor of the weight's shape.

    Attributes:
        values: nonzeros, row-major.
        sources: int32, which row each is multiplied by for the first row of the output.
        ends: int32 [out_channels + 1], where the nonzeros of each output channel end; the first is 0.
        bias: as of the layer.
    """

    values: Tensor
    sources: Tensor
    ends: Tensor
    bias: Tensor | None

    def __init__(self, layer: nn.Conv2d, active: Tensor) -> None:
        super().__init__()
        output, within, row, column = active.nonzero().unbind(dim=1)
        channel = output // (layer.out_channels // layer.groups) * active.shape[1] + within
        self.in_channels, self.out_channels, self.groups = layer.in_channels, layer.out_channels, layer.groups
        self.kernel_size, self.stride, self.dilation = layer.kernel_size, layer.stride, layer.dilation
        self.padding = cast("tuple[int, int]", layer.padding)
        self.register_buffer("values", layer.weight.detach()[active].clone())
        sources = (row * self.dilation[0] * self.kernel_size[1] + column) * self.in_channels + channel
        self.register_buffer("sources", sources.to(torch.int32))
        self.register_buffer("ends", _ends(active))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, input: Tensor) -> Tensor:
        """[batch, in_channels, height, width] → [batch, out_channels, rows, columns]."""
        down, right = self.padding
        # A matrix is transposed block by block; four dimensions would be copied number by number.
        images = input.flatten(1).t().contiguous().view(*input.shape[1:], -1).transpose(0, 1)
        images = functional.pad(images, (0, 0, right, right, 0, 0, down, down))
        height, rows, columns = images.shape[0], self._outputs(0, images.shape[0]), self._outputs(1, images.shape[2])
        shifted = [images[:, :, self._span(column, columns)] for column in range(self.kernel_size[1])]
        table = torch.stack(shifted, dim=1).reshape(height * self.kernel_size[1] * self.in_channels, -1)
        row = torch.arange(rows, dtype=torch.int32, device=self.sources.device).unsqueeze(1)
        sources = self.sources + row * (self.stride[0] * self.kernel_size[1] * self.in_channels)
        ends = torch.cat([(self.ends[:-1] + row * self.sources.numel()).view(-1), self.ends[-1:] * rows])
        output = _bags(sources.view(-1), table, ends, self.values.repeat(rows))
        output = output.view(rows, -1, columns, input.shape[0]).transpose(0, 1)
        output = output.flatten(0, 2).t().contiguous().view(input.shape[0], -1, rows, columns)
        return output if self.bias is None else output + self.bias.view(-1, 1, 1)

    def _outputs(self, side: int, padded: int) -> int:
        return (padded - self.dilation[side] * (self.kernel_size[side] - 1) - 1) // self.stride[side] + 1

    def _span(self, column: int, columns: int) -> slice:
        start, stride = column * self.dilation[1], self.stride[1]
        return slice(start, start + (columns - 1) * stride + 1, stride)


def _ends(active: Tensor) -> Tensor:
    """Where the active weights of each row end; the first is 0."""
    counts = active.flatten(1).sum(dim=1)
    return functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32)


def _bags(sources: Tensor, factor: Tensor, ends: Tensor, values: Tensor) -> Tensor:
    return functional.embedding_bag(
        sources, factor, ends, mode="sum", per_sample_weights=values, include_last_offset=True
    )
