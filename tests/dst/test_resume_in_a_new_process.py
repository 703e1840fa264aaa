"""A training goes on in another Python process, from a file, to the same bits; what does not fit is refused."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from itopctl.catalogue import METHODS
from itopctl.dst import SparseTraining
from tests.dst.nets import conv_net, make_optimizer, mlp, plain_sgd, train

ROOT = Path(__file__).parents[2]
TOTAL, SHAPE = 100, (2, 6, 6)


@dataclass(frozen=True)
class Case:
    """A training, and the step after which it is saved."""

    method: str
    optimizer: str = "sgd-nesterov"
    stop: int = 50
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return "-".join([self.method, self.optimizer, str(self.stop), *(f"{k}={v}" for k, v in self.settings.items())])


CASES = [
    *(Case(method, stop=26 if method == "gse" else 50) for method in METHODS.names()),
    *(Case(method, "adamw", 48) for method in ("rigl", "set-itop", "snfs", "mest")),  # 48 is a step with an update
    *(
        Case(method, stop=stop, settings={"gradient_batches": 3, "update_interval": 10})
        for method in ("rigl", "rigl-itop", "mest", "dst-ee", "gse")
        for stop in (28, 29)  # the window is 28, 29, 30
    ),
    Case("set-itop", settings={"growth": "momentum-neuron", "redistribution": "magnitude", "momentum_decay": 0.5}),
    Case("set-itop", "lion", settings={"drop": "sign-split", "growth": "random-unexplored"}),
]


def fresh(case: Case, init: int = 0) -> tuple[nn.Module, torch.optim.Optimizer, SparseTraining]:
    torch.manual_seed(init)
    model = conv_net()
    optimizer = make_optimizer(case.optimizer, model)
    settings = {"sparsity": 0.8, "total_steps": TOTAL, "seed": 3, "update_interval": 4, **case.settings}
    return model, optimizer, SparseTraining(model, optimizer, case.method, **settings)


def states(model: nn.Module, optimizer: torch.optim.Optimizer, sparse: SparseTraining) -> dict[str, Any]:
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "sparse": sparse.state_dict()}


def load(saved: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, sparse: SparseTraining) -> None:
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    sparse.load_state_dict(saved["sparse"])


def go_on(folder: str) -> None:
    """What the other process does: load every training that was saved in a folder, end it, and save it again."""
    torch.set_num_threads(1)
    for index, case in enumerate(CASES):
        training = fresh(case, init=99)
        load(torch.load(Path(folder) / f"{index}.pt", weights_only=True), *training)
        updates = list(train(training[0], training[2], SHAPE, range(case.stop, TOTAL)))
        ended = {**states(*training), "updates": [update and update.moved for update in updates]}
        torch.save(ended, Path(folder) / f"{index} ended.pt")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are slower on two threads, and much slower where other processes want the cores as well."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, tuple[dict[str, Any], ...]]:
    """How each training ended here, where it was saved on the way, and how in another process that loaded it."""
    folder = tmp_path_factory.mktemp("saved trainings")
    here = {}
    for index, case in enumerate(CASES):
        training = fresh(case)
        list(train(training[0], training[2], SHAPE, range(case.stop)))
        torch.save(states(*training), folder / f"{index}.pt")
        updates = list(train(training[0], training[2], SHAPE, range(case.stop, TOTAL)))
        here[str(case)] = {**states(*training), "updates": [update and update.moved for update in updates]}
    script = f"from {__name__} import go_on; import sys; go_on(sys.argv[1])"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run([sys.executable, "-c", script, folder], cwd=ROOT, env=environment, check=True, timeout=240)
    there = {str(case): torch.load(folder / f"{index} ended.pt") for index, case in enumerate(CASES)}
    return {name: (here[name], there[name]) for name in here}


def assert_same(a: Any, b: Any, path: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), path
    elif isinstance(a, dict):
        assert list(a) == list(b), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{path}/{index}")
    else:
        assert a == b, path


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_training_that_went_on_in_another_process_ends_in_the_same_bits(ended, case):
    here, there = ended[str(case)]
    assert_same(here, there)
    assert here["sparse"]["steps_done"] == TOTAL
    if case.method not in ("dense", "static"):
        assert sum(here["updates"][step] or 0 for step in range(TOTAL - case.stop)) > 0


@pytest.mark.parametrize("method", ["rigl", "gse", "mest"])
def test_what_is_saved_within_the_window_is_the_mean_so_far(method):
    case = Case(method, settings={"gradient_batches": 3, "update_interval": 10})
    model, _, sparse = fresh(case)
    held = []
    for _ in train(model, sparse, SHAPE, range(20)):
        held.append((sparse.state_dict()["gradients"]["averaged"], bool(sparse.state_dict()["gradients"]["mean"])))
    assert held == 2 * [*[(0, False)] * 7, (1, True), (2, True), (0, False)]


# What does not fit ----------------------------------------------------------------------------------------


def of_another_shape(state: dict[str, Any]) -> None:
    state["layers"]["3.weight"]["shape"] = [4, 8, 3, 3]


def without_masks(state: dict[str, Any]) -> None:
    state["layers"] = {}


def without_an_explored_set(state: dict[str, Any]) -> None:
    del state["layers"]["3.weight"]["explored"]


def with_an_empty_entry(state: dict[str, Any]) -> None:
    state["layers"]["6.weight"] = {}


def with_one_weight_less(state: dict[str, Any]) -> None:
    bits = state["layers"]["3.weight"]["mask"]
    byte = int(bits.nonzero()[0])
    bits[byte] &= bits[byte] - 1


def with_a_shorter_mask(state: dict[str, Any]) -> None:
    entry = state["layers"]["3.weight"]
    entry["mask"] = entry["mask"][:-1]


def with_an_active_weight_never_explored(state: dict[str, Any]) -> None:
    state["layers"]["3.weight"]["explored"].zero_()


def with_momentum_of_another_shape(state: dict[str, Any]) -> None:
    state["gradients"]["momentum"]["3.weight"] = torch.zeros(3)


def with_momentum_of_one_layer_missing(state: dict[str, Any]) -> None:
    del state["gradients"]["momentum"]["3.weight"]


def without_gradients(state: dict[str, Any]) -> None:
    del state["gradients"]


def with_a_mean_of_another_shape(state: dict[str, Any]) -> None:
    state["gradients"]["mean"] = {name: torch.zeros(3) for name in state["layers"]}


def with_no_entry(state: dict[str, Any]) -> None:
    state.clear()


SPOILERS = [
    of_another_shape, without_masks, without_an_explored_set, with_an_empty_entry, with_one_weight_less,
    with_a_shorter_mask, with_an_active_weight_never_explored, with_momentum_of_another_shape,
    with_momentum_of_one_layer_missing, without_gradients, with_a_mean_of_another_shape, with_no_entry,
]  # fmt: skip


def assert_refused(state: dict[str, Any], method: str, match: str | None = None) -> None:
    """Loading it raises ValueError, and nothing of a training under way changes."""
    training = fresh(Case(method))
    list(train(training[0], training[2], SHAPE, range(6)))
    before = copy.deepcopy(states(*training))
    with pytest.raises(ValueError, match=match):
        training[2].load_state_dict(state)
    assert_same(states(*training), before)
    twin = fresh(Case(method))
    list(train(twin[0], twin[2], SHAPE, range(6)))
    assert list(train(training[0], training[2], SHAPE, range(6, 12))) == list(train(*twin[::2], SHAPE, range(6, 12)))
    assert_same(states(*training), states(*twin))


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(spoil):
    training = fresh(Case("snfs"))
    list(train(training[0], training[2], SHAPE, range(9)))
    state = copy.deepcopy(training[2].state_dict())
    spoil(state)
    assert_refused(state, "snfs")


@pytest.mark.parametrize(
    ("saved", "loaded"),
    [
        ("set", "snfs"), ("snfs", "set"), ("rigl", "dst-ee"), ("dst-ee", "rigl"), ("dense", "static"),
        ("static", "dense"), ("static", "snfs"),
    ],
)  # fmt: skip
def test_a_state_of_another_method_is_refused_where_it_lacks_or_has_what_the_other_does_not(saved, loaded):
    training = fresh(Case(saved))
    list(train(training[0], training[2], SHAPE, range(9)))
    assert_refused(training[2].state_dict(), loaded)


def test_a_state_of_another_model_is_refused_and_changes_nothing():
    model = mlp(6, 6, 6, 6)
    other = SparseTraining(model, plain_sgd(model), "set-itop", sparsity=0.8, total_steps=TOTAL, seed=3)
    assert_refused(other.state_dict(), "set-itop", match="saved state has masks for")
