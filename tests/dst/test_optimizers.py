"""Which optimizers hold which weights, and the state that a weight grows with."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn

from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import Lion, assert_masked, backward, make_batch, mlp, plain_sgd

BEGINS = {
    # Optimizer, its settings, and what is not zero in the state of a weight that has just been created.
    "SGD": ({"lr": 0.1, "momentum": 0.9}, {}),
    "Adam": ({"lr": 0.01, "amsgrad": True}, {}),
    "AdamW": ({"lr": 0.01}, {}),
    "NAdam": ({"lr": 0.01}, {}),
    "RAdam": ({"lr": 0.01}, {}),
    "Adamax": ({"lr": 0.01}, {}),
    "Adadelta": ({"lr": 1.0}, {}),
    "RMSprop": ({"lr": 0.01, "momentum": 0.9, "centered": True}, {}),
    "ASGD": ({"lr": 0.01}, {}),
    "Adagrad": ({"lr": 0.01, "initial_accumulator_value": 0.25}, {"sum": 0.25}),
    "Rprop": ({"lr": 0.01}, {"step_size": 0.01}),
    "Adafactor": ({"lr": 0.01}, {}),
    "Muon": ({"lr": 0.01}, {}),
}


def test_every_optimizer_of_pytorch_is_tried():
    there = {
        name
        for name in dir(torch.optim)
        if isinstance(kind := getattr(torch.optim, name), type) and issubclass(kind, torch.optim.Optimizer)
    }
    assert there - set(BEGINS) == {"Optimizer", "LBFGS", "SparseAdam"}  # refused; for sparse gradients alone


@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("name", BEGINS)
def test_a_grown_weight_has_the_state_of_a_new_one(name, compute):
    torch.manual_seed(0)
    settings, begins = BEGINS[name]
    model = mlp(20, 32, 32, 5, bias=False)
    optimizer = getattr(torch.optim, name)(model.parameters(), **settings)
    make = {"sparsity": 0.8, "total_steps": 200, "update_interval": 10, "compute": compute}
    if compute == "sparse" and name in ("Adamax", "ASGD", "Rprop", "Adafactor", "Muon"):
        with pytest.raises(UserError, match="an optimizer that treats every weight for itself"):
            SparseTraining(model, optimizer, "set", **make)
        return
    sparse = SparseTraining(model, optimizer, "set", **make)
    for step in range(20):
        before = sparse.mask("2.weight").clone()
        backward(model, make_batch((20,), step))
        update = sparse.step()
    grown = sparse.mask("2.weight") & ~before
    assert update is not None and grown.any()
    weight = sparse.weight("2.weight")
    where = grown if compute == "masked" else grown[sparse.mask("2.weight")]
    assert not weight[where].any()
    for key, slot in optimizer.state[weight].items():
        if isinstance(slot, torch.Tensor) and slot.shape == weight.shape:
            assert slot[where].unique().tolist() == [torch.tensor(begins.get(key, 0.0)).item()], key
            if compute == "masked":
                off = slot[~sparse.mask("2.weight")].unique().tolist()
                assert off == [torch.tensor(begins.get(key, 0.0)).item()] or name == "Adamax", key


def test_rprop_moves_grown_weights_as_it_moves_others():
    torch.manual_seed(0)
    model = mlp(20, 32, 5)
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.01)
    sparse = SparseTraining(model, optimizer, "rigl-itop", sparsity=0.8, total_steps=1000, update_interval=20)
    for _ in range(40):
        before = sparse.mask("0.weight").clone()
        backward(model, make_batch((20,), 0))
        sparse.step()
    grown = sparse.mask("0.weight") & ~before
    for _ in range(15):
        backward(model, make_batch((20,), 0))
        sparse.step()
    assert model[0].weight[grown].abs().median() > 0.005


def test_a_warm_up_from_zero_does_not_hide_what_a_state_begins_with():
    model = mlp(20, 32, 5)
    optimizer = torch.optim.Rprop(model.parameters(), lr=0.0)
    sparse = SparseTraining(model, optimizer, "set", sparsity=0.8, total_steps=100, update_interval=5)
    for step in range(5):
        optimizer.param_groups[0]["lr"] = 0.01 * step
        backward(model, make_batch((20,), step))
        before = sparse.mask("0.weight").clone()
        sparse.step()
    grown = sparse.mask("0.weight") & ~before
    assert optimizer.state[model[0].weight]["step_size"][grown].unique().tolist() == [torch.tensor(0.04).item()]


class Twice(torch.optim.Optimizer):
    """Steps up the slope, asks for the gradient there, and steps from where it was by it (as SAM does)."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        closure()
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        steps = [0.05 * p.grad for p in weights]
        for p, step in zip(weights, steps, strict=True):
            p.add_(step)
        closure()
        for p, step in zip(weights, steps, strict=True):
            p.sub_(step).sub_(self.param_groups[0]["lr"] * p.grad)


