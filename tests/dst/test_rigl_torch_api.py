"""The engine behind the interface of rigl-torch (https://github.com/nollied/rigl-torch), and what its tests assert.

rigl-torch has 17 tests: one counts the weights of two networks, nine train in one process, seven in two. Each test here
says which property it takes from them. Networks are small, and each assertion is made for every weight, not for a sum.
"""

# ruff: noqa: N802, N803 (names as in rigl-torch)

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from itopctl.dst import DropSchedule, Rules, SparseTraining
from itopctl.dst.maskable import maskable_weights

STEPS, T_END, DELTA, DENSE = 8, 11, 3, 0.1
RIGL_STEPS = [3, 6]
RANKS = 2


class RigLScheduler:
    """rigl-torch's scheduler, on top of `SparseTraining`: its arguments, its attributes, and its loop.

    The loop is `loss.backward()`, then `if scheduler(): optimizer.step()`: the scheduler answers False where a topology
    update takes the step's place. The first layer stays dense, and linear ones where they are ignored; neither counts
    in the budget of the others.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        dense_allocation: float = 1,
        T_end: int = T_END,
        sparsity_distribution: str = "uniform",
        ignore_linear_layers: bool = True,
        delta: int = 100,
        alpha: float = 0.3,
        static_topo: bool = False,
        grad_accumulation_n: int = 1,
        state_dict: dict[str, Any] | None = None,
    ) -> None:
        if state_dict is not None:
            arguments = state_dict["arguments"]
        else:
            arguments = {
                "dense_allocation": dense_allocation,
                "T_end": T_end,
                "sparsity_distribution": sparsity_distribution,
                "ignore_linear_layers": ignore_linear_layers,
                "delta": delta,
                "alpha": alpha,
                "static_topo": static_topo,
                "grad_accumulation_n": grad_accumulation_n,
            }
        self.model, self.optimizer, self._arguments = model, optimizer, arguments
        self._step = optimizer.step
        # A loaded model has its weights before the training is made, which zeroes some: they are loaded once more.
        weights = copy.deepcopy(model.state_dict()) if state_dict is not None else None
        self.sparse = SparseTraining(
            model,
            optimizer,
            rules=_rules(model, **arguments),
            sparsity=1 - arguments["dense_allocation"],
            total_steps=arguments["T_end"],
        )
        if state_dict is not None:
            assert weights is not None
            model.load_state_dict(weights)
            self.sparse.load_state_dict(state_dict["training"])
        optimizer.step = self._step_of_training  # type: ignore[method-assign]

    @property
    def names(self) -> list[str]:
        return [layer.name for layer in self.sparse.layers()]

    @property
    def W(self) -> list[nn.Parameter]:
        parameters = dict(getattr(self.model, "module", self.model).named_parameters())
        return [parameters[name] for name in self.names]

    @property
    def N(self) -> list[int]:
        return [layer.size for layer in self.sparse.layers()]

    @property
    def S(self) -> list[float]:
        """The sparsity that is asked for, of each layer."""
        linear = {f"{name}.weight" for name, module in self._modules() if isinstance(module, nn.Linear)}
        dense = {self.names[0]} | (linear if self._arguments["ignore_linear_layers"] else set())
        return [0.0 if name in dense else 1 - self._arguments["dense_allocation"] for name in self.names]

    @property
    def backward_masks(self) -> list[Tensor]:
        return [self.sparse.mask(name) for name in self.names]

    @property
    def step(self) -> int:
        return self.sparse.steps_done

    @property
    def rigl_steps(self) -> int:
        return self.sparse.updates_done

    def state_dict(self) -> dict[str, Any]:
        return {"arguments": self._arguments, "training": self.sparse.state_dict()}

    def __call__(self) -> bool:
        if not self.sparse.update_due():
            return True  # the caller steps the optimizer
        self.sparse.step()
        return False

    def _step_of_training(self) -> None:
        self.optimizer.step = self._step  # type: ignore[method-assign]
        try:
            self.sparse.step()
        finally:
            self.optimizer.step = self._step_of_training  # type: ignore[method-assign]

    def _modules(self) -> Iterator[tuple[str, nn.Module]]:
        return getattr(self.model, "module", self.model).named_modules()


def _rules(
    model: nn.Module, dense_allocation: float, T_end: int, sparsity_distribution: str, ignore_linear_layers: bool,
    delta: int, alpha: float, static_topo: bool, grad_accumulation_n: int,
) -> Rules:  # fmt: skip
    first = next(iter(maskable_weights(getattr(model, "module", model))))
    network = {
        "allocation": sparsity_distribution,
        "keep_dense": (first, "type:Linear") if ignore_linear_layers else (first,),
        "dense_in_budget": False,
    }
    if static_topo:
        return Rules.of_method("static", **network)
    return Rules.of_method(
        "rigl", **network,
        drop_fraction=alpha, update_interval=delta, gradient_batches=grad_accumulation_n,
        drop_schedule=DropSchedule("cosine", final=0.0, stop=1.0),
    )  # fmt: skip


class Residual(nn.Module):
    """A small residual network: a 3×3 stem, one bottleneck with a shortcut, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.narrow = nn.Conv2d(8, 4, 1, bias=False)
        self.middle = nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False)
        self.wide = nn.Conv2d(4, 16, 1, bias=False)
        self.shortcut = nn.Conv2d(8, 16, 1, stride=2, bias=False)
        self.classifier = nn.Linear(16, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.norm(self.stem(images)).relu()
        inside = self.middle(self.narrow(x).relu()).relu()
        x = (self.wide(inside) + self.shortcut(x)).relu()
        return self.classifier(x.mean((2, 3)))


def make(static: bool, wrap: bool = False, state: dict[str, Any] | None = None, model: nn.Module | None = None,
         **settings: Any) -> RigLScheduler:  # fmt: skip
    model = model or Residual()
    model = DistributedDataParallel(model) if wrap else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    settings = {"dense_allocation": DENSE, "T_end": T_END, "delta": DELTA, "static_topo": static, **settings}
    return RigLScheduler(model, optimizer, state_dict=state, **settings)


def train(scheduler: RigLScheduler, check: Callable[[RigLScheduler], None], zero_gradients: bool) -> None:
    """The loop of rigl-torch's tests; `check` is called after every step."""
    scheduler.model.train()
    answers = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        if zero_gradients:
            scheduler.optimizer.zero_grad()
        images = torch.rand(2, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 10, (2,), generator=generator)
        nn.functional.cross_entropy(scheduler.model(images), labels).backward()
        answers.append(scheduler())
        if answers[-1]:
            scheduler.optimizer.step()
        check(scheduler)
    assert scheduler.step == STEPS
    if not scheduler._arguments["static_topo"]:
        updates = [step for step, ordinary in enumerate(answers, start=1) if not ordinary]
        assert updates == RIGL_STEPS


def assert_zeros(scheduler: RigLScheduler) -> None:
    """Weights off the masks are zero, and each layer is as sparse as was asked for."""
    layers = zip(scheduler.W, scheduler.S, scheduler.N, scheduler.backward_masks, strict=True)
    for weight, sparsity, size, mask in layers:
        assert not weight[~mask].any()
        # rigl-torch rounds the zeros of each layer down. Here all layers share one budget, which is exact.
        assert abs(int((~mask).sum()) - int(sparsity * size)) <= 1


def assert_momentum(scheduler: RigLScheduler) -> None:
    """Every weight has a momentum buffer, zero off its mask."""
    for weight, mask in zip(scheduler.W, scheduler.backward_masks, strict=True):
        assert not scheduler.optimizer.state[weight]["momentum_buffer"][~mask].any()


def assert_gradients(scheduler: RigLScheduler) -> None:
    """Every weight has a gradient, zero off its mask."""
    for weight, mask in zip(scheduler.W, scheduler.backward_masks, strict=True):
        assert weight.grad is not None
        assert not weight.grad[~mask].any()


CHECKS: dict[str, tuple[Callable[[RigLScheduler], None], bool]] = {
    "elements": (assert_zeros, False),  # that test of rigl-torch lets gradients add up over all steps
    "momentum": (assert_momentum, True),
    "gradients": (assert_gradients, True),
}
TOPOLOGIES = pytest.mark.parametrize("static", [True, False], ids=["static", "rigl"])


# 1: how many weights there are
@pytest.mark.parametrize(("name", "count"), [("resnet18", 21), ("resnet50", 54)])
def test_every_convolution_and_linear_layer_of_a_resnet_is_found(name: str, count: int) -> None:
    from torchvision import models  # not in every spawned process

    with torch.device("meta"):
        model = models.get_model(name, weights=None)
    assert len(maskable_weights(model)) == count


# 2: weights are zero off the masks from the start
def test_the_network_is_as_sparse_as_asked_for_from_the_start() -> None:
    scheduler = make(static=False)
    assert_zeros(scheduler)
    assert [layer.active == layer.size for layer in scheduler.sparse.layers()] == [
        sparsity == 0 for sparsity in scheduler.S
    ]


# 3 and 4: the state and the whole model can be saved; both come back as they were, and training goes on.
# rigl-torch saves before the first step. Here the topology has changed by then: the masks must be the saved ones.
@TOPOLOGIES
def test_a_saved_scheduler_and_model_come_back_as_they_were(tmp_path: Path, static: bool) -> None:
    before = make(static)
    train(before, assert_zeros, zero_gradients=True)
    torch.save({"scheduler": before.state_dict(), "model": before.model}, tmp_path / "checkpoint")

    saved = torch.load(tmp_path / "checkpoint", weights_only=False)
    original = copy.deepcopy(saved["model"])
    after = make(static, state=saved["scheduler"], model=saved["model"])
    weights = [original.get_parameter(name) for name in after.names]
    assert len(weights) == len(after.W)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after.W, weights, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(after.backward_masks, before.backward_masks, strict=True))
    assert (
        (after.step, after.rigl_steps) == (before.step, before.rigl_steps) == (STEPS, 0 if static else len(RIGL_STEPS))
    )
    images = torch.rand(2, 3, 8, 8)
    for _ in range(3):  # past T_end
        after.model(images).square().mean().backward()
        if after():
            after.optimizer.step()
        assert_zeros(after)


