"""What the engine cannot take is one sentence, when the training is made."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from itopctl.catalogue import rule
from itopctl.dst import SparseTraining
from itopctl.errors import UserError
from tests.dst.nets import mlp


def make(model: nn.Module, kind: type = torch.optim.SGD, **settings: object) -> SparseTraining:
    optimizer = kind(model.parameters(), lr=0.1)
    return SparseTraining(model, optimizer, "rigl-itop", sparsity=0.5, total_steps=100, **settings)


def on_meta() -> nn.Module:
    with torch.device("meta"):
        return mlp(8, 4)


def parametrized(model: nn.Module, name: str) -> nn.Module:
    nn.utils.parametrizations.weight_norm(model, name)
    return model


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "LBFGS": (lambda: make(mlp(8, 4), torch.optim.LBFGS), "LBFGS cannot train a sparse network"),
    "a lazy layer": (
        lambda: make(nn.Sequential(nn.LazyLinear(4))),
        r"0\.weight has no shape yet, since its layer is lazy: call the model with a batch first",
    ),
    "a complex weight": (
        lambda: make(nn.Sequential(nn.Linear(8, 4, dtype=torch.complex64))),
        r"0\.weight is complex \(torch.complex64\); only real weights",
    ),
    "numbers on the meta device": (lambda: make(on_meta()), r"0\.weight is on the meta device"),
    "an empty weight": (
        lambda: make(nn.Sequential(nn.Linear(0, 4), nn.Linear(4, 4))),
        r"0\.weight has no entries \(its shape is \[4, 0\]\)",
    ),
    "a parametrized linear layer": (
        lambda: make(nn.Sequential(nn.Linear(8, 8), parametrized(nn.Linear(8, 4), "weight"))),
        "1: its weight is computed by a parametrization; remove it first",
    ),
    "a parametrized attention layer": (
        lambda: make(parametrized(nn.MultiheadAttention(8, 2), "in_proj_weight")),
        "the model: its weight is computed by a parametrization",
    ),
    "a parametrized recurrent layer": (
        lambda: make(nn.Sequential(parametrized(nn.LSTM(8, 8), "weight_hh_l0"))),
        "0: its weight is computed by a parametrization",
    ),
    "a glob that matches nothing": (
        lambda: make(nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 4)), also_mask=["0.wieght"]),
        r"also_mask '0.wieght' matches no parameter of two or more dimensions. Did you mean '0.weight'\?",
    ),
    "a rule without parentheses": (
        lambda: rule(lambda layer: layer.weight),
        r"write @rule\(\) with parentheses",
    ),
}


@pytest.mark.filterwarnings("ignore:Lazy modules")
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize("what", REFUSED)
def test_it_is_one_sentence(what):
    act, sentence = REFUSED[what]
    with pytest.raises(UserError, match=sentence):
        act()


def test_sharded_weights_are_refused():
    from torch.distributed.tensor import DTensor

    # A stand-in of its name: FSDP's first version cannot be made without a GPU.
    wrapper = type("FullyShardedDataParallel", (nn.Sequential,), {"__module__": "torch.distributed.fsdp.wrap"})
    with pytest.raises(UserError, match="sharded by FSDP"):
        make(wrapper(nn.Linear(8, 4)))
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import distribute_tensor, init_device_mesh

        mesh = init_device_mesh("cpu", (1,))
        model = nn.Sequential(nn.Linear(8, 4))
        model[0].weight = nn.Parameter(distribute_tensor(model[0].weight.detach(), mesh))
        assert isinstance(model[0].weight.data, DTensor)
        with pytest.raises(UserError, match=r"0\.weight is a DTensor; only plain tensors"):
            make(model)
        with pytest.raises(UserError, match=r"sharded by FSDP|DTensor"):
            make(fully_shard(nn.Sequential(nn.Linear(8, 4)), mesh=mesh))
    finally:
        torch.distributed.destroy_process_group()


def test_frozen_parts_of_any_kind_do_not_matter():
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4, dtype=torch.complex64))
    model[1].requires_grad_(False)
    sparse = SparseTraining(model, torch.optim.SGD([model[0].weight], 0.1), "static", sparsity=0.5, total_steps=5)
    assert [layer.name for layer in sparse.layers()] == ["0.weight"]


@pytest.mark.parametrize("method", ["static", "set", "rigl"])
def test_empty_batches_are_trained_through(method):
    model = mlp(8, 12, 4)
    settings = {} if method == "static" else {"update_interval": 2}
    sparse = SparseTraining(
        model, torch.optim.SGD(model.parameters(), 0.1), method, sparsity=0.5, total_steps=9, **settings
    )
    for _ in range(4):
        model.zero_grad()
        model(torch.zeros(0, 8)).sum().backward()
        sparse.step()
    assert sparse.active == round(0.5 * sparse.maskable)


def test_what_newcomers_try_is_answered_in_a_sentence() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(UserError, match=r"the first argument is a SGD; the model expected, then its optimizer\."):
        SparseTraining(optimizer, model, sparsity=0.5, total_steps=10)
    with pytest.raises(UserError, match=r"growth is a function; name it, as '[\w.]+:_best'\."):
        SparseTraining(model, optimizer, sparsity=0.5, total_steps=10, growth=_best)
    with pytest.raises(UserError, match=r"unknown setting of rules 'droop'\. Did you mean 'drop'\?"):
        SparseTraining(model, optimizer, sparsity=0.5, total_steps=10, droop="magnitude")
    with pytest.raises(UserError, match=r"^update_interval is 1 epoch: pass update_interval in steps\.$"):
        SparseTraining(model, optimizer, sparsity=0.5, total_steps=10, update_interval="1 epoch")
    sparse = SparseTraining(model, optimizer, sparsity=0.5, total_steps=10)
    for ask in (sparse.mask, sparse.weight):
        with pytest.raises(UserError, match=r"unknown weight '0'\. .*Allowed: 0\.weight, 1\.weight\."):
            ask("0")


def test_the_state_of_another_sparsity_is_refused_as_one() -> None:
    def made(sparsity: float) -> SparseTraining:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return SparseTraining(model, optimizer, sparsity=sparsity, total_steps=10)

    first, second = made(0.9), made(0.1)
    assert set(first.masks) != set(second.masks)  # at 0.1 a layer stays dense
    with pytest.raises(ValueError, match="of another model, or of another sparsity or allocation"):
        second.load_state_dict(first.state_dict())


def test_a_second_step_of_the_optimizer_is_named_where_it_wakes_weights() -> None:
    torch.manual_seed(0)
    model = mlp(64, 300, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparse = SparseTraining(model, optimizer, "rigl-itop", sparsity=0.9, total_steps=100, update_interval=5)
    with pytest.warns(UserWarning, match=r"optimizer\.step\(\) is called beside step\(\)"):
        for _ in range(5):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(torch.randn(32, 64)), torch.randint(10, (32,))).backward()
            optimizer.step()
            sparse.step()


def _best(view, count):
    return view