class Demanding(torch.optim.Optimizer):
    """An optimizer of a stranger: cannot be made from its groups' settings, and begins with a scale of 3."""

    def __init__(self, params: Any, lr: float, *, budget: object) -> None:
        self.budget = budget
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    scale = self.state[p].setdefault("scale", torch.full_like(p, 3.0))
                    scale.add_(p.grad.abs())
                    p.sub_(group["lr"] * p.grad / scale)


def test_an_optimizer_that_cannot_be_asked_tells_by_its_first_step():
    model = mlp(20, 32, 5)
    optimizer = Demanding(model.parameters(), lr=0.1, budget=object())
    sparse = SparseTraining(model, optimizer, "set", sparsity=0.8, total_steps=100, update_interval=5)
    for step in range(10):
        before = sparse.mask("0.weight").clone()
        backward(model, make_batch((20,), step))
        sparse.step()
    grown = sparse.mask("0.weight") & ~before
    assert optimizer.state[model[0].weight]["scale"][grown].unique().tolist() == [3.0]


# Who holds what -------------------------------------------------------------------------------------------


def test_weights_that_no_optimizer_holds_are_neither_masked_nor_counted():
    model = mlp(20, 32, 32, 5)
    before = {index: model[index].weight.clone() for index in (0, 2)}
    optimizer = torch.optim.SGD(model[4].parameters(), 0.1)
    with pytest.warns(UserWarning, match=r"no optimizer holds 0\.weight, 2\.weight"):
        sparse = SparseTraining(model, optimizer, "set", sparsity=0.5, total_steps=200, update_interval=5)
    assert (sparse.maskable, sparse.active) == (160, 80)
    for step in range(20):
        backward(model, make_batch((20,), step))
        sparse.step()
    assert all(torch.equal(model[index].weight, weight) for index, weight in before.items())
    assert_masked(model, sparse)


def test_several_optimizers_train_one_network():
    torch.manual_seed(0)
    model = mlp(20, 32, 32, 5)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    muon = torch.optim.Muon(matrices, lr=0.01)
    adamw = torch.optim.AdamW([p for p in model.parameters() if p.dim() == 1], lr=0.01)
    sparse = SparseTraining(model, [muon, adamw], "set-itop", sparsity=0.8, total_steps=50, update_interval=4)
    biases = model[0].bias.clone()
    for step in range(20):
        backward(model, make_batch((20,), step))
        sparse.step()
        for index in (0, 2, 4):
            off = ~sparse.mask(f"{index}.weight")
            assert not model[index].weight[off].any()
            assert not muon.state[model[index].weight]["momentum_buffer"][off].any()
    assert not torch.equal(model[0].bias, biases)
    assert sparse.active == round(0.2 * sparse.maskable)
    with pytest.raises(UserError, match="2 optimizers"):
        _ = sparse.optimizer


