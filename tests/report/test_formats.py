"""Every format against golden files, and against a reader of that format.

The golden files are made anew by `python -m tests.report.test_formats`; read the difference before you keep it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from itopctl.report.formats import html_fragment, render, rich_tables
from itopctl.report.formats.characters import clean
from itopctl.report.paper import paper_tables
from itopctl.report.runs import runs_table
from itopctl.report.table import FORMATS, Cell, Column, Table
from tests.report.records import paper_runs, run, store_runs
from tests.report.texts import number_texts, tables_of_anything, texts
from tests.report.written import value_of

GOLDEN = Path(__file__).parent / "golden"
_ENDINGS = {"markdown": "md", "latex": "tex", "csv": "csv", "json": "json", "html": "html", "rich": "txt"}


def reports() -> dict[str, list[Table]]:
    return {
        "paper": paper_tables(paper_runs(), ("static", "set-itop", "rigl-itop")),
        "runs": [runs_table(store_runs())],
    }


def text_of(tables: list[Table], style: str, width: int = 200) -> str:
    """Tables in a format; `rich` as it comes out where there is no terminal."""
    if style != "rich":
        return render(tables, style)
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(rich_tables(tables))
    return out.getvalue()


def one_cell(*cells: Cell, title: str = "A table") -> list[Table]:
    return [Table(title, [Column("a") for _ in cells], [cells], [])]


# Golden files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", FORMATS)
@pytest.mark.parametrize("name", ["paper", "runs"])
def test_a_report_is_as_in_its_golden_file(name: str, style: str) -> None:
    golden = (GOLDEN / f"{name}.{_ENDINGS[style]}").read_text(encoding="utf-8")
    assert text_of(reports()[name], style) == golden


# Characters -------------------------------------------------------------------------------------------------

_OBEYED = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)
"""What a terminal, or whoever lays out a line, would obey and nobody would see; line breaks aside."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b[2Jb", "a␛[2Jb"), ("\x7f\x00", "␡␀"), ("a\x9bb", "a�b"), ("net\u202e5", "net�5"), ("a\u200bb", "a�b"),
        ("a\tb", "a b"), ("a\r\nb\u2028c", "a b c"), ("\ud800", "�"), ("\uffff", "�"), ("模型 é", "模型 é"),
        ("\U0001f469\u200d\U0001f4bb", "\U0001f469\U0001f4bb"), ("\u2764\ufe0f", "\u2764"),
    ],
)  # fmt: skip
def test_what_nobody_would_see_is_shown_or_taken_out(text: str, expected: str) -> None:
    assert clean(text) == expected


@given(st.text())
def test_the_width_of_a_clean_text_is_that_of_its_characters(text: str) -> None:
    assert cell_len(clean(text)) == sum(cell_len(char) for char in clean(text))


@pytest.mark.parametrize("style", FORMATS)
@settings(max_examples=40, deadline=None)
@given(tables=st.lists(tables_of_anything(), max_size=2), text=texts())
def test_a_control_character_never_reaches_the_output(style: str, tables: list[Table], text: str) -> None:
    tables = [
        *tables,
        Table(text, [Column(text)], [[Cell(text, text)]], [{text: text, "inner": {text: [text]}}], [text], text),
    ]
    shown = text_of(tables, style, width=60)
    assert not _OBEYED.search(shown)
    shown.encode()


# Numbers ----------------------------------------------------------------------------------------------------


def column(*texts: str, best: int | None = None) -> list[Table]:
    rows = [[Cell(value_of(text), best=place == best)] for place, text in enumerate(texts)]
    return [Table("", [Column("value", "right")], rows, [])]


def body(style: str, tables: list[Table]) -> list[str]:
    """The rows of a table of one column, between its borders."""
    border = "│" if style == "rich" else "|"
    lines = [line for line in text_of(tables, style).splitlines() if line.startswith(border)]
    return [line[2:-2] for line in lines[2 * (style == "markdown") :]]