# 5 to 10: weights, momentum and gradients stay zero off the masks, after every step
@TOPOLOGIES
@pytest.mark.parametrize("property_", CHECKS)
def test_what_is_off_the_masks_stays_zero(property_: str, static: bool) -> None:
    check, zero_gradients = CHECKS[property_]
    scheduler = make(static)
    first = scheduler.backward_masks
    train(scheduler, check, zero_gradients)
    changed = any(not torch.equal(a, b) for a, b in zip(scheduler.backward_masks, first, strict=True))
    assert changed is not static


@pytest.mark.parametrize("settings", [{"grad_accumulation_n": 2}, {"ignore_linear_layers": False}], ids=str)
def test_the_other_arguments_change_none_of_this(settings: dict[str, Any]) -> None:
    for check, zero_gradients in CHECKS.values():
        train(make(static=False, **settings), check, zero_gradients)


# 11 to 17: the same in two processes under DistributedDataParallel
def work(rank: int, folder: str) -> None:
    """One rank: every case, one after the other. An assertion that fails ends it."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    torch.manual_seed(rank)
    passed = ["initial"]
    assert_zeros(make(static=False, wrap=True))
    for static in (True, False):
        for name, (check, zero_gradients) in CHECKS.items():
            scheduler = make(static, wrap=True)
            train(scheduler, check, zero_gradients)
            masks = torch.cat([mask.flatten() for mask in scheduler.backward_masks]).float()
            everywhere = [torch.empty_like(masks) for _ in range(RANKS)]
            distributed.all_gather(everywhere, masks)
            assert torch.equal(*everywhere)
            passed.append(f"{name} {static}")
    torch.save(passed, Path(folder) / f"rank{rank}")
    distributed.destroy_process_group()


def test_two_processes_keep_what_is_off_the_masks_zero(tmp_path: Path) -> None:
    multiprocessing.spawn(work, args=(str(tmp_path),), nprocs=RANKS)
    cases = {"initial", *(f"{name} {static}" for name in CHECKS for static in (True, False))}
    assert all(set(torch.load(tmp_path / f"rank{rank}")) == cases for rank in range(RANKS))
    assert len(cases) == 7
