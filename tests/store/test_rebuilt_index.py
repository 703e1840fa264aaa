"""Nothing lives in the database alone: every query answers from a rebuilt index what it answers from the old one.

That is why an index of an older version is rebuilt from the results folder instead of being migrated.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from itopctl.errors import UserError
from itopctl.store import histories, provenance, queries, submissions, tables
from itopctl.store.database import Store
from itopctl.store.files import write_json
from itopctl.store.ingest import ingest
from itopctl.store.journal import JournalWriter
from itopctl.store.locks import locked
from itopctl.store.rundir import Results, RunDirectory
from tests.store.builders import STARTED, Lab, config, evaluated, result, run_id

DATABASES = Path(__file__).parent / "databases"
HOSTS, CAUSES = ("here", "there", "pc"), ("timeout", "cancelled", "user-error", "lost")
MODELS = ("lenet-5", "lenet-300-100", "mine.py:net")


def asked(store: Store, results: Results) -> dict[str, Any]:
    """What every query answers, by its name: of every run, sweep, host and cause that there is."""
    runs = [row["run_id"] for row in queries.select_runs(store, columns=("run_id",))]
    sweeps = queries.sweep_names(store)
    failed = queries.failures(store, runs)
    named = sweeps[:1] + runs[:1]
    groups = [runs[::2], runs[1::2], runs]
    columns = [column.name for column in tables.runs.columns]
    return {
        "sweep_names": sweeps,
        "check_sweeps": [refusal(store, name) for name in (*sweeps, "none")],
        "sweep_summaries": queries.sweep_summaries(store),
        "select_runs": [queries.select_runs(store, chosen, columns=columns) for chosen in ([], sweeps[:1])],
        "finished_on": [queries.finished_on(store, host, MODELS) for host in HOSTS],
        "run_states": queries.run_states(store),
        "runs_with_own_code": queries.runs_with_own_code(store),
        "attempt_counts": queries.attempt_counts(store, runs),
        "find_run": [queries.find_run(store, id_) for id_ in runs],
        "named_runs": queries.named_runs(store, named),
        "run_details": [queries.run_details(store, id_) for id_ in runs],
        "layers_of": queries.layers_of(store, runs),
        "histories_of": queries.histories_of(store, runs),
        "masked_weights": queries.masked_weights(store),
        "failures": failed,
        "with_last_lines": queries.with_last_lines(store, failed),
        "ended_badly": [queries.ended_badly(store, [], causes) for causes in ([], *([cause] for cause in CAUSES))],
        "mean_curves": histories.mean_curves(store, groups),
        "mean_layers": histories.mean_layers(store, groups),
        "recorded_specs": provenance.recorded_specs(store),
        "accepted_code": provenance.accepted_code(store),
        "attempts_at": provenance.attempts_at(store, runs),
        "environments": provenance.environments(results, runs),
    }


def refusal(store: Store, sweep: str) -> str:
    try:
        queries.check_sweeps(store, [sweep])
    except UserError as error:
        return str(error)
    return ""


def rebuilt(results: Results) -> dict[str, Any]:
    """The same from a database made from the folder alone."""
    store = Store("sqlite://")
    ingest(store, results)
    try:
        return asked(store, results)
    finally:
        store.close()


def test_every_query_is_asked(own_lab: Lab) -> None:
    public = {
        name
        for module in (queries, histories, provenance)
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not name.startswith("_")
    }
    assert asked(own_lab.store, own_lab.results).keys() == public


@pytest.mark.parametrize("version", range(1, tables.SCHEMA_VERSION))
def test_a_database_of_an_older_version_says_nothing_that_its_folder_does_not(version: int, tmp_path: Path) -> None:
    """Opened by its URL, so that its own rows are read."""
    results, old = Results(tmp_path / "results"), tmp_path / "old.db"
    shutil.copytree(DATABASES / f"v{version}", results.path)
    shutil.copy(DATABASES / f"v{version}.db", old)
    store = Store(f"sqlite:///{old}")
    before = asked(store, results)
    ingest(store, results)
    after = asked(store, results)
    store.close()
    assert len(after["run_details"]) == 3 and all(after["attempts_at"].values())
    anew = rebuilt(results)
    assert after == anew
    assert without_what_is_read_later(before) == without_what_is_read_later(anew)


def without_what_is_read_later(answers: dict[str, Any]) -> dict[str, Any]:
    """Version 1 and 2 knew no mark of what was read of a journal; it is made when the journal is looked at."""
    rows = [*answers["run_details"], *(row for rows in answers["select_runs"] for row in rows)]
    for row in rows:
        row["journal_mark"] = None
    return answers


# A folder made today ----------------------------------------------------------------------------------------

(FINISHED, RETRIED, LOST, CANCELLED, CALLED_OFF, REVOKED, WAITING, ENDED, OWN, OTHER_OWN, LONE, AGAIN, LONELY) = (
    run_id(number) for number in range(112, 99, -1)
)


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000+00:00"


def attempt(lab: Lab, id_: str, cause: str, log: str = "", **started: Any) -> None:
    """An attempt that evaluates two epochs and says how it ends, with what it prints."""
    run = lab.results.run(id_)
    with run.log.open("a") as printed:
        printed.write(log)
    with locked(run):
        _attempt(lab, run, cause, log, started)
    lab.ingest()


def _attempt(lab: Lab, run: RunDirectory, cause: str, log: str, started: dict[str, Any]) -> None:
    journal = JournalWriter(run.journal)
    journal.write("started", {**STARTED, **started})
    lab.ingest()
    for epoch in (1, 2):
        journal.write("evaluated", evaluated(epoch))
    journal.write("topology", evaluated(2, replaced=9, moved=8, new=5, skipped=False))
    if cause == "finished":
        write_json(run.result, {"run_id": run.run_id, **result(attempt=journal.attempt)})
        write_json(run.environment, {"python": "3.12", "host": "here", "threads": 1, "packages": {"torch": "2.4"}})
        journal.write("finished", {"step": 80, "epoch": 4.0, "cause": cause})
    elif cause != "lost":
        told = {"cause": cause, "message": "why", "log": log.splitlines()}
        journal.write("failed", {"step": 40, "epoch": 2.0, **told})
    journal.close()


def ended(lab: Lab, name: str, **state: Any) -> None:
    """The end of the first job of a submission, as SLURM tells it."""
    submission = submissions.load(submissions.SubmissionDirectory(lab.results.submissions / name))
    assert submission is not None
    submissions.save(submission.with_job(0, phase="ended", **state))
    lab.ingest()


@pytest.fixture
def made_today(own_lab: Lab) -> Iterator[Lab]:
    """With sweeps, descriptions, submissions, and runs of every fate; the index is brought up to date at each step."""
    lab = own_lab
    own = {"model": "mine.py:net", "own_code": {"mine.py:net": "0123456789abcdef"}}
    configs = {
        id_: config(seed=seed, **(own if id_ in (OWN, OTHER_OWN) else {}))
        for seed, id_ in enumerate(
            (FINISHED, RETRIED, LOST, CANCELLED, CALLED_OFF, REVOKED, WAITING, ENDED, OWN, OTHER_OWN, AGAIN)
        )
    }
    for name, members in (("first", list(configs)), ("second", [OWN, FINISHED])):
        spec = {"path": f"{name}.yaml", "text": f"name: {name}\n", "set": ["epochs=4"],
                "accepted_code": {"mine.py": ["0123456789abcdef", "fedcba9876543210"]}}  # fmt: skip
        lab.sweep(name, {id_: configs[id_] for id_ in members}, description=f"about {name}", specs=[spec],
                  slurm={"partition": "gpu", "timeout_min": 10}, updated_at=at(len(members)))  # fmt: skip
        lab.ingest()
    for id_, chosen in {**configs, LONE: config(seed=77), LONELY: config(seed=78)}.items():
        if id_ not in (WAITING, ENDED, CALLED_OFF, REVOKED):
            lab.folder(id_, **chosen)
    attempt(lab, FINISHED, "finished")
    attempt(lab, LONE, "finished", host="there")
    attempt(lab, LONELY, "finished")
    attempt(lab, OWN, "finished", git_commit="abc", git_dirty=True, code="01", submitted_code="02")
    attempt(lab, OTHER_OWN, "user-error", "Traceback\n", git_commit="abd")
    for cause in ("timeout", "node-failure", "killed", "finished"):
        attempt(lab, RETRIED, cause, f"{cause}\n")
    attempt(lab, CANCELLED, "cancelled")
    attempt(lab, AGAIN, "user-error", "first\n")
    attempt(lab, AGAIN, "out-of-memory", "second\n")
    attempt(lab, LOST, "lost", "the last words\n")
    lab.submitted("first-a", (CALLED_OFF,), created_at=at(1))
    lab.submitted("first-b", (REVOKED,), created_at=at(2))
    lab.submitted("first-c", (WAITING,), (OTHER_OWN,), created_at=at(3), attempts={OTHER_OWN: 1})
    lab.submitted("first-d", (ENDED,), created_at=at(4))
    lab.ingest()
    for id_ in (CALLED_OFF, REVOKED):
        lab.folder(id_, **configs[id_])
        lab.results.run(id_).cancel.touch()
    ended(lab, "first-a")
    ended(lab, "first-b")
    ended(lab, "first-d", cause="node-failure", message="job 77_0: NODE_FAIL")
    lab.submitted("first-e", (ENDED,), created_at=at(5))
    yield lab


def test_a_folder_made_today_is_told_of_alike(made_today: Lab) -> None:
    made_today.ingest()
    answers = asked(made_today.store, made_today.results)
    states = answers["run_states"]
    assert {states[id_] for id_ in (FINISHED, RETRIED, OWN, LONE)} == {("done", "finished")}
    assert {states[id_] for id_ in (CANCELLED, CALLED_OFF, REVOKED)} == {("queued", "cancelled")}
    assert (states[LOST], states[WAITING], states[ENDED]) == (("lost", "lost"), ("pending", None), ("pending", None))
    assert all(answers.values()), "every query has something to answer"
    assert answers == rebuilt(made_today.results)


def test_a_cancellation_that_was_taken_back_is_told_of_alike(made_today: Lab) -> None:
    """A command that runs such a run here removes the mark before its attempt begins."""
    made_today.results.run(REVOKED).cancel.unlink()
    made_today.ingest()
    answers = asked(made_today.store, made_today.results)
    assert answers["run_states"][REVOKED] == ("queued", None)
    assert answers == rebuilt(made_today.results)


def test_a_run_that_is_called_off_after_its_job_ended_is_told_of_alike(made_today: Lab) -> None:
    made_today.results.run(ENDED).path.mkdir(exist_ok=True)
    ended(made_today, "first-e")
    made_today.results.run(ENDED).cancel.touch()
    made_today.ingest()
    answers = asked(made_today.store, made_today.results)
    assert answers["run_states"][ENDED] == ("queued", "cancelled")
    assert answers == rebuilt(made_today.results)


def test_a_lost_attempt_that_is_followed_by_another_keeps_its_last_lines(made_today: Lab) -> None:
    """Who takes the run up again writes the end of the lost attempt, with these lines, into the journal first."""
    from itopctl.dispatch.lost_attempts import close_forgotten_attempt

    close_forgotten_attempt(made_today.results.run(LOST), None)
    attempt(made_today, LOST, "finished", "of the second attempt\n")
    answers = asked(made_today.store, made_today.results)
    first, second = answers["attempts_at"][LOST]
    assert (first["cause"], first["log"], second["cause"]) == ("lost", "the last words", "finished")
    assert answers == rebuilt(made_today.results)


def test_an_attempt_that_finishes_after_it_was_taken_for_lost_is_told_of_alike(made_today: Lab) -> None:
    """Its lock was released by hand, say, while it lived."""
    run = made_today.results.run(LOST)
    write_json(run.result, {"run_id": LOST, **result(attempt=1)})
    journal = JournalWriter(run.journal, continuing=True)
    journal.write("finished", {"step": 80, "epoch": 4.0, "cause": "finished"})
    journal.close()
    made_today.ingest()
    answers = asked(made_today.store, made_today.results)
    assert answers["run_states"][LOST] == ("done", "finished")
    assert answers == rebuilt(made_today.results)
