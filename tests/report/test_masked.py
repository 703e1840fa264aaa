from __future__ import annotations

from typing import Any

from itopctl.report.masked import mixed_notes


def run(id_: str, model: str = "mine:net", also_mask: list[str] | None = None) -> dict[str, Any]:
    settings = {} if also_mask is None else {"also_mask": also_mask}
    return {"run_id": id_, "model": model, "dataset": "digits", "settings": settings}


def test_runs_of_a_model_with_different_numbers_of_maskable_weights_are_told() -> None:
    runs = [run("a"), run("b"), run("c"), run("d", "mine:other"), run("e")]
    (note,) = mixed_notes(runs, {"a": 700, "b": 1900, "c": 1900, "d": 50})
    assert note.startswith("mine:net on digits: 2 runs had 1,900, 1 run had 700 maskable weights (")


def test_runs_that_were_told_to_mask_more_are_not_compared_with_others() -> None:
    masked = {"a": 700, "b": 1900}
    assert mixed_notes([run("a"), run("b", also_mask=["emb"])], masked) == []
    assert mixed_notes([run("a", also_mask=["emb"]), run("b", also_mask=["emb"])], masked) != []
