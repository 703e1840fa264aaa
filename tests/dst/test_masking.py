"""Masking: exact to the bit for every type and layout, in no memory of its own, and without waiting for the device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from itopctl.catalogue import METHODS
from itopctl.dst import SparseTraining, masking
from itopctl.dst.masking import Masker
from tests.dst.nets import assert_masked, backward, conv_net, make_batch, make_optimizer, mlp

WORDS = {
    torch.float64: torch.int64,
    torch.float32: torch.int32,
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
}
LAYOUTS = ("contiguous", "channels_last", "transposed", "sliced", "offset", "strided", "permuted")
# Every pattern of bits that masking must keep or clear: quiet and signalling NaN with a payload, ±∞, ±0, subnormal.
SPECIAL = {
    torch.float64: (0x7FF8_0000_0000_BEEF, 0x7FF0_0000_0000_0001, 0x7FF0 << 48, -(0x10 << 48), -(2**63), 0, 1),
    torch.float32: (0x7FC0_BEEF, 0x7F80_0001, 0x7F80_0000, -0x0080_0000, -(2**31), 0, 1),
    torch.float16: (0x7E1F, 0x7C01, 0x7C00, -0x0400, -(2**15), 0, 1),
    torch.bfloat16: (0x7FDE, 0x7F81, 0x7F80, -0x0080, -(2**15), 0, 1),
}


def in_layout(layout: str, shape: tuple[int, int, int, int], dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor of this shape and dtype in memory of this kind."""
    a, b, c, d = shape
    match layout:
        case "contiguous":
            return torch.empty(shape, dtype=dtype)
        case "channels_last":
            return torch.empty(shape, dtype=dtype).to(memory_format=torch.channels_last)
        case "transposed":
            return torch.empty(b, a, c, d, dtype=dtype).transpose(0, 1)
        case "permuted":
            return torch.empty(d, b, a, c, dtype=dtype).permute(2, 1, 3, 0)
        case "sliced":
            return torch.empty(a + 3, b, c, d, dtype=dtype)[2:-1]
        case "offset":
            return torch.empty(a * b * c * d + 1, dtype=dtype)[1:].view(shape)
        case "strided":
            return torch.empty(a, b, c, 2 * d, dtype=dtype)[..., ::2]
    raise ValueError(layout)


