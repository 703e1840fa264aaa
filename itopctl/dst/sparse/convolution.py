"""A 2-d convolution whose weight exists at its nonzeros alone.

A row of an image, with its batch, lies in memory in one piece (`batch_last`). A row of an output is a weighted sum of
rows of the input, each shifted by its kernel column: one embedding bag makes all outputs, from a copy of the input
shifted for each kernel column (`tables`). So nothing is unfolded (im2col) but along the width, a nonzero costs an
entry for each row of the image, not for each pixel, and stride, padding, dilation and groups only say which rows meet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from itopctl.dst.sparse.batch_last import from_batch_last, owning_batch_last, to_batch_last
from itopctl.dst.sparse.csr import Bags, bags_by
from itopctl.dst.sparse.derivative import differentiable_once
from itopctl.dst.sparse.module import SparseModule
from itopctl.dst.sparse.positioned import for_kernels
from itopctl.dst.sparse.tables import Block, blocks


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

    def met_by_outputs(self, outputs: slice) -> slice:
        """Pixels between the first and the last that some outputs are made of; one at least."""
        first = outputs.start * self.stride - self.padding
        last = (outputs.stop - 1) * self.stride - self.padding + (self.kernel - 1) * self.dilation
        return _within(first, last, self.size)

    def met_by_pixels(self, pixels: slice) -> slice:
        """Outputs between the first and the last that some pixels have a part in; one at least."""
        first = -(-(pixels.start + self.padding - (self.kernel - 1) * self.dilation) // self.stride)
        last = (pixels.stop - 1 + self.padding) // self.stride
        return _within(first, last, self.outputs)

    def meeting(self, offset: int) -> tuple[slice, slice]:
        """Outputs for which a kernel offset meets the image, and the pixels that it meets there."""
        ahead = self.padding - offset * self.dilation
        first = max(0, -(-ahead // self.stride))
        count = max(0, min(self.outputs, (self.size - 1 + ahead) // self.stride + 1) - first)
        pixel = first * self.stride - ahead
        return slice(first, first + count, 1), slice(pixel, pixel + count * self.stride, self.stride)


def _within(first: int, last: int, size: int) -> slice:
    """From the first to the last, as far as they are among 0 … size − 1; one at least."""
    first = min(max(first, 0), size - 1)
    return slice(first, max(min(last, size - 1), first) + 1)


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
    _built = ("_structures",)

    @property
    def dense_shape(self) -> tuple[int, ...]:
        """Shape of the weight, zeros included."""
        return self.out_channels, self.in_channels // self.groups, *self.kernel_size

    def _build(self, positions: Tensor) -> None:
        self._structures = {}

    def forward(self, input: Tensor) -> Tensor:
        weight = self.follow()
        images = (input if input.dim() == 4 else input.unsqueeze(0)).to(weight.dtype)
        if images.dim() != 4 or images.shape[1] != self.in_channels:
            raise RuntimeError(f"{self.in_channels} channels expected; the input has shape {tuple(input.shape)}")
        output: Tensor = _Convolution.apply(images, weight, self.bias, self)
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
        positions, device = self.positions.to(self.weight.device), self.weight.device
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
        structure, images, nonzeros = layer.structure(down), to_batch_last(input), for_kernels(values)
        ctx.layer, ctx.structure, ctx.sides = layer, structure, (down, right)
        ctx.save_for_backward(input, values)  # no table is kept: it would be as large as several images
        product = images.new_empty(0)
        shape = (down.outputs, layer.out_channels, right.outputs, input.shape[0])
        for block in _of_outputs(structure, images, down, right):
            product = _with_rows(product, block, block.bags.product(nonzeros, block.table), shape)
        if bias is not None:
            product += bias.view(-1, 1, 1)
        return owning_batch_last(product)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        input, values = ctx.saved_tensors[0], for_kernels(ctx.saved_tensors[1])
        layer, structure, (down, right) = ctx.layer, ctx.structure, ctx.sides
        images, outputs = to_batch_last(input), to_batch_last(gradient)
        of_images = images.new_empty(0) if ctx.needs_input_grad[0] else None
        of_values = torch.zeros_like(values) if ctx.needs_input_grad[1] else None
        # The gradient of the weight can be had of either table: of the one that is needed anyway, or of the input's.
        made, met, walk = (images, outputs, _of_pixels) if of_images is not None else (outputs, images, _of_outputs)
        for block in walk(structure, met, down, right) if any(ctx.needs_input_grad[:2]) else ():
            if of_images is not None:
                of_images = _with_rows(of_images, block, block.bags.product(values, block.table), images.shape)
            if of_values is not None:
                entries = block.bags.sampled(made[block.rows].flatten(2).flatten(0, 1), block.table)
                assert block.bags.order is not None
                of_values.index_add_(0, block.bags.order, entries)
        of_input = None if of_images is None else from_batch_last(of_images)
        of_bias = outputs.sum(dim=(0, 2, 3)) if ctx.needs_input_grad[2] else None
        layer.tell(input, gradient, not ctx.needs_input_grad[0])
        return of_input, of_values, of_bias, None


def _with_rows(whole: Tensor, block: Block, product: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Images of this shape with the rows that a block makes: the first block's own where there is no other."""
    if block.rows == slice(0, shape[0]):
        return product.view(shape)
    if block.rows.start == 0:
        whole = product.new_empty(shape)
    whole[block.rows] = product.view(-1, *shape[1:])
    return whole


def _of_outputs(structure: _Structure, images: Tensor, down: _Side, right: _Side) -> Iterator[Block]:
    """What makes the output, of the input."""
    return blocks(structure.forward, down.outputs, images, right.outputs, right.meetings, down.met_by_outputs)


def _of_pixels(structure: _Structure, outputs: Tensor, down: _Side, right: _Side) -> Iterator[Block]:
    """What makes the gradient of the input, of that of the output."""
    back = [(pixels, columns) for columns, pixels in right.meetings]
    return blocks(structure.backward, down.size, outputs, right.size, back, down.met_by_pixels)
