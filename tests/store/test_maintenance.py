"""Checking a store against the folders it indexes, and making it anew from them: of a folder's own, or a team's."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from itopctl.store import maintenance, tables
from itopctl.store.database import Store, open_store
from itopctl.store.locks import locked
from itopctl.store.maintenance import Finding, check, rebuild
from itopctl.store.rundir import Results
from tests.store.builders import Lab, config, contents, evaluated, run_id

DONE, FAILED, QUEUED, THEIRS = (run_id(number) for number in range(4))


def identity(found: Any) -> str:
    """As if the seed told everything."""
    return run_id(found["seed"])


def put(lab: Lab, *ids: str) -> None:
    for id_ in ids:
        number = int(id_, 16)
        lab.done(id_, seed=number) if id_ != FAILED else lab.failed(id_, seed=number)
    lab.sweep(lab.results.path.name.replace(" ", "-"), {id_: config(seed=int(id_, 16)) for id_ in (*ids, QUEUED)})
    lab.ingest()


@pytest.fixture
def filled(lab: Lab) -> Lab:
    """A finished, a failed and a queued run."""
    put(lab, DONE, FAILED)
    return lab


@pytest.fixture
def team(shared_lab: Lab, store_url: str, tmp_path: Path) -> Iterator[tuple[Lab, Lab]]:
    """Two folders with one store."""
    put(shared_lab, DONE, FAILED)
    folder = Results(tmp_path / "their results")
    folder.runs.mkdir(parents=True)
    theirs = Lab(folder, open_store(folder.database, store_url))
    put(theirs, THEIRS)
    yield shared_lab, theirs
    theirs.store.close()


def spoil(store: Store) -> None:
    """What no command does: one row of each kind is changed, lost or made up."""
    with store.write() as connection:
        connection.execute(sa.update(tables.runs).where(tables.runs.c.run_id == DONE).values(test_accuracy=0.99))
        connection.execute(sa.update(tables.attempts).values(host="elsewhere").where(tables.attempts.c.run_id == DONE))
        connection.execute(
            sa.delete(tables.layers).where(tables.layers.c.run_id == DONE, tables.layers.c.position == 0)
        )
        row = {"run_id": DONE, "kind": "epoch", "step": 7, "test_accuracy": 1.0}
        connection.execute(sa.insert(tables.evaluations), row)


def found(lab: Lab) -> list[Finding]:
    lab.ingest()
    return check(lab.store, lab.results, identity)


def test_nothing_is_wrong_with_a_sound_store(filled: Lab) -> None:
    assert found(filled) == []


def test_every_row_that_differs_from_the_files_is_named(filled: Lab) -> None:
    spoil(filled.store)
    findings = found(filled)
    assert {finding.kind for finding in findings} == {"problem"}
    assert sorted(finding.where for finding in findings) == [
        f"attempts {DONE} 1", f"evaluations {DONE} epoch 7", f"layers {DONE} 0", f"runs {DONE}",
    ]  # fmt: skip
    said = " ".join(finding.what for finding in findings)
    assert "test_accuracy is 0.99, by the files 0.95" in said and "host is 'elsewhere', by the files 'here'" in said


@pytest.fixture
def moving(filled: Lab, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """Just before a store is brought up to date, a run goes on, another begins, and their sweep is told of anew."""
    _, journal = filled.begun(run_id(4), seed=4)
    ingest, numbers = maintenance.ingest, itertools.count(5)

    def go_on_and_ingest(store: Store, results: Results) -> None:
        number = next(numbers)
        journal.write("evaluated", evaluated(number))
        filled.begun(run_id(number), seed=number)[1].close()
        filled.sweep("moving", {run_id(n): config(seed=n) for n in range(4, number + 1)})
        ingest(store, results)

    monkeypatch.setattr(maintenance, "ingest", go_on_and_ingest)
    return filled


def test_what_runs_write_while_a_store_is_checked_is_nothing_wrong(moving: Lab) -> None:
    for _ in range(3):
        assert found(moving) == []


def test_what_is_wrong_is_told_while_runs_write_too(moving: Lab) -> None:
    moving.ingest()
    spoil(moving.store)
    with moving.store.write() as connection:
        connection.execute(sa.update(tables.runs).where(tables.runs.c.run_id == run_id(4)).values(total_steps=81))
    findings = found(moving)
    assert len(findings) == 5 and findings[0].where == f"runs {DONE}"
    (of_the_moving_one,) = (finding.what for finding in findings if finding.where == f"runs {run_id(4)}")
    assert of_the_moving_one == "total_steps is 81, by the files 80."


def test_a_run_that_has_not_begun_has_no_config_to_miss(filled: Lab) -> None:
    for number, mark in ((6, "cancel"), (7, "")):
        folder = filled.results.run(run_id(number)).path
        folder.mkdir()
        if mark:
            (folder / mark).touch()
    assert found(filled) == []


@pytest.mark.parametrize("left", ["log.txt", "environment.json", "network.pt", "checkpoint-000000001-0123456789ab.pt"])
def test_what_is_left_of_a_run_has_a_config_to_miss(filled: Lab, left: str) -> None:
    folder = filled.results.run(run_id(6)).path
    folder.mkdir()
    (folder / left).touch()
    assert "its config.json is missing or not whole." in {finding.what for finding in found(filled)}


@pytest.mark.parametrize("name", ["config", "result"])
def test_what_is_put_in_place_while_it_is_looked_for_is_not_damaged(
    filled: Lab, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run = filled.done(run_id(6), seed=6)
    path, read = getattr(run, name), maintenance.read_json
    if name == "config":
        run.journal.unlink()
        run.result.unlink()
    whole = path.read_bytes()
    path.unlink()

    def read_too_early(wanted: Path) -> dict[str, Any] | None:
        seen = read(wanted)
        if wanted == path:
            path.write_bytes(whole)
        return seen

    monkeypatch.setattr(maintenance, "read_json", read_too_early)
    assert [finding for finding in found(filled) if "json" in finding.what] == []


def test_a_run_that_begins_while_it_is_looked_at_leaves_nothing_behind(
    filled: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, journal = filled.begun(run_id(6), seed=6)
    journal.close()
    filled.ingest()
    read = maintenance.read_journal
    with contextlib.ExitStack() as begun:

        def read_and_begin(path: Path) -> Any:
            if path == run.journal and not run.lock.exists():
                begun.enter_context(locked(run))
                (run.path / ".result.json.1a2b").touch()
                with path.open("a") as file:
                    file.write('{"event": "sta')
            return read(path)

        monkeypatch.setattr(maintenance, "read_journal", read_and_begin)
        assert check(filled.store, filled.results, identity) == []


def test_a_lost_run_that_is_taken_up_again_is_not_wrong_before_it_says_so(filled: Lab) -> None:
    run, journal = filled.begun(run_id(6), seed=6)
    journal.close()
    assert filled.row(run_id(6))["state"] == "lost"
    with locked(run):
        assert found(filled) == []
    assert found(filled) == []


def test_of_what_is_within_a_value_the_part_that_differs_is_named(filled: Lab) -> None:
    with filled.store.write() as connection:
        changed = {**config(seed=0), "optimizer": {"name": "sgd", "lr": 0.2}}
        connection.execute(sa.update(tables.runs).where(tables.runs.c.run_id == DONE).values(config=changed))
    (finding,) = found(filled)
    assert finding.what == "config.optimizer.lr is 0.2, by the files 0.1."


def test_a_store_that_was_made_anew_says_what_the_files_say(filled: Lab, store_url: str) -> None:
    before = filled.everything()
    spoil(filled.store)
    own = filled.store.indexes(filled.results.database)
    store, aside = rebuild(filled.results, None if own else store_url)
    assert aside is None
    assert contents(store) == before
    assert found(filled) == []
    store.close()


def test_others_see_the_old_rows_until_the_new_ones_are_whole(
    filled: Lab, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(filled.store)
    before, seen = contents(filled.store), []
    ingest = maintenance.ingest

    def look_in_between(store: Store, results: Results) -> None:
        seen.append(contents(filled.store))
        ingest(store, results)
        seen.append(contents(filled.store))

    monkeypatch.setattr(maintenance, "ingest", look_in_between)
    own = filled.store.indexes(filled.results.database)
    rebuild(filled.results, None if own else store_url)[0].close()
    assert seen == [before, before]
    assert contents(filled.store) == filled.rebuilt()


def test_what_is_broken_off_while_a_store_is_made_anew_leaves_the_old_one(
    filled: Lab, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(filled.store)
    before = contents(filled.store)

    def break_off(store: Store, results: Results) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(maintenance, "ingest", break_off)
    own = filled.store.indexes(filled.results.database)
    with pytest.raises(KeyboardInterrupt):
        rebuild(filled.results, None if own else store_url)
    assert contents(filled.store) == before


def test_nothing_is_wrong_with_a_store_that_holds_another_folders_runs(team: tuple[Lab, Lab]) -> None:
    for lab in team:
        assert found(lab) == []


def test_runs_of_another_folder_stay_while_ones_own_are_made_anew(team: tuple[Lab, Lab], store_url: str) -> None:
    ours, theirs = team
    before = ours.everything()
    spoil(ours.store)
    with ours.store.write() as connection:  # nothing in our folder can put this right
        connection.execute(sa.update(tables.runs).where(tables.runs.c.run_id == THEIRS).values(message="a note"))
    rebuild(ours.results, store_url)[0].close()
    after = contents(ours.store)
    with ours.store.read() as connection:
        note = connection.execute(sa.select(tables.runs.c.message).where(tables.runs.c.run_id == THEIRS)).scalar_one()
    assert note == "a note"
    assert {name: rows for name, rows in after.items() if name != "runs"} == {
        name: rows for name, rows in before.items() if name != "runs"
    }
    assert found(ours) == []
    rebuild(theirs.results, store_url)[0].close()
    assert contents(ours.store) == before


def test_damage_in_a_folder_is_told_whatever_holds_the_store(filled: Lab) -> None:
    run = filled.results.run(DONE)
    other = {**json.loads(run.config.read_text()), "config": config(seed=0x77)}
    run.config.write_text(json.dumps(other))
    filled.results.run(FAILED).config.write_text("{")
    (filled.results.runs / "notes").mkdir()
    said = {(finding.kind, finding.where): finding.what for finding in found(filled)}
    assert "describes run" in said["problem", DONE]
    assert "missing or not whole" in said["problem", FAILED]
    assert "no run's folder" in said["note", "runs/notes"]
