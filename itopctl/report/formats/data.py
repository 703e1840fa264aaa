"""A table's records for programs: CSV and JSON.

CSV is RFC 4180 in UTF-8, but with lines that end as lines do on Unix: `cut` and `awk` would find a carriage return in
the last field. What a spreadsheet would take for a formula is written as text (`_harmless`). JSON has every value
exactly as it is.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence

from itopctl.report.formats.characters import clean
from itopctl.report.table import Record, Table

# A program takes them from JSON as escapes just as well, and a terminal does not obey an escape.
_UNSEEN = re.compile("[\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb]")
_FORMULA = re.compile(r"'*\s*[=+\-@]")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


def write_csv(tables: Sequence[Table]) -> str:
    """The records of all tables, with every field that any of them has, in the order of their coming."""
    records = _records(tables)
    if not records:
        return ""
    out = io.StringIO()
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writerow({name: _flat(name) for name in names})
    for record in records:
        writer.writerow({name: _flat(value) for name, value in record.items()})
    return out.getvalue()


def write_json(tables: Sequence[Table]) -> str:
    """The records of all tables as one list."""
    text = json.dumps(_records(tables), indent=1, ensure_ascii=False)
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _records(tables: Sequence[Table]) -> list[Record]:
    return [record for table in tables for record in table.records]


def _flat(value: object) -> object:
    if isinstance(value, (dict, list, tuple)):
        value = json.dumps(value, ensure_ascii=False)
    return _harmless(clean(value, lines=True, shapers=True)) if isinstance(value, str) else value


def _harmless(text: str) -> str:
    """Text with an apostrophe before it where a spreadsheet would compute it.

    That is where it begins with `=`, `+`, `-` or `@`, or with apostrophes and one of these, and is no number; so the
    text is had back by taking one apostrophe away from what begins with apostrophes and one of these.
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text
