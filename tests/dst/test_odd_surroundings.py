"""Layouts, precisions, optimizers, devices and loops of odd manners, each of which once broke something."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from itopctl.dst import Rules, SparseTraining, interval_for_exploration, layer_costs
from itopctl.dst.allocation import allocate
from itopctl.errors import UserError
from tests.dst.nets import assert_masked, backward, make_batch, make_optimizer, mlp, plain_sgd

FLAT = [
    (nn.Conv2d(4, 8, 1), (4, 5, 5)),
    (nn.Conv2d(1, 6, 3), (1, 5, 5)),
    (nn.Conv2d(6, 6, 3, groups=6), (6, 5, 5)),
    (nn.Conv2d(8, 4, 1, groups=2), (8, 5, 5)),
    (nn.ConvTranspose2d(4, 6, 1), (4, 5, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), FLAT, ids=lambda value: str(value)[:24])
@pytest.mark.parametrize("method", ["set-itop", "rigl", "snfs"])
def test_channels_last_layers_with_a_side_of_one_are_masked_like_any_other(layer, shape, method):
    masks = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = nn.Sequential(copy.deepcopy(layer), nn.Flatten()).double().to(memory_format=layout)
        sparse = SparseTraining(
            model, make_optimizer("sgd", model), method, sparsity=0.5, total_steps=9, update_interval=2
        )
        for step in range(6):
            backward(model, make_batch(shape, step).double().contiguous(memory_format=layout))
            sparse.step()
            assert_masked(model, sparse)
        masks.append(sparse.mask("0.weight"))
    assert torch.equal(*masks)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta"])
def test_an_optimizer_without_eps_makes_no_weight_off_the_mask_nan(kind):
    torch.manual_seed(0)
    model = mlp(8, 8, 4)
    optimizer = getattr(torch.optim, kind)(model.parameters(), eps=0.0)
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=0.8, total_steps=20, update_interval=50)
    for step in range(3):
        backward(model, make_batch((8,), step))
        sparse.step()
        assert_masked(model, sparse)


def test_an_eps_too_small_for_half_precision_makes_no_weight_off_the_mask_nan():
    torch.manual_seed(0)
    model = mlp(8, 8, 4).half()
    sparse = SparseTraining(
        model, torch.optim.AdamW(model.parameters(), lr=1e-3), "set-itop", sparsity=0.8, total_steps=20,
        update_interval=50,
    )  # fmt: skip
    for step in range(3):
        backward(model, make_batch((8,), step).half())
        sparse.step()
        assert_masked(model, sparse)


class Nested(torch.optim.Optimizer):
    """Keeps its average in a list, and never at zero."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                (average,) = self.state[weight].setdefault("averages", [torch.zeros_like(weight)])
                average.add_(weight.grad).add_(1.0)
                weight.sub_(average, alpha=0.01)


def test_optimizer_state_in_lists_is_masked_too():
    model = mlp(8, 8, 4)
    optimizer = Nested(model.parameters())
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=0.8, total_steps=20, update_interval=2)
    for step in range(5):
        backward(model, make_batch((8,), step))
        sparse.step()
        assert_masked(model, sparse)
        for layer in (model[0], model[2]):
            (average,) = optimizer.state[layer.weight]["averages"]
            mask = layer.weight != 0
            assert average[mask].all() and not average[~sparse.mask(f"{[*model].index(layer)}.weight")].any()


def test_a_default_device_of_the_users_own_does_not_matter():
    torch.manual_seed(0)
    model = mlp(8, 8, 4)
    batch = make_batch((8,), 0)
    with torch.device("meta"):  # the only other device there is everywhere
        sparse = SparseTraining(
            model, plain_sgd(model, 0.1), "set-itop", sparsity=0.8, total_steps=9, update_interval=1
        )
    backward(model, batch)
    with torch.device("meta"):
        assert sparse.step().replaced > 0
    assert_masked(model, sparse)