@pytest.mark.parametrize(
    ("texts_", "expected"),
    [
        (["3", "12.25", "–"], [" 3   ", "12.25", "    –"]),
        (["97.5 ± 0.71", "100 ± 12.5", "3.25"], [" 97.5 ±  0.71", "100   ± 12.5 ", "  3.25       "]),
        (["90 %", "96.5 %", "96.5 %*"], ["90 %   ", "96.5 % ", "96.5 %*"]),
        (["-0.5", "+12", "−3.25"], [" -0.5 ", "+12   ", " −3.25"]),
        (["1,500", "2.5"], ["1,500  ", "    2.5"]),
        (["1,230 ± 1,060", "7 ± 90"], ["1,230 ± 1,060", "    7 ±    90"]),
        (["3 min 20 s", "8.5 s"], ["3 min 20 s", "     8.5 s"]),
        (["4.5 kB", "300 MB"], ["4.5 kB", "300 MB"]),
        (["[0.1, 0.25]", "3.5"], ["[0.1, 0.25]", "        3.5"]),
    ],
)
def test_numbers_line_up_at_the_decimal_point(texts_: list[str], expected: list[str]) -> None:
    assert body("rich", column(*texts_)) == expected
    if not set("*[") & set("".join(texts_)):  # which Markdown escapes
        assert body("markdown", column(*texts_)) == expected


@pytest.mark.parametrize(("style", "sign"), [("rich", "★ 7.25"), ("markdown", "**7.25**")])
def test_the_best_number_lines_up_with_the_others(style: str, sign: str) -> None:
    lines = body(style, column("12.5", "7.25", "3", best=1))
    assert sign in lines[1]
    assert {line.index(".") for line in lines[:2]} == {lines[2].index("3") + 1}


def decimal_places(lines: list[str], texts_: list[str]) -> set[int]:
    """Where the decimal points are, or would be."""
    return {
        cell_len(re.match(r"\D*?[\d,]+", line)[0])
        for line, text in zip(lines, texts_, strict=True)
        if re.search(r"\d", text)
    }  # type: ignore[index]


@given(
    st.lists(
        st.floats(-2e4, 2e4).flatmap(lambda x: st.integers(0, 4).map(lambda n: f"{x:,.{n}f}")), min_size=1, max_size=6
    )
)
def test_whatever_the_numbers_their_points_stand_below_each_other(texts_: list[str]) -> None:
    assert len(decimal_places(body("rich", column(*texts_)), texts_)) == 1


@given(st.lists(number_texts(), min_size=1, max_size=6))
def test_lining_up_changes_nothing_but_spaces(texts_: list[str]) -> None:
    for line, text in zip(body("rich", column(*texts_)), texts_, strict=True):
        assert line.replace(" ", "") == text.replace(" ", "")


# Widths -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 100, 200])
@settings(max_examples=40, deadline=None)
@given(table=tables_of_anything())
def test_every_row_is_as_wide_as_the_others_and_no_wider_than_the_terminal(width: int, table: Table) -> None:
    lines = [line for line in text_of([table], "rich", width).splitlines() if line[:1] in "┏┃┡│└" and line]
    drawn: list[list[str]] = []
    for line in lines:
        if line.startswith("┏"):
            drawn.append([])
        if drawn:
            drawn[-1].append(line)
    assert drawn
    for rows in drawn:
        assert len({cell_len(row) for row in rows}) == 1
        assert cell_len(rows[0]) <= width


def test_a_column_stays_though_all_may_be_left_out() -> None:
    table = Table("", [Column("a", rank=1), Column("b", rank=2, whole=True)], [[Cell("x"), Cell("y" * 50)]], [])
    assert "x" in text_of([table], "rich", 40) and "No room for: b." in text_of([table], "rich", 40)


@settings(max_examples=50, deadline=None)
@given(tables_of_anything())
def test_every_row_of_markdown_is_as_wide_as_the_others(table: Table) -> None:
    lines = [line for line in render([table], "markdown").splitlines() if line.startswith("| ") and line.endswith(" |")]
    assert len({cell_len(line) for line in lines}) == 1


# Markdown ---------------------------------------------------------------------------------------------------


