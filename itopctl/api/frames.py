"""Records as pandas frames."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame


def frame_of(records: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> DataFrame:
    """One row a record, one column a field or setting.

    Args:
        records: plain data; what stands under `settings` becomes columns of its own, named as in a spec
            (`optimizer.lr`).
        columns: those that are there even where no record has them.
    """
    from pandas import DataFrame

    flat = [
        {**{name: value for name, value in record.items() if name != "settings"}, **_settings(record)}
        for record in records
    ]
    names = dict.fromkeys([*columns, *(name for record in flat for name in record)])
    return DataFrame(flat, columns=list(names))


def _settings(record: Mapping[str, Any]) -> dict[str, Any]:
    settings = record.get("settings") or {}
    return {name: value for name, value in settings.items() if name not in record}
