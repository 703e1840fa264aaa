"""Every format against golden files, and against a reader of that format.

The golden files are made anew by `python -m tests.report.test_formats`; read the difference before you keep it.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from itopctl.report.formats import render, rich_tables
from itopctl.report.paper import paper_tables
from itopctl.report.runs import runs_table
from itopctl.report.table import FORMATS, Cell, Column, Table
from tests.report.records import paper_runs, run, store_runs

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


@pytest.mark.parametrize("name", ["paper", "runs"])
def test_a_markdown_reader_finds_every_cell_as_it_was(name: str) -> None:
    tables = reports()[name]
    expected = []
    for table in tables:
        expected.append([column.header for column in table.columns])
        for row in table.rows:
            texts = [(f"{cell.text}, {cell.second}" if cell.second else cell.text, cell.best) for cell in row]
            expected.append([f"**{text}**" if best else text for text, best in texts])
    assert read_markdown(render(tables, "markdown")) == expected


def test_the_note_on_unfinished_seeds_is_no_bullet_in_markdown() -> None:
    html = MarkdownIt("commonmark").enable("table").render(render(reports()["paper"], "markdown"))
    assert "<li>" not in html
    assert "* not all seeds are finished." in html


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


def test_json_keeps_letters_of_every_language_readable() -> None:
    assert "模型|b:net_a" in render(reports()["runs"], "json")


# A terminal -------------------------------------------------------------------------------------------------


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