def read_markdown(text: str) -> list[list[str]]:
    """Rows of cells, headings included, as a Markdown reader finds them; what is strong between ** and **."""
    rows: list[list[str]] = []
    for token in (tokens := MarkdownIt("commonmark").enable("table").parse(text)):
        if token.type == "tr_open":
            rows.append([])
        if token.type == "inline" and tokens[tokens.index(token) - 1].type in ("td_open", "th_open"):
            marks = {"strong_open": "**", "strong_close": "**", "em_open": "<em>", "em_close": "</em>"}
            rows[-1].append("".join(marks.get(part.type, part.content) for part in token.children or []))
    return rows


def flat(text: str) -> str:
    return " ".join(clean(text).split())


@settings(max_examples=50, deadline=None)
@given(tables_of_anything())
def test_a_markdown_reader_finds_whatever_the_cells_were(table: Table) -> None:
    """But for spaces, which Markdown does not keep, and for what is bold."""
    found = [[flat(text.replace("*", "")) for text in row] for row in read_markdown(render([table], "markdown"))]
    cells = [[flat(column.header) for column in table.columns]]
    for row in table.rows:
        cells.append(
            [
                flat(clean(cell.text).strip() + (f", {clean(cell.second).strip()}" if cell.second else ""))
                for cell in row
            ]
        )
    assert found == [[flat(text.replace("*", "")) for text in row] for row in cells]


@pytest.mark.parametrize("name", ["paper", "runs"])
def test_a_markdown_reader_finds_every_cell_as_it_was(name: str) -> None:
    tables = reports()[name]
    expected = []
    for table in tables:
        expected.append([column.header for column in table.columns])
        for row in table.rows:
            texts = [(f"{cell.text}, {cell.second}" if cell.second else cell.text, cell.best) for cell in row]
            expected.append([f"**{text}**" if best else text for text, best in texts])
    found = [[re.sub(" +", " ", text) for text in row] for row in read_markdown(render(tables, "markdown"))]
    assert found == expected


def test_a_note_that_would_begin_a_list_or_a_heading_does_not() -> None:
    notes = ["- a", "1. b", "# c", "+ d", "=== e", "2) f", "> g", "    h"]
    html = MarkdownIt("commonmark").render(render([Table("", [], [], [], notes)], "markdown"))
    assert re.sub(r"\s*<br />\s*", "\n", html) == "<p>- a\n1. b\n# c\n+ d\n=== e\n2) f\n&gt; g\nh</p>\n"


def test_the_note_on_unfinished_seeds_is_no_bullet_in_markdown() -> None:
    html = MarkdownIt("commonmark").enable("table").render(render(reports()["paper"], "markdown"))
    assert "<li>" not in html
    assert "* 2 runs failed (static at 90 %); 2 runs are not finished." in html


@pytest.mark.parametrize(
    "text",
    ["a|b", "net_*big*", "`code`", "<b>", "&amp;", "_init_", "[x](y)", "a\\b", "~~x~~"],
)
def test_what_markdown_would_take_for_itself_is_text_in_a_cell(text: str) -> None:
    assert read_markdown(render(one_cell(Cell(text), Cell("next")), "markdown"))[1] == [text, "next"]


def test_markdown_columns_line_up_with_wide_characters_too() -> None:
    tables = [
        Table(
            "",
            [Column("名"), Column("right", "right"), Column("centre", "center")],
            [[Cell("模型 net"), Cell("97.31", best=True), Cell("x")], [Cell("a"), Cell("±"), Cell("é")]],
            [],
        )
    ]
    lines = render(tables, "markdown").splitlines()
    assert len({cell_len(line) for line in lines}) == 1
    places = [[cell_len(line[:at]) for at, char in enumerate(line) if char == "|"] for line in lines]
    assert all(place == places[0] for place in places)


def test_markdown_says_where_columns_are_set() -> None:
    columns = [Column("a"), Column("b", "right"), Column("c", "center")]
    rule = render([Table("", columns, [[Cell("x")] * 3], [])], "markdown").splitlines()[1]
    assert rule == "| :-- | --: | :-: |"


