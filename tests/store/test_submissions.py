"""The folders of submissions: written before a scheduler is asked, read by whoever comes next."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from itopctl.store import submissions
from itopctl.store.rundir import Results
from itopctl.store.submissions import (
    NAME,
    JobState,
    SubmissionDirectory,
    claimed_runs,
    directories,
    live_submissions,
    load,
    load_request,
)
from tests.store.builders import Lab, run_id

A, B, C = (run_id(number) for number in range(3))


@pytest.fixture
def lab(own_lab: Lab) -> Lab:
    """What is tested here are files; the store does not matter."""
    return own_lab


def test_what_is_recorded_reads_back(lab: Lab) -> None:
    submission = lab.submitted("one-x", (A, B), (C,), attempts={A: 2}, options={"mem": "1G"}, throttle=3)
    assert load(submission.directory) == submission
    assert submission.request.runs == [A, B, C]
    assert [submission.index_of(id_) for id_ in (A, B, C)] == [0, 0, 1]
    assert [submission.id_of(index) for index in (0, 1)] == ["77_0", "77_1"]
    assert submission.directory.results == lab.results


def test_every_state_reads_back(lab: Lab) -> None:
    submission = lab.submitted("one-x", (A,), (B,))
    state = JobState("ended", "NODE_FAIL", None, "node-failure", "why", 12.5, "here")
    changed = submission.with_job(1, **vars(state))
    submissions.save(changed)
    loaded = load(submission.directory)
    assert loaded == changed
    assert loaded.state.jobs == (JobState(), state)  # type: ignore[union-attr]
    assert loaded.live_jobs == [0] and loaded.live_runs == {A}  # type: ignore[union-attr]


def test_a_submission_is_over_when_all_its_jobs_are(lab: Lab) -> None:
    submission = lab.submitted("one-x", (A,), (B,))
    half = submission.with_job(0, phase="ended")
    submissions.save(half)
    assert [one.name for one in live_submissions(lab.results)] == ["one-x"]
    assert set(claimed_runs(live_submissions(lab.results))) == {B}
    submissions.save(half.with_job(1, phase="ended"))
    assert live_submissions(lab.results) == []
    assert [one.name for one in directories(lab.results)] == ["one-x"]


def test_live_submissions_come_oldest_first(lab: Lab) -> None:
    for name, hour in (("b", 2), ("a", 3), ("c", 1)):
        lab.submitted(name, (A,), created_at=f"2026-01-01T0{hour}:00:00.000+00:00")
    assert [one.name for one in live_submissions(lab.results)] == ["c", "b", "a"]


def test_a_results_folder_without_submissions_has_none(tmp_path: Path) -> None:
    assert directories(Results(tmp_path)) == []
    assert live_submissions(Results(tmp_path)) == []


def test_whatever_else_lies_there_is_passed_over(lab: Lab) -> None:
    lab.submitted("one-x", (A,))
    (lab.results.submissions / ".probe-1").mkdir()
    (lab.results.submissions / "a file").touch()
    (lab.results.submissions / "with space").mkdir()
    assert [one.name for one in directories(lab.results)] == ["one-x"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("state", ""), ("state", "{"), ("state", "[]"), ("state", '{"job_id": "7"}'), ("state", '{"jobs": []}'),
        ("state", '{"job_id": "7", "jobs": [{}, {}]}'), ("state", '{"job_id": "7", "jobs": [{"colour": 1}]}'),
        ("state", '{"job_id": "7", "jobs": [3]}'), ("state", '{"job_id": "7", "jobs": null}'),
        ("request", ""), ("request", "{}"), ("request", '{"name": "another"}'), ("request", '{"name": "one-x"}'),
        ("request", '{"name": "one-x", "jobs": 3}'), ("request", '{"name": "one-x", "jobs": [3]}'),
    ],
)  # fmt: skip
def test_what_is_not_whole_is_no_submission(lab: Lab, file: str, text: str) -> None:
    submission = lab.submitted("one-x", (A,))
    getattr(submission.directory, file).write_text(text)
    assert load(submission.directory) is None
    assert live_submissions(lab.results) == []


def test_a_job_is_told_what_is_wrong_with_its_request(lab: Lab) -> None:
    submission = lab.submitted("one-x", (A,))
    submission.directory.request.unlink()
    with pytest.raises(ValueError, match=r"request\.json is missing or not whole"):
        load_request(submission.directory)
    submission.directory.request.write_text(json.dumps({"name": "one-x", "jobs": [], "colour": "blue"}))
    with pytest.raises(ValueError, match=r"request\.json is not whole"):
        load_request(submission.directory)


@pytest.mark.parametrize("name", ["one-0badc0de", "a", "A.b_c-1", "s" * 200])
def test_a_name_that_a_scheduler_takes_is_one(name: str) -> None:
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", ".a", "-a", "a b", "a,b", "a/b", "a%", "s" * 201, "ä"])
def test_any_other_is_none(name: str) -> None:
    assert not NAME.fullmatch(name)


def test_what_a_job_printed_is_found_by_its_index_alone(tmp_path: Path) -> None:
    for name in ("7_1_0_log.out", "7_1_0_log.err", "7_1_1_log.out", "7_11_0_log.out", "7_0_1_log.out", "9_1_0_log.out"):
        (tmp_path / name).touch()
    found = [path.name for path in SubmissionDirectory(tmp_path).outputs(1)]
    assert found == ["7_1_0_log.err", "7_1_0_log.out", "7_1_1_log.out", "9_1_0_log.out"]
