"""Files may say anything: what a column cannot hold is in nobody's way, and each kind of store makes the same of it."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest

from itopctl.report.run_details import run_tables
from itopctl.store import submissions
from itopctl.store.database import open_store
from itopctl.store.locks import locked
from itopctl.store.queries import find_run, run_details, select_runs, sweep_names, sweep_summaries
from tests.store.builders import STARTED, Lab, config, evaluated, result, run_id

pytestmark = pytest.mark.rotates

A, B, C = (run_id(number) for number in range(10, 13))

LARGE = [
    pytest.param(2**31, id="more than four bytes"),
    pytest.param(-(2**31) - 1, id="less than four bytes"),
    pytest.param(2**53 + 1, id="no float"),
    pytest.param(2**63, id="more than eight bytes"),
    pytest.param(10**400, id="more than any float"),
]
ODD = [
    pytest.param("a\x00b", id="a NUL"),
    pytest.param("\udcff.png", id="a byte that is no UTF-8"),
    pytest.param("\ud83d", id="half of a pair"),
    pytest.param("größe ★ 🙂", id="not in ASCII"),
    pytest.param("x" * 100_000, id="long"),
    pytest.param("'; DROP TABLE runs; -- %s %(a)s :a {}", id="what other programs read as more than text"),
]
STRANGE = [
    pytest.param(None, id="null"),
    pytest.param(3, id="a number"),
    pytest.param(2**63, id="a large number"),
    pytest.param("a\x00b", id="a NUL"),
    pytest.param("\udcff", id="no UTF-8"),
    pytest.param([], id="a list"),
    pytest.param({"a": 1}, id="an object"),
]


def wrote(lab: Lab, id_: str, event: str, **fields: Any) -> None:
    """One more line in a run's journal, whatever it says."""
    with lab.results.run(id_).journal.open("a") as file:
        file.write(json.dumps({"event": event, "seq": 9, "attempt": 1, **fields}) + "\n")


def begun(lab: Lab, id_: str) -> None:
    lab.begun(id_)[1].close()


def nothing_is_in_the_way(lab: Lab) -> dict[str, Any]:
    """Another run is taken in, all can be asked for, a store made anew says the same. Returns what is known of A."""
    lab.done(B)
    assert lab.row(B)["state"] == "done"
    assert lab.rebuilt() == lab.everything()
    sweep_summaries(lab.store)
    assert B in [record["run_id"] for record in select_runs(lab.store)]
    return run_details(lab.store, A)


@pytest.mark.parametrize("number", LARGE)
@pytest.mark.parametrize("name", ["attempt", "pid", "total_steps", "total_epochs", "step", "epoch"])
def test_a_journal_may_hold_a_number_of_any_size(lab: Lab, name: str, number: int) -> None:
    begun(lab, A)
    wrote(lab, A, "started", **{**STARTED, name: number})
    nothing_is_in_the_way(lab)


@pytest.mark.parametrize("number", LARGE)
@pytest.mark.parametrize("name", ["best_epoch", "topology_updates", "steps", "epochs", "test_accuracy"])
def test_a_result_with_a_number_of_any_size_is_a_success(lab: Lab, name: str, number: int) -> None:
    lab.done(A, {name: number})
    assert nothing_is_in_the_way(lab)["state"] == "done"


@pytest.mark.parametrize("value", [*STRANGE, 1.5, {"a": None}, {"a": {}}, {"\x00": 2**63, "\ud83d": -1}])
@pytest.mark.parametrize("name", ["left_dense", "trainable", "total_density"])
def test_what_a_result_says_of_all_weights_may_be_anything(lab: Lab, name: str, value: Any) -> None:
    lab.done(A, {name: value})
    details = nothing_is_in_the_way(lab)
    assert details["state"] == "done" and run_tables(details)
    if name == "left_dense":
        sizes = isinstance(value, dict) and all(isinstance(size, int) for size in value.values())
        assert details[name] == (value if sizes else None)
    if lab.results.database.exists():  # SQLite's rows are looked at when it is opened
        open_store(lab.results.database).close()


@pytest.mark.parametrize("number", LARGE)
@pytest.mark.parametrize("name", ["seed", "epochs", "update_interval", "sparsity"])
def test_a_config_with_a_number_of_any_size_stays_as_it_is(lab: Lab, name: str, number: int) -> None:
    begun(lab, A)
    lab.folder(A, **{name: number})
    lab.sweep("one", {C: config(**{name: number})})
    assert nothing_is_in_the_way(lab)["config"] == config(**{name: number})
    assert run_details(lab.store, C)["config"] == config(**{name: number})


