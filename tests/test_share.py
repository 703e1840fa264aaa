"""The rotating share of exhaustive cases."""

from __future__ import annotations

import pytest

from tests.share import SHARES, VARIABLE, chosen, of_share


@pytest.mark.parametrize("count", [1, 2, SHARES - 1, SHARES, SHARES + 1, 1000])
def test_the_shares_together_are_all_cases_and_none_is_empty(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    cases, seen = range(count), []
    for number in range(SHARES):
        monkeypatch.setenv(VARIABLE, str(number))
        share = of_share(cases, "a test")
        assert share
        assert len(share) <= count // min(SHARES, count) + 1
        seen += share
    assert set(seen) == set(cases)


def test_all_cases_are_taken_where_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "all")
    assert of_share(range(30), "a test") == list(range(30))


def test_a_commit_has_one_share_and_the_processes_that_are_started_take_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    share = chosen()
    assert 0 <= int(share) < SHARES
    monkeypatch.setenv("PATH", "")
    assert chosen() == share


def test_a_share_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "most")
    with pytest.raises(ValueError, match="neither `all` nor a number"):
        of_share([1], "a test")
