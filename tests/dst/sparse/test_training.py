"""Training with sparse layers beside the same training under masks: topology, counts, exploration, weights, slots."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from itopctl.catalogue import METHODS
from itopctl.dst import SparseTraining
from itopctl.dst.explored_set import pack_bits
from itopctl.dst.sparse.linear import SparseLinear
from itopctl.errors import UserError

STEPS = 24


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(inplace=True), nn.Linear(30, 25), nn.ReLU(), nn.Linear(25, 5))


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 12, 3, 2, 1, groups=2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(2), nn.Conv2d(12, 10, 1), nn.ReLU(), nn.Flatten(), nn.Linear(40, 5),
    )  # fmt: skip


SHAPES: dict[Callable[[], nn.Module], tuple[int, ...]] = {mlp: (16, 20), convolutions: (16, 3, 8, 8)}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-2, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.5),
}


class Run:
    """One short training; whole weights and slots can be asked for, however they are kept."""

    def __init__(self, make: Callable[[], nn.Module], optimizer: str, compute: str, method: str, **rules: Any) -> None:
        self.model, self.shape = make(), SHAPES.get(make, SHAPES[convolutions])
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        settings = {"update_interval": 4} if METHODS.options(method)["preset"].get("drop") else {}
        self.sparse = SparseTraining(
            self.model, self.optimizer, method, sparsity=rules.pop("sparsity", 0.8), total_steps=STEPS, seed=3,
            compute=compute, **settings, **rules,
        )  # fmt: skip
        self.losses: list[float] = []

    def steps(self, count: int) -> Run:
        for _ in range(count):
            generator = torch.Generator().manual_seed(len(self.losses))
            images = torch.randn(self.shape, generator=generator)
            labels = (images.flatten(1).sum(1) > 0).long()
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(images), labels)
            loss.backward()
            self.sparse.step()
            self.losses.append(float(loss.detach()))
        return self

    def whole(self, name: str, values: Tensor) -> Tensor:
        mask = self.sparse.mask(name)
        if values.shape == mask.shape:
            return values.detach()
        whole = torch.zeros(mask.shape)
        whole[mask] = values.detach()
        return whole

    def weights(self) -> dict[str, Tensor]:
        return {
            name: self.whole(name, weight) if name in self.masks() else weight.detach()
            for name, weight in self.model.named_parameters()
        }

    def slots(self) -> dict[str, Tensor]:
        names = dict(self.model.named_parameters())
        return {
            f"{name}.{key}": self.whole(name, slot) if name in self.masks() else slot
            for name, weight in names.items()
            for key, slot in self.optimizer.state.get(weight, {}).items()
            if isinstance(slot, Tensor) and slot.dim()
        }

    def masks(self) -> dict[str, Tensor]:
        return {layer.name: self.sparse.mask(layer.name) for layer in self.sparse.layers()}


def assert_alike(one: Run, other: Run) -> None:
    """The same topology and explored sets to the bit; losses, weights and slots up to round-off.

    True of trainings as short as these. In longer ones round-off may rank scores that nearly tie otherwise, from where
    on the topologies part; `python -m benchmarks agreement` counts how often.
    """
    torch.testing.assert_close(one.losses, other.losses, atol=1e-4, rtol=1e-3)
    for name, mask in one.masks().items():
        assert torch.equal(mask, other.masks()[name]), name
    ours, theirs = one.sparse.state_dict(), other.sparse.state_dict()
    for name, layer in ours["layers"].items():
        for key, value in layer.items():
            same = torch.equal(value, theirs["layers"][name][key]) if isinstance(value, Tensor) else None
            assert same if same is not None else value == theirs["layers"][name][key], (name, key)
    assert one.sparse.exploration_rate == other.sparse.exploration_rate
    for name, weight in one.weights().items():
        torch.testing.assert_close(weight, other.weights()[name], atol=1e-4, rtol=1e-3, msg=name)
    assert one.slots().keys() == other.slots().keys()
    for name, slot in one.slots().items():
        torch.testing.assert_close(slot, other.slots()[name], atol=1e-4, rtol=1e-2, msg=name)


BY_MOMENTUM = {"snfs"}
SPARSE_METHODS = sorted(name for name in METHODS.names() if name not in {"dense", *BY_MOMENTUM})


@pytest.mark.parametrize("make", [mlp, convolutions])
@pytest.mark.parametrize("method", SPARSE_METHODS)
def test_sparse_layers_train_as_masked_ones(method: str, make: Callable[[], nn.Module]) -> None:
    sparse = Run(make, "sgd", "sparse", method).steps(STEPS)
    assert sparse.sparse.compressed
    assert_alike(sparse, Run(make, "sgd", "masked", method).steps(STEPS))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", ["set-itop", "rigl-itop"])
def test_every_optimizer_works_on_nonzeros(method: str, optimizer: str) -> None:
    sparse, masked = (Run(mlp, optimizer, compute, method).steps(STEPS) for compute in ("sparse", "masked"))
    assert_alike(sparse, masked)
    for name in sparse.sparse.compressed:
        weight = dict(sparse.model.named_parameters())[name]
        for slot in sparse.optimizer.state[weight].values():
            assert not isinstance(slot, Tensor) or slot.numel() in (1, weight.numel())


@pytest.mark.parametrize(
    "rules",
    [
        {"drop": "sign-split"}, {"drop": "global-magnitude"}, {"drop": "taylor"}, {"drop": "mest"},
        {"drop": "threshold", "drop_threshold": 0.02}, {"growth": "random-unexplored"},
        {"growth": "gradient", "gradient_batches": 3}, {"growth": "sampled-gradient"},
        {"growth": "gradient-plus-exploration"}, {"redistribution": "magnitude"}, {"redistribution": "nonzeros"},
        {"redistribution": "magnitude", "growth": "gradient", "drop": "global-magnitude"},
        {"update_replaces_step": True}, {"keep_dense": ["0"], "sparsity": 0.5}, {"sparsity": 0.99},
    ],
    ids=str,
)  # fmt: skip
def test_every_rule_sees_the_same_of_both(rules: dict[str, Any]) -> None:
    sparse = Run(mlp, "sgd", "sparse", "set-itop", **rules).steps(STEPS)
    assert_alike(sparse, Run(mlp, "sgd", "masked", "set-itop", **rules).steps(STEPS))


def test_weights_gradients_and_slots_exist_only_at_the_nonzeros() -> None:
    run = Run(mlp, "adam", "sparse", "rigl-itop").steps(5)
    for layer in run.sparse.layers():
        weight = dict(run.model.named_parameters())[layer.name]
        assert weight.numel() == layer.active < layer.size
        assert weight.grad is not None and weight.grad.shape == weight.shape
        assert layer.backend == "sparse"


def test_a_weight_that_grows_starts_at_zero_with_empty_slots_and_others_keep_theirs() -> None:
    run = Run(mlp, "sgd", "sparse", "set-itop", update_replaces_step=True).steps(3)
    masks, weights, slots = run.masks(), run.weights(), run.slots()
    run.steps(1)
    for name, mask in run.masks().items():
        stayed, grown = mask & masks[name], mask & ~masks[name]
        assert grown.any()
        assert torch.equal(run.weights()[name][stayed], weights[name][stayed])
        assert not run.weights()[name][grown].any()
        slot = f"{name}.momentum_buffer"
        assert torch.equal(run.slots()[slot][stayed], slots[slot][stayed])
        assert not run.slots()[slot][grown].any()


@pytest.mark.parametrize("rules", [{}, {"redistribution": "magnitude"}], ids=str)
def test_a_state_is_gone_on_from_to_the_bit(rules: dict[str, Any]) -> None:
    whole = Run(mlp, "sgd", "sparse", "rigl-itop", **rules).steps(STEPS)
    half = Run(mlp, "sgd", "sparse", "rigl-itop", **rules).steps(10)
    saved = copy.deepcopy([half.model.state_dict(), half.optimizer.state_dict(), half.sparse.state_dict()])
    rest = Run(mlp, "sgd", "sparse", "rigl-itop", **rules)
    rest.losses = [*half.losses]
    rest.model.load_state_dict(saved[0])
    rest.optimizer.load_state_dict(saved[1])
    rest.sparse.load_state_dict(saved[2])
    rest.steps(STEPS - 10)
    assert rest.losses == whole.losses
    for name, weight in whole.weights().items():
        assert torch.equal(weight, rest.weights()[name]), name


def test_the_same_training_twice_gives_the_same_bits() -> None:
    one, other = (Run(convolutions, "sgd", "sparse", "rigl-itop").steps(STEPS) for _ in range(2))
    assert one.losses == other.losses


def test_two_backward_passes_before_a_step_add_up() -> None:
    def accumulate(run: Run) -> Run:
        for step in range(8):
            images = torch.randn(16, 20, generator=torch.Generator().manual_seed(step))
            labels = (images.sum(1) > 0).long()
            run.optimizer.zero_grad()
            for half in (slice(0, 8), slice(8, 16)):
                (nn.functional.cross_entropy(run.model(images[half]), labels[half]) / 2).backward()
            run.sparse.step()
        return run

    assert_alike(*(accumulate(Run(mlp, "sgd", compute, "rigl-itop")) for compute in ("sparse", "masked")))


def both(make: Callable[[], nn.Module], train: Callable[[Run], object], **rules: Any) -> None:
    """Train by the same loop, sparse and masked, and compare."""
    runs = [Run(make, "sgd", compute, "rigl-itop", **rules) for compute in ("sparse", "masked")]
    for run in runs:
        train(run)
    assert_alike(*runs)


def a_batch(run: Run, step: int) -> tuple[Tensor, Tensor]:
    images = torch.randn(run.shape, generator=torch.Generator().manual_seed(step))
    return images, (images.flatten(1).sum(1) > 0).long()


@pytest.mark.parametrize("make", [mlp, convolutions])
@pytest.mark.parametrize("to_none", [True, False])
def test_a_gradient_that_was_thrown_away_has_no_say(make: Callable[[], nn.Module], to_none: bool) -> None:
    def train(run: Run) -> None:
        for step in range(9):
            images, labels = a_batch(run, step)
            run.optimizer.zero_grad()
            (run.model(images * 1e3).square().sum() * float("nan" if step == 2 else 1)).backward()
            run.optimizer.zero_grad(set_to_none=to_none)
            looked_at = images.clone().requires_grad_()
            torch.autograd.grad(run.model(looked_at).sum(), looked_at)
            nn.functional.cross_entropy(run.model(images), labels).backward()
            run.sparse.step()

    if make is mlp:
        both(make, train)
    else:  # batch norm keeps statistics of what was thrown away; those that are not finite stay
        both(lambda: nn.Sequential(*[m for m in make() if not isinstance(m, nn.BatchNorm2d)]), train)


@pytest.mark.parametrize("make", [mlp, convolutions])
def test_images_may_come_in_one_buffer_that_is_used_again(make: Callable[[], nn.Module]) -> None:
    def train(run: Run) -> None:
        buffer = torch.empty(run.shape)
        for step in range(9):
            run.optimizer.zero_grad()
            for part in range(2):
                images, labels = a_batch(run, 2 * step + part)
                buffer.copy_(images)
                nn.functional.cross_entropy(run.model(buffer), labels).backward()
            buffer.zero_()
            run.sparse.step()

    both(make, train)


def test_a_penalty_on_weights_is_part_of_their_gradient() -> None:
    def train(run: Run) -> None:
        for step in range(9):
            images, labels = a_batch(run, step)
            run.optimizer.zero_grad()
            penalty = sum(weight.square().sum() for weight in run.model.parameters())
            (nn.functional.cross_entropy(run.model(images), labels) + 0.05 * penalty).backward()
            run.sparse.step()

    both(mlp, train)


@pytest.mark.parametrize("make", [mlp, convolutions])
def test_a_model_brought_back_is_the_model_it_was_though_the_topology_has_moved(make: Callable[[], nn.Module]) -> None:
    run = Run(make, "sgd", "sparse", "set-itop").steps(3)
    images, best = torch.randn(run.shape), copy.deepcopy(run.model.state_dict())
    run.model.eval()
    expected = run.model(images)
    run.model.train()
    run.steps(9)
    run.model.load_state_dict(best)
    run.model.eval()
    assert torch.equal(run.model(images), expected)
    for name, weight in run.weights().items():
        assert int(torch.count_nonzero(weight)) <= int(run.masks()[name].sum()) if name in run.masks() else True


class Views(nn.Module):
    """Looks at outputs in a way that only ordinary memory allows."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, input: Tensor) -> Tensor:
        return self.b(self.a(input).view(-1).view(len(input), 8))