def filled(layout: str, dtype: torch.dtype, shape: tuple[int, int, int, int]) -> Tensor:
    """Random bits, the special ones among them."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(-(2**15), 2**15 - 1, shape, generator=generator).to(WORDS[dtype])
    flat, special = words.view(-1), torch.tensor(SPECIAL[dtype], dtype=WORDS[dtype])
    flat[: len(special)] = flat[-len(special) :] = special
    tensor = in_layout(layout, shape, dtype)
    tensor.view(WORDS[dtype]).copy_(words)
    return tensor


def mask_for(tensor: Tensor, density: float) -> tuple[Tensor, Tensor]:
    """A mask as bools, and as a layer keeps it; both kinds of special values at either end are on and off it."""
    active = torch.rand(tensor.shape, generator=torch.Generator().manual_seed(2)) < density
    if 0 < density < 1:
        active.view(-1)[:7], active.view(-1)[-7:] = True, False
    keep = torch.empty_like(tensor, dtype=torch.int8)
    keep.copy_(active.to(torch.int8).neg())
    return active, keep


@pytest.mark.parametrize("dtype", list(WORDS), ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [7, 64, 210, 2**20])
@pytest.mark.parametrize("density", [0.0, 0.3, 1.0])
def test_masking_keeps_every_bit_of_what_is_active_and_makes_all_else_plus_zero(
    dtype, layout, chunk, density, monkeypatch
):
    monkeypatch.setattr(masking, "_CHUNK", chunk)
    tensor = filled(layout, dtype, (6, 5, 3, 7))
    active, keep = mask_for(tensor, density)
    words = tensor.view(WORDS[dtype])
    expected = torch.where(active, words, torch.zeros((), dtype=WORDS[dtype]))
    where, strides = tensor.data_ptr(), tensor.stride()
    Masker().mask_(tensor, keep)
    assert torch.equal(words, expected)
    assert (tensor.data_ptr(), tensor.stride()) == (where, strides)


@pytest.mark.parametrize("dtype", list(WORDS), ids=str)
def test_what_lies_around_a_slice_is_left_alone(dtype):
    whole = torch.full((9, 4), float("nan"), dtype=dtype)
    keep = torch.zeros(5, 4, dtype=torch.int8)
    Masker().mask_(whole[2:7], keep)
    assert whole[2:7].eq(0).all()
    assert whole[:2].isnan().all() and whole[7:].isnan().all()
    Masker().mask_(whole[:, 1], torch.zeros(9, dtype=torch.int8))
    assert whole[:2, [0, 2, 3]].isnan().all()
    assert whole[:, 1].eq(0).all()


@pytest.mark.parametrize("dtype", list(WORDS), ids=str)
def test_a_tensor_in_another_layout_than_its_mask_is_masked_all_the_same(dtype):
    for layout in LAYOUTS:
        tensor = filled(layout, dtype, (4, 3, 2, 5))
        active, _ = mask_for(tensor, 0.4)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            ours = tensor.clone(memory_format=torch.preserve_format)
            keep = active.to(torch.int8).neg().to(memory_format=memory_format)
            Masker().mask_(ours, keep)
            words = tensor.view(WORDS[dtype])
            assert torch.equal(ours.view(WORDS[dtype]), torch.where(active, words, torch.zeros_like(words)))


def test_one_masker_serves_tensors_of_any_size_and_type_one_after_the_other(monkeypatch):
    monkeypatch.setattr(masking, "_CHUNK", 50)
    masker, generator = Masker(), torch.Generator().manual_seed(0)
    for size in (3, 120, 1, 50, 51, 100, 7, 149):
        for dtype in WORDS:
            tensor = torch.randn(size, generator=generator).to(dtype)
            active = torch.rand(size, generator=generator) < 0.5
            expected = torch.where(active, tensor, torch.zeros((), dtype=dtype))
            masker.mask_(tensor, active.to(torch.int8).neg())
            assert torch.equal(tensor, expected)


def test_masking_a_weight_that_takes_part_in_autograd_leaves_its_graph_alone():
    weight = nn.Parameter(torch.randn(3, 3))
    Masker().mask_(weight, torch.eye(3, dtype=torch.int8).neg())
    assert weight.is_leaf and weight.requires_grad and weight.grad_fn is None
    assert weight.count_nonzero() == 3
    weight.sum().backward()
    assert weight.grad.eq(1).all()


def through_data(gradient: Tensor) -> None:
    gradient.data.add_(1.0)


def in_place(gradient: Tensor) -> None:
    gradient.add_(1.0)


def with_others(gradient: Tensor) -> None:
    torch._foreach_add_([gradient], 1.0)


def through_numpy(gradient: Tensor) -> None:
    gradient.numpy()[:] += 1.0


def train_with(change: Callable[[Tensor], None], masked_again: bool, method: str = "static") -> None:
    torch.manual_seed(0)
    model = mlp(6, 8, 6)
    optimizer = make_optimizer("sgd-nesterov", model)
    sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=10, update_interval=3)
    for step in range(4):
        backward(model, make_batch((6,), step))
        for layer in (model[0], model[2]):
            change(layer.weight.grad)
        if masked_again:
            sparse.mask_gradients()
        sparse.step()
        assert_masked(model, sparse)


@pytest.mark.parametrize("change", [in_place, with_others])
def test_a_gradient_changed_after_the_backward_pass_wakes_nothing(change):
    train_with(change, masked_again=False)


@pytest.mark.parametrize("change", [in_place, with_others, through_data, through_numpy])
def test_a_gradient_changed_behind_autograds_back_wakes_nothing_once_it_is_masked_again(change):
    train_with(change, masked_again=True)


@pytest.mark.parametrize("change", [through_data, through_numpy])
def test_weights_that_woke_are_told_at_the_next_update_and_put_back(change):
    torch.manual_seed(0)
    model = mlp(6, 8, 6)
    sparse = SparseTraining(
        model, make_optimizer("sgd", model), "set-itop", sparsity=0.5, total_steps=10, update_interval=2
    )
    for step in range(2):
        backward(model, make_batch((6,), step))
        change(model[2].weight.grad)
        if step:
            with pytest.warns(UserWarning, match=r"2\.weight: .* off the mask were not zero .* mask_gradients"):
                sparse.step()
        else:
            sparse.step()
    assert_masked(model, sparse)


# Memory ---------------------------------------------------------------------------------------------------

METHODS_WITH_SETTINGS: dict[str, dict[str, Any]] = {
    "static": {},
    "set-itop": {"update_interval": 50},
    "rigl": {"update_interval": 50},
    "snfs": {"update_interval": 50},
    "mest": {"update_interval": 50},
    "dst-ee": {"update_interval": 50},
}
SIZE = 300 * 200


def big(method: str, **settings: Any) -> tuple[nn.Module, SparseTraining]:
    torch.manual_seed(0)
    model = mlp(200, 300, 100)
    optimizer = make_optimizer("sgd-nesterov", model)
    return model, SparseTraining(model, optimizer, method, sparsity=0.9, total_steps=200, **settings)


def allocated(call: Any) -> list[int]:
    """Bytes of every allocation on the CPU during a call."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, record_shapes=True) as found:
        call()
    return sorted(event.nbytes() for event in memory_events(found) if event.nbytes() > 0)


