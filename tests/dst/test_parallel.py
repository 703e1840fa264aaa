"""Two real processes on gloo: the same masks, explored sets and weights on both, after every step."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn.parallel import DistributedDataParallel

from itopctl.catalogue import METHODS
from itopctl.dst import Rules, SparseTraining
from itopctl.dst.explored_set import unpack_bits
from itopctl.dst.parallel import Ranks, unwrapped
from tests.dst.nets import assert_masked, backward, conv_net, make_batch, train

RANKS, STEPS, TOTAL = 2, 11, 20
UPDATES = (3, 6, 9)
DYNAMIC = [name for name in METHODS.names() if Rules.of_method(name, update_interval=3).dynamic]
SHAPE = (2, 6, 6)


def make(rank: int, method: str, seed: int, wrap: bool = True, group: Any = None, **settings: Any):
    """The model (wrapped, with an initialisation of each rank's own, or bare, with the same) and its training."""
    torch.manual_seed(rank if wrap else 0)
    model: nn.Module = conv_net()
    ddp = settings.pop("ddp", {})
    if wrap:
        model = DistributedDataParallel(model, process_group=group, **ddp)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)
    settings = {"sparsity": 0.6, "total_steps": TOTAL, "seed": seed, "update_interval": 3, **settings}
    return model, SparseTraining(model, optimizer, method, **settings)


def average(model: nn.Module) -> None:
    for parameter in model.parameters():
        distributed.all_reduce(parameter.grad)
        parameter.grad /= RANKS


def add_up(model: nn.Module) -> None:
    """The sum over ranks, in place, by the collective alone: autograd does not hear of it."""
    for parameter in model.parameters():
        distributed.all_reduce(parameter.grad)


def go(
    rank: int,
    model: nn.Module,
    sparse: SparseTraining,
    reduce: Callable[[nn.Module], None] = lambda model: None,
    spoil: Callable[[nn.Module, int], None] = lambda model, step: None,
) -> list[dict]:
    """Train on data of the rank's own; what there is after every step."""
    inner = getattr(model, "module", model)
    records = [record(inner, sparse, None)]
    for step in range(1, STEPS + 1):
        backward(model, make_batch(SHAPE, 100 * rank + step))
        reduce(model)
        spoil(inner, step)
        update = sparse.step()
        records.append(record(inner, sparse, update))
    return records


def record(model: nn.Module, sparse: SparseTraining, update: Any) -> dict:
    layers = copy.deepcopy(sparse.state_dict()["layers"])
    weights = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    awake = sum(int(weights[layer.name][~sparse.mask(layer.name)].count_nonzero()) for layer in sparse.layers())
    changes = None if update is None else (update.step, update.moved, update.new, update.skipped)
    return {
        "layers": layers,
        "weights": weights,
        "update": changes,
        "explored": sparse.exploration_rate,
        "awake": awake,
    }


def spoil_the_first_layer(rank: int) -> Callable[[nn.Module, int], None]:
    """One rank has a gradient that is not finite, off its mask, at the second update."""

    def spoil(model: nn.Module, step: int) -> None:
        if rank == 1 and step == UPDATES[1]:
            weight = model[3].weight
            weight.grad.view(-1)[(weight == 0).view(-1).nonzero()[0]] = float("nan")

    return spoil


def overflow_before_the_reduction(rank: int) -> Callable[[nn.Module, int], None]:
    spoil = spoil_the_first_layer(rank)

    def hook(model: nn.Module, step: int) -> None:
        spoil(model, step)
        average(model)

    return hook


def another_gradient(rank: int) -> Callable[[nn.Module, int], None]:
    """One rank has other gradients at an update, as from another kernel."""

    def spoil(model: nn.Module, step: int) -> None:
        if rank == 1 and step in UPDATES:
            for layer in (model[0], model[3], model[6]):
                layer.weight.grad += torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(step))

    return spoil


