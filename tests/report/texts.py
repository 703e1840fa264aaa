"""Tables of anything: whatever characters, whatever numbers, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from itopctl.report.table import Cell, Column, Table
from tests.report.written import value_of

# What has made trouble in some format: its special characters, controls, what reorders, joins, combines, or is wide.
_TROUBLE = (
    "\x00", "\x1b[31m", "\t", "\r", "\n", "\r\n", "\x7f", "\x9b", "\xa0", "\xad", "\u200b", "\u200d", "\u202e",
    "\u2066", "\u2028", "\ufeff", "\ud800", "\uffff", "e\u0301", "\u0301", "\ufe0f", "模型", "한",
    "\U0001f469\u200d\U0001f4bb", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "ﷺ", "ﬁ", "İ", "ǆ", "|", "\\", "`",
    "*", "**", "_", "&amp;", "<b>", "</td>", "&", "%", "$", "#", "{", "}", "~", "^", '"', "'", "[", "]", "=1+1", "@x",
    "-", "--", "+", ",", ";", "R_s", "ΔT", "90 %", "± 1", "a b", "longlonglonglonglonglonglong", "/", "",
)  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    """Short texts with whatever makes trouble in some format."""
    pieces = st.one_of(st.sampled_from(_TROUBLE), st.text(max_size=4))
    return st.lists(pieces, max_size=6).map("".join)


def number_texts() -> st.SearchStrategy[str]:
    """Numbers as they stand in cells."""
    value = st.floats(-2e4, 2e4, allow_nan=False)
    decimals = st.integers(0, 4)
    plain = st.builds(lambda number, digits: f"{number:,.{digits}f}", value, decimals)
    spread = st.builds(lambda a, b, digits: f"{a:.{digits}f} ± {abs(b):.{digits}f}", value, value, decimals)
    exponent = value.map(lambda number: f"{number:.2e}")
    marked = st.builds(
        lambda text, mark: text + mark, st.one_of(plain, spread), st.sampled_from(["*", " %", "×", " s"])
    )
    return st.one_of(plain, spread, exponent, marked, st.sampled_from(["–", "", "–*", "3 min 20 s"]))


@st.composite
def tables_of_anything(draw: st.DrawFn) -> Table:
    """Tables with columns of text and of numbers, some cells in two lines, some the best."""
    columns = draw(
        st.lists(
            st.builds(Column, texts(), st.sampled_from(["left", "right", "center"]), st.booleans(), st.integers(0, 2)),
            min_size=1,
            max_size=5,
        )
    )
    contents = [draw(st.sampled_from([texts(), number_texts()])).map(value_of) for _ in columns]
    second = st.one_of(st.just(""), texts())
    rows = draw(
        st.lists(
            st.tuples(*(st.builds(Cell, content, second, st.booleans()) for content in contents)),
            max_size=5,
        )
    )
    return Table(draw(texts()), columns, rows, [], draw(st.lists(texts(), max_size=2)), draw(texts()))
