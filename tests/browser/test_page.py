"""The page in a real browser, at the width of a desk and of a phone, with scripts and without."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from itopctl.report.page import Figure, Page, render_page
from itopctl.report.table import Cell, Column, Table
from tests.browser.chromium import DESK, PHONE, Browser
from tests.report import pages
from tests.report.written import cell

RUNS, VERDICTS = "#runs-table", "#verdict-1"

Open = Callable[..., Browser]


@pytest.fixture
def shown(browser: Browser, tmp_path: Path) -> Open:
    """Shows a page, the usual one if none is given."""

    def show(page: Page | None = None, **how: Any) -> Browser:
        path = tmp_path / "a page.html"
        path.write_text(render_page(page or pages.page()), encoding="utf-8")
        browser.open(path, **how)
        return browser

    return show


def rows(browser: Browser, heading: str, column: int, hidden: bool = False) -> list[str]:
    """The text of a column of the table under a heading, from top to bottom."""
    return browser.run(
        """const table = document.querySelector(`[aria-labelledby=${arguments[0].slice(1)}] table`);
        return [...table.tBodies[0].rows].filter((row) => arguments[2] || row.getClientRects().length)
          .map((row) => row.cells[arguments[1]].innerText);""",
        heading, column, hidden,
    )  # fmt: skip


def sort_by(browser: Browser, heading: str, column: int) -> str:
    """Click a column's header; returns what it says of the order."""
    return browser.run(
        """const table = document.querySelector(`[aria-labelledby=${arguments[0].slice(1)}] table`);
        const head = table.tHead.rows[0].cells[arguments[1]];
        head.querySelector("button").click();
        return head.getAttribute("aria-sort");""",
        heading, column,
    )  # fmt: skip


# Widths, colours, quiet -----------------------------------------------------------------------------------------


def sticking_out(browser: Browser) -> list[str]:
    """Elements that reach beyond the viewport, but for what stands in a box that scrolls by itself."""
    return browser.run(
        """const out = [];
        for (const one of document.body.querySelectorAll("*")) {
          const box = one.getBoundingClientRect();
          if (one.parentElement.closest(".box, pre") || !box.width) continue;
          if (box.right > innerWidth + 0.5 || box.left < -0.5) out.push(`${one.tagName} ${one.className} ${one.id}`);
        }
        if (document.documentElement.scrollWidth > innerWidth) out.push("the page");
        return out;"""
    )


LONG = "my_package.my_subpackage.my_module:a_function_with_a_long_name_" + "x" * 300


def long_words() -> Page:
    """A page whose every word is longer than a phone is wide."""
    table = Table(LONG, [Column(LONG), Column(LONG, "right"), Column(LONG)],
                  [[Cell(LONG, LONG), Cell("1.5"), Cell(LONG, LONG)]] * 9, [], [LONG], LONG)  # fmt: skip
    usual = pages.page()
    runs = [dataclasses.replace(run, settings={**run.settings, LONG: LONG, "one": LONG * i}, log=LONG)
            for i, run in enumerate(usual.runs[:9])]  # fmt: skip
    sections = [dataclasses.replace(usual.sections[0], title=LONG, text=LONG, tables=[table])]
    figures = [dataclasses.replace(usual.figures[0], title=LONG, caption=LONG, csv=LONG)]
    specs = [dataclasses.replace(usual.specs[0], sweep=LONG, path=LONG, text=LONG, overrides=(LONG,), description=LONG)]
    return dataclasses.replace(usual, title=LONG, command=LONG, sections=sections, verdicts=[table], figures=figures,
                               runs=runs, specs=specs, left_out=[LONG])  # fmt: skip


@pytest.mark.parametrize("width", [DESK, PHONE, 320])
@pytest.mark.parametrize("scripts", [True, False])
def test_nothing_reaches_beyond_the_viewport(shown: Open, width: int, scripts: bool) -> None:
    browser = shown(width=width, scripts=scripts)
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("return innerWidth") == width
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert sticking_out(browser) == []


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_nothing_reaches_beyond_the_viewport_however_long_the_words_are(shown: Open, width: int) -> None:
    browser = shown(long_words(), width=width)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert sticking_out(browser) == []


def test_on_a_phone_a_table_scrolls_in_its_box_and_its_first_column_stays(shown: Open) -> None:
    browser = shown(width=PHONE)
    before, after, scrolled = browser.run(
        """const box = document.querySelector("[aria-labelledby=runs-table]");
        const first = box.querySelector("tbody th");
        const before = first.getBoundingClientRect().left;
        box.scrollLeft = 300;
        return [before, first.getBoundingClientRect().left, box.scrollLeft];"""
    )
    assert scrolled == 300 and after == before


