"""Which arithmetic is faster for a layer on this machine: dense under a mask, or with the nonzeros alone.

Measured, at the layer's real shapes: forward and backward pass, masking, and the optimizer's step. Knows no cache and
no files; who trains many networks alike keeps what was measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from itopctl.dst.compressed_layer import compressed
from itopctl.dst.maskable import calls_told, modules_of
from itopctl.dst.masking import Masker
from itopctl.dst.sparse.batch_last import from_batch_last, keep_layout, to_batch_last

_LEAST_GAIN = 1.1  # of sparse over masked steps, or layers stay masked: timings are not exact
_REPETITIONS, _SECONDS = 5, 0.5  # of each kind of step: so many, or for so long


@dataclass(frozen=True)
class LayerWork:
    """What a layer does at each step.

    Attributes:
        input: shape of what it is given, the batch first.
        weight: shape of its weight, zeros included.
        active: how many of them are active.
        bias: whether it has one.
        input_gradient: whether the gradient of its input is needed; not in the first layer.
        settings: of a convolution: stride, padding, dilation, groups; None of a linear layer.
        device: where it is computed, as a string.
    """

    input: tuple[int, ...]
    weight: tuple[int, ...]
    active: int
    bias: bool
    input_gradient: bool
    settings: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], int] | None
    device: str

    def module(self) -> nn.Linear | nn.Conv2d:
        """A layer that does this work."""
        if self.settings is None:
            return nn.Linear(self.weight[1], self.weight[0], self.bias, device=self.device)
        stride, padding, dilation, groups = self.settings
        return nn.Conv2d(
            self.weight[1] * groups, self.weight[0], self.weight[2:], stride, padding, dilation,  # type: ignore[arg-type]
            groups, self.bias, device=self.device,
        )  # fmt: skip


def works_of(model: nn.Module, example: Tensor, counts: Mapping[str, int]) -> dict[str, LayerWork]:
    """What layers do at each step of a training.

    Args:
        model: run twice in evaluation mode, with gradients and without; its modes are restored.
        example: a batch as the model will be given it.
        counts: name of each weight that is asked about, used by one module → how many of it are active.

    Returns:
        Only of layers that are called, as often without gradients as with them: others are not computed by the module
        itself, as in the fast path of PyTorch's transformers, which takes weights as they are. Where a layer is called
        several times, its first work. None at all where the model does not take outputs as sparse layers lay them out
        in memory, since it looks at them by `view`.
    """
    weights = {name: weight for name, weight in model.named_parameters() if name in counts}
    works: dict[str, list[LayerWork]] = {name: [] for name in counts}
    names = {module: name for name, modules in modules_of(model, weights).items() for module in modules}
    modes = [(module, module.training) for module in model.modules()]

    def note(module: nn.Module, input: Tensor) -> None:
        works[names[module]].append(_work(module, counts[names[module]], input))

    try:
        with calls_told(names, note):
            model.eval()
            with torch.enable_grad():
                model(example)
            calls = {name: len(noted) for name, noted in works.items()}
            for module in names:
                module.forward = _laid_out(module.forward)
            with torch.no_grad():
                try:
                    model(example)
                except RuntimeError:
                    return {}
    finally:
        for module, training in modes:
            module.training = training
    return {name: noted[0] for name, noted in works.items() if noted and len(noted) == 2 * calls[name]}


def _laid_out(forward: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's forward whose outputs lie in memory as a sparse one's do."""

    def laid_out(input: Tensor) -> Any:
        output: Tensor = forward(input)
        if output.dim() == 4:
            return from_batch_last(to_batch_last(output))
        return output.t().contiguous().t() if output.dim() == 2 else output

    return laid_out


def _work(module: nn.Module, active: int, input: Tensor) -> LayerWork:
    settings = None
    if isinstance(module, nn.Conv2d):
        assert not isinstance(module.padding, str)
        settings = (module.stride, module.padding, module.dilation, module.groups)
    shape, bias = tuple(module.get_parameter("weight").shape), getattr(module, "bias", None) is not None
    return LayerWork(tuple(input.shape), shape, active, bias, input.requires_grad, settings, str(input.device))