@pytest.mark.parametrize("value", [*STRANGE, 1.5, True])
@pytest.mark.parametrize("name", ["seed", "epochs", "sparsity", "dataset"])
def test_a_config_with_values_of_another_kind_stays_as_it_is(lab: Lab, name: str, value: Any) -> None:
    begun(lab, A)
    lab.folder(A, **{name: value})
    lab.sweep("one", {C: config(**{name: value})})
    assert nothing_is_in_the_way(lab)["config"] == config(**{name: value})
    assert run_details(lab.store, C)["config"] == config(**{name: value})


@pytest.mark.parametrize("number", [5e-324, 1e299, 0.1, 2 / 3, 0.0])
def test_a_fraction_is_held_to_the_bit(lab: Lab, number: float) -> None:
    begun(lab, A)
    wrote(lab, A, "evaluated", **evaluated(3, train_loss=number))
    lab.done(C, {"train_loss": number, "layers": [{**result()["layers"][0], "density": number}]}, drop_fraction=number)
    details = nothing_is_in_the_way(lab)
    assert details["evaluations"][-1]["train_loss"] == number
    done = run_details(lab.store, C)
    assert [done["train_loss"], done["layers"][0]["density"], done["drop_fraction"]] == [number] * 3


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e400", "-1e400"])
def test_what_is_no_finite_number_is_in_nobodys_way(lab: Lab, text: str) -> None:
    def odd(data: dict[str, Any]) -> str:
        return json.dumps(data).replace("123.5", text)

    run, journal = lab.begun(A)
    journal.close()
    with run.journal.open("a") as file:
        file.write(odd({"event": "evaluated", "attempt": 1, **evaluated(3, train_loss=123.5, lr=123.5)}) + "\n")
    layer = {**result()["layers"][0], "density": 123.5, "shape": [123.5]}
    finished = lab.done(C)
    finished.result.write_text(odd({**result(), "train_loss": 123.5, "wall_seconds": 123.5, "layers": [layer]}))
    other = lab.folder(run_id(20))
    other.config.write_text(odd({"config": config(sparsity=123.5, optimizer={"lr": 123.5})}))
    lab.sweep("one", {run_id(21): config(sparsity=123.5, optimizer={"lr": 123.5}), A: config()})
    lab.results.manifest("one").write_text(lab.results.manifest("one").read_text().replace("123.5", text))
    details = nothing_is_in_the_way(lab)
    json.dumps(details, allow_nan=False)
    assert all(math.isfinite(row["seconds_left"] or 0) for row in sweep_summaries(lab.store))


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("name", ["message", "cause"])
def test_any_text_of_an_error_is_taken(lab: Lab, name: str, text: str) -> None:
    begun(lab, A)
    wrote(lab, A, "failed", **{"step": 40, "epoch": 2.0, "cause": "user-error", "message": "", name: text})
    details = nothing_is_in_the_way(lab)
    assert details["state"] == "failed"
    if "\x00" not in text and text.isprintable():
        assert details[name] == text


@pytest.mark.parametrize("text", ODD)
@pytest.mark.parametrize("name", ["host", "job_id", "at"])
def test_any_text_about_an_attempt_is_taken(lab: Lab, name: str, text: str) -> None:
    begun(lab, A)
    wrote(lab, A, "started", **{**STARTED, name: text})
    nothing_is_in_the_way(lab)


