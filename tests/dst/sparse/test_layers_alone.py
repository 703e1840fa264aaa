"""Sparse layers beside the dense ones that hold the same weights: outputs and gradients, at any shape."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from itopctl.dst import SparseTraining
from itopctl.dst.compressed_layer import compressed
from itopctl.dst.sparse import tables
from itopctl.dst.sparse.batch_last import from_batch_last, is_batch_last, keep_layout, to_batch_last
from itopctl.dst.sparse.csr import Csr
from itopctl.errors import UserError


def _active(size: int, share: float, seed: int) -> Tensor:
    count = round(share * size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count].sort().values


def _both(module: nn.Linear | nn.Conv2d, share: float) -> tuple[nn.Module, nn.Module, Tensor]:
    """The module made sparse, a dense twin whose other weights are zero, and the positions of the nonzeros."""
    active = _active(module.weight.numel(), share, 0)
    twin = copy.deepcopy(module)
    with torch.no_grad():
        mask = torch.zeros(module.weight.numel())
        mask[active] = 1
        twin.weight.mul_(mask.view_as(twin.weight))
    return compressed(module, active), twin, active


def _assert_alike(module: nn.Module, twin: nn.Module, active: Tensor, shape: tuple[int, ...]) -> None:
    module.zero_grad()
    twin.zero_grad()
    ours = torch.randn(shape, dtype=module.get_parameter("weight").dtype).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    output, expected = module(ours), twin(theirs)
    gradient = torch.randn_like(expected)
    output.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(output, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(module.weight.grad, twin.weight.grad.flatten()[active], atol=2e-4, rtol=1e-3)
    if twin.bias is not None:
        torch.testing.assert_close(module.bias.grad, twin.bias.grad, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(module.dense_gradient(ours, gradient), twin.weight.grad, atol=2e-4, rtol=1e-3)


@settings(deadline=None, max_examples=100)
@given(
    inputs=st.integers(1, 12), outputs=st.integers(1, 12), batch=st.integers(1, 9), share=st.floats(0, 1),
    bias=st.booleans(),
)  # fmt: skip
def test_a_sparse_linear_layer_computes_what_the_dense_one_with_zeros_does(
    inputs: int, outputs: int, batch: int, share: float, bias: bool
) -> None:
    module, twin, active = _both(nn.Linear(inputs, outputs, bias), share)
    _assert_alike(module, twin, active, (batch, inputs))


def test_a_sparse_linear_layer_takes_inputs_of_more_dimensions() -> None:
    module, twin, _ = _both(nn.Linear(6, 4), 0.3)
    images = torch.randn(2, 3, 5, 6)
    torch.testing.assert_close(module(images), twin(images))
    torch.testing.assert_close(module(images[0, 0, 0]), twin(images[0, 0, 0]))


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_sparse_convolution_computes_what_the_dense_one_with_zeros_does(data: st.DataObject) -> None:
    def pair(least: int, most: int) -> tuple[int, int]:
        return data.draw(st.tuples(st.integers(least, most), st.integers(least, most)))

    groups = data.draw(st.integers(1, 3))
    inputs, outputs = (groups * data.draw(st.integers(1, 3)) for _ in range(2))
    kernel, stride, padding, dilation = pair(1, 4), pair(1, 3), pair(0, 2), pair(1, 2)
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, groups, data.draw(st.booleans()))
    module, twin, active = _both(convolution, data.draw(st.floats(0, 1)))
    _assert_alike(module, twin, active, (data.draw(st.integers(1, 3)), inputs, *pair(7, 10)))


def test_numbers_at_the_end_of_a_row_do_not_run_over_into_the_next() -> None:
    module, twin, active = _both(nn.Conv2d(2, 2, 3, padding=1), 1.0)
    images = torch.zeros(1, 2, 3, 3)
    images[0, :, :, 2] = 1e6  # the last column, beside the border and the next row
    torch.testing.assert_close(module(images), twin(images), rtol=1e-4, atol=1.0)
    assert active.numel() == twin.weight.numel()


@pytest.mark.parametrize("input_gradient", [True, False])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [(3, 1, 1, 1), (3, 2, 1, 1), (1, 1, 0, 1), (1, 2, 0, 1), (2, 3, 4, 2), (4, 1, 0, 2), ((2, 3), (3, 1), (0, 2), 1)],
)
def test_blocks_of_rows_change_no_bit(
    monkeypatch: pytest.MonkeyPatch, kernel: Any, stride: Any, padding: Any, dilation: int, input_gradient: bool
) -> None:
    module, twin, active = _both(nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups=2), 0.4)
    images = torch.randn(3, 4, 9, 8)
    whole = _made(module, images, input_gradient)
    for largest in (1, 3000):  # bytes of a block: every row its own, some rows
        monkeypatch.setattr(tables, "_LARGEST", largest)
        for ours, expected in zip(_made(module, images, input_gradient), whole, strict=True):
            assert torch.equal(ours, expected)
        _assert_alike(module, twin, active, (3, 4, 9, 8))


def _made(module: nn.Module, images: Tensor, input_gradient: bool) -> list[Tensor]:
    """A layer's output, and the gradients of its sum of squares."""
    images, weight = images.clone().requires_grad_(input_gradient), module.get_parameter("weight")
    output = module(images)
    return [output, *torch.autograd.grad(output.square().sum(), [weight, *([images] if input_gradient else [])])]


