"""Runs that itopctl made before it masked attention, of a model that has some.

`before_attention/recorded` was written by the last version that left `nn.MultiheadAttention.in_proj_weight` dense, from
`spec.yaml` there: one run finished, two were stopped and have a checkpoint. They are never made anew.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from itopctl.dispatch.attempt import execute
from itopctl.dispatch.attempt_values import Job
from itopctl.store.files import write_json
from itopctl.store.journal import attempts_in, read_journal
from tests.cli.desk import Desk

RECORDED = Path(__file__).parent / "before_attention"
FINISHED, SPARSE, DENSE = "0148ca2d81d1", "3bf1677cae56", "faeda792dd7e"
MASKED, TODAY = 8 * 8 + 64 * 10, 8 * 8 + 64 * 10 + 3 * 8 * 8
BECAUSE = "attention and recurrent layers are masked since, or the model was changed"


@pytest.fixture
def old(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A folder with the spec, the model and the results, as somebody left it."""
    shutil.copytree(RECORDED, desk.folder, dirs_exist_ok=True)
    (desk.folder / "recorded").rename(desk.results.path)
    monkeypatch.syspath_prepend(desk.folder)
    return desk


@pytest.mark.parametrize("run", [SPARSE, DENSE])
def test_an_unfinished_run_is_neither_resumed_nor_begun_anew(old: Desk, run: str) -> None:
    folder = old.results.run(run)
    before = {path.name: path.read_bytes() for path in folder.path.glob("checkpoint*")}
    for _ in range(2):
        asked = iter([None, None])
        ended = execute(folder, old.folder, Job(), lambda asked=asked: next(asked, ("cancelled", "")))
        assert (ended.state, ended.cause) == ("failed", "user-error")
        assert ended.message == (
            f"this run was begun with {MASKED} maskable weights, but its model has {TODAY} now ({BECAUSE}); delete "
            f"{folder.path} to train it anew."
        )
    assert {path.name: path.read_bytes() for path in folder.path.glob("checkpoint*")} == before
    assert [attempt.cause for attempt in attempts_in(folder.journal)] == ["cancelled", "user-error", "user-error"]
    assert not folder.result.exists()


def test_a_run_whose_folder_was_deleted_is_begun_anew(old: Desk) -> None:
    folder, config = old.results.run(SPARSE), json.loads(old.results.run(SPARSE).config.read_text())
    shutil.rmtree(folder.path)
    write_json(folder.config, config)
    asked = iter([None, None])
    assert execute(folder, old.folder, Job(), lambda: next(asked, ("cancelled", ""))).cause == "cancelled"
    events = read_journal(folder.journal).events
    assert [event["step"] for event in events if event["event"] == "started"] == [0]
    assert [event["maskable"] for event in events if "maskable" in event] == [TODAY]
    assert execute(folder, old.folder, Job(), lambda: ("cancelled", "")).cause == "cancelled"  # from its own checkpoint
    assert [e["step"] > 0 for e in read_journal(folder.journal).events if e["event"] == "started"] == [False, True]


def test_finished_runs_keep_their_results_and_are_marked_by_plan_and_show(old: Desk) -> None:
    mark = f"had {MASKED} maskable weights where the model has {TODAY} today ({BECAUSE}). The results stay;"
    planned = old("plan", "spec.yaml", "--json", "--runs")
    states = {row["run_id"]: row["state"] for row in json.loads(planned.out)}
    # Runs of before have no digest of the code: a finished one counts as done, unfinished ones are not gone on with.
    assert (planned.code, sorted(states.values()), states[FINISHED]) == (0, ["done", "new", "new"], "done")
    assert not {SPARSE, DENSE} & states.keys()
    assert f"1 finished run of attention_models:attention on digits {mark}" in planned.err
    trusted = json.loads(old("show", FINISHED, "--trust", "--json").out)
    assert (trusted["maskable"], trusted["maskable_today"], trusted["state"]) == (MASKED, TODAY, "done")
    assert (trusted["total_density"], trusted["trainable"], trusted["left_dense"]) == (None, None, None)
    assert f"This run {mark}" in " ".join(old("show", FINISHED, "--trust").out.split())


def test_show_imports_nothing_unless_it_may_and_says_what_it_does_not_know(old: Desk) -> None:
    (old.folder / "attention_models.py").write_text("raise SystemExit('nobody was asked')")
    shown = old("show", FINISHED)
    assert shown.code == 0 and "An older version of itopctl made this run" in shown.out
    assert f"itopctl show {FINISHED} --trust" in " ".join(shown.out.split())
    assert json.loads(old("show", FINISHED, "--json").out)["maskable_today"] is None


def test_a_report_says_where_it_has_runs_of_both_kinds(old: Desk) -> None:
    assert "maskable weights" not in old("report", "old").out
    _finish_as_today(old)
    said = (
        f"attention_models:attention on digits: 1 run had {MASKED}, 1 run had {TODAY} maskable weights ({BECAUSE}). "
        "They are different sparse networks."
    )
    assert said in " ".join(old("report", "--format", "markdown").out.split())
    assert said in old("report", "-t", "runs", "--json").err


def _finish_as_today(old: Desk) -> None:
    """Another seed of the finished run, with a result as it is written now."""
    before = old.results.run(FINISHED)
    config = RunConfig.model_validate(json.loads(before.config.read_text())["config"]).model_copy(update={"seed": 1})
    result: dict[str, Any] = json.loads(before.result.read_text())
    blocks = [{**result["layers"][0], "name": f"attention.in_proj_weight.{block}"} for block in "qkv"]
    run = old.results.run(run_id(config))
    run.path.mkdir()
    write_json(run.config, {"config": config.model_dump(mode="json")})
    shutil.copy(before.journal, run.journal)
    write_json(run.result, {**result, "run_id": run.run_id, "layers": [*blocks, *result["layers"]]})
