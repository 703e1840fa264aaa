"""Code of the user's own that is edited between commands: what counts as done, what is run, and what is said of it.

Every command is a process of its own, as a user types it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from itopctl.spec.own_code import OwnCode
from tests.helpers import itopctl, write_spec

BEFORE = Path(__file__).parent / "before_digests"
"""Two finished runs as they were recorded before runs recorded digests, by the model and the spec beside them."""
BEFORE_IDS = ("9c0b078ebc19", "450b5a522464")

BASE = {"dataset": "digits", "model": "my_models:small", "method": "static", "sparsity": 0.5, "epochs": 1,
        "compute": "masked"}  # fmt: skip
MODEL = '''
from torch import nn
from my_sizes import WIDTH


def small(input_shape, classes):
    """A small model."""
    pixels = input_shape[0] * input_shape[1] * input_shape[2]
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, WIDTH), nn.ReLU(), nn.Linear(WIDTH, classes))
'''


class Desk:
    """A folder with a spec, a model of the user's own and a module that the model imports."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results"
        (folder / "my_models.py").write_text(MODEL)
        self.width(8)
        self.seeds(2)

    def width(self, width: int, comment: str = "") -> None:
        (self.folder / "my_sizes.py").write_text(f"WIDTH = {width}  # {comment}\n")

    def seeds(self, count: int, **base: Any) -> None:
        write_spec(self.folder, base={**BASE, **base}, grid={"seed": count})

    def type(self, *arguments: str | Path, code: int = 0) -> str:
        done = itopctl(*arguments, cwd=self.folder)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def planned(self, *arguments: str) -> tuple[str, list[str]]:
        """The counts of a plan, and its notes."""
        lines = self.type("sweep", "spec.yaml", "--dry-run", *arguments).splitlines()
        return lines[0], [line for line in lines if line.startswith("trial:")]

    def runs(self, *states: str) -> list[dict[str, Any]]:
        found = json.loads(self.type("report", "trial", "--table", "runs", "--json").split("itopctl:")[0])
        return [run for run in found if not states or run["state"] in states]

    @property
    def digest(self) -> str:
        return str(json.loads(self.type("sweep", "spec.yaml", "--dry-run", "--set", "seed=99", "--format", "json"))
                   [0]["config"]["own_code"]["my_models"])  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_runs_by_code_that_was_edited_are_made_anew_unless_the_edit_is_accepted(desk: Desk) -> None:
    assert "2 of 2 runs done" in desk.type("sweep", "spec.yaml")
    first = desk.digest
    desk.width(8, comment="the same code")
    assert desk.planned() == ("Plan: 0 new, 2 done, 0 running, 0 failed, 0 duplicate.", [])

    desk.width(9)
    second = desk.digest
    assert second != first
    counts, notes = desk.planned()
    assert counts == "Plan: 2 new, 0 done, 0 running, 0 failed, 0 duplicate."
    assert notes == [
        f"trial: 2 done by an earlier `my_models` ({first}), to be made anew with the code as it is now; "
        "--accept-code my_models counts them as done"
    ]
    accepted = "Plan: 0 new, 2 done, 0 running, 0 failed, 0 duplicate."
    declared = [f"trial: 2 done by an earlier `my_models` ({first}), declared to be the same (--accept-code)"]
    assert desk.planned("--accept-code", "my_models") == (accepted, declared)
    assert desk.planned()[0] == counts  # a plan records nothing
    wrong = desk.type("plan", "spec.yaml", "--accept-code", "my_model", code=2)
    assert "--accept-code: unknown module of your own 'my_model'. Did you mean 'my_models'?" in wrong

    desk.seeds(3)
    assert "1 to run" in desk.type("sweep", "spec.yaml", "--accept-code", "my_models")
    assert desk.planned() == ("Plan: 0 new, 3 done, 0 running, 0 failed, 0 duplicate.", declared)  # the sweep knows it
    runs = desk.runs()
    assert sorted(run["settings"]["own_code.my_models"] for run in runs) == sorted([first, first, second])
    table = desk.type("report", "--format", "markdown")
    assert "n 3" in table and f"{first}" in table and "count as the same (--accept-code)" in table
    desk.type("report", "-o", "page.html")
    page = (desk.folder / "page.html").read_text()
    assert "--accept-code my_models" in page and ", ".join(sorted((first, second))) in page

    desk.width(10)  # what was accepted was that change, not every one
    assert desk.planned()[0] == "Plan: 3 new, 0 done, 0 running, 0 failed, 0 duplicate."


def test_tables_keep_runs_by_different_code_apart_and_say_so(desk: Desk) -> None:
    desk.seeds(1)
    desk.type("sweep", "spec.yaml")
    first = desk.digest
    desk.width(9)
    desk.type("sweep", "spec.yaml")
    second = desk.digest
    table = desk.type("report", "--format", "markdown")
    for digest in (first, second):
        assert f"static, my_models {digest}" in table and f"{digest} made 1 run" in table
    pooled = desk.type("report", "--rows", "method", "--format", "markdown")
    assert f"Versions of my_models: {second} made 1 run, {first} made 1 run." in pooled
    rebuilt = desk.type("store", "rebuild") and desk.type("report", "--format", "markdown")
    assert rebuilt == table
    assert "no problem" in desk.type("store", "check")

    desk.type("store", "export", "all.tar")
    desk.type("store", "import", "all.tar", "--results", "theirs")
    assert desk.type("report", "--results", "theirs", "--format", "markdown") == table
    (old,) = [run for run in desk.runs() if run["settings"]["own_code.my_models"] == first]
    shown = json.loads(desk.type("show", old["run_id"], "--json"))
    assert shown["config"]["own_code"] == {"my_models": first}
    assert "own_code.my_models" in desk.type("show", old["run_id"]) and first in desk.type("show", old["run_id"])


