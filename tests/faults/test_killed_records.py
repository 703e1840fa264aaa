"""Commands that are killed while they write down a sweep, or bring the store up to date."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import pytest

from itopctl.store.database import open_store
from tests.dispatch.told import lab_at
from tests.faults.ingesting import more_work, records_in, worked_in
from tests.faults.trials import without_stamps
from tests.faults.zygote import Zygote
from tests.share import of_share
from tests.store.builders import Lab, contents

WRITE, TAKE_IN = "tests.faults.ingesting:write_records", "tests.faults.ingesting:take_in"


def test_records_whose_writer_was_killed_are_made_whole_by_the_next(zygote: Zygote, tmp_path: Path) -> None:
    whole = lab_at(tmp_path / "whole").results
    made = zygote.call(WRITE, results=str(whole.path)).value
    expected = records_in(whole)
    assert len(expected) == 4, "a manifest and three configs"
    for number, kind in enumerate(made):
        for torn in (False, True) if kind == "write" else (False,):
            lab = lab_at(tmp_path / f"{number} {torn}")
            assert zygote.call(WRITE, results=str(lab.results.path), kill_at=number, torn=torn).killed
            lab.ingest()
            assert records_in(lab.results).items() <= expected.items(), "whole, or not there"
            zygote.call(WRITE, results=str(lab.results.path))
            assert records_in(lab.results) == expected
            lab.ingest()
            assert len(lab.everything()["runs"]) == 3


def check_database(lab: Lab, database: Path) -> None:
    """It is whole, and once brought up to date no other than one that was made anew."""
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store = open_store(database)
    mended = Lab(lab.results, store)
    mended.ingest()
    fresh = lab_at(lab.results.path)
    fresh.ingest()
    assert without_stamps(contents(store)) == without_stamps(fresh.everything())
    store.close()


@pytest.mark.parametrize(
    "filled",
    [
        pytest.param(False, id="a new store"),
        pytest.param(True, id="an older store"),
    ],
)
def test_a_store_whose_writer_was_killed_at_any_statement_is_brought_up_to_date_by_the_next(
    zygote: Zygote, tmp_path: Path, filled: bool
) -> None:
    lab, before = worked_in(tmp_path / "results"), tmp_path / "before.db"
    if filled:
        zygote.call(TAKE_IN, results=str(lab.results.path), database=str(before))
        more_work(lab)

    def begin(name: str) -> Path:
        database = tmp_path / f"{name}.db"
        if filled:
            database.write_bytes(before.read_bytes())
        return database

    count = zygote.call(TAKE_IN, results=str(lab.results.path), database=str(begin("whole"))).value
    assert count > 20
    for number in of_share(range(count), f"any statement, {filled}", 4):
        database = begin(str(number))
        fate = zygote.call(TAKE_IN, results=str(lab.results.path), database=str(database), kill_at=number)
        assert fate.killed
        check_database(lab, database)


def test_a_store_whose_writer_was_killed_at_a_random_time_is_brought_up_to_date_by_the_next(
    zygote: Zygote, tmp_path: Path
) -> None:
    draw = random.Random(5)
    lab = worked_in(tmp_path / "results")
    began = time.perf_counter()
    zygote.call(TAKE_IN, results=str(lab.results.path), database=str(tmp_path / "whole.db"))
    whole = time.perf_counter() - began
    killed = 0
    for number in range(25):
        database = tmp_path / f"{number}.db"
        fate = zygote.call(
            TAKE_IN, results=str(lab.results.path), database=str(database), seconds=max(1e-4, draw.random() * whole)
        )
        killed += fate.signal != 0
        check_database(lab, database)
    assert killed >= 5