def test_a_model_that_cannot_take_the_layout_stays_masked() -> None:
    model = Views()
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute="auto",
        example=torch.randn(4, 6), timed=lambda work: {"masked": 1.0, "sparse": 0.1}, allocation="uniform",
    )  # fmt: skip
    assert set(sparse.backends.values()) == {"masked"}
    model(torch.randn(4, 6)).sum().backward()


def test_outputs_of_more_dimensions_can_be_viewed() -> None:
    layer = nn.Linear(6, 8)
    SparseTraining(
        layer, torch.optim.SGD(layer.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute="sparse"
    )
    assert layer(torch.randn(4, 5, 6)).view(4, -1).shape == (4, 40)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [(nn.Linear(10, 16), (4, 20)), (nn.Conv2d(2, 8, 3), (2, 4, 7, 7)), (nn.Conv2d(2, 8, 3), (2, 1, 7, 7))],
    ids=str,
)
def test_inputs_of_a_wrong_shape_are_refused(layer: nn.Module, shape: tuple[int, ...]) -> None:
    SparseTraining(
        layer, torch.optim.SGD(layer.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute="sparse"
    )
    with pytest.raises(RuntimeError, match="expected"):
        layer(torch.randn(shape))


def test_an_optimizer_that_looks_at_whole_weights_has_masked_layers() -> None:
    model = mlp()
    optimizer = torch.optim.Adafactor(model.parameters()) if hasattr(torch.optim, "Adafactor") else None
    if optimizer is None:
        pytest.skip("this PyTorch has no such optimizer")
    with pytest.raises(UserError, match="every weight for itself"):
        SparseTraining(model, optimizer, "static", sparsity=0.5, total_steps=9, compute="sparse")


def test_a_training_may_follow_another_on_the_same_model() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = SparseTraining(model, optimizer, "static", sparsity=0.2, total_steps=9)
    second = SparseTraining(model, optimizer, "static", sparsity=0.8, total_steps=9, compute="sparse")
    model(torch.randn(3, 20)).sum().backward()
    second.step()
    assert second.compressed and not first.compressed


def test_a_copy_of_the_model_does_not_tell_of_its_passes() -> None:
    run = Run(mlp, "sgd", "sparse", "rigl-itop").steps(3)
    twin = copy.deepcopy(run.model)
    twin(torch.randn(16, 20)).sum().backward()
    assert isinstance(twin[0], SparseLinear)
    assert_alike(run.steps(STEPS - 3), Run(mlp, "sgd", "masked", "rigl-itop").steps(STEPS))


def test_layers_can_be_chosen_one_by_one() -> None:
    chosen = {"0.weight": "sparse", "3.weight": "sparse"}
    run = Run(convolutions, "sgd", chosen, "rigl-itop").steps(STEPS)  # type: ignore[arg-type]
    assert {layer.name: layer.backend for layer in run.sparse.layers()} == {
        "0.weight": "sparse", "3.weight": "sparse", "6.weight": "masked", "9.weight": "masked"
    }  # fmt: skip
    assert_alike(run, Run(convolutions, "sgd", "masked", "rigl-itop").steps(STEPS))


def test_layers_that_cannot_be_sparse_stay_masked() -> None:
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.Flatten(), shared, nn.Linear(6, 6))
    model[3].weight = shared.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, "static", sparsity=0.5, total_steps=5, compute="sparse")
    assert "sparse" not in [layer.backend for layer in sparse.layers()]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"compute": "fast"}, "Allowed: masked, sparse, auto"),
        ({"compute": "auto"}, "example"),
        ({"compute": "sparse", "method": "snfs"}, "moving average"),
        ({"compute": {"0.wieght": "sparse"}}, "Did you mean '0.weight'"),
        ({"compute": {"0.weight": "fast"}}, "cannot be computed by 'fast'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    method = settings.pop("method", "static")
    interval = {} if method == "static" else {"update_interval": 2}
    model = mlp()
    with pytest.raises(UserError, match=message):
        SparseTraining(
            model,
            torch.optim.SGD(model.parameters(), lr=0.1),
            method,
            sparsity=0.5,
            total_steps=9,
            **interval,
            **settings,
        )
    assert model[0].weight.shape == (30, 20)  # nothing was changed


def test_auto_takes_for_each_layer_what_was_measured_to_be_faster() -> None:
    model = mlp()
    asked = []

    def timed(work: Any) -> dict[str, float]:
        asked.append(work)
        return {"masked": 1.0, "sparse": 0.5 if work.weight == (30, 20) else 0.99}

    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute="auto",
        example=torch.randn(7, 20), timed=timed,
    )  # fmt: skip
    assert [layer.backend for layer in sparse.layers()] == ["sparse", "masked", "dense"]
    assert [work.input for work in asked] == [(7, 20), (7, 30)]  # the last one is dense
    assert [work.input_gradient for work in asked] == [False, True]