@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_page_asks_for_nothing_and_the_console_stays_empty(shown: Open, width: int) -> None:
    browser = shown(width=width)
    sort_by(browser, RUNS, 0)
    (asked,) = browser.requests()  # the file itself
    assert asked.startswith("file:")
    assert browser.complaints() == []


def luminance(color: str) -> float:
    red, green, blue = (float(part) / 255 for part in color[color.index("(") + 1 : -1].split(",")[:3])
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue))
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_stands_out_from_what_is_behind_it(shown: Open, scheme: str) -> None:
    browser = shown(prefers_color_scheme=scheme)
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    pairs = browser.run(
        """const found = new Map();
        const clear = (one) => getComputedStyle(one).backgroundColor === "rgba(0, 0, 0, 0)";
        for (const one of document.body.querySelectorAll("*")) {
          if (![...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
          let behind = one;
          while (behind && clear(behind)) behind = behind.parentElement;
          const color = getComputedStyle(one).color;
          const back = behind ? getComputedStyle(behind).backgroundColor : "rgb(255, 255, 255)";
          found.set(`${color} on ${back}`, [color, back, one.tagName + " " + one.className]);
        }
        return [...found.values()];"""
    )
    assert len(pairs) > 5
    for color, behind, where in pairs:
        light, dark = sorted((luminance(color), luminance(behind)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (where, color, behind)
    paper = luminance(browser.run("return getComputedStyle(document.body).backgroundColor"))
    assert paper > 0.8 if scheme == "light" else paper < 0.05
    assert (
        browser.run("return getComputedStyle(document.querySelector('.card')).backgroundColor") == "rgb(255, 255, 255)"
    )


def test_every_figure_is_drawn_as_wide_as_there_is_room(shown: Open) -> None:
    browser = shown()
    found = browser.run(
        """return [...document.querySelectorAll(".card img")].map((one) => {
          const {width, height} = one.getBoundingClientRect(), canvas = document.createElement("canvas");
          [canvas.width, canvas.height] = [width, height];
          canvas.getContext("2d").drawImage(one, 0, 0, width, height);
          const pixels = canvas.getContext("2d").getImageData(0, 0, width, height).data;
          const coloured = [...pixels.keys()].some((at) => at % 4 === 0 && pixels[at] + 50 < pixels[at + 2]);
          return [width / one.parentElement.clientWidth, width / height, coloured];
        })"""
    )
    assert len(found) == 2
    assert all(share > 0.85 and abs(shape - 241.2 / 160) < 0.02 for share, shape, _ in found)
    assert found[0][2]  # its line is blue


def test_a_figure_runs_no_script(shown: Open) -> None:
    hostile = pages.svg().replace("<metadata>", "<script>top.ran = parent.ran = window.ran = 1</script><metadata>")
    browser = shown(pages.page(figures=[Figure("one", "One", "A dot.", hostile)]))
    assert browser.run("const one = document.querySelector('.card img'); return [one.complete, one.naturalWidth > 0]")
    assert browser.run("return typeof window.ran") == "undefined"


# Sorting and filtering -------------------------------------------------------------------------------------------


def numbers_table() -> Table:
    texts = ["1,500", "90", "–", "1,200", "9.5 ± 0.1", "−3", "", "200"]
    times = ["2 h 05 min", "42 s", "0.8 s", "–", "3 min 20 s", "3 d 4 h", "", "59 min 59 s"]
    words = ["run-10", "run-9", "B", "a", "run-1", "", "ä", "C"]
    table_rows = [[cell(str(i)), cell(a), cell(b), Cell(c)]
                  for i, (a, b, c) in enumerate(zip(texts, times, words, strict=True))]  # fmt: skip
    columns = [Column("n", "right"), Column("number", "right"), Column("time", "right"), Column("word")]
    return Table("Numbers", columns, table_rows, [])


@pytest.mark.parametrize(("column", "expected", "none"), [(1, "541730", "26"), (2, "214705", "36")])
def test_a_click_on_a_header_sorts_numbers_as_numbers_whatever_their_unit(
    shown: Open, column: int, expected: str, none: str
) -> None:
    browser = shown(pages.page(verdicts=[numbers_table()]))
    assert rows(browser, VERDICTS, 0) == list("01234567")
    assert sort_by(browser, VERDICTS, column) == "ascending"
    assert rows(browser, VERDICTS, 0) == list(expected + none)
    assert sort_by(browser, VERDICTS, column) == "descending"
    assert rows(browser, VERDICTS, 0) == list(expected[::-1] + none)  # what has no number comes last either way
    assert sort_by(browser, VERDICTS, column) == "none"
    assert rows(browser, VERDICTS, 0) == list("01234567")


def test_words_sort_as_people_sort_them(shown: Open) -> None:
    browser = shown(pages.page(verdicts=[numbers_table()]))
    sort_by(browser, VERDICTS, 3)
    assert rows(browser, VERDICTS, 3) == ["a", "ä", "B", "C", "run-1", "run-9", "run-10", ""]


def test_one_column_at_a_time_says_that_it_is_sorted_and_the_keyboard_sorts(shown: Open) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    browser = shown()
    button = browser.driver.find_element(By.XPATH, "//*[@aria-labelledby='runs-table']//th//button[text()='test %']")
    sort_by(browser, RUNS, 0)
    button.send_keys(Keys.ENTER)
    said = browser.run(
        "return [...document.querySelectorAll('[aria-sort]')].map((one) => one.getAttribute('aria-sort'))"
    )
    assert [order for order in said if order != "none"] == ["ascending"]
    column = [head["test_accuracy"] for head in pages.records() if head["test_accuracy"] is not None]
    texts = rows(browser, RUNS, 7)
    assert [float(text) for text in texts[:-1]] == sorted(round(100 * value, 2) for value in column)


def filter_by(browser: Browser, what: str, words: str) -> str:
    """Type into the filter above the runs' table (`rows`) or their details (`runs`); returns what it says."""
    from selenium.webdriver.common.by import By

    place = {"rows": "//*[@aria-labelledby='runs-table']", "runs": "//*[@class='each']"}[what]
    field = browser.driver.find_element(By.XPATH, f"{place}/preceding-sibling::*[1]//label/input")
    assert field.accessible_name == f"Filter {what}"
    field.clear()
    field.send_keys(words)
    return browser.driver.find_element(By.XPATH, f"{place}/preceding-sibling::*[1]//output").text


def test_a_filter_leaves_the_rows_that_have_every_word(shown: Open) -> None:
    browser = shown()
    assert filter_by(browser, "rows", "SET-itop  1,500") == "9 of 48 rows"
    assert len(rows(browser, RUNS, 0)) == 9
    sort_by(browser, RUNS, 0)
    assert len(rows(browser, RUNS, 0)) == 9 and len(rows(browser, RUNS, 0, hidden=True)) == 48
    assert filter_by(browser, "rows", "nothing like it") == "0 of 48 rows"
    assert rows(browser, RUNS, 0) == []
    assert filter_by(browser, "rows", " ") == "48 rows"
    assert len(rows(browser, RUNS, 0)) == 48


def test_a_filter_leaves_the_runs_whose_config_has_the_words(shown: Open) -> None:
    browser = shown()
    assert filter_by(browser, "runs", "update_interval 1500 SPARSITY 0.98") == "6 of 48 runs"
    assert (
        browser.run("return [...document.querySelectorAll('.run')].filter((one) => one.checkVisibility()).length") == 6
    )


# Details, copying ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripts", [True, False])
def test_the_address_of_a_run_opens_its_details(shown: Open, scripts: bool) -> None:
    run_id = pages.records()[20]["run_id"]
    browser = shown(fragment=f"#run-{run_id}", scripts=scripts)
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)
    is_open, top, height = browser.run(
        """const one = document.getElementById(arguments[0]);
        const box = one.getBoundingClientRect();
        return [one.closest("details").open, box.top, innerHeight];""",
        f"run-{run_id}",
    )
    assert is_open and 0 <= top < height


def test_a_link_to_a_run_that_a_filter_hides_shows_it(shown: Open) -> None:
    browser = shown()
    filter_by(browser, "runs", "dense")
    run_id = pages.records()[20]["run_id"]
    browser.run("document.querySelector(`a[href='#run-${arguments[0]}']`).click()", run_id)
    time.sleep(0.2)
    assert browser.run("return document.getElementById(arguments[0]).checkVisibility()", f"run-{run_id}")


def copied(browser: Browser, script: str) -> str:
    """What a click on the button that a script returns puts on the clipboard."""
    browser.run("window.got = null; navigator.clipboard.writeText = async (text) => { window.got = text; };")
    browser.run(f"({script}).click()")
    return browser.run("return window.got")


def test_a_runs_whole_config_is_copied_as_a_spec(shown: Open) -> None:
    browser = shown()
    browser.run("document.querySelectorAll('.run')[30].open = true")
    time.sleep(0.2)
    text = copied(browser, "document.querySelectorAll('.run')[30].querySelector('.spec button')")
    record = pages.records()[30]
    settings = {name: value for name, value in record["settings"].items() if value is not None}
    assert yaml.safe_load(text) == {"name": f"run-{record['run_id']}", "base": settings}


def test_a_spec_is_copied_as_it_was_written_and_a_figures_data_are_saved(shown: Open, downloads: Path) -> None:
    browser = shown()
    assert copied(browser, "document.querySelector('#spec-1 ~ .acts button')") == pages.SPEC
    browser.run("document.querySelector('.data').open = true; document.querySelector('.data .acts').lastChild.click()")
    saved = downloads / "rs-accuracy.csv"
    for _ in range(100):
        if saved.exists():
            break
        time.sleep(0.05)
    assert saved.read_text() == "a,b\n1,2\n"


# Without scripts, on paper, attacked -----------------------------------------------------------------------------


def test_without_scripts_everything_is_there_to_be_read(shown: Open) -> None:
    with_scripts = shown()
    inside = "return [...document.querySelectorAll('main th, main td, main dd, main pre, main figcaption, main p')]"
    texts = with_scripts.run(f"{inside}.map((one) => one.textContent.trim()).sort()")
    browser = shown(scripts=False)
    browser.tell("Emulation.setScriptExecutionDisabled", value=False)
    assert browser.run("return document.querySelectorAll('button, input').length") == 0
    assert browser.run(f"{inside}.map((one) => one.textContent.trim()).sort()") == texts
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.run(f"{inside}.filter((one) => one.textContent.trim() && !one.checkVisibility()).length") == 0


def test_on_paper_there_are_no_controls_and_no_table_is_cut(shown: Open) -> None:
    browser = shown(prefers_color_scheme="dark")
    browser.tell("Emulation.setEmulatedMedia", media="print", features=[])
    assert (
        browser.run("return [...document.querySelectorAll('.filter, .acts, nav')].some((one) => one.checkVisibility())")
        is False
    )
    assert browser.run(
        "return [...document.querySelectorAll('.box')].every((one) => one.scrollHeight <= one.clientHeight + 1)"
    )
    assert luminance(browser.run("return getComputedStyle(document.body).backgroundColor")) == pytest.approx(1.0)
    heads = browser.run(
        """return [...document.querySelectorAll(".sort")]
          .map((one) => `${getComputedStyle(one).display} ${getComputedStyle(one, "::after").content}`);"""
    )
    assert set(heads) == {"contents none"}  # no arrows, and heads that are repeated on each sheet


def test_other_peoples_words_run_nothing_and_ask_for_nothing(shown: Open) -> None:
    from tests.report.test_page import ATTACKS, attacked

    for attack in ("".join(ATTACKS), *ATTACKS[:7]):
        browser = shown(attacked(attack))
        browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        browser.run("document.querySelectorAll('.sort').forEach((one) => one.click())")
        assert all(url.startswith("file:") for url in browser.requests())
        assert browser.complaints() == []
        assert attack == "".join(ATTACKS) or attack in browser.run("return document.querySelector('main').textContent")


def test_a_script_that_got_in_all_the_same_would_not_run(shown: Open, tmp_path: Path) -> None:
    browser = shown()
    path = tmp_path / "a page.html"
    text = path.read_text(encoding="utf-8").replace(
        "</main>", "<script>document.title = 'run'</script><img src=x onerror=\"document.title = 'run'\"></main>"
    )
    path.write_text(text, encoding="utf-8")
    browser.open(path)
    assert browser.driver.title == "Sparse training on digits"
    assert any("Content Security Policy" in one for one in browser.complaints())


@pytest.mark.slow
def test_a_page_of_ten_thousand_runs_opens_sorts_and_filters(shown: Open) -> None:
    usual = pages.records()
    found = [{**usual[n % len(usual)], "run_id": f"{n:012x}", "test_accuracy": (n * 7919 % 10_000) / 10_000}
             for n in range(10_000)]  # fmt: skip
    browser = shown(pages.page(found, sections=[]))
    column = browser.run(
        """const table = document.querySelector("[aria-labelledby=runs-table] table");
        return [...table.tHead.rows[0].cells].findIndex((head) => head.innerText.startsWith("test %"));"""
    )
    sort_by(browser, RUNS, column)
    assert rows(browser, RUNS, column)[:2] == ["0.00", "0.01"]
    assert filter_by(browser, "rows", "000000001fff") == "1 of 10,000 rows"
    browser.run("location.hash = 'run-000000001fff'")
    time.sleep(1)
    assert browser.run("return document.getElementById('run-000000001fff').checkVisibility()")