def test_tables_without_rows_are_tables_in_every_format() -> None:
    tables = [runs_table([])]
    assert json.loads(render(tables, "json")) == []
    assert len(read_markdown(render(tables, "markdown"))) == 1
    assert r"\begin{tabular}" in render(tables, "latex")
    assert "sparsity" in text_of(tables, "rich")


# CSV and JSON -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paper", "runs"])
def test_json_parses_back_to_the_records(name: str) -> None:
    tables = reports()[name]
    records = [record for table in tables for record in table.records]
    assert json.loads(render(tables, "json")) == records


@pytest.mark.parametrize("name", ["paper", "runs"])
def test_csv_parses_back_to_the_records(name: str) -> None:
    tables = reports()[name]
    records = [record for table in tables for record in table.records]
    found = list(csv.DictReader(io.StringIO(render(tables, "csv"), newline="")))
    assert list(found[0]) == list(records[0])
    for read, record in zip(found, records, strict=True):
        for field, value in record.items():
            if isinstance(value, dict):
                assert json.loads(read[field]) == value
            elif isinstance(value, float):
                assert float(read[field]) == value
            else:
                assert read[field] == ("" if value is None else str(value))


def test_csv_has_every_field_that_any_record_has() -> None:
    tables = [Table("", [], [], [{"a": 1}]), Table("", [], [], [{"a": 2, "b": [1, 2]}])]
    assert render(tables, "csv") == 'a,b\n1,\n2,"[1, 2]"\n'


@given(texts())
def test_json_is_what_it_was_whatever_the_text(text: str) -> None:
    records = [{"a": text, text: 1, "b": {"c": [text]}}]
    assert json.loads(render([Table("", [], [], records)], "json")) == records


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@SUM(A1)", "'=1", "''@x", "\t=1", " =1", "-1 x"])
def test_a_spreadsheet_is_given_text_where_it_would_compute(text: str) -> None:
    assert render([Table("", [], [], [{"a": text}])], "csv") == f"a\n'{clean(text)}\n"


@pytest.mark.parametrize("value", ["-1", "+2.5e-3", "'quoted'", "a=b", "", "1-2", -0.5, None])
def test_what_is_no_formula_stays_as_it_is(value: object) -> None:
    (read,) = csv.DictReader(io.StringIO(render([Table("", [], [], [{"a": value, "b": 1}])], "csv"), newline=""))
    assert read["a"] == ("" if value is None else str(value))


@given(st.lists(st.lists(texts(), min_size=2, max_size=2), min_size=1, max_size=4))
def test_a_csv_reader_finds_whatever_the_records_were(rows: list[list[str]]) -> None:
    """But for characters that nobody can see, and the apostrophe before what would be a formula."""
    records = [dict(zip("ab", row, strict=True)) for row in rows]
    found = list(csv.DictReader(io.StringIO(render([Table("", [], [], records)], "csv"), newline=""), strict=True))
    for read, record in zip(found, records, strict=True):
        for name, text in record.items():
            plain = re.sub(r"^'(?='*\s*[=+\-@])", "", read[name])
            assert plain == clean(text, lines=True, shapers=True)


def test_json_keeps_letters_of_every_language_readable() -> None:
    assert "模型|b:net_a" in render(reports()["runs"], "json")


# HTML -------------------------------------------------------------------------------------------------------


