"""A weight of which only the active entries are in memory, in a layer that computes with these alone."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.explored_set import bits_at
from itopctl.dst.gradient_masks import obey
from itopctl.dst.layer import Layer, drawn_positions
from itopctl.dst.optimizers import Optimizers
from itopctl.dst.sparse.convolution import SparseConv2d
from itopctl.dst.sparse.factored import FactoredGradient
from itopctl.dst.sparse.linear import SparseLinear
from itopctl.dst.sparse.parameter import SparseParameter
from itopctl.dst.sparse.positioned import Positioned, plain, replace, same
from itopctl.dst.top_k import located, positions, sorted_positions
from itopctl.errors import UserError


class CompressedLayer(Layer):
    """A weight of which only the active entries are in memory; the initial ones are drawn here, as of a `MaskedLayer`.

    The module becomes a sparse one in place, and its weight, the same parameter as before, one-dimensional: so the
    optimizer's state is, too.

    Attributes:
        standing: positions of the nonzeros, as the training knows them.

    Args:
        index: of the layer in its model; with the seed, it determines the draw.
        name: of the parameter.
        module: an `nn.Linear` or `nn.Conv2d` that is not sparse yet.
        active_count: in [1, number of weights).
        seed: of the training.
        counted: whether `times_active` is kept.
        dense_gradient_read: whether some rule reads the dense gradient of the coming step; not kept alive.
    """

    parameter: SparseParameter

    def __init__(
        self,
        index: int,
        name: str,
        module: nn.Linear | nn.Conv2d,
        active_count: int,
        seed: int,
        counted: bool = False,
        dense_gradient_read: Callable[[], bool] | None = None,
    ) -> None:
        weight = module.get_parameter("weight")
        super().__init__(index, name, weight, tuple(weight.shape), active_count, counted)
        active = drawn_positions(self.size, active_count, seed, index).sort().values.to(weight.device)
        self.module = compressed(module, active)
        self.standing = self._positions
        self.gradient = FactoredGradient(self.module)
        self._pending: list[tuple[int, Tensor, Tensor]] = []
        self._last: tuple[Tensor, int] | None = None
        self.attach(dense_gradient_read)
        self.start_over()

    def attach(self, dense_gradient_read: Callable[[], bool] | None) -> None:
        """Have the module and the backward pass tell of gradients; needed again in a copy."""
        self._read = None if dense_gradient_read is None else weakref.WeakMethod(dense_gradient_read)
        self.module.watch(self._passed)
        obey(self.parameter, _arriving(weakref.ref(self)))

    def __getstate__(self) -> dict[str, Any]:
        """Without what is known of the present gradient: copies of parameters have none."""
        return {
            **self.__dict__,
            "_read": None,
            "_pending": [],
            "_last": None,
            "gradient": FactoredGradient(self.module),
        }

    @property
    def _positions(self) -> Tensor:
        return self.module.positions

    @property
    def backend(self) -> str:
        """How the layer is computed."""
        return "sparse"

    @property
    def active(self) -> Tensor:
        """Bool tensor of the weight's shape, zeros included, True where active; made anew each time."""
        flags = torch.zeros(self.size, dtype=torch.bool, device=self.parameter.device)
        flags[self._positions] = True
        return flags.view(self.shape)

    def bits(self) -> Tensor:
        """Which weights are active, as `pack_bits` has it; no larger tensor is made."""
        return bits_at(self._positions, self.size)

    @property
    def row_blocks(self) -> list[tuple[int, int]]:
        """Rows, from and to, that are looked at at a time by what need not see the whole weight."""
        return self.module.row_blocks

    def active_positions(self) -> Tensor:
        """Flat (row-major) positions of the active weights, ascending."""
        return self._positions

    def values(self, entries: Tensor | None) -> Tensor:
        """The weights at these flat positions; without any, all of them, flat, zeros included."""
        own = plain(self.parameter).detach()
        if entries is self._positions:
            return own
        if entries is None:
            whole = own.new_zeros(self.size)
            whole[self._positions] = own
            return whole
        found, there = located(entries, self._positions)
        return torch.where(there, own[found], own.new_zeros(())) if own.numel() else own.new_zeros(entries.shape)

    @torch.no_grad()
    def adopt(self, optimizers: Optimizers) -> None:
        """Keep what optimizers know of the active weights, where they have made steps already."""
        for slot, _ in optimizers.state_of(self.parameter):
            if slot.shape == self.shape:
                slot.data = slot.reshape(-1)[self._positions]

    def joined(self, kept: Tensor, grown: Tensor) -> Tensor:
        """Flat positions, ascending."""
        both = sorted_positions(torch.cat([kept, grown]))
        if bool((both[1:] == both[:-1]).any()):
            raise AssertionError(f"{self.name}: kept and grown weights overlap")
        return both

    def counted(self, topology: Tensor) -> int:
        """How many weights are active in a topology."""
        return topology.numel()

    @torch.no_grad()
    def take(self, topology: Tensor, optimizers: Optimizers) -> tuple[int, int]:
        """Take over flat positions, ascending, in time that grows with their number."""
        found, there = located(topology, self._positions)
        old_shape = self.parameter.shape

        def moved(tensor: Tensor, fresh: float = 0.0) -> Tensor:
            return torch.where(there, tensor[found], tensor.new_full((), fresh))

        gradient = self.parameter.grad
        for slot, fresh in optimizers.state_of(self.parameter):
            if slot.shape == old_shape and not isinstance(slot, Positioned):
                slot.data = moved(slot, fresh)
        replace(self.parameter, moved(plain(self.parameter).detach()))
        if gradient is not None:
            self.parameter.grad = moved(gradient)
        self._stand_at(topology)
        grown = topology[~there]
        if self.times_active is not None:
            self.times_active[topology] += 1
        return grown.numel(), self.explored.add_positions(grown)

    def check_saved(self, entry: dict[str, Any]) -> None:
        """Raise ValueError unless `saved` gave this entry for a layer like this one, and the weight was loaded."""
        super().check_saved(entry)
        if self.parameter.numel() != self.saved_count(entry):
            raise ValueError(f"{self.name}: {self.parameter.numel()} nonzeros, {self.saved_count(entry)} in its mask")

    def find_gradient(self) -> None:
        """Where the weight's gradient was set by hand, find what the dense one is made of.

        `torch.autograd.grad` passes through the module, but nothing arrives at the weight. So passes that were seen
        since the last step are taken if they give, at the nonzeros, what the gradient is; or what arrived before, if
        the gradient is a multiple of it.

        Raises:
            UserError: nothing does.
        """
        gradient = self.parameter.grad
        if gradient is None or (self._last is not None and self._last[0] is gradient):
            return
        last_task = [factors for task, *factors in self._pending if task == self._pending[-1][0]]
        for passes in (last_task, [factors for _, *factors in self._pending]):
            found = FactoredGradient(self.module)
            for input, of_output in passes:
                found.add(input, of_output)
            if passes and _is_close(gradient, found.active_values()):
                found.set_active(gradient.detach().clone())
                self.gradient = found
                return
        if self._last is not None and _is_multiple(gradient, self.gradient.active_values()):
            return
        if bool((gradient != 0).any()):
            raise UserError(
                f"{self.name} is sparse and its gradient was set by hand, to other values than those of a backward "
                "pass since the last step. Its growth rule needs the gradient of all weights, zeros included: use "
                "backward() or torch.autograd.grad() of the loss once a step, or compute='masked'."
            )

    def forget_gradient(self) -> None:
        """Let what the dense gradient is made of go: the step is over."""
        self.gradient = FactoredGradient(self.module)
        self._pending, self._last = [], None

    def _passed(self, input: Tensor, gradient: Tensor, changeable: bool) -> None:
        """A backward pass has come through the module; whether it ends at the weight is not known yet."""
        read = None if self._read is None else self._read()
        if read is not None and read():
            input = input.detach().clone() if changeable else input.detach()
            self._pending.append((torch._C._current_graph_task_id(), input, gradient.detach()))

    def arrived(self) -> None:
        """A backward pass has made the weight's gradient, or added to it."""
        passes = [factors for task, *factors in self._pending if task == torch._C._current_graph_task_id()]
        self._pending = []
        gradient = self.parameter.grad
        if not passes or gradient is None:
            return
        if self._last is None or self._last[0] is not gradient or self._last[1] + 1 != gradient._version:
            self.gradient = FactoredGradient(self.module)  # what was there before has been let go
        for input, of_output in passes:
            self.gradient.add(input, of_output)
        self.gradient.set_active(gradient.detach().clone())
        self._last = gradient, gradient._version

    def _activate(self, active: Tensor) -> None:
        self._stand_at(positions(active))

    def check_in_step(self) -> None:
        """Raise UserError where the module was given another topology than the training's, by `load_state_dict`."""
        if not self.parameter.trained:  # copied or unpickled with this layer
            self.parameter.become_trained()
        if self.parameter.positions is self.standing and self.parameter.numel() == self.active_count:
            return
        if not same(self._positions, self.standing) or self.parameter.numel() != self.active_count:
            raise UserError(
                f"{self.name}: a state of another topology was loaded into the model, and the training does not know "
                "it. Load the states of the optimizer and of SparseTraining, too, which belong to it."
            )
        self.standing = self._positions

    def _stand_at(self, topology: Tensor) -> None:
        self.active_count = topology.numel()
        self.module.compress(topology)
        self.standing = self._positions