def test_the_memory_of_tables_outlives_inference_mode_and_serves_other_types() -> None:
    module, twin, active = _both(nn.Conv2d(2, 3, 3, padding=1), 0.5)
    tables._kept.__dict__.clear()
    with torch.inference_mode():
        module(torch.randn(2, 2, 5, 5))
    _assert_alike(module, twin, active, (4, 2, 5, 5))
    _assert_alike(module.double(), twin.double(), active, (4, 2, 5, 5))


@given(shape=st.tuples(*[st.integers(1, 4)] * 4), order=st.permutations(range(4)))
def test_images_are_turned_and_back_from_whatever_layout(shape: tuple[int, ...], order: list[int]) -> None:
    images = torch.randn([shape[side] for side in order]).permute([order.index(side) for side in range(4)])
    turned = to_batch_last(images)
    assert turned.is_contiguous() and turned.shape == (shape[2], shape[1], shape[3], shape[0])
    assert torch.equal(from_batch_last(turned), images)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (1000.0, 1.0), (-30.0, 0.01), (5.0, 0.0), (0.0, 0.0)])
def test_batch_norm_is_exact_whatever_mean_and_spread(mean: float, spread: float) -> None:
    torch.manual_seed(0)
    images = from_batch_last(torch.randn(6, 4, 5, 7) * spread + mean)
    images[:, 0] = torch.randn(7, 6, 5)  # one channel is like any
    module = nn.BatchNorm2d(4)
    nn.init.uniform_(module.weight)
    twin = copy.deepcopy(module).double()
    keep_layout(nn.Sequential(module))
    ours, theirs = images.clone().requires_grad_(), images.double().requires_grad_()
    assert is_batch_last(ours)
    output, expected = module(ours), twin(theirs)
    gradient = torch.randn_like(expected)
    output.backward(gradient.float())
    expected.backward(gradient)
    near = {"atol": 2e-4 * max(1.0, abs(mean) / 10), "rtol": 1e-3, "check_dtype": False}
    torch.testing.assert_close(output, expected, **near)
    torch.testing.assert_close(module.running_mean, twin.running_mean, check_dtype=False)
    torch.testing.assert_close(module.running_var, twin.running_var, rtol=1e-5, atol=1e-7, check_dtype=False)
    if spread > 0:
        largest = float(theirs.grad.abs().max())  # grows as 1 / spread
        torch.testing.assert_close(ours.grad, theirs.grad, atol=2e-4 * largest, rtol=1e-3, check_dtype=False)
    module.eval()
    twin.eval()
    torch.testing.assert_close(module(ours), twin(theirs), **near)


