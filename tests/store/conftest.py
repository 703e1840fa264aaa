"""Stores of every kind that is supported: what a test asks of one, it asks of all."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from itopctl.store.database import Store
from tests.store.builders import Lab


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    """What holds the store."""
    return str(request.param)


@pytest.fixture
def new_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Makes an empty database, at each call another, and returns its URL; they are gone after the test."""
    if kind == "sqlite":
        numbers = itertools.count(1)
        yield lambda: f"sqlite:///{tmp_path}/store {next(numbers)}.db"
        return
    postgres = request.getfixturevalue("postgres")
    with contextlib.ExitStack() as databases:
        yield lambda: databases.enter_context(postgres.database())


@pytest.fixture
def store_url(new_url: Callable[[], str]) -> str:
    """URL of an empty database."""
    return new_url()


@pytest.fixture
def open_again(store_url: str) -> Iterator[Callable[[], Store]]:
    """Opens the same database, as often as it is called, each time as another process would."""
    with contextlib.ExitStack() as opened:

        def open_it() -> Store:
            store = Store(store_url)
            opened.callback(store.close)
            return store

        yield open_it


@pytest.fixture
def lab(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """An empty results folder, in a place whose name has a space, and its store: of its own, or on a server."""
    url = None if kind == "sqlite" else request.getfixturevalue("store_url")
    made = Lab.at(tmp_path / "my results", url)
    yield made
    made.store.close()


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[Lab]:
    """An empty results folder with the SQLite file that is its own."""
    made = Lab.at(tmp_path / "my results")
    yield made
    made.store.close()


@pytest.fixture
def shared_lab(store_url: str, tmp_path: Path) -> Iterator[Lab]:
    """An empty results folder and a store that other folders may share."""
    made = Lab.at(tmp_path / "my results", store_url)
    yield made
    made.store.close()