class _Reader(HTMLParser):
    """Rows of cells, with a line break as such; and every tag."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True
        if tag == "br":
            self.rows[-1][-1] += "\n"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def read_html(text: str) -> _Reader:
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader


@settings(max_examples=50, deadline=None)
@given(tables_of_anything())
def test_a_browser_finds_whatever_the_cells_were(table: Table) -> None:
    """But for spaces."""

    def squeezed(text: str) -> str:
        return "".join(clean(text, lines=True, shapers=True).split())

    found = read_html(html_fragment(table))
    cells = [
        [column.header for column in table.columns],
        *([cell.text + cell.second for cell in row] for row in table.rows),
    ]
    assert [["".join(text.split()) for text in row] for row in found.rows] == [
        [squeezed(text) for text in row] for row in cells
    ]
    known = {"div", "table", "caption", "thead", "tr", "th", "tbody", "td", "strong", "br", "small", "p"}
    assert set(found.tags) <= known


def test_html_is_a_document_that_needs_nothing_else() -> None:
    text = render(reports()["paper"], "html")
    assert text.startswith("<!DOCTYPE html>") and text.count("<html") == 1 and text.count("<table") == 2
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)


def test_a_cell_of_html_says_its_number() -> None:
    text = html_fragment(column("1,500.5 ± 2 %", "–", "−3×", "3 min 20 s", "4.5 kB")[0])
    assert re.findall(r'data-value="(.*?)"', text) == ["1500.5", "-3", "200", "4500"]


# A terminal -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", range(37, 120, 3))
def test_no_word_is_broken_where_there_is_room_for_all(width: int) -> None:
    columns = [
        Column("method"),
        Column("what was said of it"),
        Column("steps", "right", rank=1),
        Column("test %", "right"),
    ]
    rows = [
        [Cell("rigl-itop"), Cell("RuntimeError: no such thing, anywhere"), Cell("88,000"), Cell("93.41 ± 0.12")],
        [Cell("random-unexplored"[:16]), Cell("fine"), Cell("8"), Cell("9.5 ± 0.1")],
    ]
    shown = text_of([Table("", columns, rows, [{}, {}])], "rich", width)
    words = {word for line in shown.splitlines() for word in line.replace("┃", " ").replace("│", " ").split()}
    assert {"rigl-itop", "RuntimeError:", "anywhere", "random-unexplore", "93.41"} <= words
    assert max(map(cell_len, shown.splitlines())) <= width


def test_a_terminal_of_eighty_columns_shows_the_ids_and_numbers_of_runs_whole() -> None:
    shown = text_of(reports()["runs"], "rich", width=80)
    assert [word for word in ("0123456789ab", "3123456789ab", "96.5 %", "97.31", "0.31") if word not in shown] == []


def test_a_terminal_of_eighty_columns_shows_the_methods_and_numbers_of_a_paper_whole() -> None:
    runs = [run("dense", 0.0, seed, accuracy=0.97) for seed in range(2)]
    for interval in (10, 40):
        runs += [
            run("rigl-itop", value, seed, accuracy=0.8 + 0.02 * seed, settings={"update_interval": interval})
            for value in (0.9, 0.95, 0.98)
            for seed in range(2)
        ]
    shown = text_of(paper_tables(runs), "rich", width=80)
    assert [word for word in ("dense", "rigl-itop", "ΔT 10", "ΔT 40") if word not in shown] == []
    assert shown.count("81.00 ± 1.41") == 6 and shown.count("97.00 ± 0.00") == 1


def test_a_table_too_wide_for_the_terminal_goes_on_below_with_its_first_column() -> None:
    runs = [run("set-itop", value, 0, accuracy=0.8) for value in (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99)]
    shown = text_of(paper_tables(runs), "rich", width=60)
    assert max(map(len, shown.splitlines())) <= 60
    assert shown.count("80.00") == 8
    assert shown.count("set-itop") == shown.count("method") > 1
    assert all(f"{value} %" in shown for value in (50, 60, 70, 80, 90, 95, 98, 99))


def test_the_best_cell_can_be_told_where_there_is_no_colour() -> None:
    plain, best = (text_of(one_cell(Cell("97.31", best=best)), "rich") for best in (False, True))
    assert "97.31" in plain and "97.31" in best
    assert plain != best


def test_output_that_is_no_terminal_has_no_escape_codes() -> None:
    assert "\x1b" not in text_of(reports()["paper"] + reports()["runs"], "rich")


def test_text_with_brackets_is_not_taken_for_markup() -> None:
    shown = text_of(one_cell(Cell("[red]x[/red]"), title="a [b] c"), "rich")
    assert "[red]x[/red]" in shown and "a [b] c" in shown


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for report, tables_ in reports().items():
        for style_, ending in _ENDINGS.items():
            (GOLDEN / f"{report}.{ending}").write_text(text_of(tables_, style_), encoding="utf-8")