@pytest.mark.filterwarnings("ignore:Using backward")
def test_gradients_with_a_graph_of_their_own_are_averaged():
    model = mlp(8, 8, 4)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), "snfs", sparsity=0.8, total_steps=9, update_interval=2)
    for step in range(4):
        model.zero_grad()
        model(make_batch((8,), step)).square().mean().backward(create_graph=True)
        sparse.step()
        assert_masked(model, sparse)


def test_clipping_with_a_moving_average_copies_into_memory_that_is_there():
    model = mlp(64, 64, 8)
    sparse = SparseTraining(model, plain_sgd(model, 0.1), "snfs", sparsity=0.8, total_steps=99, update_interval=50)
    places = set()
    for step in range(4):
        backward(model, make_batch((64,), step))
        sparse.mask_gradients()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        places.add(sparse._step_gradients._aside["0.weight"].data_ptr())
        sparse.step()
    assert len(places) == 1


@pytest.mark.parametrize(
    ("method", "settings", "named"),
    [("rigl", {}, "growth"), ("set-itop", {"update_interval": 3}, "update_interval"),
     ("set-itop", {"drop_schedule": "linear"}, "drop_schedule")],
)  # fmt: skip
def test_a_state_of_other_rules_is_refused(method, settings, named):
    model = mlp(8, 8, 4)
    common = {"sparsity": 0.8, "total_steps": 100, "update_interval": 10}
    ours = SparseTraining(model, plain_sgd(model), "set-itop", **common)
    theirs = SparseTraining(model, plain_sgd(model), method, **{**common, **settings})
    with pytest.raises(ValueError, match=f"other rules: .*{named}"):
        theirs.load_state_dict(ours.state_dict())


def test_attention_costs_its_output_projection():
    model = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    costs = layer_costs(model, torch.randn(1, 7, 16))
    sparse = SparseTraining(model, plain_sgd(model), "static", sparsity=0.8, total_steps=10)
    assert {layer.name for layer in sparse.layers()} <= set(costs)
    assert costs["self_attn.out_proj.weight"].flops(convention="macs") == 7 * 16 * 16


def test_a_model_may_take_several_inputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(5, 4)

        def forward(self, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return self.a(one) + self.b(other)

    costs = layer_costs(Two(), torch.zeros(1, 3), torch.zeros(1, 5))
    assert [cost.uses * cost.weights for cost in costs.values()] == [12, 20]


def test_densities_given_to_every_layer_leave_one_sparsity_which_the_error_names():
    shapes, fixed = {"a": (9, 3), "b": (6, 11)}, {"a": 0.5, "b": 0.1}
    with pytest.raises(UserError, match=r"the only reachable sparsity is 0\.7838709677"):
        allocate(shapes, 0.9, fixed=fixed)
    assert sum(allocate(shapes, 0.783870967742, fixed=fixed).values()) == 20


def test_a_single_layer_is_neither_first_nor_last():
    assert allocate({"a": (2, 8)}, 0.5, "uniform-plus") == {"a": 8}


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"sparsity": "a"}, "a number in"), ({"drop_fraction": "x"}, "a number"), ({"update_interval": 2.5}, "a whole"),
     ({"update_interval": True}, "a whole"), ({"drop_schedule": "lineal"}, "Did you mean 'linear'")],
)  # fmt: skip
def test_settings_of_the_wrong_kind_are_the_users_error(settings, words):
    model = mlp(4, 4)
    with pytest.raises(UserError, match=words):
        SparseTraining(model, plain_sgd(model), "rigl", **{"sparsity": 0.5, "total_steps": 9, **settings})


def test_the_exploration_of_growth_by_gradient_is_not_predicted():
    with pytest.raises(UserError, match="known for random growth"):
        interval_for_exploration(0.5, Rules.of_method("rigl"), {"a": (10, 100)}, 1000)