def work(rank: int, folder: str) -> None:
    """One rank: every case of this file, one after the other."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=RANKS,
        timeout=datetime.timedelta(seconds=60),
    )  # fmt: skip
    found: dict[str, Any] = {}
    for method in [*DYNAMIC, "static"]:
        for case, seed in (("other seed", 3 + 100 * rank), ("same seed", 3)):
            found[f"ddp, {case}, {method}"] = go(rank, *make(rank, method, seed))
        found[f"bare, {method}"] = go(rank, *make(rank, method, 3 + rank, wrap=False), reduce=average)

    model, sparse = make(rank, "set-itop", 3 + rank, ddp={"gradient_as_bucket_view": True})
    found["bucket views"] = go(rank, model, sparse)
    model, sparse = make(rank, "rigl-itop", 3 + rank, ddp={"gradient_as_bucket_view": True})
    found["bucket views, dense gradient"] = go(rank, model, sparse)
    model, sparse = make(rank, "rigl-itop", 3 + rank, gradient_batches=2)
    found["two batches"] = go(rank, model, sparse)

    for view in (False, True):
        alone = {"synchronise": False, "ddp": {"gradient_as_bucket_view": view}}
        found[f"alone, ddp, views {view}"] = go(rank, *make(rank, "set-itop", 3 + rank, **alone))
    found["alone, bare"] = go(rank, *make(rank, "snfs", 3 + rank, wrap=False, synchronise=False))
    found["alone, gradients summed by hand"] = go(
        rank, *make(rank, "set-itop", 3 + rank, wrap=False, synchronise=False), reduce=add_up
    )
    mine = [distributed.new_group([member]) for member in range(RANKS)][rank]
    found["a group of one"] = go(rank, *make(rank, "set-itop", 3 + rank, group=mine))

    found["spoilt on one rank"] = go(
        rank, *make(rank, "rigl-itop", 3, wrap=False), reduce=average, spoil=spoil_the_first_layer(rank)
    )
    found["spoilt before the reduction"] = go(
        rank, *make(rank, "rigl", 3, wrap=False), spoil=overflow_before_the_reduction(rank)
    )

    found["another gradient on one rank"] = go(
        rank, *make(rank, "rigl", 3, wrap=False), reduce=average, spoil=another_gradient(rank)
    )

    model, sparse = make(rank, "set-itop", 3)
    list(train(model, sparse, SHAPE, range(7)))
    _, later = make(rank, "set-itop", 3)
    later.load_state_dict(sparse.state_dict() if rank == 0 else {})
    found["loaded"] = later.state_dict()["layers"]

    model, sparse = make(rank, "snfs", 3)
    list(train(model, sparse, SHAPE, range(7)))
    found["names"] = ([layer.name for layer in sparse.layers()], list(sparse.state_dict()["layers"]))
    found["saved"] = {
        "model": model.module.state_dict(),
        "optimizer": sparse.optimizer.state_dict(),
        "sparse": sparse.state_dict(),
    }
    torch.save(found, Path(folder) / f"rank{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found, of all cases."""
    folder = tmp_path_factory.mktemp("two ranks")
    multiprocessing.spawn(work, args=(str(folder),), nprocs=RANKS)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=False) for rank in range(RANKS)]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    return a == b


def assert_ranks_agree(found: list[dict[str, Any]], case: str) -> list[dict]:
    first, second = (rank[case] for rank in found)
    assert len(first) == len(second) == STEPS + 1
    for step, (a, b) in enumerate(zip(first, second, strict=True)):
        for key in a:
            assert same(a[key], b[key]), f"{case}: {key} of the ranks differ after step {step}"
        assert a["awake"] == 0, f"{case}: weights off the mask after step {step}"
    return first


def masks_of(entry: dict) -> Tensor:
    return torch.cat([unpack_bits(layer["mask"], layer["mask"].numel() * 8) for layer in entry["layers"].values()])


@pytest.mark.parametrize("method", DYNAMIC)
@pytest.mark.parametrize("case", ["ddp, other seed", "ddp, same seed", "bare"])
def test_ranks_hold_the_same_network_after_every_step(found, case, method):
    records = assert_ranks_agree(found, f"{case}, {method}")
    assert [entry["update"][0] for entry in records if entry["update"]] == list(UPDATES)
    assert sum(entry["update"][1] for entry in records if entry["update"]) > 0
    assert records[-1]["explored"] > records[0]["explored"]
    assert not any(entry["update"][3] for entry in records if entry["update"])


