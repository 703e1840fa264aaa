"""LaTeX: what is written, and, where there is a LaTeX, that it compiles and shows what it should."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from itopctl.report.formats import render
from itopctl.report.formats.latex_text import latex_escape, unknown_characters
from itopctl.report.paper import paper_tables
from itopctl.report.runs import runs_table
from itopctl.report.table import Cell, Column, Table
from tests.report.latex import Compiled
from tests.report.records import run, store_runs
from tests.report.test_formats import one_cell, reports
from tests.report.texts import tables_of_anything
from tests.report.written import cell, value_of

Latex = Callable[..., Compiled]
_SIUNITX = ("", "[=v2]")
_STICKING_OUT = 3.0  # points; a millimetre
_WITHOUT_SHRINKING = (Phase.explicit, Phase.reuse, Phase.generate)  # which would compile for minutes


def numbers(*texts: str, header: str = "value", best: int | None = None) -> Table:
    rows = [[Cell(value_of(text), best=place == best)] for place, text in enumerate(texts)]
    return Table("Numbers", [Column(header, "right")], rows, [])


def specification(table: Table) -> str:
    found = re.search(r"\\begin\{tabular\}\{@\{\}(.*)@\{\}\}", render([table], "latex"))
    assert found
    return found[1]


# Text -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("char", '\\&%$#_{}~^<>|"`')
def test_a_character_that_latex_takes_for_itself_is_escaped(char: str) -> None:
    escaped = latex_escape(f"a{char}b")
    assert escaped.startswith("a") and escaped.endswith("b") and escaped != f"a{char}b"
    bare = re.sub(r"\\text[a-z]+\{\}|\\[&%#_{}]|''|\$\\mathdollar\$|\$\\grave\{\\ \}\$", "", escaped)
    assert bare == "ab"


def test_what_is_mathematics_is_set_as_such() -> None:
    assert latex_escape("ΔT 40, 95.00 ± 2.00, R_s 0.1, ζ, 2×, –, 90 %") == (
        r"$\Delta T$ 40, 95.00 $\pm$ 2.00, $R_s$ 0.1, $\zeta$, 2$\times$, --, 90\,\%"
    )


def test_r_s_inside_a_name_is_not_taken_for_the_exploration_rate() -> None:
    assert latex_escape("models:FOUR_small") == r"models:FOUR\_small"


def test_two_hyphens_stay_two_hyphens() -> None:
    assert latex_escape("--workers 3-4") == "{-}{-}workers 3-4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("é", r"\'{e}"), ("ï", r"\"{\i}"), ("Å", r"\r{A}"), ("ő", r"\H{o}"), ("ų", "u"), ("ß", r"\ss{}"),
        ("α", r"$\alpha$"), ("Ω", r"$\Omega$"), ("Α", r"$\mathrm{A}$"), ("ο", r"$\mathrm{o}$"), ("ά", r"$\alpha$"),
        ("µ", r"$\mu$"), ("λ", r"$\lambda$"), ("Ｂ", "B"), ("ﬁ", "fi"), ("²", "$^2$"),
    ],
)  # fmt: skip
def test_letters_with_accents_and_greek_ones_are_set_as_what_they_are(text: str, expected: str) -> None:
    assert latex_escape(text) == expected
    assert latex_escape(unicodedata.normalize("NFD", text)) == expected


def test_a_letter_that_computer_modern_has_not_stands_by_its_number_and_is_named_at_the_top() -> None:
    assert latex_escape("模型 Я") == (r"{\scriptsize[U+6A21]}{\scriptsize[U+578B]} {\scriptsize[U+042F]}")
    assert unknown_characters("模型 x 模") == ["模", "型"]
    head = render(one_cell(Cell("a"), Cell("b", "型")), "latex").split("\n\n")[0]
    assert head.endswith("% pdfLaTeX has no letters for: 型 U+578B")


@given(st.text())
def test_whatever_a_text_is_latex_gets_ascii(text: str) -> None:
    assert latex_escape(text).isascii() and latex_escape(text, breakable=True).isascii()


@given(st.text(alphabet=st.characters(max_codepoint=0x7F), max_size=60))
def test_a_place_where_a_line_may_break_changes_nothing_else(text: str) -> None:
    assert latex_escape(text, breakable=True).replace(r"\allowbreak{}", "").replace("{-}", "-") == latex_escape(
        text
    ).replace("{-}", "-").replace(r"\,\%", r" \%")


# Tables -----------------------------------------------------------------------------------------------------


def test_a_latex_table_has_one_cell_a_column_in_every_row() -> None:
    for table in reports()["paper"] + reports()["runs"]:
        for tabular in re.findall(
            r"\\begin\{tabular\}\{@\{\}(.*?)@\{\}\}\n(.*?)\\end\{tabular\}", render([table], "latex"), re.DOTALL
        ):
            columns = len(re.findall(r"\bS\[|(?<![a-z])[lrc](?![a-z])|p\{", tabular[0]))
            rows = [line for line in tabular[1].splitlines() if line.endswith(r"\\")]
            assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {columns - 1}


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["97.31", "8.2"], "S[table-format = 2.2]"),
        (["40", "1,500", "–"], "S[table-format = 4.0]"),
        (["-0.20", "+1.25"], "S[table-format = +1.2]"),
        (["97.50 ± 0.71", "9.00"], "S[table-format = 2.2(2)]"),
        (["97.50 ± 12.71"], "S[table-format = 2.2(4)]"),
        (["97.50 ± 0.00"], "S[table-format = 2.2(1)]"),
        (["1,230 ± 1,060", "12,500 ± 90"], "S[table-format = 5.0(4)]"),
        (["90 %", "96.5 %"], r"S[table-format = 2.1, table-space-text-post = {\,\%}]"),
        (["2.00×*", "1.00×"], r"S[table-format = 1.2, table-space-text-post = {$\times$*}]"),
        (["1e-05", "2.5e-05"], "S[table-format = 1.1e-1]"),
        (["3 min 20 s", "42 s"], "r"),
        (["4 kB", "3 MB"], "r"),
        (["–", ""], "r"),
        (["97.5 ± 0.71"], "r"),
    ],
)
def test_a_column_of_numbers_is_one_of_siunitx(texts: list[str], expected: str) -> None:
    assert specification(numbers(*texts)) == expected


def test_what_is_no_number_in_a_column_of_numbers_is_braced() -> None:
    text = render([numbers("97.31", "–*", "8.20*", "")], "latex")
    body = [line.strip() for line in text[text.index(r"\midrule") : text.index(r"\bottomrule")].splitlines()[1:-1]]
    assert [line.removesuffix(r"\\").strip() for line in body] == ["97.31", "{--*}", "8.20{*}", ""]


def test_the_best_cell_is_bold_in_latex() -> None:
    assert r"\textbf{a name}" in render(one_cell(Cell("a name", "R_s 0.1", best=True)), "latex")
    assert r"\best 97.31 " in render([numbers("97.31", "1.00", best=0)], "latex")
    assert r"\best" not in render([numbers("97.31", "1.00")], "latex")


def test_captions_and_labels_say_which_table_it_is() -> None:
    tables = [one_cell(Cell("x"), title=title)[0] for title in ("Net on digits", "Net on digits", "模型")]
    text = render(tables, "latex")
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:net-on-digits", "tab:net-on-digits-2", "tab:table"]
    assert text.count(r"\caption{Net on digits}") == 2


def test_a_table_without_a_title_has_neither_caption_nor_label() -> None:
    text = render([runs_table(store_runs())], "latex")
    assert r"\caption" not in text and r"\label" not in text


def test_the_notes_stand_under_the_table() -> None:
    text = render(reports()["paper"][:1], "latex")
    assert text.index(r"\end{tabular}") < text.index("Bold: best sparse method") < text.index("not finished")


# Compiled ---------------------------------------------------------------------------------------------------


def words(text: str) -> list[str]:
    return text.replace("−", "-").split()


@pytest.mark.parametrize("siunitx", _SIUNITX)
def test_the_usual_reports_compile_and_fit_the_page(latex: Latex, siunitx: str) -> None:
    done = latex(render([*reports()["paper"], *reports()["runs"]], "latex"), siunitx)
    assert done.overfull < _STICKING_OUT
    assert done.warnings == []
    assert "Type 3" not in done.fonts  # bitmaps, which publishers refuse
    found = words(done.text)
    expected = ["97.50±0.71", "95.00±2.00", "94.00±0.00", "80.00", "1,500", "0.12×", "96.5%", "–*", "50.00"]
    joined = "".join(found)
    assert [text for text in expected if text not in joined] == []


def test_a_paper_of_five_sparsities_fits_the_page(latex: Latex) -> None:
    runs = [run("dense", 0.0, seed, accuracy=0.97) for seed in range(3)]
    for method in ("static", "set-itop", "rigl-itop"):
        for value in (0.5, 0.8, 0.9, 0.95, 0.98):
            runs += [run(method, value, seed, accuracy=0.8 + 0.01 * seed) for seed in range(3)]
    done = latex(render(paper_tables(runs), "latex"))
    assert done.overfull < _STICKING_OUT and done.warnings == []
    assert words(done.text).count("rigl-itop") >= 1
    assert "".join(words(done.text)).count("81.00±1.00") == 15


def test_hundreds_of_runs_go_on_page_after_page(latex: Latex) -> None:
    runs = [{**store_runs()[0], "run_id": f"{number:012x}"} for number in range(4096, 4096 + 300)]
    done = latex(render([runs_table(runs)], "latex"))
    assert done.overfull < _STICKING_OUT and done.warnings == []
    assert set(words(done.text)) >= {record["run_id"] for record in runs}
    assert words(done.text).count("Table") > 3
    assert len(set(re.findall(r"Table (\d+)", done.text))) == 1


def positions(text: str, sign: str) -> list[int]:
    return [line.index(sign) for line in text.splitlines() if sign in line]


@pytest.mark.parametrize("siunitx", _SIUNITX)
def test_decimal_points_stand_below_each_other(latex: Latex, siunitx: str) -> None:
    texts = ["97.50 ± 0.71", "7.25 ± 0.10", "100.00 ± 0.00*", "3.00", "–"]
    done = latex(render([numbers(*texts)], "latex"), siunitx)
    body = done.text[done.text.index("value") :]
    assert len(set(positions(body, "."))) == 1, body
    assert len(set(positions(body, "±"))) == 1, body


HARD = Table(
    "All of \\ & % $ # _ { } ~ ^ < > | \" ` it: 模型",
    [Column("[name]"), Column("mean accuracy % of everything", "right"), Column("centre", "center"), Column("why")],
    [
        [
            Cell("[x] café Ångström ǎ ż", "ΔT 10, lr 0.1, drop fraction 0.3, batch 100"),
            Cell(value_of("97.50 ± 0.71"), "R_s 0.93, ours -0.12, within noise", best=True), Cell("α β Γ Ω ά ∞"),
            Cell("RuntimeError: no room in /very/long/path/to/some/folder_with_a_long_name/file.pt --workers 3"),
        ],
        [Cell("*star* 模型 👩‍💻", "x"), cell("7.50 ± 12.00*"), Cell("✓ ★ ☃ § ¶ © £ €"), Cell("")],
        [Cell("Привет עברית \x1b[31m \u202e"), Cell("–*"), Cell("x²"), Cell("‘q’ “qq” – — …", best=True)],
        [Cell(""), Cell(""), Cell(""), Cell("")],
    ],
    [],
    ["[1] See https://doi.org/10.48550/arXiv.2102.02887/with/a/very/long/path_and_more_of_it.", "* last"],
    "best",
)  # fmt: skip


@pytest.mark.parametrize("siunitx", _SIUNITX)
def test_whatever_users_write_compiles_and_can_be_read(latex: Latex, siunitx: str) -> None:
    done = latex(render([HARD, HARD], "latex"), siunitx)
    assert done.overfull < _STICKING_OUT
    assert "Type 3" not in done.fonts
    expected = [
        "97.50 ± 0.71",
        "[x]",
        "*star*",
        "[U+6A21]",
        "within",
        "folder with a long name/file.pt --workers 3",
        "‘q’ “qq”",
    ]
    text = re.sub(r"\s+", " ", done.text.replace("_", " "))
    assert [part for part in expected if part not in text and part.replace(" ", "") not in text.replace(" ", "")] == []


@pytest.mark.slow
@settings(
    max_examples=12,
    deadline=None,
    phases=_WITHOUT_SHRINKING,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(tables_of_anything(), min_size=3, max_size=8))
def test_tables_of_anything_compile(latex: Latex, tables: list[Table]) -> None:
    latex(render(tables, "latex"))