def test_auto_is_masked_where_rules_need_dense_gradients_at_every_step() -> None:
    model = mlp()
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), "snfs", sparsity=0.5, total_steps=9, update_interval=2,
        compute="auto",
    )  # fmt: skip
    assert "sparse" not in {layer.backend for layer in sparse.layers()}


class Encoder(nn.Module):
    """A transformer layer, which in evaluation takes the weights of its linear layers as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True, dropout=0.0)
        self.head = nn.Linear(8, 5)

    def forward(self, input: Tensor) -> Tensor:
        return self.head(self.layer(input).mean(dim=1))


@pytest.mark.parametrize("compute", ["sparse", "auto"])
def test_layers_whose_weights_are_used_without_calling_them_stay_masked(compute: str) -> None:
    model, images = Encoder(), torch.randn(3, 6, 8)
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute=compute,
        example=images, timed=lambda work: {"masked": 1.0, "sparse": 0.1}, allocation="uniform",
    )  # fmt: skip
    assert sparse.backends["head.weight"] == "sparse"
    assert sparse.backends["layer.linear1.weight"] == sparse.backends["layer.linear2.weight"] == "masked"
    model(images).sum().backward()
    with torch.no_grad():
        assert model.eval()(images).shape == (3, 5)


def test_an_optimizer_that_has_made_steps_keeps_what_it_knows_of_active_weights() -> None:
    def begun(compute: str) -> Run:
        run = Run(mlp, "adam", "masked", "dense").steps(3)
        run.sparse = SparseTraining(
            run.model, run.optimizer, "set-itop", sparsity=0.8, total_steps=STEPS, update_interval=4, compute=compute
        )
        return run.steps(9)

    assert_alike(begun("sparse"), begun("masked"))


@pytest.mark.parametrize(
    "wrap, said",
    [
        (torch.compile, "compiled"),
        (nn.DataParallel, "DataParallel"),
        (lambda model: torch.compile(nn.DataParallel(model)), ""),
        (lambda model: nn.Sequential(nn.DataParallel(model), nn.ReLU()), "DataParallel"),
    ],
)
def test_a_model_that_is_compiled_or_copied_stays_masked(wrap: Callable[[nn.Module], nn.Module], said: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match=f"{said}.*'masked' has no such limit"):
        SparseTraining(wrap(model), optimizer, "static", sparsity=0.5, total_steps=9, compute="sparse")
    sparse = SparseTraining(wrap(model), optimizer, "static", sparsity=0.5, total_steps=9, compute="auto")
    assert set(sparse.backends.values()) == {"masked"}


def test_a_model_whose_layers_are_sparse_already_is_refused() -> None:
    run = Run(mlp, "sgd", "sparse", "set-itop")
    with pytest.raises(UserError, match="sparse layer of another training"):
        SparseTraining(run.model, run.optimizer, "static", sparsity=0.5, total_steps=9)


@pytest.mark.parametrize("make", [mlp, convolutions])
def test_layers_compute_in_single_precision_under_autocast(make: Callable[[], nn.Module]) -> None:
    run = Run(make, "sgd", "sparse", "set-itop")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = run.model(torch.randn(run.shape)).float().square().mean()
    loss.backward()
    run.sparse.step()
    assert all(weight.grad.dtype == torch.float32 for weight in run.model.parameters())


def test_explored_positions_are_marked_as_masks_are() -> None:
    from itopctl.dst.explored_set import ExploredSet

    torch.manual_seed(0)
    by_mask, by_position = (ExploredSet(101, pack_bits(torch.zeros(101, dtype=torch.bool))) for _ in range(2))
    for _ in range(5):
        flags = torch.rand(101) < 0.2
        assert by_mask.add(flags) == by_position.add_positions(flags.nonzero().squeeze(1))
        assert torch.equal(by_mask.bits, by_position.bits)
        assert by_position.count == int(torch.from_numpy(__import__("numpy").unpackbits(by_mask.bits.numpy())).sum())
    assert by_mask.bits.dtype == pack_bits(flags).dtype
