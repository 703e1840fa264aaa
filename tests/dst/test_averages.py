"""The average of a network over its sparse training, beside averages of whole weights kept by hand."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from itopctl.dst import SparseParameter, SparseTraining, WeightAverage
from itopctl.errors import UserError

DECAY = 0.8


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 9), nn.Linear(9, 3))


def convolutions() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 3))


SHAPES: dict[Callable[[], nn.Module], tuple[int, ...]] = {perceptron: (12,), convolutions: (3, 4, 4)}


class Run:
    """A short training that moves its topology at every second step, and its average."""

    def __init__(self, compute: str, make: Callable[[], nn.Module] = perceptron, **settings: Any) -> None:
        torch.manual_seed(0)
        self.model, self.shape = make(), SHAPES[make]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=0.05, momentum=0.9)
        self.sparse = SparseTraining(
            self.model, optimizer, "rigl-itop", sparsity=0.6, total_steps=100, update_interval=2, compute=compute
        )
        self.average = WeightAverage(self.model, self.sparse, **settings)
        self.history: list[dict[str, Tensor]] = []
        self.masks: list[dict[str, Tensor]] = []

    def steps(self, count: int) -> Run:
        for _ in range(count):
            images = self.images(len(self.history))
            self.sparse.optimizer.zero_grad()
            functional.cross_entropy(self.model(images), torch.arange(8) % 3).backward()
            self.sparse.step()
            self.average.update()
            self.history.append(whole(self.model))
            self.masks.append({layer.name: self.sparse.mask(layer.name) for layer in self.sparse.layers()})
        return self

    def images(self, number: int) -> Tensor:
        return torch.randn(8, *self.shape, generator=torch.Generator().manual_seed(number))

    def active_throughout(self, name: str) -> Tensor:
        return torch.stack([masks[name] for masks in self.masks]).all(0)

    def grown_again(self, name: str) -> Tensor:
        """Entries that are active now, and were before they were dropped."""
        masks = torch.stack([masks[name] for masks in self.masks]).int()
        return (masks[-1] == 1) & ((masks[1:] - masks[:-1] == -1).any(0))

    def expected(self, decay: float | None, forgets: bool) -> dict[str, Tensor]:
        """The average of whole weights; `forgets` what is dropped."""
        average: dict[str, Tensor] = {}
        for number, (weights, masks) in enumerate(zip(self.history, self.masks, strict=True)):
            share = 1 / (number + 1) if decay is None else 1 - decay
            for name, now in weights.items():
                before = average.get(name, now)
                average[name] = before + share * (now - before)
                if forgets and name in masks:
                    average[name] = average[name] * masks[name]
        return average


def whole(model: nn.Module) -> dict[str, Tensor]:
    """Every weight of a network, zeros included, however it is kept."""
    return {
        name: parameter.dense() if isinstance(parameter, SparseParameter) else parameter.detach().clone()
        for name, parameter in model.named_parameters()
    }


def assert_alike(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert weights.keys() == expected.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(weight, expected[name], msg=name)


@pytest.mark.parametrize("make", [perceptron, convolutions])
@pytest.mark.parametrize("decay", [DECAY, None])
@pytest.mark.parametrize(
    ("compute", "sparse", "forgets"), [("masked", False, False), ("masked", True, True), ("sparse", False, True)]
)
def test_the_average_is_that_of_whole_weights_kept_by_hand(
    compute: str, sparse: bool, forgets: bool, decay: float | None, make: Callable[[], nn.Module]
) -> None:
    run = Run(compute, make, decay=decay, sparse=sparse).steps(11)
    network = run.average.network()
    assert_alike(whole(network), run.expected(decay, forgets))
    assert run.average.updates == 11
    for layer in run.sparse.layers():
        weight = whole(network)[layer.name]
        off = weight[~run.sparse.mask(layer.name)]
        assert not off.any() if forgets else layer.active == layer.size or off.any()


@pytest.mark.parametrize("decay", [DECAY, None])
def test_masked_and_sparse_have_the_same_average_up_to_what_was_forgotten(decay: float | None) -> None:
    dense, masked, sparse = (
        Run(compute, decay=decay, sparse=only).steps(30)
        for compute, only in (("masked", False), ("masked", True), ("sparse", False))
    )
    for name in sparse.sparse.compressed:
        assert torch.equal(masked.sparse.mask(name), sparse.sparse.mask(name))
    close: Any = {"atol": 1e-4, "rtol": 1e-3}
    averages = [whole(run.average.network()) for run in (dense, masked, sparse)]
    for name, average in averages[2].items():
        torch.testing.assert_close(average, averages[1][name], **close)
        if name in sparse.sparse.compressed:
            throughout, again = sparse.active_throughout(name), sparse.grown_again(name)
            assert throughout.any() and (again.any() or name != "0.weight")
            torch.testing.assert_close(average[throughout], averages[0][name][throughout], **close)
            once = sparse.sparse.mask(name) & ~again
            torch.testing.assert_close(average[once], averages[0][name][once], **close)
            assert not torch.allclose(average[again], averages[0][name][again], atol=1e-5) or not again.any()


def test_losses_of_the_averages_of_masked_and_sparse_training_agree() -> None:
    def loss_of(compute: str) -> float:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 5))
        generator = torch.Generator().manual_seed(1)
        images, labels = torch.randn(64, 20, generator=generator), torch.randint(0, 5, (64,), generator=generator)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        sparse = SparseTraining(
            model, optimizer, "rigl-itop", sparsity=0.8, total_steps=400, update_interval=10, compute=compute
        )
        average = WeightAverage(model, sparse, decay=0.9)
        for _ in range(200):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()
            sparse.step()
            average.update()
        loss = functional.cross_entropy(average.network()(images), labels)
        with average.applied() as applied:
            assert torch.equal(functional.cross_entropy(applied(images), labels), loss)
        return float(loss.detach())

    assert math.isclose(loss_of("masked"), loss_of("sparse"), abs_tol=1e-3)


@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("make", [perceptron, convolutions])
def test_the_model_has_the_average_for_its_weights_only_while_it_is_applied(
    compute: str, make: Callable[[], nn.Module]
) -> None:
    run, twin = (Run(compute, make, decay=DECAY).steps(9) for _ in range(2))
    before, images = copy.deepcopy(run.model.state_dict()), run.images(99)
    expected = run.average.network()(images)
    with run.average.applied() as model:
        assert model is run.model
        assert torch.equal(model.eval()(images), expected)
    with pytest.raises(KeyError), run.average.applied():
        raise KeyError
    run.model.train()
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())
    run.steps(5)
    twin.steps(5)
    assert_alike(whole(run.model), whole(twin.model))
    assert_alike(whole(run.average.network()), whole(twin.average.network()))


def test_an_average_of_an_earlier_topology_is_not_applied() -> None:
    run = Run("sparse").steps(3)
    run.model(run.images(0)).sum().backward()
    run.sparse.step()
    with pytest.raises(UserError, match="update"), run.average.applied():
        pass
    run.average.update()
    with run.average.applied():
        pass


def test_the_averaged_network_is_the_callers_own() -> None:
    run = Run("sparse", decay=DECAY).steps(5)
    network, images = run.average.network(), run.images(0)
    output = network(images)
    assert not network.training
    run.steps(4)
    assert torch.equal(network(images), output)
    assert not torch.equal(run.average.network()(images), output)


@pytest.mark.parametrize("average_buffers", [True, False])
def test_buffers_are_averaged_or_those_of_the_network(average_buffers: bool) -> None:
    run = Run("sparse", decay=DECAY, average_buffers=average_buffers)
    average = None
    for _ in range(5):
        run.steps(1)
        now = run.model.get_buffer("1.running_mean").clone()
        average = now if average is None or not average_buffers else average * DECAY + now * (1 - DECAY)
    torch.testing.assert_close(run.average.network().get_buffer("1.running_mean"), average)
    assert run.average.network().get_buffer("1.num_batches_tracked") == 5


@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("decay", [DECAY, None])
def test_an_average_goes_on_from_its_state(decay: float | None, compute: str) -> None:
    through, first = Run(compute, decay=decay), Run(compute, decay=decay).steps(5)
    through.steps(5)
    parts = (first.model, first.sparse.optimizer, first.sparse, first.average)
    states = [copy.deepcopy(part.state_dict()) for part in parts]
    first.steps(3)  # a state is a copy
    rest = Run(compute, decay=decay)
    for part, state in zip((rest.model, rest.sparse.optimizer, rest.sparse, rest.average), states, strict=True):
        part.load_state_dict(state)
    rest.history, rest.masks = [*through.history], [*through.masks]
    through.steps(6)
    rest.steps(6)
    assert rest.average.updates == 11
    assert_alike(whole(rest.average.network()), whole(through.average.network()))
    with pytest.raises(ValueError, match="no state of an average"):
        rest.average.load_state_dict(states[0])


def test_what_an_average_cannot_be_of_is_refused() -> None:
    run = Run("sparse")
    with pytest.raises(UserError, match="decay"):
        WeightAverage(run.model, run.sparse, decay=1.5)
    with pytest.raises(UserError, match="not of this model"):
        WeightAverage(perceptron(), run.sparse)


def test_the_average_of_sparse_layers_takes_the_room_of_their_nonzeros() -> None:
    run = Run("sparse").steps(4)
    network = run.average.network()
    for name, parameter in run.model.named_parameters():
        assert network.get_parameter(name).shape == parameter.shape