@pytest.mark.parametrize("text", ODD)
def test_any_text_in_a_config_a_layer_and_a_jobs_message_is_taken(lab: Lab, text: str) -> None:
    lab.done(A, {"layers": [{**result()["layers"][0], "name": text, "shape": [text]}]}, model=text, note={text: [text]})
    lab.sweep("one", {C: config(dataset=text)})
    submission = lab.submitted("one-x", (C,))
    submissions.save(submission.with_job(0, phase="ended", cause="lost", message=text))
    details = nothing_is_in_the_way(lab)
    assert details["config"]["model"] == text  # as JSON, any text can be held
    assert run_details(lab.store, C)["state"] == "lost"


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("name", ["name", "shape", "size", "density", "exploration_rate"])
def test_a_layer_with_odd_values_does_not_spoil_a_success(lab: Lab, name: str, value: Any) -> None:
    lab.done(A).result.write_text(json.dumps({**result(), "layers": [{**result()["layers"][0], name: value}]}))
    assert nothing_is_in_the_way(lab)["state"] == "done"


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("name", ["description", "specs", "slurm", "created_at", "updated_at", "runs"])
def test_a_manifest_with_odd_values_does_not_stop_the_other_sweeps(lab: Lab, name: str, value: Any) -> None:
    begun(lab, A)
    lab.sweep("odd", {C: config()})
    manifest = json.loads(lab.results.manifest("odd").read_text())
    lab.results.manifest("odd").write_text(json.dumps({**manifest, name: value}))
    lab.sweep("one", {A: config()})
    nothing_is_in_the_way(lab)
    assert "one" in sweep_names(lab.store)


@pytest.mark.parametrize("id_", [*STRANGE[:5], "", "../../etc", "A" * 12])
def test_a_manifest_whose_runs_have_odd_names_does_not_stop_the_other_sweeps(lab: Lab, id_: Any) -> None:
    begun(lab, A)
    lab.sweep("odd", {id_: config()})
    lab.sweep("one", {A: config()})
    nothing_is_in_the_way(lab)
    assert "one" in sweep_names(lab.store)


def test_a_manifest_whose_name_is_no_text_does_not_stop_the_other_sweeps(lab: Lab) -> None:
    begun(lab, A)
    lab.sweep("one", {A: config()})
    lab.sweep("odd", {A: config()})
    lab.results.manifest("odd").rename(lab.results.sweeps / os.fsdecode(b"\xff.json"))
    nothing_is_in_the_way(lab)
    assert "one" in sweep_names(lab.store)


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("name", ["phase", "reason", "cause", "message"])
def test_a_job_with_odd_values_does_not_stop_the_others(lab: Lab, name: str, value: Any) -> None:
    lab.sweep("one", {A: config()})
    submission = lab.submitted("one-x", (A,))
    state = json.loads(submission.directory.state.read_text())
    submission.directory.state.write_text(json.dumps({**state, "jobs": [{"phase": "ended", name: value}]}))
    nothing_is_in_the_way(lab)


@pytest.mark.parametrize("value", STRANGE)
@pytest.mark.parametrize("name", ["created_at", "attempts", "jobs", "sweep"])
def test_a_submission_with_odd_values_does_not_stop_the_others(lab: Lab, name: str, value: Any) -> None:
    lab.sweep("one", {A: config()})
    submission = lab.submitted("one-x", (A,))
    request = json.loads(submission.directory.request.read_text())
    submission.directory.request.write_text(json.dumps({**request, name: value}))
    nothing_is_in_the_way(lab)


def test_a_run_that_says_it_has_no_epochs_does_not_keep_its_sweep_from_being_summed_up(lab: Lab) -> None:
    run, journal = lab.begun(A)
    journal.close()
    wrote(lab, A, "started", **{**STARTED, "total_epochs": 0})
    lab.done(B)
    lab.sweep("one", {A: config(), B: config(seed=1)})
    with locked(run):
        lab.ingest()
        (summary,) = sweep_summaries(lab.store)
    assert (summary["running"], summary["done"]) == (1, 1)


def test_sweeps_come_in_one_order_whatever_order_the_database_likes(lab: Lab) -> None:
    names = ["b", "B", "a", "A_", "A-", "a1", "a10", "a2", "Z"]
    for number, name in enumerate(names):
        lab.sweep(name, {A: config(), run_id(100 + number): config(seed=number)})
    lab.ingest()
    assert sweep_names(lab.store) == sorted(names)
    assert [row["sweep"] for row in sweep_summaries(lab.store)] == sorted(names)
    shared, *others = select_runs(lab.store, columns=("run_id", "sweep"))
    assert (shared["run_id"], shared["sweep"].split(",")) == (A, sorted(names))
    assert [record["sweep"] for record in others] == sorted(names)
    assert run_details(lab.store, A)["sweeps"] == sorted(names)


def test_a_run_is_found_by_digits_in_either_case(lab: Lab) -> None:
    lab.done("abc000000000")
    lab.ingest()
    assert find_run(lab.store, "ABC") == find_run(lab.store, "abc") == "abc000000000"
