"""Small networks, optimizers and checks that the tests of sparse training share."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import torch
from hypothesis import settings
from torch import Tensor, nn

from itopctl.dst import SparseTraining
from itopctl.dst.explored_set import pack_bits

OPTIMIZERS = ("sgd", "sgd-nesterov", "adam", "adam-amsgrad", "adamw", "radam", "lion")


def modest(max_examples: int) -> settings:
    """Hypothesis settings of a property test: the same examples every time, no clock."""
    return settings(derandomize=True, deadline=None, max_examples=max_examples)


class Lion(torch.optim.Optimizer):
    """Sign of an interpolated momentum, decoupled weight decay (Chen et al. 2023): a user's own optimizer."""

    def __init__(self, params, lr: float = 1e-2, weight_decay: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_((0.9 * momentum + 0.1 * p.grad).sign(), alpha=-group["lr"])
                momentum.mul_(0.99).add_(p.grad, alpha=0.01)


def make_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """One of `OPTIMIZERS` over all parameters, with weight decay."""
    params = list(model.parameters())
    match name:
        case "sgd":
            return torch.optim.SGD(params, lr=0.05, momentum=0.9, weight_decay=0.01)
        case "sgd-nesterov":
            return torch.optim.SGD(params, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
        case "adam":
            return torch.optim.Adam(params, lr=0.01, weight_decay=0.01)
        case "adam-amsgrad":
            return torch.optim.Adam(params, lr=0.01, amsgrad=True)
        case "adamw":
            return torch.optim.AdamW(params, lr=0.01, weight_decay=0.1)
        case "radam":
            return torch.optim.RAdam(params, lr=0.01, weight_decay=0.01)
        case "lion":
            return Lion(params)
    raise ValueError(name)


def plain_sgd(model: nn.Module, lr: float = 1.0) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=lr)


def mlp(*widths: int, bias: bool = True) -> nn.Sequential:
    """Linear layers of these widths with ReLU between them."""
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(widths):
        layers += [nn.Linear(n_in, n_out, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def conv_net(channels: int = 4, classes: int = 3) -> nn.Sequential:
    """Two convolutions with batch norm, then a classifier, for images of 2×6×6."""
    return nn.Sequential(
        nn.Conv2d(2, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2 * channels * 4, classes),
    )


def make_batch(shape: tuple[int, ...], step: int, samples: int = 8) -> Tensor:
    """Inputs that depend on the step alone."""
    return torch.randn(samples, *shape, generator=torch.Generator().manual_seed(1000 + step))


def backward(model: nn.Module, inputs: Tensor) -> None:
    """One forward and backward pass towards a target that the inputs decide."""
    model.zero_grad()
    output = model(inputs)
    target = inputs.reshape(len(inputs), -1).sum(1, keepdim=True).sin()
    (output - target).square().mean().backward()


def train(model: nn.Module, sparse: SparseTraining, shape: tuple[int, ...], steps: range) -> Iterator[object]:
    """Train over these steps; yields what each step returned."""
    for step in steps:
        backward(model, make_batch(shape, step))
        yield sparse.step()


def set_by_hand(sparse: SparseTraining, weight: nn.Parameter, name: str, mask: list, values: list) -> None:
    """Give a layer the mask and the weights of a table."""
    active = torch.tensor(mask, dtype=torch.bool).reshape(weight.shape)
    state = sparse.state_dict()
    state["layers"][name]["mask"] = pack_bits(active)
    state["layers"][name]["explored"] = pack_bits(active)
    sparse.load_state_dict(state)
    with torch.no_grad():
        weight.copy_(torch.tensor(values).reshape(weight.shape))


def slots(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> dict[str, Tensor]:
    """The optimizer's tensors that hold one value for each entry of a weight."""
    state = optimizer.state.get(weight, {})
    return {key: slot for key, slot in state.items() if isinstance(slot, Tensor) and slot.shape == weight.shape}


def assert_masked(model: nn.Module, sparse: SparseTraining) -> None:
    """Counts are exact, and weights, gradients and optimizer slots are exactly zero off the masks."""
    active = 0
    for layer in sparse.layers():
        mask, weight = sparse.mask(layer.name), sparse.weight(layer.name)
        assert mask.shape == weight.shape
        assert int(mask.sum()) == layer.active
        assert 1 <= layer.active <= layer.explored <= layer.size == weight.numel()
        active += layer.active
    assert active == sparse.active
    parameters = dict(model.named_parameters())
    for name, mask in sparse.masks.items():
        weight = parameters[name]
        assert not weight[~mask].any(), f"{name} is not zero off the mask"
        assert weight.grad is None or not weight.grad[~mask].any(), f"gradient of {name}"
        for key, slot in slots(sparse.optimizer, weight).items():
            assert not slot[~mask].any(), f"{key} of {name} is not zero off the mask"
