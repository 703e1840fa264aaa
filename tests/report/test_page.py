"""The page as text: what stands on it, and that nobody's words become more than words. How it behaves in a browser is
tested in `tests/browser`."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.catalogue import METHODS
from itopctl.config.expand import expand
from itopctl.config.identity import run_id
from itopctl.config.reading import read_text
from itopctl.config.run_config import defining_settings
from itopctl.config.sweep import parse_sweep
from itopctl.report.page import Attempt, Environment, Figure, Page, RunEntry, Section, Spec, render_page
from itopctl.report.page.configs import compact, in_yaml
from itopctl.report.page.render import MOST_CSV
from itopctl.report.table import Cell, Column, Table
from tests.helpers import run_config
from tests.report import pages

VOID = {"meta", "link", "br", "input", "img"}

ATTACKS = (
    "</script><script>alert(1)</script>",
    "</style></pre></title><script>alert(1)</script>",
    "\" onmouseover=\"alert(1)",
    "' onmouseover='alert(1)' x='",
    "javascript:alert(1)",
    "<svg onload=alert(1)>",
    "<img src=https://example.org/x.png onerror=alert(1)>",
    "<!--", "-->", "]]>", "<![CDATA[", "&lt;b&gt;", "{{ 7 * 7 }}", "{% raw %}",
    "\u202egnp.exe\u2066", "\u200fabc\u200e", "lone \ud800 surrogate \udfff",
    "nul \x00 bell \x07 escape \x1b[31mred\x1b[0m c1 \x85", "\ufeff\u2028\u2029\uffff",
    "模型 — \u05e9\u05dc\u05d5\u05dd",
)  # fmt: skip


class Document(HTMLParser):
    """What a reader of the document gets: elements with attributes, and the text of each kind of element.

    Attributes:
        elements: (name, attributes) in order.
        text: all of it but that of scripts and styles.
        faults: elements that were not closed as they should be.
    """

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        self.faults += self._open

    @property
    def text(self) -> str:
        return "".join(self.parts)

    def ids(self) -> list[str]:
        return [attributes["id"] or "" for _, attributes in self.elements if "id" in attributes]

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for element, attributes in self.elements if element == name]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), (tag, attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open[-1] != tag:
            self.faults.append(tag)
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in ("script", "style"):
            self.parts.append(data)


@pytest.fixture(scope="module")
def text() -> str:
    return render_page(pages.page())


@pytest.fixture(scope="module")
def document(text: str) -> Document:
    return Document(text)


# What stands on it ---------------------------------------------------------------------------------------------


def test_the_page_is_one_well_formed_document(text: str, document: Document) -> None:
    assert text.startswith("<!DOCTYPE html>")
    assert document.faults == []
    ids = document.ids()
    assert len(ids) == len(set(ids))


def test_every_link_leads_to_a_place_on_the_page(document: Document) -> None:
    links = [one["href"] or "" for one in document.all("a")]
    assert links and all(link.startswith("#") and link[1:] in document.ids() for link in links)
    labelled = [one["aria-labelledby"] for _, one in document.elements if "aria-labelledby" in one]
    assert labelled and set(labelled) <= set(document.ids())


def test_every_run_has_its_details_and_the_table_of_runs_leads_there(document: Document) -> None:
    links = {one["href"] for one in document.all("a")}
    for record in pages.records():
        assert f"run-{record['run_id']}" in document.ids()
        assert f"#run-{record['run_id']}" in links


def test_what_was_asked_and_how_to_reproduce_it_stand_there(document: Document) -> None:
    for said in (
        "itopctl report digits --format html -o digits.html",
        "git checkout 3d66be9c0ffee3d66be9c0ffee3d66be9c0ffee0",
        "itopctl sweep 'sweeps/my digits.yaml' --set optimizer.lr=0.1 --set epochs=4",
        pages.SPEC, "2.9.1+cpu", "45 runs", "2.8.0+cu126", "3 runs", "AMD EPYC 9654 96-Core Processor", "A demo.",
        "48 runs: 47 done, 1 failed", "failed: out-of-memory", 'of "weights" on <cuda:0>', "MemoryError",
        "does not hold", "4 more seeds", "A dot is a run.", "a,b\n1,2\n",
    ):  # fmt: skip
        assert said in document.text, said


def test_where_files_differed_from_the_commit_the_command_says_so() -> None:
    assert "# files differed from it" in render_page(pages.page(dirty=True))
    assert "git checkout" not in render_page(pages.page(commit=""))


def test_a_page_without_anything_but_a_title_is_a_page() -> None:
    empty = render_page(dataclasses.replace(pages.page([]), sections=[], verdicts=[], further=[], figures=[], specs=[],
                                            environment=[], runs_table=None, commit=""))  # fmt: skip
    assert Document(empty).faults == []
    assert "<section" not in empty


def test_the_page_asks_for_nothing_and_allows_no_script_but_its_own(text: str, document: Document) -> None:
    (policy,) = [one["content"] or "" for one in document.all("meta") if "http-equiv" in one]
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    names = {name for _, attributes in document.elements for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    for _, attributes in document.elements:
        for name in ("src", "href", "xlink:href", "action", "srcset", "poster", "background", "style"):
            value = attributes.get(name) or ""
            assert "//" not in value and not re.search(r"url\((?!#)", value), (name, value)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)


# Configs ---------------------------------------------------------------------------------------------------------

values = st.one_of(st.booleans(), st.integers(-3, 3), st.sampled_from([0.1, 1.0, 1e-5, 2.5]),
                   st.text("aZ1 :#-'\"\\{[,\n\x7f\x85\ud800ß模", max_size=3),
                   st.lists(st.integers(0, 2), max_size=2))  # fmt: skip
configs = st.lists(
    st.dictionaries(st.sampled_from(["dataset", "model", "method", "seed", "lr", "x"]), st.none() | values), max_size=6
)


@given(configs)
def test_what_is_shared_and_what_is_a_runs_own_are_its_config_again(found: list[dict[str, Any]]) -> None:
    made = compact(found)
    assert len(made.own) == len(found)
    for place, config in enumerate(found):
        again, said = made.settings(place), {name: value for name, value in config.items() if value is not None}
        assert again == said and {n: type(v) for n, v in again.items()} == {n: type(v) for n, v in said.items()}
    for name in made.shared:
        assert all(name in config for config in found)


def test_numbers_and_truth_values_that_compare_equal_are_not_the_same_setting() -> None:
    made = compact([{"nesterov": True}, {"nesterov": 1}, {"nesterov": 1.0}])
    assert made.shared == {} and [in_yaml(own["nesterov"]) for _, own in made.own] == ["true", "1", "1.0"]


def test_shared_settings_are_said_once() -> None:
    made = compact([{"method": "a", "seed": s, "lr": 0.1, "zeta": 1} for s in range(3)]
                   + [{"method": "b", "seed": s, "lr": 0.1, "zeta": 2} for s in range(3)])  # fmt: skip
    assert made.shared == {"lr": 0.1}
    assert [kind.settings for kind in made.kinds] == [{"method": "a", "zeta": 1}, {"method": "b", "zeta": 2}]
    assert made.own == [(kind, {"seed": seed}) for kind in (0, 1) for seed in range(3)]


@given(values)
def test_a_setting_is_written_as_yaml_reads_it(value: Any) -> None:
    written = in_yaml(value)
    if isinstance(value, float):
        assert float(written) == value  # YAML 1.1 would have a sign in every exponent; specs do without
    else:
        assert yaml.safe_load(f"a: {written}") == {"a": value}
    assert "\n" not in written


@pytest.mark.parametrize("text", [
    "yes", "No", "null", "1e3", "0x1f", "12:30", "a: b", "- a", "#a", "2020-01-01", "~", "",
    ".5", "=", "<<", "*a", "&a", "!a", "%a", "@a", "`a", "a #b", "'", '"', "\\", "a:",
])  # fmt: skip
def test_a_word_that_yaml_takes_for_something_else_is_quoted(text: str) -> None:
    assert yaml.safe_load(f"a: {in_yaml(text)}") == {"a": text}


@pytest.mark.parametrize("changed", [
    {}, {"method": "dense", "update_interval": None}, {"method": "static"}, {"method": "rigl-itop", "sparsity": 0.98},
    {"method": "set-itop", "optimizer": {"name": "adam", "lr": 1e-5}}, {"allocation": "uniform", "seed": 7},
    *({"method": method} for method in METHODS.names() if method not in ("dense", "static")),
    {"lr_schedule": {"name": "milestones", "milestones": [0.5, 0.75], "gamma": 0.1}},
])  # fmt: skip
def test_a_runs_config_from_the_page_is_a_spec_of_that_very_run(changed: dict[str, Any]) -> None:
    wanted = {name: value for name, value in changed.items() if value is not None}
    config = run_config(**wanted)
    flat = defining_settings(config.model_dump(mode="json"))
    others = [{**flat, "seed": seed} for seed in (100, 101)]
    made = compact([flat, *others])
    lines = [f"  {name}: {in_yaml(value)}" for name, value in made.settings(0).items()]
    spec = "\n".join(["name: run-1", "base:", *lines, ""])
    (again,) = expand(parse_sweep(read_text(spec, "copied.yaml"))).runs.values()
    assert run_id(again) == run_id(config)


def test_a_further_run_takes_little_room() -> None:
    found = pages.records() * 4
    few, many = (render_page(pages.page(found[:count], sections=[], further=[])) for count in (96, 192))
    assert (len(many.encode()) - len(few.encode())) / 96 < 1_500


# Figures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("svg", [
    pages.svg(), "", "<svg onload=alert(1)>", "\"><script>alert(1)</script>", "\ud800", "模型",
])  # fmt: skip
def test_a_figure_is_an_image_as_data_whatever_is_in_it(svg: str) -> None:
    text = render_page(pages.page(figures=[Figure("one", 'Accuracy & "R_s" <1>', "A dot.", svg)]))
    (image,) = Document(text).all("img")
    assert image["alt"] == 'Accuracy & "R_s" <1>'
    head, data = (image["src"] or "").split(",")
    assert head == "data:image/svg+xml;base64"
    assert base64.b64decode(data, validate=True) == svg.encode("utf-8", "replace")
    assert len(Document(text).all("script")) == 1 and not Document(text).all("svg")


def test_the_data_of_a_figure_stand_beside_it_unless_there_are_too_many() -> None:
    large = "x," * MOST_CSV
    figures = [Figure("learning", "Learning", "Curves.", pages.svg(), large)]
    text = render_page(pages.page(figures=figures))
    assert large not in text
    assert "524 kB" in text and "itopctl plot learning" in text


# Other people's words --------------------------------------------------------------------------------------------


def attacked(word: str) -> Page:
    """A page on which a word stands wherever somebody else's words may stand."""
    settings = {"dataset": word, "model": word, "method": word, word: word, "list": [word, {word: word}]}
    record = {
        "run_id": word,
        "state": word,
        "cause": word,
        "message": word,
        "method": word,
        "sweep": word,
        "seed": word,
    }
    table = Table(word, [Column(word), Column(word, "right")], [[Cell(word, word, True, word), Cell(word, style=word)]],
                  [], [word], word)  # fmt: skip
    return pages.page(
            title=word, made_at=word, command=word, sections=[Section(word, [table], word)], verdicts=[table],
            figures=[Figure(word, word, word, pages.svg(), word)], runs_table=table,
            further=[Section(word, [table])],
            runs=[RunEntry(record, settings, [Attempt(word, word, word, word, word)], word),
                  RunEntry({**record, "run_id": f"{word}2", "sweep": "b"}, {**settings, "seed": 1})],
            specs=[Spec(word, word, word, (word,), word, word)], environment=[Environment(word, {word: 1, "b": 2})],
            commit=word, left_out=[word], version=word,
    )  # fmt: skip


