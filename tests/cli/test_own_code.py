"""Code of the user's own that is edited between commands: what counts as done, what is run, and what is said of it.

Runs are made by worker processes, as ever.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from itopctl.cli import app
from itopctl.config.own_code import OwnCode
from tests.dispatch.fake_slurm import FakeSlurm
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

    def __init__(self, folder: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
        self.folder, self.results, self.fake = folder, folder / "results", fake
        self.capsys, self.monkeypatch = capsys, monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        for name in ("ITOPCTL_RESULTS", "ITOPCTL_DATA", "ITOPCTL_SLURM"):
            monkeypatch.delenv(name, raising=False)
        (folder / "my_models.py").write_text(MODEL)
        self.width(8)
        self.seeds(2)

    def width(self, width: int, comment: str = "") -> None:
        (self.folder / "my_sizes.py").write_text(f"WIDTH = {width}  # {comment}\n")

    def seeds(self, count: int, **base: Any) -> None:
        write_spec(self.folder, base={**BASE, **base}, grid={"seed": count}, slurm={"mem": "1G"})

    def type(self, *arguments: str | Path, code: int = 0) -> str:
        """What a command prints, typed in this process; the workers that it starts are others."""
        self.monkeypatch.setattr(sys, "argv", ["itopctl", *map(str, arguments)])
        self.capsys.readouterr()
        try:
            found = app.run()
        except SystemExit as end:
            found = int(end.code or 0)
        seen = self.capsys.readouterr()
        assert found == code, seen.out + seen.err
        return str(seen.out + seen.err)

    def planned(self, *arguments: str) -> tuple[str, list[str]]:
        """The counts of a plan, and its notes."""
        lines = self.type("sweep", "spec.yaml", "--dry-run", *arguments).splitlines()
        return lines[0], [line for line in lines if line.startswith("trial:")]

    def runs(self, *states: str) -> list[dict[str, Any]]:
        found = json.loads(self.type("report", "trial", "--table", "runs", "--json").split("itopctl:")[0])
        return [run for run in found if not states or run["state"] in states]

    @property
    def digest(self) -> str:
        return str(OwnCode().digest("my_models"))


@pytest.fixture
def desk(tmp_path: Path, fake: FakeSlurm, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> Desk:
    (tmp_path / "my work").mkdir()
    return Desk(tmp_path / "my work", fake, monkeypatch, capsys)


@pytest.mark.slow
def test_runs_by_code_that_was_edited_are_made_anew_unless_the_edit_is_accepted(desk: Desk) -> None:
    done = itopctl("sweep", "spec.yaml", cwd=desk.folder)
    assert "2 of 2 runs done" in done.stdout, done.stderr
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


def test_unfinished_runs_by_other_code_are_begun_anew_and_none_is_tried_again(desk: Desk) -> None:
    mistake = (
        "from torch import nn\n"
        "class Small(nn.Linear):\n"
        "    def forward(self, images):\n"
        "        if self.training:\n"  # it can be made, and fails when it is trained
        "            raise ValueError('a mistake')\n"
        "        return super().forward(images.flatten(1))\n"
        "def small(input_shape, classes):\n"
        "    return Small(64, classes)\n"
    )
    (desk.folder / "my_models.py").write_text(mistake)
    (desk.folder / "other.py").write_text(mistake)
    models = {"model": ["my_models:small", "other:small"]}
    write_spec(desk.folder, base=BASE, grid=models, slurm={"mem": "1G"})
    desk.type("sweep", "spec.yaml", code=1)
    failed = {run["model"]: run["run_id"] for run in desk.runs("failed")}
    broken = desk.digest
    (desk.folder / "my_models.py").write_text(MODEL)

    for dry_run in (["--dry-run"], []):
        said = desk.type("retry", "--cluster", "slurm", *dry_run)
        assert "1 run of other code of your own left out." in said and "1 run to try again" in said
    assert f"Module my_models ({desk.folder / 'my_models.py'}), or one of 1 module of yours that it imports," in said
    assert f"{broken} was planned, {desk.digest} is there now" in said and "`itopctl sweep SPEC`" in said
    desk.fake.end(desk.fake.jobs([*desk.fake.arrays][-1])[0], "FAILED")
    (desk.folder / "other.py").write_text(MODEL)
    assert "these runs were planned with other code of your own" in desk.type("retry", code=2)

    notes = [
        f"trial: 1 unfinished by an earlier `{model}` ({digest}), to be begun anew with the code as it is now: "
        "none is resumed by other code"
        for model, digest in (("my_models", broken), ("other", _recorded(desk, failed["other:small"])["other"]))
    ]
    assert desk.planned() == ("Plan: 2 new, 0 done, 0 running, 0 failed, 0 duplicate.", notes)
    desk.type("sweep", "spec.yaml", "--cluster", "slurm")
    assert {run["run_id"] for run in desk.runs()}.isdisjoint(failed.values())  # they leave the sweep
    assert all((desk.results / "runs" / run_id).is_dir() for run_id in failed.values())


def _recorded(desk: Desk, run_id: str) -> dict[str, str]:
    shown = json.loads(desk.type("show", run_id, "--json"))
    versions: dict[str, str] = shown["config"]["own_code"]
    return versions


@pytest.mark.slow
def test_a_job_runs_the_code_that_was_planned_or_says_that_it_is_another(desk: Desk) -> None:
    away = desk.folder.parent / "elsewhere"
    away.mkdir()
    (desk.folder / "my_sizes.py").rename(away / "my_sizes.py")  # a snapshot has modules from wherever they lie
    desk.monkeypatch.setenv("PYTHONPATH", str(away), prepend=":")
    sys.path.append(str(away))
    desk.seeds(1)
    desk.type("sweep", "spec.yaml", "--cluster", "slurm")
    desk.type("sweep", "spec.yaml", "--cluster", "slurm", "--no-snapshot", "--set", "seed=7")
    planned = desk.digest
    (away / "my_sizes.py").write_text("WIDTH = 9\n")
    codes = [desk.fake.run(job) for array in desk.fake.arrays for job in desk.fake.jobs(array)]
    assert codes == [0, 1]
    runs = {run["seed"]: run for run in json.loads(desk.type("report", "--table", "runs", "--json"))}
    assert (runs[0]["state"], runs[7]["state"], runs[7]["cause"]) == ("done", "failed", "other-code")
    assert runs[7]["message"] == (
        f"Module my_models ({desk.folder / 'my_models.py'}), or one of 1 module of yours that it imports, has changed: "
        f"{planned} was planned, {desk.digest} is there now. `itopctl sweep SPEC` plans the run with the code as it is "
        "now; to make this very run, put the code back as it was."
    )
    assert {run["settings"]["own_code.my_models"] for run in runs.values()} == {planned}
    assert "these runs were planned with other code" in desk.type(
        "retry", "--cause", "other-code", "--cluster", "local", code=2
    )


# Results from before ----------------------------------------------------------------------------------------


@pytest.fixture
def old(desk: Desk) -> Desk:
    shutil.copy(BEFORE / "my_models.py", desk.folder)
    shutil.copy(BEFORE / "spec.yaml", desk.folder)
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
    assert "Versions of my_models: unknown made 2 runs" in table
    pooled = old.type("report", "--rows", "method", "--format", "markdown")
    assert f"unknown made 2 runs, {old.digest} made 1 run." in pooled
    assert "not recorded" in old.type("show", BEFORE_IDS[0])
    assert "own_code.my_models" in old.type("show", old.runs()[2]["run_id"])
    assert "no problem" in old.type("store", "check")
    old.type("store", "rebuild")
    old.type("store", "export", "all.tar")
    old.type("store", "import", "all.tar", "--results", "theirs")
    for results in ("results", "theirs"):
        assert old.type("report", "--results", results, "--format", "markdown") == table
    (old.folder / "my_models.py").write_text(MODEL)
    assert old.planned()[0] == "Plan: 1 new, 2 done, 0 running, 0 failed, 0 duplicate."


def test_results_from_before_want_trust_as_ever(old: Desk) -> None:
    (old.results / "runs" / BEFORE_IDS[0] / "result.json").unlink()
    said = old.type("retry", code=2)
    assert "my_models:small" in said and "add --trust" in said
    assert "my_models:small" in old.type("export", BEFORE_IDS[1], code=2)


def test_the_digest_of_the_model_beside_the_old_results_is_what_it_always_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BEFORE)
    monkeypatch.syspath_prepend(BEFORE)
    assert OwnCode().digest("my_models") == "dd20f5b84dfe"
