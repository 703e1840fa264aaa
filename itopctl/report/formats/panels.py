"""Columns of a table that is too wide, in several tables below each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar


class _Column(Protocol):
    key: bool


_Any = TypeVar("_Any", bound=_Column)


def in_panels(columns: Sequence[_Any], width: Callable[[Sequence[_Any]], float], room: float) -> Iterator[list[_Any]]:
    """Columns in as many tables as it takes to fit a width, each beginning with those that say which row it is.

    Where these alone would fill half of it, with the first.

    Args:
        columns: of the whole table.
        width: of a table of some columns.
        room: for a table.
    """
    keys = [column for place, column in enumerate(columns) if column.key or not place]
    if 2 * width(keys) > room:
        keys = [columns[0]]
    panel = list(keys)
    for column in (column for column in columns if column not in keys):
        if len(panel) > len(keys) and width([*panel, column]) > room:
            yield panel
            panel = list(keys)
        panel.append(column)
    yield panel