def test_ranks_start_from_the_masks_of_the_first_and_keep_them_where_the_topology_is_fixed(found):
    records = assert_ranks_agree(found, "ddp, other seed, static")
    assert all(same(entry["layers"], records[0]["layers"]) for entry in records)


@pytest.mark.parametrize("method", [*DYNAMIC, "static"])
def test_what_counts_is_the_seed_of_the_first_rank(found, method):
    for other, equal in zip(found[0][f"ddp, other seed, {method}"], found[0][f"ddp, same seed, {method}"], strict=True):
        assert same(other, equal)


@pytest.mark.parametrize("case", ["bucket views", "bucket views, dense gradient", "two batches"])
def test_ranks_agree_where_gradients_are_views_of_buckets_or_means_over_batches(found, case):
    assert_ranks_agree(found, case)


@pytest.mark.parametrize(
    "case",
    [
        "alone, ddp, views False",
        "alone, ddp, views True",
        "alone, bare",
        "alone, gradients summed by hand",
        "a group of one",
    ],
)
def test_ranks_that_are_not_to_agree_draw_masks_of_their_own(found, case):
    for first, second in zip(*(rank[case] for rank in found), strict=True):
        assert not torch.equal(masks_of(first), masks_of(second))
        assert first["awake"] == second["awake"] == 0
    counts = [[masks_of(entry).sum() for entry in rank[case]] for rank in found]
    assert counts[0] == counts[1] == [counts[0][0]] * (STEPS + 1)


def test_ranks_hold_the_masks_of_the_first_even_where_one_sees_another_gradient(found):
    first, second = (rank["another gradient on one rank"] for rank in found)
    for a, b in zip(first, second, strict=True):
        assert same(a["layers"], b["layers"])
        assert a["awake"] == b["awake"] == 0
    assert not torch.equal(masks_of(first[0]), masks_of(first[-1]))


def test_all_ranks_take_over_the_state_that_the_first_is_given(found):
    assert same(found[0]["loaded"], found[1]["loaded"])
    assert any(not torch.equal(layer["mask"], layer["explored"]) for layer in found[0]["loaded"].values())


@pytest.mark.parametrize("case", ["spoilt on one rank", "spoilt before the reduction"])
def test_a_gradient_that_is_not_finite_on_one_rank_skips_the_update_on_all(found, case):
    for rank in found:
        updates = [entry["update"] for entry in rank[case] if entry["update"]]
        assert [update[3] for update in updates] == [False, True, False]
    for first, second in zip(*(rank[case] for rank in found), strict=True):
        assert same(first["layers"], second["layers"])
        assert first["update"] == second["update"]


def test_names_are_those_of_the_model_inside(found):
    inside = ["0.weight", "3.weight", "6.weight"]  # of which ERK keeps some dense
    for rank in found:
        reported, saved = rank["names"]
        assert reported == inside
        assert saved == [name for name in inside if name in saved]


def test_the_state_of_the_first_rank_goes_on_in_a_single_process(found):
    saved = found[0]["saved"]
    assert same(saved["sparse"], found[1]["saved"]["sparse"])
    model, sparse = make(1, "snfs", 3, wrap=False)
    model.load_state_dict(saved["model"])
    sparse.optimizer.load_state_dict(saved["optimizer"])
    sparse.load_state_dict(saved["sparse"])
    assert same(sparse.state_dict(), saved["sparse"])
    assert same(dict(model.state_dict()), dict(saved["model"]))
    updates = list(train(model, sparse, SHAPE, range(7, 12)))
    assert [update is not None for update in updates] == [False, True, False, False, True]
    assert_masked(model, sparse)


def test_a_single_process_agrees_with_itself_and_sends_nothing():
    masks = [torch.tensor([-1, 0, -1], dtype=torch.int8)]
    ranks = Ranks(None)
    assert ranks.agree(masks) is masks
    assert ranks.all(True, torch.device("cpu"))
    assert not ranks.all(False, torch.device("cpu"))
    model = conv_net()
    assert unwrapped(model) == (model, None)