def memory_events(found: profile) -> list[Any]:
    return [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]


@pytest.mark.parametrize("method", METHODS_WITH_SETTINGS)
def test_a_step_between_updates_allocates_no_more_than_the_optimizer_does(method):
    model, sparse = big(method, **METHODS_WITH_SETTINGS[method])
    for step in range(3):  # scratch memory and momentum come to be
        backward(model, make_batch((200,), step))
        sparse.step()
    optimizer = sparse.optimizer
    backward(model, make_batch((200,), 3))
    alone = allocated(lambda: optimizer.step())
    backward(model, make_batch((200,), 4))
    ours = allocated(lambda: sparse.step())
    assert sparse.steps_done == 4
    assert sum(ours) <= sum(alone) + 64, (ours, alone)


@pytest.mark.parametrize("method", METHODS_WITH_SETTINGS)
def test_a_whole_step_between_updates_allocates_no_more_than_in_dense_training(method):
    def bytes_of(method: str, **settings: Any) -> int:
        model, sparse = big(method, **settings)

        def go() -> None:
            model(inputs).square().mean().backward()
            sparse.step()
            sparse.optimizer.zero_grad()

        for step in range(3):
            inputs = make_batch((200,), step)
            go()
        return sum(allocated(go))

    assert bytes_of(method, **METHODS_WITH_SETTINGS[method]) <= bytes_of("dense") + 64


def test_the_profiler_sees_an_allocation_of_a_layers_size():
    weight = torch.zeros(SIZE)
    assert SIZE * 4 in allocated(lambda: weight + 1)


def test_masks_cost_one_byte_a_weight_and_explored_sets_one_bit():
    _, sparse = big("set-itop", update_interval=50)
    layers = sparse._layers
    assert len(layers) == 2
    for layer in layers:
        assert layer.keep.dtype == torch.int8
        assert layer.keep.untyped_storage().nbytes() == layer.size
        assert layer.explored.bits.untyped_storage().nbytes() == -(-layer.size // 8)
        assert layer.times_active is None


# Waiting for the device -----------------------------------------------------------------------------------

WAITING = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "item", "masked_select", "unique", "bincount",
           "_is_all_true", "_is_any_true", "argwhere", "allclose", "tolist")  # fmt: skip


class Seen(TorchDispatchMode):
    """Counts the operations that come through, and those that bring a value to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.operations[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> set[str]:
        return {name for name in self.operations if name in WAITING}


def interval_of(method: str) -> dict[str, int]:
    return {} if method in ("dense", "static") else {"update_interval": 5}


@pytest.mark.parametrize("optimizer_name", ["sgd-nesterov", "adamw"])
@pytest.mark.parametrize("method", METHODS.names())
def test_nothing_waits_for_the_device_outside_of_updates(method, optimizer_name):
    torch.manual_seed(0)
    model = conv_net()
    optimizer = make_optimizer(optimizer_name, model)
    for group in optimizer.param_groups:
        group["foreach"] = True
    if optimizer_name == "adamw":
        # Step counts are tensors on the CPU, read by the optimizer; what it waits for is not ours.
        optimizer.step = no_step
    sparse = SparseTraining(model, optimizer, method, sparsity=0.5, total_steps=30, **interval_of(method))
    for step in range(1, 12):
        backward(model, make_batch((2, 6, 6), step))
        with Seen() as seen:
            sparse.mask_gradients()
            update = sparse.step()
        if update is None:
            assert seen.waits == set(), f"step {step}: {seen.waits}"
            assert not {name for name in seen.operations if "_to_copy" in name}
        else:
            assert step % 5 == 0


def no_step(closure: object = None) -> None:
    """An optimizer's step that does nothing."""


def test_the_backward_pass_waits_for_nothing_more_than_in_dense_training():
    def operations(method: str) -> Counter[str]:
        torch.manual_seed(0)
        model = conv_net()
        sparse = SparseTraining(
            model, make_optimizer("sgd", model), method, sparsity=0.5, total_steps=30, **interval_of(method)
        )
        with Seen() as seen:
            backward(model, make_batch((2, 6, 6), 0))
        assert sparse.steps_done == 0
        return Counter({name: count for name, count in seen.operations.items() if name in (*WAITING, "_to_copy")})

    assert operations("set-itop") == operations("snfs") == operations("dense")


def test_the_mode_sees_what_waits():
    with Seen() as seen:
        assert torch.ones(3).sum().item() == 3
        torch.ones(3).nonzero()
    assert seen.waits == {"_local_scalar_dense", "nonzero"}