def measure(work: LayerWork) -> dict[str, float]:
    """Seconds of a training step of a layer, by kind.

    Whatever random numbers are drawn, the global generators are left as they were.

    Returns:
        `masked`; `sparse`, unless PyTorch or the device lacks the kernels; `turned`, of convolutions: masked in a
        network whose images lie batch last.
    """
    devices = [] if work.device == "cpu" else [work.device]
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        order = torch.randperm(math.prod(work.weight), device=work.device)
        active = order[: work.active].sort().values
        steps = {"masked": _masked_step, "sparse": _sparse_step}
        if work.settings is not None:
            steps["turned"] = _turned_step
        times = {}
        for kind, make in steps.items():
            try:
                times[kind] = _seconds(make(work, active))
            except RuntimeError:
                if kind == "masked":
                    raise
    return times


def faster(works: Mapping[str, LayerWork], times: Mapping[str, Mapping[str, float]]) -> frozenset[str]:
    """Names of the layers to make sparse: those that are clearly faster so.

    Convolutions are looked at together: where some are sparse, images lie batch last between all of them, which the
    masked ones pay for.
    """
    able = {name: times[name] for name in works if "sparse" in times[name]}
    chosen = {
        name for name, seconds in able.items()
        if works[name].settings is None and seconds["masked"] >= _LEAST_GAIN * seconds["sparse"]
    }  # fmt: skip
    convolutions = {name: seconds for name, seconds in able.items() if "turned" in seconds}
    sparse = {name for name, seconds in convolutions.items() if seconds["sparse"] < seconds["turned"]}
    masked = sum(seconds["masked"] for seconds in convolutions.values())
    mixed = sum(min(seconds["sparse"], seconds["turned"]) for seconds in convolutions.values())
    return frozenset(chosen | sparse if masked >= _LEAST_GAIN * mixed else chosen)


def _masked_step(work: LayerWork, active: Tensor) -> Callable[[], None]:
    return _with_mask(work, work.module(), active, _images(work))


def _turned_step(work: LayerWork, active: Tensor) -> Callable[[], None]:
    module = work.module()
    keep_layout(module)
    return _with_mask(work, module, active, from_batch_last(to_batch_last(_images(work))))


def _sparse_step(work: LayerWork, active: Tensor) -> Callable[[], None]:
    module = compressed(work.module(), active)
    images = _images(work)
    if images.dim() == 4:
        images = from_batch_last(to_batch_last(images))
    elif images.dim() == 2:
        images = images.t().contiguous().t()
    return _step(work, module, images, lambda: None)


def _with_mask(work: LayerWork, module: nn.Module, active: Tensor, images: Tensor) -> Callable[[], None]:
    masker, weight = Masker(), module.get_parameter("weight")
    keep = torch.zeros(weight.numel(), dtype=torch.int8, device=work.device)
    keep[active] = -1
    keep = keep.view(weight.shape)

    def mask() -> None:
        assert weight.grad is not None
        masker.mask_(weight.grad, keep)

    return _step(work, module, images, mask)


def _images(work: LayerWork) -> Tensor:
    return torch.randn(work.input, device=work.device)


def _step(work: LayerWork, module: nn.Module, images: Tensor, mask: Callable[[], None]) -> Callable[[], None]:
    images = images.detach().requires_grad_(work.input_gradient)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-9, momentum=0.9, fused=True)
    gradient = torch.randn_like(module(images))  # in the layout that the layer gives

    def step() -> None:
        optimizer.zero_grad()
        images.grad = None
        module(images).backward(gradient)
        mask()
        optimizer.step()

    return step


def _seconds(action: Callable[[], None]) -> float:
    """The least wall time of an action, after one that is not counted."""
    action()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < _REPETITIONS and (not times or time.perf_counter() - began < _SECONDS):
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        start = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)
