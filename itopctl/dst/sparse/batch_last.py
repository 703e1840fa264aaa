"""The memory layout between sparse convolutions: [channels, height, width, batch], in tensors of shape [N, C, H, W].

A row of the products is then one channel, and a kernel offset is a shift along it. What works element by element keeps
the layout by itself; `keep_layout` makes batch norm, pooling and dense convolutions of a model do so, too. Batch norm
sees one sample of many pixels; pooling sees channels as samples and the batch as channels, laid out channels last;
dense convolutions are given ordinary images, and what they give is turned back.

Tensors that autograd Functions here return are no views: models change them in place (ReLU, residual sums).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def to_batch_last(images: Tensor) -> Tensor:
    """[N, C, H, W] as a contiguous [C, H, W, N]; a copy unless it is laid out so already."""
    turned = images.permute(1, 2, 3, 0)
    if turned.is_contiguous() or not images.is_contiguous():
        return turned.contiguous()
    # A matrix is transposed block by block; four dimensions would be copied number by number.
    return images.flatten(1).t().contiguous().view(turned.shape)


def from_batch_last(images: Tensor) -> Tensor:
    """[C, H, W, N] as [N, C, H, W], a view."""
    return images.permute(3, 0, 1, 2)


def owning_batch_last(images: Tensor) -> Tensor:
    """[C, H, W, N] that nobody else has, contiguous, as [N, C, H, W]: the same memory, but no view of it."""
    turned = from_batch_last(images)
    return images.new_empty(0).set_(images.untyped_storage(), images.storage_offset(), turned.shape, turned.stride())


def is_batch_last(images: Tensor) -> bool:
    """Whether [N, C, H, W] lies in memory as [C, H, W, N], and not as an ordinary tensor does."""
    return images.dim() == 4 and images.permute(1, 2, 3, 0).is_contiguous() and not images.is_contiguous()


def keep_layout(model: nn.Module) -> None:
    """Make what a model does to images give what it is given batch last in the same layout."""
    for module in model.modules():
        kept = _KEEPING.get(type(module))
        if kept is not None:
            module.__class__ = kept


class _Turn(torch.autograd.Function):
    """From batch last to ordinary images, or back (`last`); gradients take the other way."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, last: bool) -> Tensor:
        ctx.last = last
        return _turned(images, last)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _turned(gradient, not ctx.last), None


def _turned(images: Tensor, last: bool) -> Tensor:
    if last:
        turned = to_batch_last(images)
        return owning_batch_last(turned.clone() if turned.data_ptr() == images.data_ptr() else turned)
    if not is_batch_last(images):
        return images.clone(memory_format=torch.contiguous_format)
    turned = images.new_empty(images.shape)
    turned.flatten(1).copy_(to_batch_last(images).flatten(0, 2).t())
    return turned


class _Normalise(torch.autograd.Function):
    """Batch norm of images that lie batch last; as `torch.nn.functional.batch_norm`, which it is made of."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None,
        variance: Tensor | None, training: bool, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        turned = to_batch_last(images)
        pixels = _as_one_sample(turned)
        made, saved_mean, saved_scale = torch.native_batch_norm(
            pixels, weight, bias, mean, variance, training, momentum, eps
        )
        ctx.training, ctx.eps = training, eps
        ctx.save_for_backward(pixels, weight, mean, variance, saved_mean, saved_scale)
        return owning_batch_last(made.view(turned.shape))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight, mean, variance, saved_mean, saved_scale = ctx.saved_tensors
        turned = to_batch_last(gradient)
        of_pixels, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            _as_one_sample(turned), pixels, weight, mean, variance, saved_mean, saved_scale, ctx.training, ctx.eps,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        of_images = from_batch_last(of_pixels.view(turned.shape)) if ctx.needs_input_grad[0] else None
        return (
            of_images, of_weight if ctx.needs_input_grad[1] else None, of_bias if ctx.needs_input_grad[2] else None,
            None, None, None, None, None,
        )  # fmt: skip


def _as_one_sample(images: Tensor) -> Tensor:
    """[C, H, W, N] as [1, C, H·W, N]."""
    return images.view(1, images.shape[0], -1, images.shape[3])


class _BatchNorm(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        if not is_batch_last(input):
            return super().forward(input)
        factor = 0.0 if self.momentum is None else self.momentum
        tracked = self.track_running_stats
        if self.training and tracked and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:  # a cumulative average
                factor = 1.0 / float(self.num_batches_tracked)
        by_batch = self.training or self.running_mean is None
        kept = not self.training or tracked
        output: Tensor = _Normalise.apply(
            input, self.weight, self.bias, self.running_mean if kept else None, self.running_var if kept else None,
            by_batch, factor, self.eps,
        )  # fmt: skip
        return output


class _MaxPool(nn.MaxPool2d):
    def forward(self, input: Tensor) -> Tensor:
        if not is_batch_last(input) or self.return_indices:
            return super().forward(input)
        pooled: Tensor = super().forward(input.transpose(0, 1))
        return pooled.transpose(0, 1)


class _AvgPool(nn.AvgPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return (
            super().forward(input.transpose(0, 1)).transpose(0, 1) if is_batch_last(input) else super().forward(input)
        )


class _AdaptiveAvgPool(nn.AdaptiveAvgPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return (
            super().forward(input.transpose(0, 1)).transpose(0, 1) if is_batch_last(input) else super().forward(input)
        )


class _Convolution(nn.Conv2d):
    """A dense convolution between sparse ones."""

    def forward(self, input: Tensor) -> Tensor:
        if input.dim() != 4:
            return super().forward(input)
        ordinary = _Turn.apply(input, False) if is_batch_last(input) else input
        output: Tensor = _Turn.apply(super().forward(ordinary), True)
        return output


_KEEPING: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm2d: _BatchNorm,
    nn.MaxPool2d: _MaxPool,
    nn.AvgPool2d: _AvgPool,
    nn.AdaptiveAvgPool2d: _AdaptiveAvgPool,
    nn.Conv2d: _Convolution,
}