def test_weights_split_between_optimizers_stay_on_the_mask():
    model = mlp(20, 32, 32, 5)
    rest = [p for p in model.parameters() if p is not model[0].weight]
    optimizers = [torch.optim.SGD([model[0].weight], 0.1, momentum=0.9), torch.optim.AdamW(rest, 1e-3)]
    sparse = SparseTraining(model, optimizers, "set-itop", sparsity=0.8, total_steps=200, update_interval=10)
    for step in range(45):
        backward(model, make_batch((20,), step))
        sparse.step()
    assert all(not model[index].weight[~sparse.mask(f"{index}.weight")].any() for index in (0, 2, 4))
    assert sparse.maskable == 20 * 32 + 32 * 32 + 32 * 5


def test_a_second_optimizer_that_was_not_given_trains_its_weights_dense_and_is_told_of():
    model = mlp(20, 32, 32, 5)
    given = torch.optim.SGD([model[0].weight], 0.1)
    other = torch.optim.AdamW([p for p in model.parameters() if p is not model[0].weight], 1e-3)
    with pytest.warns(UserWarning, match=r"no optimizer holds 2\.weight, 4\.weight"):
        sparse = SparseTraining(model, given, "set-itop", sparsity=0.8, total_steps=200, update_interval=10)
    for step in range(25):
        backward(model, make_batch((20,), step))
        sparse.step()
        other.step()
    assert [layer.name for layer in sparse.layers()] == ["0.weight"]
    assert_masked(model, sparse)


def test_an_optimizer_of_another_model_is_an_error():
    model, other = mlp(8, 4), mlp(8, 4)
    with pytest.raises(UserError, match="SGD holds none of this model's parameters"):
        SparseTraining(model, plain_sgd(other), "static", sparsity=0.5, total_steps=5)
    with pytest.raises(UserError, match="SGD holds none of this model's parameters"):
        SparseTraining(model, [plain_sgd(model), plain_sgd(other)], "static", sparsity=0.5, total_steps=5)
    with pytest.raises(UserError, match="object is no optimizer"):
        SparseTraining(model, [object()], "static", sparsity=0.5, total_steps=5)
    with pytest.raises(UserError, match="no optimizer was given"):
        SparseTraining(model, [], "static", sparsity=0.5, total_steps=5)
    with pytest.raises(UserError, match="the optimizer holds no weight that can be masked"):
        SparseTraining(model, torch.optim.SGD([model[0].bias], 0.1), "static", sparsity=0.5, total_steps=5)


def test_a_group_that_is_added_later_is_told_of_and_stays_dense():
    model = mlp(20, 32, 5)
    optimizer = torch.optim.SGD(model[2].parameters(), 0.1)
    with pytest.warns(UserWarning, match="no optimizer holds"):
        sparse = SparseTraining(model, optimizer, "set", sparsity=0.5, total_steps=200, update_interval=5)
    optimizer.add_param_group({"params": list(model[0].parameters())})
    backward(model, make_batch((20,), 0))
    with pytest.warns(UserWarning, match=r"0\.weight: held by an optimizer only since"):
        sparse.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        for step in range(1, 12):
            backward(model, make_batch((20,), step))
            sparse.step()
    assert model[0].weight.all()
    assert sparse.maskable == 160


@pytest.mark.parametrize("compute", ["masked", "sparse"])
@pytest.mark.parametrize("how", ["requires_grad", "group"])
def test_a_weight_frozen_later_is_not_rewired(how, compute):
    model = mlp(20, 32, 5)
    optimizer = torch.optim.SGD(
        [{"params": list(model[0].parameters())}, {"params": list(model[2].parameters())}], 0.1, momentum=0.9
    )
    sparse = SparseTraining(model, optimizer, "set", sparsity=0.8, total_steps=200, update_interval=2, compute=compute)
    if how == "requires_grad":
        model[0].weight.requires_grad_(False)
    else:
        del optimizer.param_groups[0]
    mask, values = sparse.mask("0.weight").clone(), model[0].weight.clone()
    told = []
    for step in range(6):
        backward(model, make_batch((20,), step))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            update = sparse.step()
        told += [str(one.message) for one in caught]
    assert told == ["0.weight: not trained any more, so the topology stays as it is."]
    assert torch.equal(sparse.mask("0.weight"), mask)
    assert torch.equal(model[0].weight, values)
    assert update is not None and update.replaced > 0
    model[0].weight.requires_grad_(True)
    if how == "requires_grad":
        for step in range(4):
            backward(model, make_batch((20,), step))
            sparse.step()
        assert not torch.equal(sparse.mask("0.weight"), mask)


