"""Runs that several processes of a job train together, each with a GPU of its own by SLURM's count."""

from __future__ import annotations

import json

import pytest

from itopctl.store.rundir import Results
from tests.slurm.cluster import Cluster
from tests.slurm.place import LONG, Place, course, outcome

pytestmark = [pytest.mark.slurm, pytest.mark.slow]

TOGETHER = {"gpus_per_node": 2, "distributed": True, "mem": "1500M"}


def test_two_processes_train_the_runs_of_a_job_as_one_would(place: Place) -> None:
    spec = place.spec(seeds=4, slurm={**TOGETHER, "runs_per_job": 4})
    place.submit(spec)
    place.wait(place.done)
    assert place.states() == [("done", "finished")] * 4
    here = place.here(spec)
    for run_id in place.submitted_runs:
        assert len(place.attempts(run_id)) == 1
        assert (place.results.run(run_id).path / "log.1.txt").exists()  # the second took part
        mine, alone = outcome(place.results, run_id), outcome(here, run_id)
        assert mine["exploration_rate"] == alone["exploration_rate"]
        assert mine["train_loss"] == pytest.approx(alone["train_loss"], abs=1e-3)
        assert mine["test_accuracy"] == pytest.approx(alone["test_accuracy"], abs=0.01)


def test_a_requeued_job_goes_on_to_the_result_of_one_that_never_was(place: Place, cluster: Cluster) -> None:
    spec = place.spec(epochs=LONG, slurm=TOGETHER)
    never = Results(place.folder / "never requeued")
    place.itopctl("sweep", spec, "--cluster", "slurm", "--wait", "--results", never.path)
    place.slow()
    place.submit(spec)
    (run_id,) = place.submitted_runs
    place.wait(lambda: place.is_training(run_id, epochs=2))
    cluster.run("scontrol", "requeue", str(place.submissions[0].id_of(0)))
    place.wait(lambda: bool(place.events(run_id, "failed")))
    place.fast()
    place.wait(place.done)
    assert place.causes(run_id) == ["preempted", "finished"]
    assert place.attempts(run_id)[1]["resumed_from_step"] >= 22
    assert outcome(place.results, run_id) == outcome(never, run_id)
    assert course(place.results, run_id) == course(never, run_id)


def test_what_goes_wrong_in_one_process_is_told_by_the_first(place: Place) -> None:
    model = place.write_model()
    text = model.read_text().replace(
        "    def forward(self, batch):\n",
        "    def forward(self, batch):\n"
        "        if self.training and os.environ['SLURM_PROCID'] == '1':\n"
        "            raise ArithmeticError('nothing adds up here')\n",
    )
    model.write_text(text.replace("import time\n", "import os\nimport time\n"))
    place.submit(place.spec(slurm=TOGETHER))
    place.wait(lambda: place.states() not in ([("pending", None)], [("running", None)]))
    (run,) = place.runs()
    assert (run["state"], run["cause"]) == ("failed", "user-error")
    assert run["message"] == "process 1: ArithmeticError: nothing adds up here"
    place.wait(lambda: [state for _, state in place.queue()] == ["FAILED"])  # not requeued
    assert json.loads(place.results.run(run["run_id"]).config.read_text())["run_id"] == run["run_id"]
