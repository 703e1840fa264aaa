"""Attention and recurrent layers: every matrix of theirs is masked, counted and paid for."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from itopctl.catalogue import METHODS
from itopctl.dst import SparseTraining, inference_flops, layer_costs
from itopctl.dst.maskable import maskable_weights
from tests.dst.nets import assert_masked, make_batch

BLOCKS = {
    "attention": (lambda: nn.MultiheadAttention(8, 2), {f"in_proj_weight.{b}": (8, 8) for b in "qkv"}),
    "attention of other widths": (
        lambda: nn.MultiheadAttention(8, 2, kdim=6, vdim=4),
        {"q_proj_weight": (8, 8), "k_proj_weight": (8, 6), "v_proj_weight": (8, 4)},
    ),
    "LSTM": (
        lambda: nn.LSTM(5, 8),
        {f"weight_{kind}_l0.{gate}": (8, size) for kind, size in (("ih", 5), ("hh", 8)) for gate in "ifgo"},
    ),
    "GRU": (
        lambda: nn.GRU(5, 8),
        {f"weight_{kind}_l0.{gate}": (8, size) for kind, size in (("ih", 5), ("hh", 8)) for gate in "rzn"},
    ),
    "RNN": (lambda: nn.RNN(5, 8), {"weight_ih_l0": (8, 5), "weight_hh_l0": (8, 8)}),
    "LSTM cell": (
        lambda: nn.LSTMCell(5, 8),
        {f"weight_{kind}.{gate}": (8, size) for kind, size in (("ih", 5), ("hh", 8)) for gate in "ifgo"},
    ),
    "GRU cell": (
        lambda: nn.GRUCell(5, 8),
        {f"weight_{kind}.{gate}": (8, size) for kind, size in (("ih", 5), ("hh", 8)) for gate in "rzn"},
    ),
    "projected LSTM": (
        lambda: nn.LSTM(5, 8, proj_size=3),
        {
            **{f"weight_ih_l0.{gate}": (8, 5) for gate in "ifgo"},
            **{f"weight_hh_l0.{gate}": (8, 3) for gate in "ifgo"},
            "weight_hr_l0": (3, 8),
        },
    ),
}


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_parameter_that_stacks_matrices_is_several_weights(kind):
    make, shapes = BLOCKS[kind]
    found = {name: weight.shape for name, weight in maskable_weights(make()).items()}
    if "attention" in kind:
        shapes = {**shapes, "out_proj.weight": (8, 8)}
    assert found == shapes


def test_layers_in_both_directions_and_on_each_other_are_found():
    found = maskable_weights(nn.Sequential(nn.LSTM(5, 8, num_layers=2, bidirectional=True)))
    assert len(found) == 2 * 2 * 2 * 4  # layers, directions, input and state, gates
    assert found["0.weight_ih_l1_reverse.o"].shape == (8, 16)
    assert found["0.weight_ih_l1_reverse.o"].rows == (24, 32)


@pytest.mark.parametrize("allocation", ["erk", "er", "uniform"])
def test_the_allocation_sees_the_matrices(allocation):
    class Apart(nn.Module):
        """The same matrices as layers of their own."""

        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(32, 32) for _ in range(4))
            self.other = nn.Linear(32, 64)

    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.other = nn.MultiheadAttention(32, 4), nn.Linear(32, 64)

    counts = []
    for model in (Apart(), Together()):
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparse = SparseTraining(model, optimizer, "static", sparsity=0.8, total_steps=5, allocation=allocation)
        counts.append([(layer.shape, layer.active) for layer in sparse.layers()])
    assert counts[0] == counts[1]


class Reader(nn.Module):
    """A sequence of 6 vectors of 8 through one of the layers, to 4 numbers."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "encoder":
            layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
            self.inner: nn.Module = nn.TransformerEncoder(layer, 2)
        elif kind == "attention":
            self.inner = nn.MultiheadAttention(8, 2, batch_first=True)
        else:
            self.inner = getattr(nn, kind)(8, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.kind == "encoder":
            states = self.inner(inputs)
        elif self.kind == "attention":
            states = self.inner(inputs, inputs, inputs, need_weights=False)[0]
        else:
            states = self.inner(inputs)[0]
        return self.head(states[:, -1])


@pytest.mark.parametrize("kind", ["encoder", "attention", "LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("method", [name for name in METHODS.names() if name != "dense"])
def test_they_are_trained_sparse_by_every_method(method, kind):
    torch.manual_seed(0)
    model = Reader(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    settings = {} if method == "static" else {"update_interval": 2}
    sparse = SparseTraining(model, optimizer, method, sparsity=0.8, total_steps=20, **settings)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    assert sparse.maskable == sum(p.numel() for p in matrices)
    assert sparse.left_dense == {}
    for step in range(8):
        optimizer.zero_grad()
        model(make_batch((6, 8), step)).square().mean().backward()
        sparse.step()
        assert_masked(model, sparse)
    nonzero = sum(int(p.count_nonzero()) for p in matrices)
    assert nonzero <= sparse.active == round(0.2 * sparse.maskable)
    assert sparse.total_density == pytest.approx(
        (sum(p.numel() for p in model.parameters()) - sparse.maskable + sparse.active)
        / sum(p.numel() for p in model.parameters())
    )
    if method not in ("static",):
        assert sparse.exploration_rate > sparse.density


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_fast_path_of_evaluation_is_taken_and_right(wrapped, monkeypatch):
    torch.manual_seed(0)
    model: nn.Module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = Reader("encoder") if wrapped else nn.Sequential(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = SparseTraining(model, optimizer, "set", sparsity=0.8, total_steps=20, update_interval=2)
    for step in range(4):
        optimizer.zero_grad()
        model(make_batch((6, 8), step)).square().mean().backward()
        sparse.step()
    calls = []
    fast = torch._transformer_encoder_layer_fwd
    monkeypatch.setattr(torch, "_transformer_encoder_layer_fwd", lambda *a, **k: calls.append(1) or fast(*a, **k))
    model.eval()
    for layer in model.modules():
        if isinstance(layer, nn.MultiheadAttention):
            with torch.no_grad():
                layer.in_proj_weight.add_(1.0)  # is masked before it is used, though no layer inside is called
    with torch.no_grad():
        output = model(make_batch((6, 8), 9))
    assert calls
    assert_masked(model, sparse)
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            assert torch.allclose(model(make_batch((6, 8), 9)), output, atol=1e-5)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)


# Costs ----------------------------------------------------------------------------------------------------


def test_attention_costs_its_projections_and_its_own_products():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, queries: Tensor, others: Tensor) -> Tensor:
            return self.attention(queries, others, others)[0]

    costs = layer_costs(Model(), torch.zeros(1, 6, 8), torch.zeros(1, 10, 8))
    assert {name: cost.macs for name, cost in costs.items()} == {
        "attention.in_proj_weight.q": 6 * 64,
        "attention.in_proj_weight.k": 10 * 64,
        "attention.in_proj_weight.v": 10 * 64,
        "attention.out_proj.weight": 6 * 64,
        "attention.attention": 2 * 6 * 10 * 8,
    }
    assert costs["attention.attention"].weights == 0


def test_attentions_own_products_are_dense_in_a_sparse_network():
    model = Reader("attention")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = SparseTraining(model, optimizer, "static", sparsity=0.75, total_steps=5, allocation="uniform")
    costs = layer_costs(model, torch.zeros(1, 6, 8))
    weights = 4 * 6 * 64 + 32
    assert inference_flops(costs.values(), (), "macs") == weights + 2 * 36 * 8
    assert inference_flops(costs.values(), sparse.layers(), "macs") == pytest.approx(0.25 * weights + 2 * 36 * 8)


def test_attention_without_a_layer_of_its_own_is_counted():
    class Model(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return nn.functional.scaled_dot_product_attention(inputs, key=inputs, value=inputs)

    costs = layer_costs(Model(), torch.zeros(1, 2, 6, 4))
    assert {name: cost.macs for name, cost in costs.items()} == {"scaled_dot_product_attention": 2 * 2 * 36 * 4}


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_use_every_weight_at_every_step(kind, gates):
    costs = layer_costs(Reader(kind), torch.zeros(1, 6, 8))
    recurrent = {name: cost for name, cost in costs.items() if name != "head.weight"}
    assert len(recurrent) == 2 * gates
    assert all(cost.macs == 6 * 64 for cost in recurrent.values())


def test_packed_sequences_count_what_they_hold():
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.GRU(8, 8, batch_first=True)

        def forward(self, inputs: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(inputs, torch.tensor([4]), batch_first=True)
            return self.inner(packed)[0].data

    costs = layer_costs(Model(), torch.zeros(1, 6, 8))
    assert all(cost.macs == 4 * 64 for cost in costs.values())


# What else is there ---------------------------------------------------------------------------------------


class WithRaw(nn.Module):
    """Raw parameters beside a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 8))
        self.table = nn.Embedding(10, 8)
        self.position = nn.Parameter(torch.randn(1, 6, 8))
        self.head = nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head((inputs + self.table.weight[:6] + self.position) @ self.mix).mean(dim=1)


def test_what_is_left_dense_is_told_with_its_share():
    model = WithRaw()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.warns(UserWarning, match=r"left dense: mix, position, table\.weight \(84\.2 % of all weights\)"):
        sparse = SparseTraining(model, optimizer, "static", sparsity=0.5, total_steps=5)
    assert sparse.left_dense == {"mix": 64, "position": 48, "table.weight": 80}
    assert (sparse.trainable, sparse.maskable, sparse.active) == (228, 32, 16)
    assert sparse.total_density == (228 - 16) / 228
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SparseTraining(model, optimizer, "dense", total_steps=5)


@pytest.mark.parametrize("method", ["static", "set", "rigl"])
def test_raw_parameters_are_masked_where_they_are_named(method):
    torch.manual_seed(0)
    model = WithRaw()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    settings = {} if method == "static" else {"update_interval": 2}
    with pytest.warns(UserWarning, match=r"left dense: position \("):
        sparse = SparseTraining(
            model, optimizer, method, sparsity=0.5, total_steps=20, also_mask=["mi*", "table.weight"], **settings
        )
    assert [layer.name for layer in sparse.layers()] == ["mix", "table.weight", "head.weight"]
    for step in range(6):
        optimizer.zero_grad()
        model(make_batch((6, 8), step)).square().mean().backward()
        sparse.step()
        assert_masked(model, sparse)
    with torch.no_grad():
        model.mix.add_(1.0)
    model(make_batch((6, 8), 0))
    assert_masked(model, sparse)


def test_settings_name_blocks_parameters_and_types():
    torch.manual_seed(0)
    for pattern, dense in {
        "inner.in_proj_weight": ["inner.in_proj_weight.q", "inner.in_proj_weight.k", "inner.in_proj_weight.v"],
        "inner.in_proj_weight.k": ["inner.in_proj_weight.k"],
        "type:MultiheadAttention": [f"inner.in_proj_weight.{block}" for block in "qkv"],
    }.items():
        model = Reader("attention")
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        sparse = SparseTraining(
            model, optimizer, "set", sparsity=0.3, total_steps=9, update_interval=1, keep_dense=(pattern,)
        )
        assert [layer.name for layer in sparse.layers() if layer.density == 1.0] == dense
        for step in range(3):
            optimizer.zero_grad()
            model(make_batch((6, 8), step)).square().mean().backward()
            sparse.step()
        assert_masked(model, sparse)
        parameter = model.inner.in_proj_weight
        assert bool(parameter[8:16].all())