@pytest.mark.parametrize("stage", ["batch norm", "max pool", "average pool", "adaptive pool", "relu", "sum", "flatten"])
def test_what_stands_between_convolutions_keeps_their_layout_and_computes_the_same(stage: str) -> None:
    module = {
        "batch norm": nn.BatchNorm2d(4), "max pool": nn.MaxPool2d(3, 2, 1), "average pool": nn.AvgPool2d(2),
        "adaptive pool": nn.AdaptiveAvgPool2d(2), "relu": nn.ReLU(), "sum": nn.Identity(), "flatten": nn.Flatten(),
    }[stage]  # fmt: skip
    twin = copy.deepcopy(module)
    keep_layout(module if stage != "batch norm" else nn.Sequential(module))
    images = torch.randn(6, 4, 6, 5).permute(3, 1, 0, 2).requires_grad_()
    plain = images.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
    output, expected = module(images), twin(plain)
    if stage == "sum":
        output, expected = output + images, expected + plain
    torch.testing.assert_close(output, expected)
    assert stage == "flatten" or is_batch_last(output)
    gradient = torch.randn_like(expected)
    output.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(images.grad, plain.grad)
    for (name, ours), theirs in zip(module.state_dict().items(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=name)


@given(rows=st.integers(1, 9), columns=st.integers(1, 9), share=st.floats(0, 1))
def test_the_structure_by_columns_is_the_transposed_one(rows: int, columns: int, share: float) -> None:
    active = _active(rows * columns, share, 1)
    values = torch.randn(active.numel())
    whole = torch.zeros(rows * columns)
    whole[active] = values
    structure = Csr(active, (rows, columns))
    torch.testing.assert_close(structure.by_rows.product(values, torch.eye(columns)), whole.view(rows, columns))
    torch.testing.assert_close(structure.by_columns.product(values, torch.eye(rows)), whole.view(rows, columns).t())


def test_the_structure_takes_twelve_bytes_a_nonzero_and_four_a_row_and_column() -> None:
    structure = Csr(_active(200 * 300, 0.05, 0), (200, 300))
    taken = sum(tensor.untyped_storage().nbytes() for tensor in structure.tensors)
    assert taken == 12 * 3000 + 4 * (201 + 301)


def test_a_matrix_too_large_for_32_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        Csr(torch.tensor([0]), (2**31, 2))


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.MaxPool2d(2),
        nn.AvgPool2d(1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 16), nn.Linear(16, 5),
    )  # fmt: skip


def _training(compute: str) -> tuple[nn.Module, SparseTraining]:
    model = _network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return model, SparseTraining(
        model,
        optimizer,
        "rigl-itop",
        sparsity=0.5,
        total_steps=20,
        update_interval=2,
        compute=compute,
        allocation="uniform",
    )


def test_empty_batches_have_the_shapes_and_the_zero_gradients_that_dense_layers_give_them() -> None:
    runs = [_training(compute) for compute in ("masked", "sparse")]
    assert runs[1][1].compressed >= {"0.weight", "3.weight", "8.weight"}
    for step in range(6):  # at each second step, which moves the topology, no image
        outputs, gradients = [], []
        for model, sparse in runs:
            images = torch.randn(0 if step % 2 else 4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
            images.requires_grad_()
            sparse.optimizer.zero_grad()
            output = model(images)
            output.square().sum().backward()
            outputs.append(output.detach())
            gradients.append([parameter.grad for parameter in model.parameters()])
            assert images.grad is not None and images.grad.shape == images.shape
            sparse.step()
        torch.testing.assert_close(*outputs, atol=1e-4, rtol=1e-3)
        for own, expected in zip(*reversed(gradients), strict=True):
            assert own is not None and expected is not None
            assert step % 2 == 0 or not own.any()
    layer, twin, _ = _both(nn.Linear(6, 4), 0.5)
    for shape in ((0, 6), (0, 3, 6), (3, 0, 6)):
        assert layer(torch.randn(shape)).shape == twin(torch.randn(shape)).shape


def test_a_graph_of_the_gradients_may_be_asked_for_and_changes_nothing() -> None:
    (one, training), (other, twin) = (_training("sparse") for _ in range(2))
    for step in range(5):
        images = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        for model, sparse, graph in ((one, training, True), (other, twin, False)):
            sparse.optimizer.zero_grad()
            model(images).square().sum().backward(create_graph=graph)
            sparse.step()
    for parameter, expected in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter, expected)


@pytest.mark.parametrize("images_alone", [True, False])
@pytest.mark.parametrize("layers", [slice(8, 10), slice(9, 10), slice(0, 8), slice(0, 10)], ids=str)
def test_gradients_of_sparse_layers_are_not_taken_for_constants_by_a_loss_that_contains_them(
    layers: slice, images_alone: bool
) -> None:
    model = _network()[layers]
    SparseTraining(
        model, torch.optim.SGD(model.parameters(), lr=0.1), "static", sparsity=0.5, total_steps=9, compute="sparse",
        allocation="uniform",
    )  # fmt: skip
    shape = {8: (4, 8), 9: (4, 16), 0: (4, 3, 8, 8)}[layers.start]
    images = torch.randn(shape, requires_grad=True)
    wanted = images if images_alone else next(model.parameters())
    (gradient,) = torch.autograd.grad(model(images).sum(), wanted, create_graph=True)
    assert gradient.shape == wanted.shape
    with pytest.raises(UserError, match="differentiated once only"):
        (gradient.norm() + model(images).sum()).backward()