def _text_of(word: str) -> str:
    return render_page(attacked(word))


@pytest.mark.parametrize("attack", ATTACKS)
def test_other_peoples_words_are_text_and_nothing_else(attack: str) -> None:
    _same_shape_as_harmless(attack)


@settings(max_examples=60, deadline=None)
@given(st.text("<>&\"'/=!-[]{}% \n\t\x00\x1b\x85\u202e\ud800svgonx0", min_size=1, max_size=12))
def test_whatever_the_words_are_the_elements_of_the_page_are_the_same(word: str) -> None:
    _same_shape_as_harmless(word)


def _same_shape_as_harmless(word: str) -> None:
    text = _text_of(word)
    text.encode("utf-8")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff]", text)
    document, harmless = Document(text), Document(_text_of("harmless"))
    free = {
        "class",
        "data-s",
    }  # a style is a class where it is known, a cell has a number where its text begins with one

    def shape(one: Document) -> list[tuple[str, list[str]]]:
        return [(name, sorted(attributes.keys() - free)) for name, attributes in one.elements]

    assert document.faults == []
    assert shape(document) == shape(harmless)
    assert all((one.get("href") or "").startswith("#") for one in document.all("a"))
    assert len(document.all("script")) == 1


def test_words_are_shown_as_they_are_written() -> None:
    for attack in ATTACKS[:13]:
        assert attack in Document(_text_of(attack)).text
    assert "\\u202egnp.exe\\u2066" in Document(_text_of("\u202egnp.exe\u2066")).text
    assert "lone \\ud800 surrogate" in Document(_text_of("lone \ud800 surrogate")).text
    assert "模型 — \u05e9\u05dc\u05d5\u05dd" in Document(_text_of("模型 — \u05e9\u05dc\u05d5\u05dd")).text


def test_colours_of_a_terminal_are_left_out_of_a_log() -> None:
    assert "MemoryError" in (text := render_page(pages.page())) and "[31m" not in text
