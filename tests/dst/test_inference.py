"""Layers for inference beside the dense ones they stand for, and as programs that are written down and read again."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from itopctl.dst.inference import BagConv2d, BagLinear, with_nonzeros_alone


def _thinned(layer: nn.Linear | nn.Conv2d, share: float) -> Tensor:
    """Zero some of a layer's weights, at random; returns which are active."""
    active = torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < share
    with torch.no_grad():
        layer.weight.mul_(active)
    return active


@settings(deadline=None, max_examples=100)
@given(
    inputs=st.integers(1, 12), outputs=st.integers(1, 12), batch=st.integers(0, 9), share=st.floats(0, 1),
    bias=st.booleans(),
)  # fmt: skip
def test_a_linear_layer_of_bags_is_the_dense_one(
    inputs: int, outputs: int, batch: int, share: float, bias: bool
) -> None:
    layer = nn.Linear(inputs, outputs, bias)
    bags = BagLinear(layer, _thinned(layer, share))
    for shape in ((batch, inputs), (2, batch, inputs), (inputs,)):
        images = torch.randn(shape)
        torch.testing.assert_close(bags(images), layer(images), atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=150)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)), stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)), dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    groups=st.sampled_from([1, 2, 4]), size=st.tuples(st.integers(5, 9), st.integers(5, 9)), batch=st.integers(1, 4),
    share=st.floats(0, 1), bias=st.booleans(),
)  # fmt: skip
def test_a_convolution_of_bags_is_the_dense_one(
    kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
    groups: int, size: tuple[int, int], batch: int, share: float, bias: bool,
) -> None:  # fmt: skip
    layer = nn.Conv2d(4, 8, kernel, stride, padding, dilation, groups, bias)
    bags = BagConv2d(layer, _thinned(layer, share))
    images = torch.randn(batch, 4, *size)
    torch.testing.assert_close(bags(images), layer(images), atol=1e-5, rtol=1e-4)


def _network() -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, groups=2),
        nn.ReLU(), nn.Flatten(), nn.Linear(54, 10),
    ).eval()  # fmt: skip
    active = {f"{index}.weight": _thinned(network[index], 0.3) for index in (0, 3, 6)}
    return network, active


def test_a_network_keeps_its_outputs_and_loses_its_zeros() -> None:
    network, active = _network()
    thin = with_nonzeros_alone(copy.deepcopy(network), active)
    images = torch.randn(5, 2, 8, 8)
    torch.testing.assert_close(thin(images), network(images), atol=1e-5, rtol=1e-4)
    floats = sum(tensor.numel() for tensor in thin.state_dict().values() if tensor.is_floating_point())
    zeros = sum(int((~mask).sum()) for mask in active.values())
    assert floats == sum(t.numel() for t in network.state_dict().values() if t.is_floating_point()) - zeros


def test_a_program_of_such_layers_takes_batches_of_any_size() -> None:
    network, active = _network()
    thin = with_nonzeros_alone(copy.deepcopy(network), active)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(thin, (torch.randn(2, 2, 8, 8),), dynamic_shapes=(batch,))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    read = torch.export.load(file).module()
    for count in (1, 2, 3, 130):
        images = torch.randn(count, 2, 8, 8)
        torch.testing.assert_close(read(images), network(images), atol=1e-5, rtol=1e-4)


def test_a_single_layer_is_a_network_too() -> None:
    layer = nn.Linear(6, 4)
    active = {"weight": _thinned(layer, 0.4)}
    thin = with_nonzeros_alone(layer, active)
    assert isinstance(thin, BagLinear)
    images = torch.randn(3, 6)
    torch.testing.assert_close(thin(images), layer(images))


@pytest.mark.parametrize("case", ["shared", "hooked", "subclass", "named twice"])
def test_what_is_no_plain_layer_stays_dense_and_right(case: str) -> None:
    class Own(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).abs()

    first = Own(6, 6) if case == "subclass" else nn.Linear(6, 6)
    second = nn.Linear(6, 6)
    active = _thinned(first, 0.25)
    if case == "shared":
        second.weight = first.weight
    if case == "hooked":
        first.register_forward_hook(lambda module, inputs, output: output + 1)
    network = nn.Sequential(first, nn.ReLU(), first if case == "named twice" else second)
    expected = copy.deepcopy(network)
    thin = with_nonzeros_alone(network, {"0.weight": active})
    images = torch.randn(3, 6)
    torch.testing.assert_close(thin(images), expected(images))
    assert isinstance(thin[0], BagLinear) == (case == "named twice")


def test_layers_whose_weights_are_taken_without_calling_them_stay_dense() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.called = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, images: Tensor) -> Tensor:
            rows = images.reshape(-1, self.called.in_features)
            return self.called(nn.functional.linear(rows, self.read.weight))

    network = Reads().eval()
    active = {f"{name}.weight": _thinned(network.get_submodule(name), 0.25) for name in ("read", "called")}
    expected, images = copy.deepcopy(network), torch.randn(3, 6)
    thin = with_nonzeros_alone(network, active, images)
    assert [type(module) for module in thin.children()] == [nn.Linear, BagLinear]
    torch.testing.assert_close(thin(images), expected(images))


def test_a_transformer_in_its_fast_path_is_left_as_it_is() -> None:
    network = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
    active = {f"linear{index}.weight": _thinned(network.get_submodule(f"linear{index}"), 0.25) for index in (1, 2)}
    expected, images = copy.deepcopy(network), torch.randn(3, 5, 8)
    thin = with_nonzeros_alone(network, active, images)
    torch.testing.assert_close(thin(images), expected(images))


def test_a_padded_convolution_of_single_pixels_is_the_dense_one() -> None:
    layer = nn.Conv2d(3, 4, 1, padding=1)
    bags = BagConv2d(layer, _thinned(layer, 0.4))
    for batch in (1, 2):
        images = torch.randn(batch, 3, 1, 1)
        torch.testing.assert_close(bags(images), layer(images))
        images = images.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(bags(images), layer(images))
