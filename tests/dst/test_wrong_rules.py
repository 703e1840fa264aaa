"""Rules and settings that cannot be right are told at once, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from itopctl.dst import Rules, SparseTraining, rule
from itopctl.errors import UserError
from tests.dst.nets import backward, make_batch, mlp, plain_sgd


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"needs": ["gradients"]}, "'gradient'"),
        ({"scope": "net"}, "'network'"),
    ],
)
def test_a_misspelt_declaration_is_answered_with_the_nearest_word(options, word):
    with pytest.raises(UserError, match=f"Did you mean {word}|Allowed: .*{word.strip(chr(39))}"):
        rule(**options)
    with pytest.raises(TypeError):
        rule(need=["gradient"])


def test_a_declared_setting_that_the_function_does_not_take_is_answered_with_what_it_takes():
    with pytest.raises(UserError, match=r"setting of mine, .*'gradient_wieght'. Did you mean 'gradient_weight'"):

        @rule(settings={"gradient_wieght": 1.0})
        def mine(layer, gradient_weight):
            return layer.weight

    with pytest.raises(UserError, match="cannot have a setting 'count'"):
        rule(settings={"count": 1})(lambda layer, count: layer.weight)


@pytest.mark.parametrize("setting", ["gradient_weight", "exploration_weight", "exploration_offset", "sampled_share"])
@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_settings_that_are_no_numbers_to_compute_with_are_refused(setting, value):
    with pytest.raises(UserError, match=setting):
        Rules.of_method("rigl", **{setting: value})


@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_a_share_that_is_no_share_is_an_error(value, tmp_path: Path, monkeypatch):
    (tmp_path / "odd_shares.py").write_text(f"def odd(layer):\n    return float({str(value)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "odd_shares", raising=False)
    model = mlp(6, 6, 6)
    sparse = SparseTraining(
        model, plain_sgd(model), "set-itop", sparsity=0.5, total_steps=9, update_interval=1,
        redistribution="odd_shares:odd",
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"odd_shares:odd.*0 or more expected"):
        sparse.step()


def test_a_position_below_zero_is_an_error_and_not_the_last_weight(tmp_path: Path, monkeypatch):
    (tmp_path / "odd_growth.py").write_text(
        "import torch\nfrom itopctl.dst import rule\n@rule(chooses=True)\n"
        "def backwards(layer, count):\n    return -1 - torch.arange(count)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = nn.Linear(10, 10)
    sparse = SparseTraining(
        model, plain_sgd(model), "set-itop", sparsity=0.9, total_steps=9, update_interval=1,
        growth="odd_growth:backwards",
    )  # fmt: skip
    with pytest.raises(ValueError, match="below 0"):
        sparse.step()


@pytest.mark.parametrize("drop", ["taylor", "sensitivity"])
def test_products_too_small_for_half_precision_are_ranked_all_the_same(drop):
    layer = nn.Linear(4, 2, bias=False).half()
    sparse = SparseTraining(
        layer, plain_sgd(layer, 0.0), "rigl", sparsity=0.5, total_steps=9, update_interval=1, drop=drop,
        drop_fraction=0.25, growth="random-unexplored", drop_schedule={"name": "constant"},
    )  # fmt: skip
    mask = sparse.mask("weight")
    with torch.no_grad():
        layer.weight[mask] = torch.tensor([4e-4, 3e-4, 2e-4, 1e-4]).half()
    (layer.weight * 1e-4).sum().backward()
    smallest = mask.flatten().nonzero()[3].item()
    sparse.step()
    assert not sparse.mask("weight").flatten()[smallest]


@pytest.mark.parametrize("drop", ["magnitude", "taylor"])
def test_a_step_that_breaks_the_weights_is_told_whichever_way_drops_are_chosen(drop):
    model = mlp(4, 4, 4)
    sparse = SparseTraining(
        model, plain_sgd(model, float("inf")), "rigl-itop", sparsity=0.5, total_steps=9, update_interval=1, drop=drop
    )
    backward(model, make_batch((4,), 0))
    with pytest.raises(FloatingPointError, match="not finite after step 1"):
        sparse.step()
