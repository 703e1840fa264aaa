"""Results folders that earlier versions wrote: what is told of them today is, to the letter, what it always was.

Names in JSON and CSV, values, run ids. The folders are never made anew: `store/databases` has one of each version of
the database, `before_attention`, `before_digests` and `before_schema` those of versions of which something else is
remembered. What they tell lies in `told`, and is made anew by `python -m tests.cli.test_stored_folders`; read the
difference before you keep it, since scripts of other people read these names.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig
from tests.cli.desk import Desk
from tests.helpers import itopctl

HERE = Path(__file__).parent
TOLD = HERE / "told"
FOLDERS = {
    **{f"v{n}": HERE.parent / "store" / "databases" / f"v{n}" for n in range(1, 6)},
    **{name: HERE / name / "recorded" for name in ("before_attention", "before_digests", "before_schema")},
}
COMMANDS = {
    "status.json": ("status", "--json"),
    "status-runs.json": ("status", "--runs", "--json"),
    **{
        f"{table}.json": ("report", "--table", table, "--json")
        for table in ("paper", "exploration", "claims", "layers", "cost", "runs", "pivot")
    },
    "by-lr.json": (
        "report", "-t", "pivot", "--rows", "method,optimizer.lr", "--columns", "sparsity", "--cell", "accuracy,R_s",
        "--json",
    ),
    "runs.csv": ("report", "--table", "runs", "--format", "csv"),
    "runs.md": ("report", "--table", "runs", "--format", "markdown"),
    "cost.tex": ("report", "--table", "cost", "--format", "latex"),
    "sweeps.json": ("list", "sweeps", "--json"),
}  # fmt: skip
SHOWN = ("12443e7eb6d1", "16ad19530735", "a330609e1abc", "f44683cba4bf")  # of `before_schema`


def run_ids(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "runs").iterdir())


def asked(folder: Path) -> dict[str, tuple[str, ...]]:
    """File of `told` → the command whose answer lies there."""
    shown = SHOWN if set(SHOWN) <= set(run_ids(folder)) else run_ids(folder)
    return {**COMMANDS, **{f"show-{run}.json": ("show", run, "--json") for run in shown}}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_told_of_a_folder_is_what_always_was(folder: str, desk: Desk) -> None:
    shutil.copytree(FOLDERS[folder], desk.results.path)
    for name, command in asked(FOLDERS[folder]).items():
        done = desk(*command)
        expected = (TOLD / folder / name).read_text(encoding="utf-8")
        assert done.code == (0 if expected else 2), (name, done)
        if expected and name.endswith(".json"):  # in which the order of names means nothing
            assert json.loads(done.out) == json.loads(expected), name
        else:
            assert done.out == expected, name


@pytest.mark.parametrize("folder", FOLDERS)
def test_its_runs_have_the_ids_that_their_folders_are_named_by(folder: str) -> None:
    for run in run_ids(FOLDERS[folder]):
        recorded = json.loads((FOLDERS[folder] / "runs" / run / "config.json").read_text())
        assert run_id(RunConfig.model_validate(recorded["config"])) == run == recorded["run_id"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_its_sweeps_planned_again_are_the_same_runs(folder: str, desk: Desk) -> None:
    beside = FOLDERS[folder].parent / "spec.yaml"
    for module in FOLDERS[folder].parent.glob("*.py") if beside.exists() else ():
        shutil.copy(module, desk.folder)
        desk.monkeypatch.syspath_prepend(desk.folder)
    shutil.copytree(FOLDERS[folder], desk.results.path)
    for manifest in sorted((FOLDERS[folder] / "sweeps").iterdir()):
        sweep = json.loads(manifest.read_text())
        recorded = [run["run_id"] for run in sweep["runs"]]
        (desk.folder / "again.yaml").write_text(sweep["specs"][0]["text"], encoding="utf-8")
        planned = desk("plan", "again.yaml", "--runs", "--json")
        assert planned.code == 0, planned
        rows = json.loads(planned.out)
        assert len(rows) == len(recorded)
        if folder in ("before_attention", "before_digests"):  # an unfinished run has a digest of its code today
            continue
        assert {row["run_id"] for row in rows} == set(recorded)
        done = {run for run in recorded if (FOLDERS[folder] / "runs" / run / "result.json").exists()}
        assert {row["run_id"] for row in rows if row["state"] == "done"} == done


def _write() -> None:
    for name, folder in FOLDERS.items():
        shutil.rmtree(TOLD / name, ignore_errors=True)
        (TOLD / name).mkdir(parents=True)
        with tempfile.TemporaryDirectory() as home:
            shutil.copytree(folder, Path(home) / "results")
            for file, command in asked(folder).items():
                answer = itopctl(*command, cwd=Path(home), PYTHONPATH=str(HERE.parent.parent))
                assert answer.returncode in (0, 2), answer.stderr
                text = "" if answer.returncode else re.sub(re.escape(home), "HOME", answer.stdout)
                (TOLD / name / file).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write()
