"""What of a model a training masks, what it leaves dense, and what nobody trains."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

from torch import nn

from itopctl.dst.layer import Layer
from itopctl.dst.maskable import NOTHING_TO_MASK, left_dense, maskable_weights
from itopctl.dst.optimizers import Optimizers
from itopctl.errors import UserError, left_dense_in_words, named


class Scope:
    """The weights that a training masks.

    A weight that no optimizer holds is not trained: it is neither masked nor counted. One that is added to an optimizer
    later stays dense, since the sparsity is shared out by then. A masked one that is frozen later keeps its mask, and
    its topology is not changed any more. Each is told in a warning.

    Args:
        model: the inner one, where it is wrapped.
        optimizers: that train it.
        also_mask: as of `maskable_weights`.
        sparse: whether anything is to be masked; else nothing is told.

    Attributes:
        weights: name → every maskable weight that is trained.
        left_dense: name → size of every trained parameter of two or more dimensions that is not masked.
        trainable: numbers that are trained in all, biases and norms included.

    Raises:
        UserError: as of `maskable_weights`; there is nothing to mask; numbers are missing (meta device).
    """

    def __init__(self, model: nn.Module, optimizers: Optimizers, also_mask: Sequence[str], sparse: bool) -> None:
        _check_whole(model)
        self._model = model
        held = optimizers.held()
        able = maskable_weights(model, also_mask)
        if not able:
            raise UserError(f"the model has {NOTHING_TO_MASK}")
        self.weights = {name: weight for name, weight in able.items() if id(weight.parameter) in held}
        if not self.weights:
            raise UserError(
                f"the optimizer holds no weight that can be masked: {named(list(able))} would be, and are not trained."
            )
        for name, weight in self.weights.items():
            if weight.parameter.is_meta:
                raise UserError(
                    f"{name} is on the meta device, where tensors have no numbers: make the model for real."
                )
        self._outside = {
            name: weight.parameter for name, weight in able.items() if id(weight.parameter) not in held
        }  # fmt: skip
        self.left_dense = {
            name: size for name, size in left_dense(model, able).items() if id(model.get_parameter(name)) in held
        }
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad and id(parameter) in held]
        self.trainable = sum(parameter.numel() for parameter in trained)
        self._frozen: set[str] = set()
        if sparse and self._outside:
            _warn(f"no optimizer holds {named(list(self._outside))}: not trained, so neither masked nor counted.")
        if sparse and self.left_dense:
            said = left_dense_in_words(self.left_dense, self.trainable)
            _warn(f"left dense: {said}. Name them in also_mask to mask them, too.")

    def live(self, layers: Iterable[Layer], optimizers: Optimizers) -> list[Layer]:
        """The layers that are still trained; tells of the others, and of weights that are trained only now."""
        self.look(optimizers)
        held = optimizers.held()
        live: list[Layer] = []
        frozen: list[Layer] = []
        for layer in layers:
            trained = layer.parameter.requires_grad and id(layer.parameter) in held
            (live if trained else frozen).append(layer)
        new = [layer.name for layer in frozen if layer.name not in self._frozen]
        if new:
            _warn(f"{named(new)}: not trained any more, so the topology stays as it is.")
        self._frozen = {layer.name for layer in frozen}
        return live

    def look(self, optimizers: Optimizers) -> None:
        """Tell of maskable weights that an optimizer holds only now.

        Raises:
            UserError: a weight is not in the model any more.
        """
        present = {id(parameter) for parameter in self._model.parameters()}
        gone = [name for name, weight in self.weights.items() if id(weight.parameter) not in present]
        if gone:
            raise UserError(
                f"{named(gone)}: not in the model any more, where another layer or parameter was put in its place. "
                "Change the model first; then make the optimizer and SparseTraining."
            )
        held = optimizers.held()
        new = [name for name, parameter in self._outside.items() if id(parameter) in held]
        if new:
            _warn(
                f"{named(new)}: held by an optimizer only since SparseTraining was made, so trained dense, and not "
                "counted. Give the optimizer all weights first."
            )
        self._outside = {name: parameter for name, parameter in self._outside.items() if name not in new}


def _check_whole(model: nn.Module) -> None:
    if any(type(module).__module__.startswith("torch.distributed.fsdp") for module in model.modules()):
        raise UserError(
            "the model is sharded by FSDP, and a mask needs whole weights; use DistributedDataParallel."
        )  # fmt: skip


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=5)