def _arriving(layer: weakref.ref[CompressedLayer]) -> Callable[[Tensor], None]:
    """A hook that ends with the training it belongs to."""

    def arrived(weight: Tensor) -> None:
        mine = layer()
        if mine is not None:
            mine.arrived()

    return arrived


def compressed(module: nn.Linear | nn.Conv2d, active: Tensor) -> SparseLinear | SparseConv2d:
    """Make a module sparse in place: its weight keeps the values at these flat positions, ascending."""
    weight = module.get_parameter("weight")
    replace(weight, weight.detach().reshape(-1)[active].clone())
    module.__class__ = SparseLinear if isinstance(module, nn.Linear) else SparseConv2d
    assert isinstance(module, (SparseLinear, SparseConv2d))
    module.watch(None)
    module.compress(active)
    return module


_ROUND_OFF = 1e-3

BACKENDS = ("masked", "sparse")
"""How a layer with inactive weights can be computed: under a mask, or with its nonzeros alone."""


def compressible(modules: Iterable[nn.Module]) -> bool:
    """Whether the modules that use a weight can compute with its nonzeros alone: one of a kind that knows how."""
    module, *others = modules
    if others or type(module) not in (nn.Linear, nn.Conv2d) or module.weight.dtype != torch.float32:
        return False
    if "forward" in module.__dict__:  # somebody has given it another one
        return False
    if not isinstance(module, nn.Conv2d):
        return True
    return module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _is_close(values: Tensor, others: Tensor) -> bool:
    """Whether two rows of numbers are the same up to round-off."""
    return bool((values - others).abs().max() <= _ROUND_OFF * others.abs().max()) if values.numel() else True


def _is_multiple(values: Tensor, others: Tensor) -> bool:
    """Whether the first row is a positive multiple of the second, up to round-off."""
    scale = float(values.abs().max() / others.abs().max()) if bool((others != 0).any()) else 0.0
    return scale > 0 and _is_close(values, others * scale)
