"""The engine in loops that clip, scale, skip batches, or use other optimizers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from itopctl.dst import Rules, SparseTraining
from itopctl.errors import UserError


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 20, bias=False), nn.ReLU(), nn.Linear(20, 3, bias=False))


def loss_of(model: nn.Module, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.randn(16, 12, generator=generator), torch.randint(0, 3, (16,), generator=generator)
    return nn.functional.cross_entropy(model(images), labels)


def wake(model: nn.Module, sparse: SparseTraining) -> int:
    """Weights off the mask that are not zero."""
    return sum(int(weight[~sparse.mask(name)].count_nonzero()) for name, weight in model.named_parameters())


def test_a_batch_skipped_after_masking_wakes_nothing_and_leaves_no_stale_gradient() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(model, optimizer, "rigl-itop", sparsity=0.9, total_steps=10, update_interval=1)
    loss_of(model, 1).backward()
    sparse.mask_gradients()
    optimizer.zero_grad()  # the user thinks better of it
    loss_of(model, 2).backward()
    update = sparse.step()

    twin = net()
    other = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)
    plain = SparseTraining(twin, other, "rigl-itop", sparsity=0.9, total_steps=10, update_interval=1)
    loss_of(twin, 2).backward()
    assert plain.step() == update
    assert wake(model, sparse) == 0
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_unscaling_before_clipping_is_not_done_twice() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, "rigl-itop", sparsity=0.8, total_steps=10, update_interval=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(4):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        scaler.unscale_(optimizer)
        sparse.mask_gradients()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1e6)
        assert norm < 10  # of unscaled gradients
        sparse.step(scaler)
        scaler.update()
        assert wake(model, sparse) == 0


def test_an_overflow_in_the_very_first_step_is_survived() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=0.8, total_steps=10, update_interval=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for step in range(4):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, step)).backward()
        if step == 0:
            next(model.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]
        sparse.step(scaler)
        scaler.update()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert wake(model, sparse) == 0


class Mixing(torch.optim.Optimizer):
    """An optimizer that spreads each gradient over the whole matrix, as Muon and Shampoo do."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                slot = self.state[weight].setdefault("average", torch.zeros_like(weight))
                slot += weight.grad.mean()
                weight -= 0.1 * slot


def test_an_optimizer_that_mixes_weights_wakes_nothing() -> None:
    model = net()
    optimizer = Mixing(list(model.parameters()))
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=0.9, total_steps=10, update_interval=3)
    for step in range(6):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        sparse.step()
        assert wake(model, sparse) == 0
        for name, weight in model.named_parameters():
            assert not optimizer.state[weight]["average"][~sparse.mask(name)].any()


def test_adamax_keeps_its_state_empty_off_the_mask() -> None:
    model = net()
    optimizer = torch.optim.Adamax(model.parameters(), lr=0.01)
    sparse = SparseTraining(model, optimizer, "rigl-itop", sparsity=0.8, total_steps=20, update_interval=4)
    for step in range(12):
        optimizer.zero_grad()
        loss_of(model, step).backward()
        sparse.step()
    for name, weight in model.named_parameters():
        for slot in optimizer.state[weight].values():
            if slot.shape == weight.shape:
                assert not slot[~sparse.mask(name)].any()


def test_weights_that_are_not_finite_are_told_at_the_next_update() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, "set-itop", sparsity=0.5, total_steps=10, update_interval=1)
    loss_of(model).backward()
    for parameter in model.parameters():
        parameter.grad.fill_(float("inf"))  # type: ignore[union-attr]
    with pytest.raises(FloatingPointError, match=r"0\.weight .* after step 1"):
        sparse.step()


def test_a_sparse_method_asks_for_its_sparsity() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="sparsity"):
        SparseTraining(model, optimizer, "rigl-itop", total_steps=10)
    with pytest.raises(UserError, match="at least 1 step"):
        SparseTraining(model, optimizer, "dense", total_steps=0)
    assert SparseTraining(model, optimizer, "dense", total_steps=1).density == 1.0


def test_a_method_beside_explicit_rules_is_refused() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match="both given"):
        SparseTraining(model, optimizer, "set", rules=Rules.of_method("static"), sparsity=0.5, total_steps=1)


def test_a_parametrized_layer_is_named() -> None:
    model = nn.Sequential(torch.nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(UserError, match="0: its weight is computed by a parametrization"):
        SparseTraining(model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=1)


@pytest.mark.parametrize("method", ["set-itop", "rigl", "snfs"])
def test_an_overflow_in_a_bias_skips_the_update_with_the_step(method: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=10, update_interval=1)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(loss_of(model)).backward()
    model[2].bias.grad[0] = float("inf")  # type: ignore[union-attr, index]
    update = sparse.step(scaler)
    scaler.update()
    assert update is not None and update.skipped
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert scaler.get_scale() == 4.0
