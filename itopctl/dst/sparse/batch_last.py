"""The memory layout between sparse convolutions: [height, channels, width, batch], in tensors of shape [N, C, H, W].

A row of the products is then a row of one channel, a kernel column is a shift along it, and the rows that meet stand
near each other. What works element by element keeps the layout by itself; `keep_layout` makes batch norm, pooling and
dense convolutions of a model do so, too. Batch norm sees rows as samples, of the usual layout; pooling sees channels as
samples and the batch as channels, laid out channels last; dense convolutions are given ordinary images, and what they
give is turned back.

Tensors that autograd Functions here return are no views: models change them in place (ReLU, residual sums).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.sparse.derivative import differentiable_once

_LEAST_SPREAD = 1 / 16  # of a variance beside the squared mean, or it is taken of centred numbers


def to_batch_last(images: Tensor) -> Tensor:
    """[N, C, H, W] as a contiguous [H, C, W, N]; a copy unless it is laid out so already."""
    turned = images.permute(2, 1, 3, 0)
    if turned.is_contiguous() or not images.is_contiguous():
        return turned.contiguous()
    # A matrix is transposed block by block; four dimensions would be copied number by number.
    return images.flatten(1).t().contiguous().view(*images.shape[1:], images.shape[0]).transpose(0, 1).contiguous()


def from_batch_last(images: Tensor) -> Tensor:
    """[H, C, W, N] as [N, C, H, W], a view."""
    return images.permute(3, 1, 0, 2)


def owning_batch_last(images: Tensor) -> Tensor:
    """[H, C, W, N] that nobody else has, contiguous, as [N, C, H, W]: the same memory, but no view of it."""
    turned = from_batch_last(images)
    return images.new_empty(0).set_(images.untyped_storage(), images.storage_offset(), turned.shape, turned.stride())


def is_batch_last(images: Tensor) -> bool:
    """Whether [N, C, H, W] lies in memory as [H, C, W, N], and not as an ordinary tensor does."""
    return images.dim() == 4 and images.permute(2, 1, 3, 0).is_contiguous() and not images.is_contiguous()


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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _Turn.apply(gradient, not ctx.last), None


def _turned(images: Tensor, last: bool) -> Tensor:
    if last:
        turned = to_batch_last(images)
        return owning_batch_last(turned.clone() if turned.data_ptr() == images.data_ptr() else turned)
    if not is_batch_last(images):
        return images.clone(memory_format=torch.contiguous_format)
    turned = images.new_empty(images.shape)
    turned.flatten(1).copy_(images.permute(1, 2, 3, 0).contiguous().flatten(0, 2).t())
    return turned


class _Normalise(torch.autograd.Function):
    """Batch norm of images that lie batch last; as `torch.nn.functional.batch_norm`."""

    @staticmethod
    def forward(
        ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None,
        variance: Tensor | None, training: bool, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        pixels = to_batch_last(images)
        if training and pixels.device.type == "cpu":
            own_mean, own_variance = _moments(pixels)
            _follow(mean, variance, own_mean, own_variance, pixels.numel() // pixels.shape[1], momentum)
            made, *_ = torch.native_batch_norm(pixels, weight, bias, own_mean, own_variance, False, momentum, eps)
            saved_mean, saved_scale = own_mean, (own_variance + eps).rsqrt()
        else:
            made, saved_mean, saved_scale = torch.native_batch_norm(
                pixels, weight, bias, mean, variance, training, momentum, eps
            )
        ctx.training, ctx.eps = training, eps
        ctx.save_for_backward(pixels, weight, mean, variance, saved_mean, saved_scale)
        return owning_batch_last(made)

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight, mean, variance, saved_mean, saved_scale = ctx.saved_tensors
        of_pixels, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            to_batch_last(gradient), pixels, weight, mean, variance, saved_mean, saved_scale, ctx.training, ctx.eps,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        of_images = from_batch_last(of_pixels) if ctx.needs_input_grad[0] else None
        return (
            of_images, of_weight if ctx.needs_input_grad[1] else None, of_bias if ctx.needs_input_grad[2] else None,
            None, None, None, None, None,
        )  # fmt: skip


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (divided by the count) of each channel of [H, C, W, N].

    Several times as fast as PyTorch's batch norm takes them, one number at a time. Rows are summed up in their own
    precision, and their sums in double precision.
    """
    rows = images.flatten(2)
    count = rows.shape[0] * rows.shape[2]
    mean = rows.sum(dim=2).double().sum(dim=0) / count
    variance = _squares(rows) / count - mean.square()
    if bool((variance < _LEAST_SPREAD * mean.square()).any()):  # too much of it has been cancelled
        variance = _squares(rows - mean.to(rows.dtype).unsqueeze(1)) / count
    return mean.to(images.dtype), variance.to(images.dtype)


def _squares(rows: Tensor) -> Tensor:
    """Sum of squares of each channel of [rows, channels, n], in double precision."""
    return torch.linalg.vector_norm(rows, dim=2).double().square().sum(dim=0)


def _follow(
    mean: Tensor | None, variance: Tensor | None, own_mean: Tensor, own_variance: Tensor, count: int, momentum: float
) -> None:
    """Have running statistics follow those of a batch of so many pixels."""
    if mean is not None:
        mean.lerp_(own_mean.to(mean.dtype), momentum)
    if variance is not None:
        variance.lerp_((own_variance * (count / (count - 1))).to(variance.dtype), momentum)


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
        return _pooled(super().forward, input)


class _AvgPool(nn.AvgPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return _pooled(super().forward, input) if is_batch_last(input) else super().forward(input)


class _AdaptiveAvgPool(nn.AdaptiveAvgPool2d):
    def forward(self, input: Tensor) -> Tensor:
        return _pooled(super().forward, input) if is_batch_last(input) else super().forward(input)


def _pooled(pool: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Pooled, of images that lie batch last: channels are samples for it, and the batch is channels, laid out last."""
    pooled = pool(images.permute(1, 2, 3, 0).contiguous().permute(0, 3, 1, 2))
    return from_batch_last(pooled.permute(2, 0, 3, 1).contiguous())


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
