"""A 2-d convolution whose weight exists at its nonzeros alone.

A row of an image, with its batch, lies in memory in one piece (`batch_last`). A row of an output is a weighted sum of
rows of the input, each shifted by its kernel column: one embedding bag makes all outputs, from the input and a shifted
copy of it for each further kernel column. So nothing is unfolded (im2col) but along the width, a nonzero costs an
entry for each row of the image, not for each pixel, and stride, padding, dilation and groups only say which rows meet.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from itopctl.dst.sparse.batch_last import from_batch_last, owning_batch_last, to_batch_last
from itopctl.dst.sparse.csr import Bags, bags_by
from itopctl.dst.sparse.module import SparseModule


@dataclass(frozen=True)
class _Side:
    """A convolution along one side of the image.

    Attributes:
        size: of the image.
        kernel, stride, padding, dilation: along this side.
    """

    size: int
    kernel: int
    stride: int
    padding: int
    dilation: int

    @property
    def outputs(self) -> int:
        """Size of the output."""
        outputs = (self.size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1) // self.stride + 1
        if outputs < 1:
            raise ValueError(f"images of {self.size} pixels are smaller than a kernel of {self.kernel}")
        return outputs

    @property
    def meetings(self) -> list[tuple[slice, slice]]:
        """`meeting` of every kernel offset."""
        return [self.meeting(offset) for offset in range(self.kernel)]

    def meeting(self, offset: int) -> tuple[slice, slice]:
        """Outputs for which a kernel offset meets the image, and the pixels that it meets there."""
        ahead = self.padding - offset * self.dilation
        first = max(0, -(-ahead // self.stride))
        count = max(0, min(self.outputs, (self.size - 1 + ahead) // self.stride + 1) - first)
        pixel = first * self.stride - ahead
        return slice(first, first + count, 1), slice(pixel, pixel + count * self.stride, self.stride)


@dataclass(frozen=True)
class _Structure:
    """Which rows of images of one height meet in the products.

    Attributes:
        forward: rows (row, output channel) of the product; sources (row, kernel column, input channel).
        backward: rows (row, input channel); sources (row, kernel column, output channel).
    """

    forward: Bags
    backward: Bags


class SparseConv2d(SparseModule, nn.Conv2d):
    """A 2-d convolution that multiplies by the nonzeros of its weight alone.

    Made of an `nn.Conv2d` that pads with zeros, in place, by `compress`. Its `weight` is one-dimensional then, the
    nonzeros in row-major order. Images are laid out batch last (`itopctl.dst.sparse.batch_last`), behind tensors of
    the usual shape.
    """

    _structures: dict[int, _Structure]

    @property
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the weight, zeros included."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    def compress(self, positions: Tensor) -> None:
        """Have nonzeros at these flat positions, ascending. Their values, `weight`, are the caller's affair."""
        super().compress(positions)
        self._structures = {}

    def forward(self, input: Tensor) -> Tensor:
        images = (input if input.dim() == 4 else input.unsqueeze(0)).to(self.weight.dtype)
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise RuntimeError(f"{self.in_channels} channels expected; the input has shape {tuple(input.shape)}")
        output: Tensor = _Convolution.apply(images, self.weight, self.bias, self)
        return output if input.dim() == 4 else output.squeeze(0)

    def dense_gradient(self, input: Tensor, gradient: Tensor) -> Tensor:
        """∂L/∂w of all weights, zeros included, of the two that `watch` was told."""
        return conv2d_weight(
            input.contiguous(), self.dense_shape, gradient.contiguous(), self.stride, self.padding, self.dilation,
            self.groups,
        )  # fmt: skip

    def sides(self, height: int, width: int) -> tuple[_Side, _Side]:
        """The convolution of images of this size, by rows and by columns."""
        assert not isinstance(self.padding, str)
        settings = zip(self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        down, right = (_Side(size, *of_side) for size, of_side in zip((height, width), settings, strict=True))
        return down, right

    def structure(self, down: _Side) -> _Structure:
        """Which rows meet in images of a height; made once for each topology."""
        if down.size not in self._structures:
            self._structures[down.size] = self._made(down)
        return self._structures[down.size]

    def _made(self, down: _Side) -> _Structure:
        positions, device = self.positions, self.positions.device
        _, fan_in, height, width = self.dense_shape
        output = positions // (fan_in * height * width)
        input = output // (self.out_channels // self.groups) * fan_in + positions // (height * width) % fan_in
        kernel_row, kernel_column = positions // width % height, positions % width
        # The output rows at which a kernel row meets the image: `first[row]`, and so many.
        meetings = [outputs for outputs, _ in down.meetings]
        first = torch.tensor([meeting.start for meeting in meetings], device=device)[kernel_row]
        counts = torch.tensor([meeting.stop - meeting.start for meeting in meetings], device=device)[kernel_row]
        value = torch.repeat_interleave(torch.arange(positions.numel(), device=device), counts)
        within = torch.arange(value.numel(), device=device) - (counts.cumsum(0) - counts)[value]
        output_row = first[value] + within
        input_row = output_row * down.stride - down.padding + kernel_row[value] * down.dilation
        column, outputs, inputs = kernel_column[value], output[value], input[value]
        input_sources = (input_row * width + column) * self.in_channels + inputs
        output_sources = (output_row * width + column) * self.out_channels + outputs
        output_rows = output_row * self.out_channels + outputs
        input_rows = input_row * self.in_channels + inputs
        forward = bags_by(output_rows, self.out_channels * down.outputs, input_sources, value)
        backward = bags_by(input_rows, self.in_channels * down.size, output_sources, value)
        return _Structure(forward, backward)


class _Convolution(torch.autograd.Function):
    """input [N, C, H, W], nonzeros [count], bias [out] or None → output [N, out, h, w], both batch last in memory."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, values: Tensor, bias: Tensor | None, layer: SparseConv2d) -> Tensor:
        down, right = layer.sides(*input.shape[2:])
        structure = layer.structure(down)
        shifted = _shifted(to_batch_last(input), right.outputs, right.meetings)
        ctx.layer, ctx.structure, ctx.right = layer, structure, right
        ctx.save_for_backward(input, values)  # the backward pass shifts it anew: kept, it would be as large as several
        product = structure.forward.product(values, shifted)
        product = product.view(down.outputs, layer.out_channels, right.outputs, input.shape[0])
        if bias is not None:
            product += bias.view(-1, 1, 1)
        return owning_batch_last(product)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, values = ctx.saved_tensors
        layer, structure, right = ctx.layer, ctx.structure, ctx.right
        images, outputs = to_batch_last(input), to_batch_last(gradient)
        of_input = of_values = None
        if ctx.needs_input_grad[0]:
            # The gradient as the input's pixels meet it: what both gradients need of it.
            met = _shifted(outputs, right.size, [(pixels, columns) for columns, pixels in right.meetings])
            of_input = from_batch_last(structure.backward.product(values, met).view(images.shape))
            bags, rows = structure.backward, images
        else:
            met = _shifted(images, right.outputs, right.meetings)
            bags, rows = structure.forward, outputs
        if ctx.needs_input_grad[1]:
            entries = bags.sampled(rows.flatten(2).flatten(0, 1), met)
            of_values = torch.zeros_like(values).index_add_(0, bags.order, entries)
        of_bias = outputs.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        layer.tell(input, gradient, not ctx.needs_input_grad[0])
        return of_input, of_values, of_bias, None


def _shifted(images: Tensor, width: int, meetings: list[tuple[slice, slice]]) -> Tensor:
    """Images [H, C, W, N] as each kernel column meets them, [H·columns·C, width·N].

    Args:
        images: batch last.
        width: of what is made.
        meetings: for each kernel column, which columns of it are which columns of the images; the others are zero.
    """
    height, channels, _, batch = images.shape
    if meetings == [(slice(0, width, 1), slice(0, width, 1))] and width == images.shape[2]:
        return images.view(height * channels, width * batch)
    tables = images.new_empty(height, len(meetings), channels, width, batch)
    for table, (columns, pixels) in zip(tables.unbind(1), meetings, strict=True):
        _put(table, columns, images[:, :, pixels])
    return tables.view(height * len(meetings) * channels, width * batch)


def _put(table: Tensor, columns: slice, values: Tensor) -> None:
    """Write values at these columns of a table [height, channels, width, batch], and zeros elsewhere."""
    if columns.step != 1 or columns.stop <= columns.start:
        table.zero_()
    else:
        table[:, :, : columns.start] = 0
        table[:, :, columns.stop :] = 0
    if columns.stop > columns.start:
        table[:, :, columns] = values
