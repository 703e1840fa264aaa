"""The power of the machine where commands are typed goes, at any moment; the cluster lives on.

What was written down of a sweep and of its jobs can be read, no run gets two jobs, and none is forgotten.
"""

from __future__ import annotations

import pickle
import random
from pathlib import Path

import pytest

from tests.dispatch.told import lab_at
from tests.faults.disk import CUTS, KILL, digest, lay_out, moments
from tests.faults.ingesting import records_in
from tests.faults.submitting import FIRST, RUNS, Site, go_on, jobs_of_runs
from tests.faults.zygote import Zygote
from tests.share import of_share

RECORD, WRITE = "tests.faults.submitting:submit_and_record", "tests.faults.ingesting:write_records"


def test_records_of_a_sweep_are_whole_or_not_there_and_made_whole_by_the_next_command(
    zygote: Zygote, tmp_path: Path
) -> None:
    whole = lab_at(tmp_path / "whole").results
    zygote.call(WRITE, results=str(whole.path), record=str(tmp_path / "record"))
    changes, expected, seen = pickle.loads((tmp_path / "record").read_bytes()), records_in(whole), set()
    for number, disk in moments(whole.path, changes, ("runs",)):
        for cut in (KILL, *CUTS):
            left = disk.left_by(cut)
            if digest(left) in seen:
                continue
            seen.add(digest(left))
            lab = lab_at(tmp_path / f"{number} {cut.content} {cut.names} {cut.seed}")
            lay_out(lab.results.path, left)
            lab.ingest()
            assert records_in(lab.results).items() <= expected.items(), "whole, or not there"
            zygote.call(WRITE, results=str(lab.results.path))
            assert records_in(lab.results) == expected
            lab.ingest()
            assert len(lab.everything()["runs"]) == 3
    assert len(seen) > 20


@pytest.mark.parametrize(("seed", "count"), [(0, 10), pytest.param(1, 1000, marks=pytest.mark.slow)])
def test_what_a_power_cut_leaves_of_a_submission_gives_no_run_two_jobs_and_forgets_none(
    zygote: Zygote, site: Site, tmp_path: Path, seed: int, count: int
) -> None:
    fake, results = site("whole")
    record = tmp_path / "record"
    zygote.call(RECORD, results=str(results.path), environment=fake.env, record=str(record))
    told = pickle.loads(record.read_bytes())
    assert [len(about["tasks"]) for about in fake.arrays.values()] == [FIRST, len(RUNS) - FIRST]
    states, seen = [], set()
    for number, disk in moments(results.path, [change for change, _ in told[:-1]], ("runs",)):
        for cut in CUTS:
            left = disk.left_by(cut)
            for known in dict.fromkeys(known for _, known in told[max(0, number - 1) : number + 1]):
                if (key := digest(left) + known) not in seen:
                    seen.add(key)
                    states.append((number, left, known))
    draw = random.Random(seed)
    some = list(enumerate(draw.sample(states, min(count, len(states)))))
    for name, (number, left, known) in some if seed == 0 else of_share(some, "of a submission"):
        fake, again = site(name)
        (fake.folder / "state.json").write_text(known)
        lay_out(again.path, left)
        assert sum(map(len, jobs_of_runs(fake, again).values())) in (0, FIRST, len(RUNS)), number
        go_on(fake, again, look_first=draw.random() < 0.5)
