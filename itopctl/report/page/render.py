"""The page as text: what the template needs is worked out here, and the file is put together.

Everything goes through Jinja's escaping; what may stand as it is (the style sheet and the script) is marked where it is
made. A figure is an image as data: in an image browsers run no script and load nothing. At the end no character is left
in the file that is not to be seen, or that would turn the reading direction of its neighbours: they are written as
`\\u202e`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from itopctl.errors import plural
from itopctl.report import number_text as words
from itopctl.report.page.configs import Configs, compact, in_yaml
from itopctl.report.page.content import Page, RunEntry, Spec
from itopctl.report.quantity import Quantity
from itopctl.report.table import Cell, Table

if TYPE_CHECKING:
    from jinja2 import Template

MOST_CSV = 256 << 10
"""Characters of a figure's data that a page takes in."""

_STYLES = frozenset({"green", "red", "cyan", "yellow", "dim"})
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

# Not to be seen, or not to be had in UTF-8: controls but for tab and newline, lone surrogates, what is no character,
# and the marks that override the direction of text after them (isolates and embeddings, too: they need not be closed).
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
                     "\ufffe\uffff\ud800-\udfff]")  # fmt: skip
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")  # of a terminal, in what a run printed


def render_page(page: Page) -> str:
    """The whole page: one HTML document, in characters that UTF-8 has."""
    return _visible(_template().render(_prepared(page)))


@dataclass(frozen=True)
class _Parts:
    """A run's details, ready to be written."""

    anchor: str
    run_id: str
    label: str
    state: str
    state_class: str
    accuracy: str
    sweep: str
    message: str
    kind: int
    settings: Sequence[tuple[str, str]]
    attempts: Sequence[Any]
    log: str


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("itopctl.report", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.globals.update(sort_attribute=_sort_attribute, cell_class=_cell_class, command=_command)
    return environment.get_template("page.html.jinja")


def _prepared(page: Page) -> dict[str, Any]:
    from markupsafe import Markup

    style, script = _package_text("page.css"), _package_text("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    configs = compact([run.settings for run in page.runs])
    anchors = {run.run_id: anchor for run, anchor in zip(page.runs, _anchors(page.runs), strict=True)}
    return {
        "page": page,
        "style": Markup(style),
        "script": Markup(script),
        "script_hash": f"sha256-{digest}",
        "counts": _counts(page.runs),
        "contents": list(_contents(page)),
        "figures": [
            (
                figure,
                f"data:image/svg+xml;base64,{base64.b64encode(figure.svg.encode('utf-8', 'replace')).decode()}",
                figure.csv if len(figure.csv) <= MOST_CSV else "",
                words.size(len(figure.csv.encode("utf-8", "replace"))),
            )
            for figure in page.figures
        ],
        "anchors": anchors,
        "shared": _in_words(configs.shared),
        "kinds": [(kind.label, _in_words(kind.settings)) for kind in configs.kinds],
        "runs": _details(page.runs, anchors, configs),
    }


def _package_text(name: str) -> str:
    return resources.files("itopctl.report.page").joinpath(name).read_text(encoding="utf-8")


def _anchors(runs: Sequence[RunEntry]) -> Iterator[str]:
    for place, run in enumerate(runs):
        yield f"run-{run.run_id if _ID.fullmatch(run.run_id) else f'number-{place + 1}'}"


def _counts(runs: Sequence[RunEntry]) -> str:
    """`66 runs: 64 done, 2 failed`."""
    states = Counter(str(run.record.get("state")) for run in runs)
    said = ", ".join(f"{count:,} {state}" for state, count in states.most_common())
    return f"{plural(len(runs), 'run')}: {said}" if runs else ""


def _contents(page: Page) -> Iterator[tuple[str, str]]:
    """Anchors and titles of the page's sections, in order."""
    for number, section in enumerate(page.sections, 1):
        yield f"section-{number}", section.title
    if page.verdicts:
        yield "verdicts", "Verdicts"
    if page.figures:
        yield "figures", "Figures"
    for number, section in enumerate(page.further, len(page.sections) + 1):
        yield f"section-{number}", section.title
    if page.runs:
        yield "runs", "Runs"
    if page.specs or page.environment:
        yield "reproduce", "How to reproduce"


def _details(runs: Sequence[RunEntry], anchors: Mapping[str, str], configs: Configs) -> Iterator[_Parts]:
    one_sweep = len({run.record.get("sweep") for run in runs}) == 1
    for run, (kind, own) in zip(runs, configs.own, strict=True):
        record = run.record
        state, cause, accuracy = str(record.get("state")), record.get("cause"), record.get("test_accuracy")
        yield _Parts(
            anchor=anchors[run.run_id],
            run_id=run.run_id,
            label=_label(record),
            state=f"{state}: {cause}" if cause and cause not in ("finished", state) else state,
            state_class={"done": "green", "failed": "red", "lost": "red"}.get(state, "cyan"),
            accuracy="" if accuracy is None else f"{words.percent(accuracy)} %",
            sweep="" if one_sweep else str(record.get("sweep") or ""),
            message=record.get("message") or "",
            kind=kind,
            settings=_in_words(own),
            attempts=run.attempts,
            log=_COLOUR.sub("", run.log),
        )


def _label(record: Mapping[str, Any]) -> str:
    """`rigl-itop, 90 %, ΔT 40, seed 0`."""
    parts = [str(record.get("method") or "")]
    if record.get("sparsity"):
        parts.append(str(words.sparsity(record["sparsity"])))
    if record.get("update_interval") is not None:
        parts.append(f"ΔT {words.number(record['update_interval'])}")
    if record.get("seed") is not None:
        parts.append(f"seed {record['seed']}")
    return ", ".join(part for part in parts if part)


def _in_words(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, in_yaml(value)) for name, value in settings.items()]


def _sort_attribute(table: Table, place: int, cell: Cell) -> str:
    """What the script needs beside the text to sort by; empty where the text is that number as it stands."""
    number = cell.value
    if table.columns[place].align != "right" or not isinstance(number, Quantity) or number.value is None or number.bare:
        return ""
    return f"{number.value:.12g}"


def _cell_class(cell: Cell) -> str:
    return " ".join(sorted(_STYLES.intersection(cell.style.split()))) if cell.style else ""


def _command(spec: Spec) -> str:
    """What to type to run a spec again."""
    overrides = [f"--set {shlex.quote(one)}" for one in spec.overrides]
    accepted = [f"--accept-code {shlex.quote(module)}" for module, _ in spec.accepted]
    return " ".join(["itopctl sweep", shlex.quote(spec.path or f"{spec.sweep}.yaml"), *overrides, *accepted])


def _visible(text: str) -> str:
    """Text with every character that is not to be seen written as what it is."""
    return _UNSEEN.sub(lambda found: _code(ord(found.group())), text.replace("\r\n", "\n"))


def _code(point: int) -> str:
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