def test_unfinished_runs_by_an_earlier_version_are_begun_anew_and_leave_the_sweep(desk: Desk) -> None:
    good = (desk.folder / "my_models.py").read_text()
    (desk.folder / "my_models.py").write_text(good.replace("return nn", "raise ValueError('a mistake')\n    return nn"))
    desk.type("sweep", "spec.yaml", code=1)
    failed = {run["run_id"] for run in desk.runs("failed")}
    broken = desk.digest
    (desk.folder / "my_models.py").write_text(good)

    said = desk.type("retry", code=2)
    assert "these runs were planned with other code of your own" in said and "itopctl sweep SPEC" in said
    assert f"({desk.folder / 'my_models.py'})" in said and broken in said and desk.digest in said
    assert desk.planned()[1] == [
        f"trial: 2 unfinished by an earlier `my_models` ({broken}), to be begun anew with the code as it is now: "
        "none is resumed by other code"
    ]
    assert "2 of 2 runs done" in desk.type("sweep", "spec.yaml")
    assert {run["state"] for run in desk.runs()} == {"done"}
    assert all((desk.results / "runs" / run_id).is_dir() for run_id in failed)


def test_runs_of_other_code_are_left_out_of_a_retry_and_the_others_are_tried(desk: Desk) -> None:
    mistake = "def small(input_shape, classes):\n    raise ValueError('a mistake')\n"
    (desk.folder / "my_models.py").write_text(mistake)
    (desk.folder / "other.py").write_text(mistake)
    write_spec(desk.folder, base=BASE, grid={"model": ["my_models:small", "other:small"]})
    desk.type("sweep", "spec.yaml", code=1)
    (desk.folder / "my_models.py").write_text(MODEL)
    said = desk.type("retry", code=1)
    assert "1 run of other code of your own left out" in said and "1 run to try again" in said
    attempts = {run["model"]: run["attempts"] for run in desk.runs()}
    assert attempts == {"my_models:small": 1, "other:small": 2}


def test_code_that_is_edited_after_the_plan_is_not_run(desk: Desk) -> None:
    """As a job without a snapshot does: the worker of the second run finds what the first has edited."""
    (desk.folder / "my_models.py").write_text(
        MODEL.replace("    pixels", "    open(__file__, 'a').write('EDITED = 1\\n')\n    pixels")
    )
    said = desk.type("sweep", "spec.yaml", "--workers", "1", code=1)
    done, failed = sorted(desk.runs(), key=lambda run: run["state"])
    assert (done["state"], failed["state"], failed["cause"]) == ("done", "failed", "other-code")
    assert "1 of 2 runs done, 1 failed" in said
    assert f"Module my_models ({desk.folder / 'my_models.py'})" in failed["message"]
    assert done["settings"]["own_code.my_models"] in failed["message"]
    retry = desk.type("retry", "--cause", "other-code", code=2)
    assert "these runs were planned with other code of your own" in retry


# Results from before ----------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path)
    shutil.copy(BEFORE / "my_models.py", tmp_path)
    shutil.copy(BEFORE / "spec.yaml", tmp_path)
    shutil.copytree(BEFORE / "recorded", desk.results)
    return desk


def test_runs_from_before_count_as_done_by_unknown_code_and_are_kept_apart(old: Desk) -> None:
    unknown = ["trial: 2 done by unknown code of `my_models`: no digest was recorded then"]
    assert old.planned() == ("Plan: 0 new, 2 done, 0 running, 0 failed, 0 duplicate.", unknown)
    spec = old.folder / "spec.yaml"
    spec.write_text(spec.read_text().replace("seed: 2", "seed: 3"))
    assert "1 to run" in old.type("sweep", "spec.yaml")
    assert tuple(run["run_id"] for run in old.runs())[:2] == BEFORE_IDS
    table = old.type("report", "--format", "markdown")
    assert "static, my_models unknown" in table and f"static, my_models {old.digest}" in table
    assert "not recorded" in old.type("show", BEFORE_IDS[0])
    assert "no problem" in old.type("store", "check")
    (old.folder / "my_models.py").write_text(MODEL)
    assert old.planned()[0] == "Plan: 1 new, 2 done, 0 running, 0 failed, 0 duplicate."


def test_results_from_before_want_trust_as_ever(old: Desk) -> None:
    run = old.results / "runs" / BEFORE_IDS[0]
    (run / "result.json").unlink()
    assert "my_models:small" in old.type("retry", code=2)
    assert "1 of 1 run done" in old.type("retry", "--trust")


def test_the_digest_of_the_model_beside_the_old_results_is_what_it_always_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BEFORE)
    monkeypatch.syspath_prepend(BEFORE)
    assert OwnCode().digest("my_models") == "dd20f5b84dfe"
