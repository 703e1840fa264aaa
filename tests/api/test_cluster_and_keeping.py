"""`itopctl.Project` beyond a sweep on this machine: clusters, trying again, cancelling, deleting, exporting."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import itopctl
from itopctl.errors import UserError
from tests.api.test_project import SPEC
from tests.dispatch.fake_slurm import FakeSlurm

ONE = {
    "name": "one",
    "base": {"dataset": "digits", "model": "lenet-300-100", "epochs": 1, "update_interval": 5},
    "grid": {"method": ["set-itop"], "sparsity": [0.9], "seed": 2},
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm.installed(tmp_path / "slurm", monkeypatch)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def project(tmp_path: Path, told: list[str]) -> itopctl.Project:
    return itopctl.Project(tmp_path / "results", tell=told.append)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> itopctl.Project:
    """A project with a finished sweep, that tests only read."""
    project = itopctl.Project(tmp_path_factory.mktemp("finished") / "results")
    assert project.run(ONE, workers=2).ok
    return project


def test_a_forecast_is_a_value(project: itopctl.Project) -> None:
    found = project.forecast(SPEC, workers=2)
    assert [run.state for run in found.runs] == ["new"] * 8
    frame = found.to_frame()
    assert isinstance(frame, pd.DataFrame) and len(frame) == 8
    assert frame["exploration_rate"].between(0, 1).all() and (frame["steps"] > 0).all()
    assert "lenet-300-100" in found.tables()[0].title and "<table" in found._repr_html_()
    assert found.totals[0].startswith("To run: 8 runs, ")
    assert "will hardly explore" in found.warnings[0] and not project.folder.path.exists()
    found.check()
    again = project.forecast(project.plan(SPEC), workers=2)
    assert again.to_frame().equals(frame)


@pytest.fixture
def my_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the user's own, in the folder that commands are typed in."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "weak.py").write_text(
        "from torch import nn\n\n\ndef small(input_shape, classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes))\n\n\n"
        "def nothing(input_shape, classes):\n    return nn.Flatten()\n"
    )
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))


def with_model(name: str, **settings: Any) -> dict[str, Any]:
    return {**ONE, "base": {"dataset": "digits", "epochs": 1, "update_interval": 5, "model": name, **settings}}


def test_a_forecast_of_what_cannot_be_made_is_refused_by_its_check(project: itopctl.Project, my_models: None) -> None:
    found = project.forecast(with_model("weak:nothing"))
    assert any("weak:nothing" in line for line in found.warnings)
    with pytest.raises(UserError, match="2 runs cannot be made"):
        found.check()


def test_runs_are_submitted_followed_and_cancelled(project: itopctl.Project, slurm: FakeSlurm, told: list[str]) -> None:
    events: list[dict[str, Any]] = []
    submitted = project.submit(ONE, slurm={"mem": "1G"}, progress=events.append, snapshot=False)
    [array] = submitted.job_ids
    assert len(submitted.runs) == submitted.taken == 2 and submitted.snapshot is None
    assert [event["event"] for event in events] == ["submitted"] and events[0]["submission"].state.job_id == array
    assert project.status().set_index("sweep").loc["one", "pending"] == 2
    assert project.submit(ONE).runs == ()  # they are at jobs
    counts: list[dict[str, int]] = []
    waiting = threading.Thread(target=lambda: project.follow("one", progress=counts.append), daemon=True)
    waiting.start()
    planned, ended = project.cancel("one")
    assert len(planned.runs) == 2 and ended.certain
    waiting.join(60)
    assert not waiting.is_alive()
    outcome = project.follow()
    assert {run["cause"] for run in outcome.failed} <= {"cancelled"} and not outcome.done
    assert project.cancel()[0].runs == ()


def test_a_snapshot_is_where_the_code_of_the_jobs_lies(project: itopctl.Project, slurm: FakeSlurm) -> None:
    submitted = project.submit(ONE, first=1)
    assert submitted.snapshot is not None and submitted.snapshot.is_dir()
    assert len(submitted.submissions) == 2  # the first alone, then the other


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda project: project.submit(ONE, after="12"), r"^after='12': the cluster knows no job 12"),
        (lambda project: project.submit(ONE, after="some:12"), r"^after='some:12': a run, a job's id, or any:JOB"),
        (lambda project: project.submit(ONE, slurm={"memory": "1G"}), r"^slurm: .*memory"),
        (lambda project: project.retry(cluster="slurm", workers=2),
         r"^workers \(write slurm='runs_per_gpu=N'\) means nothing with cluster='slurm'"),
        (lambda project: project.retry(cluster="moon"), r"^cluster: unknown cluster 'moon'"),
        (lambda project: project.retry(cause="bad luck"), r"^cause: unknown cause 'bad luck'"),
        (lambda project: project.retry("nothing"), r"nothing"),
        (lambda project: project.run(ONE, workers=-1), r"^workers is -1; it must be a whole number, 1 or more"),
        (lambda project: project.run(ONE, workers="2"), r"^workers is '2'"),
        (lambda project: project.run(ONE, first=-1), r"^first is -1"),
        (lambda project: project.forecast(ONE, runs_per_gpu=0), r"^runs_per_gpu is 0"),
        (lambda project: project.plan(ONE, "epochs"), r"^set epochs: key=value expected"),
        (lambda project: project.cancel("nothing"), r"there is no sweep or run 'nothing'"),
        (lambda project: project.forget("nothing"), r"there is no sweep or run 'nothing'"),
        (lambda project: project.forget(), r"^name the sweeps or runs to forget"),
        (lambda project: project.export("0"), r"there is no run '0'"),
        (lambda project: project.import_runs("nowhere.tar"), r"there is no nowhere.tar"),
    ],
)  # fmt: skip
def test_mistakes_are_sentences_in_the_words_of_python(
    project: itopctl.Project, slurm: FakeSlurm, ask: Any, said: str
) -> None:
    project.folder.path.mkdir()
    with pytest.raises(UserError, match=said) as caught:
        ask(project)
    assert "--" not in str(caught.value).replace("itopctl status --runs", "")


def test_failed_runs_are_tried_again_where_they_were_run(project: itopctl.Project, my_models: None) -> None:
    outcome = project.run(with_model("weak:small", optimizer={"lr": 1e30}), workers=1)
    assert [run["cause"] for run in outcome.failed] == ["user-error"] * 2 and not outcome.ok
    again = project.retry("one", cause="user-error", workers=1)
    assert isinstance(again, itopctl.Outcome)
    assert len(again.states) == 2
    assert [project.details(run_id)["attempts"] for run_id in again.states] == [2, 2]
    assert project.retry("one", cause="timeout") == itopctl.Outcome()


def test_everything_of_one_run(finished: itopctl.Project) -> None:
    run_id = finished.runs()["run_id"].iloc[0]
    details = finished.details(run_id[:6])
    assert details["run_id"] == run_id and details["attempt_history"][0]["cause"] == "finished"
    assert Path(details["directory"]).name == run_id
    assert "epoch" in finished.log(run_id[:6])


def test_a_network_is_exported(finished: itopctl.Project, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    run_id = finished.runs()["run_id"].iloc[0]
    made = finished.export(run_id, tmp_path / "net.safetensors")
    assert made.format == "safetensors" and made.path.stat().st_size == made.bytes
    assert made.nonzeros < made.numbers and made.record()["run_id"] == run_id
    with pytest.raises(UserError, match=r"net.bin: unknown ending '.bin'.*Or name the format") as caught:
        finished.export(run_id, tmp_path / "net.bin")
    assert "--" not in str(caught.value)


def test_runs_are_exchanged_checked_and_forgotten(
    finished: itopctl.Project, project: itopctl.Project, tmp_path: Path
) -> None:
    archive = tmp_path / "runs.tar.gz"
    runs, sweeps, left = finished.export_runs(archive, "one")
    assert (len(runs), sweeps, left) == (2, ["one"], 0)
    assert sorted(project.import_runs(archive).taken) == sorted(runs)
    assert project.check_store() == [] and project.rebuild_store() is None
    described = project.forget("one")
    assert not described.done and len(project.runs()) == 2
    assert project.forget("one", yes=True).done and project.folder.run_ids() == []
    assert project.runs().empty and project.status().empty
    assert project.check_store() == [] and len(project.plan(ONE).new) == 2


def test_doctor_says_what_is_there(project: itopctl.Project, slurm: FakeSlurm) -> None:
    found = {finding.subject: finding for finding in project.doctor(ONE)}
    assert found["data set digits"].answer == "built in" and found["SLURM"].kind == "ok"


def test_what_a_plan_was_made_with_is_recorded(project: itopctl.Project) -> None:
    project.run(project.plan(ONE, {"epochs": 1, "optimizer.lr": 0.05}), workers=2)
    from itopctl.store.provenance import recorded_specs

    with project.opened() as store:
        [spec] = recorded_specs(store)
    assert spec["set"] == ["epochs=1", "optimizer.lr=0.05"]
