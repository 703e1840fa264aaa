"""Backward passes that can be differentiated no further: loud when somebody does, and only then."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from itopctl.errors import UserError

Backward = Callable[..., Any]


def differentiable_once(backward: Backward) -> Backward:
    """Have a backward pass computed without a graph; its gradients refuse to be differentiated again.

    A graph that is asked for (`create_graph=True`) and not used costs nothing. Unlike PyTorch's decorator of this kind,
    this one also refuses where only weights and inputs, and not the incoming gradient, require a gradient: they would
    count as constants there.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *gradients: Any) -> Any:
        with torch.no_grad():
            made = backward(ctx, *gradients)
        return _Refusing.apply(torch.zeros((), requires_grad=True), *made) if torch.is_grad_enabled() else made

    return wrapped


class _Refusing(torch.autograd.Function):
    """Tensors as they are, which cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, *made: Any) -> tuple[Any, ...]:
        return tuple(part.view_as(part) if isinstance(part, Tensor) else part for part in made)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, ...]:
        raise UserError(
            "sparse layers can be differentiated once only; a loss that contains gradients (a gradient penalty, say) "
            "needs masked layers: compute='masked'."
        )
