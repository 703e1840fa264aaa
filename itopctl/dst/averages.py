"""An average of a network's weights over its training that follows the topology: exponential, or of equal weights."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.engine import SparseTraining
from itopctl.dst.parallel import unwrapped
from itopctl.dst.sparse.parameter import SparseParameter
from itopctl.dst.sparse.positioned import same
from itopctl.errors import UserError


class WeightAverage:
    """The average of a network over the steps of its sparse training: call `update()` after `SparseTraining.step()`.

    An inactive weight counts as zero, as it does in the network. What the average is where weights are inactive now:

    - Of masked layers, by default, what they were before they were dropped: the average is dense.
    - Of sparse layers, and of masked ones with `sparse=True`, zero: the average has the network's present positions.
      What is dropped is forgotten, and what grows starts from zero.

    The two are equal at weights that have been active all along, or have grown once and stayed. At a weight that was
    dropped and has grown again, the dense average still has what is left of its earlier values. Sparse layers and
    masked ones with `sparse=True` have the same average, up to round-off. Time and memory grow with the nonzeros of a
    sparse layer.

    Args:
        model: that is trained.
        training: of this model.
        decay: the average is decay × average + (1 − decay) × network after each update, and the network at the first
            one; in [0, 1). None: all updates have equal weights (stochastic weight averaging).
        sparse: whether masked layers are zero off their present masks.
        average_buffers: whether floating-point buffers (the statistics of batch norm) are averaged; else they are the
            network's, as of the last update. `torch.optim.swa_utils.update_bn` measures them anew.

    Attributes:
        updates: how many networks the average is of.

    Raises:
        UserError: a decay out of range, or a training of another model.
    """

    def __init__(
        self,
        model: nn.Module,
        training: SparseTraining,
        decay: float | None = 0.999,
        *,
        sparse: bool = False,
        average_buffers: bool = False,
    ) -> None:
        if decay is not None and not 0 <= decay < 1:
            raise UserError(f"decay is {decay}; a number in [0, 1) expected, or None for equal weights.")
        self._model, _ = unwrapped(model)
        if not training.trains(self._model):
            raise UserError("the training is not of this model.")
        self._training, self._decay, self._average_buffers = training, decay, average_buffers
        self._sparse = sparse
        self._average = copy.deepcopy(self._model)
        self.updates = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the network as it is now."""
        share = 1.0 if self.updates == 0 else 1 / (self.updates + 1) if self._decay is None else 1 - self._decay
        for average, now in zip(self._average.parameters(), self._model.parameters(), strict=True):
            _follow(average, now.detach(), share)
        for kept, buffer in zip(self._average.buffers(), self._model.buffers(), strict=True):
            _follow(kept, buffer, share if self._average_buffers and buffer.is_floating_point() else 1.0)
        if self._sparse:
            averages = dict(self._average.named_parameters())
            for name, mask in self._training.masks.items():
                if name not in self._training.compressed:
                    averages[name].mul_(mask)
        self.updates += 1

    def network(self) -> nn.Module:
        """The averaged network: a module of the caller's own, in evaluation mode."""
        return copy.deepcopy(self._average).eval()

    @contextlib.contextmanager
    def applied(self) -> Iterator[nn.Module]:
        """The model that is trained, with the average for its weights and buffers while the context lasts.

        For evaluation, in evaluation mode: the memory is that of the average, and a step of training is refused.

        Raises:
            UserError: the topology has changed since the last update.
        """
        pairs = [
            *zip(self._model.parameters(), self._average.parameters(), strict=True),
            *zip(self._model.buffers(), self._average.buffers(), strict=True),
        ]
        for own, average in pairs:
            if isinstance(own, SparseParameter) and not same(own.positions, average.positions):  # type: ignore[attr-defined]
                raise UserError("the topology has changed since the average was updated: call update() first.")
        kept = [own.data for own, _ in pairs]
        with self._training.other_weights():
            try:
                for own, average in pairs:
                    own.data = average.data
                yield self._model
            finally:
                for (own, _), values in zip(pairs, kept, strict=True):
                    own.data = values

    def state_dict(self) -> dict[str, Any]:
        """Copies of the averaged weights and buffers, and how many networks they are the average of."""
        return {"updates": self.updates, "network": copy.deepcopy(self._average.state_dict())}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state that `state_dict` gave for the same model; dense weights may go into sparse layers.

        Raises:
            ValueError: it is no such state.
            RuntimeError: it is of another model.
        """
        if set(state) != {"updates", "network"}:
            raise ValueError("this is no state of an average")
        self._average.load_state_dict(state["network"])
        self.updates = state["updates"]


def _follow(average: Tensor, now: Tensor, share: float) -> None:
    """Go so far towards what is now; whole where the share is 1."""
    now = now.to(average.device)
    if share == 1.0:
        average.copy_(now)
    else:
        average.lerp_(now, share)