def test_closures_are_called_as_the_optimizer_calls_them():
    model = mlp(20, 32, 5)
    batch = make_batch((20,), 0)
    calls = []

    def closure() -> torch.Tensor:
        calls.append(1)
        model.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        return loss

    for method, expected in (("set", (2, 4)), ("rigl", (2, 3)), ("mest", (2, 4))):  # RigL's updates make no step
        for optimizer, count in zip((plain_sgd(model, 0.1), Twice(model.parameters())), expected, strict=True):
            calls.clear()
            sparse = SparseTraining(model, optimizer, method, sparsity=0.8, total_steps=20, update_interval=2)
            updates = [sparse.step(closure), sparse.step(closure=closure)]
            assert updates[0] is None
            assert updates[1] is not None and updates[1].replaced > 0
            assert_masked(model, sparse)
            assert len(calls) == count


def test_a_closure_makes_the_steps_that_backward_makes():
    batch = make_batch((20,), 0)
    found = []
    for by_closure in (False, True):
        torch.manual_seed(0)
        model = mlp(20, 32, 5)
        sparse = SparseTraining(
            model, plain_sgd(model, 0.1), "rigl-itop", sparsity=0.8, total_steps=20, update_interval=2
        )

        def closure(model: nn.Module = model) -> None:
            backward(model, batch)

        for _ in range(6):
            if by_closure:
                sparse.step(closure)
            else:
                closure()
                sparse.step()
        found.append([p.clone() for p in model.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_closures_that_cannot_be_used_are_one_sentence():
    model = mlp(8, 4)
    sparse = SparseTraining(model, Lion(model.parameters()), "static", sparsity=0.5, total_steps=20)
    with pytest.raises(UserError, match="Lion did not call the closure"):
        sparse.step(lambda: None)
    with pytest.raises(UserError, match="a scaler and a closure do not go together"):
        sparse.step(torch.amp.GradScaler("cpu"), lambda: None)
    two = [torch.optim.SGD([model[0].weight], 0.1), torch.optim.SGD([model[0].bias], 0.1)]
    with pytest.raises(UserError, match="a closure goes with one optimizer"):
        SparseTraining(model, two, "static", sparsity=0.5, total_steps=20).step(lambda: None)


class Replacing(torch.optim.Optimizer):
    """Replaces the state of a weight as a whole, and begins with a size of 0.5."""

    def __init__(self, params: Any, lr: float = 0.1, joined: bool = False) -> None:
        self.joined = joined
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if "size" not in self.state[p]:
                    begun = {"size": torch.full_like(p, 0.5)}
                    if self.joined:
                        self.state[p] |= begun
                    else:
                        self.state[p] = begun
                size = self.state[p]["size"]
                size.mul_(1 + 0.1 * p.grad.sign())
                p.sub_(group["lr"] * size * p.grad)


@pytest.mark.parametrize("joined", [False, True])
def test_a_state_that_is_replaced_as_a_whole_is_asked_for_too(joined):
    model = mlp(20, 32, 5)
    optimizer = Replacing(model.parameters(), joined=joined)
    sparse = SparseTraining(model, optimizer, "set", sparsity=0.8, total_steps=100, update_interval=5)
    for step in range(10):
        before = sparse.mask("0.weight").clone()
        backward(model, make_batch((20,), step))
        sparse.step()
    grown = sparse.mask("0.weight") & ~before
    assert optimizer.state[model[0].weight]["size"][grown].unique().tolist() == [0.5]
