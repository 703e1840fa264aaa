"""Whatever is done to a network in training, in whatever order: what its masks promise holds at every forward pass."""

from __future__ import annotations

import copy
import pickle
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from itopctl.catalogue import METHODS
from itopctl.dst import Rules, SparseTraining
from tests.dst.nets import conv_net, mlp, slots

OPERATIONS = 30
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: mlp(12, 20, 8), (12,)),
    "convolution": (conv_net, (2, 6, 6)),
    "attention": (
        lambda: nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), nn.Linear(8, 4)), (5, 8),
    ),
    "recurrent": (lambda: nn.LSTM(8, 5, num_layers=2, batch_first=True), (5, 8)),
}  # fmt: skip
OPTIMIZERS: list[Callable[[nn.Module], torch.optim.Optimizer]] = [
    lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01),
    lambda model: torch.optim.Adam(model.parameters(), lr=0.01),
    lambda model: torch.optim.Rprop(model.parameters(), lr=0.01),
    lambda model: torch.optim.Adagrad(model.parameters(), lr=0.01, initial_accumulator_value=0.1),
    lambda model: torch.optim.Adamax(model.parameters(), lr=0.01),
]


class Whole:
    """A network with its optimizer and its training, and what may be done to them."""

    def __init__(self, network: str, chance: random.Random) -> None:
        self.make, self.shape = NETWORKS[network]
        self.chance = chance
        self.optimizer_of = chance.choice(OPTIMIZERS)
        interval = chance.choice([1, 2, 3])
        method = chance.choice([name for name in METHODS.names() if name != "dense"])
        self.rules = Rules.of_method(method, **({} if method == "static" else {"update_interval": interval}))
        self.sparsity, self.saved = chance.choice([0.3, 0.6, 0.8]), None
        self.begin()

    def begin(self) -> None:
        self.model = self.make()
        self.optimizer = self.optimizer_of(self.model)
        self.sparse = SparseTraining(
            self.model, self.optimizer, rules=self.rules, sparsity=self.sparsity, total_steps=60
        )

    def loss(self, model: nn.Module) -> Tensor:
        output = model(torch.randn(4, *self.shape))
        return (output[0] if isinstance(output, tuple) else output).square().mean()

    def backward(self) -> None:
        self.model.zero_grad()
        self.loss(self.model).backward()

    # What is done

    def step(self) -> None:
        self.backward()
        before = self.sparse.masks
        self.sparse.step()
        for name, mask in self.sparse.masks.items():
            weight = self.model.get_parameter(name)
            if name in before:
                assert not weight[mask & ~before[name]].any(), "what grows starts at zero"
            for slot in slots(self.optimizer, weight).values():
                assert slot[~mask].unique().numel() <= 1, "all are those of a new weight"

    def step_after_accumulation(self) -> None:
        self.loss(self.model).backward()
        self.sparse.step()

    def step_with_clipped_gradients(self) -> None:
        self.backward()
        self.sparse.mask_gradients()
        nn.utils.clip_grad_norm_(self.model.parameters(), 0.1)
        self.sparse.step()

    def step_with_a_scaler(self) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        self.model.zero_grad()
        scaler.scale(self.loss(self.model)).backward()
        gradient = next(self.model.parameters()).grad
        if gradient is not None and self.chance.random() < 0.3:
            gradient.view(-1)[0] = float("inf")
        self.sparse.step(scaler)
        scaler.update()

    @torch.no_grad()
    def write(self) -> None:
        self.chance.choice(list(self.model.parameters())).add_(0.1)

    @torch.no_grad()
    def write_between_backward_and_step(self) -> None:
        with torch.enable_grad():
            self.backward()
        for parameter in self.model.parameters():
            parameter.add_(0.01)
            if parameter.grad is not None:
                parameter.grad.add_(0.01)
        self.sparse.step()

    def initialise_anew(self) -> None:
        able = [module for module in self.model.modules() if hasattr(module, "reset_parameters")]
        self.chance.choice(able).reset_parameters()

    def zero_gradients_in_place(self) -> None:
        self.model.zero_grad(set_to_none=False)

    def freeze(self) -> None:
        self.chance.choice(list(self.model.parameters())).requires_grad_(False)

    def unfreeze(self) -> None:
        self.model.requires_grad_(True)

    def load_the_optimizer_of_a_dense_training(self) -> None:
        model = self.make()
        optimizer = self.optimizer_of(model)
        for _ in range(2):
            model.zero_grad()
            self.loss(model).backward()
            optimizer.step()
        self.optimizer.load_state_dict(optimizer.state_dict())

    def save(self) -> None:
        self.saved = copy.deepcopy([part.state_dict() for part in (self.model, self.optimizer, self.sparse)])

    def load(self) -> None:
        if self.saved is not None:
            parts: list[tuple[Any, Any]] = [*zip((self.model, self.optimizer, self.sparse), self.saved, strict=True)]
            self.chance.shuffle(parts)
            for part, state in parts:
                part.load_state_dict(copy.deepcopy(state))

    def load_into_another(self) -> None:
        if self.saved is not None:
            self.begin()
            self.load()

    def copy(self) -> None:
        way = self.chance.choice([copy.deepcopy, lambda whole: pickle.loads(pickle.dumps(whole))])
        self.model, self.optimizer, self.sparse = way((self.model, self.optimizer, self.sparse))

    def evaluate(self) -> None:
        self.model.eval()
        self.forward()
        self.model.train()

    @torch.no_grad()
    def forward(self) -> None:
        self.loss(self.model)


DONE = (
    *[Whole.step] * 6, Whole.step_after_accumulation, Whole.step_with_clipped_gradients, Whole.step_with_a_scaler,
    Whole.write, Whole.write_between_backward_and_step, Whole.initialise_anew, Whole.zero_gradients_in_place,
    Whole.freeze, Whole.unfreeze, Whole.load_the_optimizer_of_a_dense_training,
    Whole.save, Whole.load, Whole.load_into_another, Whole.copy, Whole.evaluate,
)  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*not trained any more")
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("network", NETWORKS)
def test_masks_hold_after_any_sequence_of_operations(network: str, seed: int) -> None:
    torch.manual_seed(seed)
    chance = random.Random(f"{network} {seed}")
    whole = Whole(network, chance)
    active, done = whole.sparse.active, []
    for _ in range(OPERATIONS):
        if not any(parameter.requires_grad for parameter in whole.model.parameters()):
            whole.unfreeze()
        operation = chance.choice(DONE)
        done.append(operation.__name__)
        operation(whole)
        whole.forward()
        for name, mask in whole.sparse.masks.items():
            assert not whole.model.get_parameter(name)[~mask].any(), (name, done)
        assert active == whole.sparse.active == sum(layer.active for layer in whole.sparse.layers()), done
        assert all(int(whole.sparse.mask(layer.name).sum()) == layer.active for layer in whole.sparse.layers()), done
