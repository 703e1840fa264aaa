"""How figures look: nothing cut, nothing covered, everything told apart without colour, the same bytes each time."""

from __future__ import annotations

import itertools
import math
import re
import warnings

import matplotlib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from itopctl.errors import UserError
from itopctl.report.figures.make import ENDINGS, encoded, figure_records, picture
from itopctl.report.figures.style import HUES, WIDTHS, Look, applied, fitted, ramp, spaced, styles, text_width
from tests.report.materials import PUBLISHED, cases, fashion, material, study_runs
from tests.report.test_figures import NAMES

CASES = cases()


def drawn(name: str, case: str, look: Look | None = None) -> Figure:
    """A figure after its layout."""
    figure = picture(name, figure_records(name, CASES[case]), look)
    with applied():
        figure.canvas.draw()
    return figure


def texts(figure: Figure) -> dict[Text, Bbox]:
    """Everything that can be read in a picture, and where it stands."""
    found = [figure._suptitle, figure._supxlabel, figure._supylabel]  # type: ignore[attr-defined]
    for legend in figure.legends:
        found += legend.get_texts()
    for axes in figure.axes:
        found += [axes.title, axes.xaxis.label, axes.yaxis.label]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [
                tick.label1 if axis.get_ticks_position() in ("bottom", "left", "default") else tick.label2
                for tick in axis.get_major_ticks()
                if low <= tick.get_loc() <= high and (tick.label1.get_visible() or tick.label2.get_visible())
            ]
    return {t: t.get_window_extent() for t in found if t is not None and t.get_visible() and t.get_text().strip()}


def flaws(figure: Figure) -> list[str]:
    """What is cut, or stands on something else."""
    found = []
    placed = texts(figure)
    for text, box in placed.items():
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > figure.bbox.x1 + 0.5 or box.y1 > figure.bbox.y1 + 0.5:
            found.append(f"{text.get_text()!r} is cut")
    for (one, first), (other, second) in itertools.combinations(placed.items(), 2):
        common = Bbox.intersection(first, second)
        if common is not None and common.width > 1 and common.height > 1:
            found.append(f"{one.get_text()!r} on {other.get_text()!r}")
    for legend in figure.legends:
        for axes in figure.axes:
            common = Bbox.intersection(legend.get_window_extent(), axes.get_window_extent())
            if common is not None and common.width > 0 and common.height > 0:
                found.append("the legend covers a panel")
    for axes in figure.axes:
        box = axes.get_window_extent()
        if axes.get_label() != "<colorbar>" and min(box.width, box.height) < 0.6 * figure.dpi:
            found.append("a panel is too small")
    return found


@pytest.mark.rotates
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_and_nothing_covers_anything_in_a_column(name: str, case: str) -> None:
    assert flaws(drawn(name, case)) == []


@pytest.mark.rotates
@pytest.mark.parametrize("case", ["fashion", "two studies", "odd names"])
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_and_nothing_covers_anything_on_a_page(name: str, case: str) -> None:
    assert flaws(drawn(name, case, Look("page", title=False, best_by="validation"))) == []


def test_a_flaw_would_be_seen() -> None:
    figure = drawn("sparsity", "fashion")
    figure._supxlabel.set_position((0.5, 0.0))  # type: ignore[attr-defined]
    assert any("'sparsity (%)' on " in flaw for flaw in flaws(figure))
    figure._supxlabel.set_position((0.0, 0.5))  # type: ignore[attr-defined]
    assert "'sparsity (%)' is cut" in flaws(figure)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_figure_is_as_wide_as_what_it_is_for_and_its_letters_can_be_read(width: str) -> None:
    figure = drawn("sparsity", "fashion", Look(width))
    assert figure.get_figwidth() == WIDTHS[width]
    assert all(7 <= text.get_fontsize() <= 9 for text in texts(figure))


@pytest.mark.rotates
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_everything_in_a_legend_differs_in_line_or_marker(name: str, case: str) -> None:
    figure = picture(name, figure_records(name, CASES[case]))
    handles = [handle for legend in figure.legends for handle in legend.legend_handles]
    looks = [
        (str(h.get_linestyle()), h._dash_pattern, h.get_marker(), h.get_markerfacecolor() == "none")
        for h in handles
        if hasattr(h, "get_marker")
    ]
    assert looks and len({str(look) for look in looks}) == len(looks)


def test_published_points_are_hollow_and_named_with_their_source() -> None:
    figure = picture("sparsity", figure_records("sparsity", fashion(published=PUBLISHED)))
    (legend,) = figure.legends
    hollow = [
        text.get_text()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
        if handle.get_markerfacecolor() == "none"
    ]
    assert [label.strip() for label in hollow] == [
        "set-itop, Liu et al. 2021", "rigl-itop, Liu et al. 2021", "snip, _somebody's $own_words$"
    ]  # fmt: skip


def test_names_are_shown_letter_by_letter_whatever_signs_they_have() -> None:
    figure = drawn("learning", "odd names")
    shown = "".join(text.get_text().replace("\n", "") for text in texts(figure)).replace(" ", "")
    for name in ("network_$x^2$", "sets_$a_b$", "_$indeed_"):
        assert name in shown
    assert not any(text.get_parse_math() for text in texts(figure) if "$" in text.get_text())


@pytest.mark.parametrize(("ending", "start"), [("png", b"\x89PNG\r\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-1.")])
def test_the_bytes_are_of_their_format_and_the_same_each_time(ending: str, start: bytes) -> None:
    assert ending in ENDINGS
    records = figure_records("interval", CASES["fashion"])
    first, second = (encoded(picture("interval", records), ending) for _ in range(2))
    assert first == second and first.startswith(start)
    assert not re.search(rb"20[2-9]\d-\d\d-\d\d|D:20\d\d", first)


def test_letters_of_an_svg_are_shapes_and_those_of_a_pdf_are_an_embedded_font() -> None:
    records = figure_records("sparsity", CASES["fashion"])
    svg, pdf = (encoded(picture("sparsity", records), ending) for ending in ("svg", "pdf"))
    assert b"<text" not in svg
    assert b"/FontFile2" in pdf and b"/Type3" not in pdf


def test_nothing_of_the_users_own_matplotlib_settings_shows_or_is_changed() -> None:
    records = figure_records("sparsity", CASES["fashion"])
    plain = encoded(picture("sparsity", records), "svg")
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 20, "lines.linewidth": 9}):
        assert encoded(picture("sparsity", records), "svg") == plain
        assert matplotlib.rcParams["axes.facecolor"] == "red"


def test_bands_are_drawn_over_seeds_and_not_for_one() -> None:
    def bands(seeds: int) -> int:
        found = material(study_runs([0.9, 0.98], {"set-itop": [40]}, seeds))
        return len(picture("sparsity", figure_records("sparsity", found)).axes[0].collections)

    assert (bands(1), bands(3)) == (0, 1)


def test_the_dense_network_is_a_line_at_its_accuracy() -> None:
    found = fashion()
    for name in ("rs-accuracy", "sparsity", "interval"):
        axes = picture(name, figure_records(name, found)).axes[0]
        levels = [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]
        dense = found.studies[0].dense
        assert dense is not None
        summary = dense.summary("test_accuracy")
        assert summary is not None and any(math.isclose(level, 100 * summary.mean) for level in levels)


def test_colour_is_the_exploration_rate() -> None:
    found = fashion()
    records = figure_records("interval", found)
    axes = picture("interval", records).axes[0]
    (most,) = [c for c in axes.collections if len(c.get_offsets()) == 3 and c.get_offsets()[0][1] > 0][:1]
    wanted = [r["exploration_rate_mean"] for r in records if r["method"] == "set-itop" and r["sparsity"] == 0.9]
    rates = matplotlib.colormaps["cividis"]([rate / 1.0 for rate in wanted])
    assert most.get_facecolors() == pytest.approx(rates)


def test_more_panels_than_anybody_reads_are_refused() -> None:
    found = material(study_runs([n / 100 for n in range(1, 60)], {"set-itop": [40]}, 1))
    with pytest.raises(UserError, match="would have 59 panels, of at most 48: name the sweeps that matter"):
        picture("learning", figure_records("learning", found))


# The style --------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 12).map(str)), max_size=60, unique=True))
def test_up_to_84_kinds_have_a_line_and_a_marker_of_their_own(names: list[tuple[str, str]]) -> None:
    found = styles(names)
    assert set(found) == set(names)
    assert len({(str(style.line), style.marker) for style in found.values()}) == len(names)


def test_the_settings_of_a_method_go_from_dark_to_light_in_the_order_of_their_numbers() -> None:
    names = [("set", "ΔT 800"), ("set", "ΔT 40"), ("set", "ΔT 200")]
    found = styles(names)
    assert list(found) == [("set", "ΔT 40"), ("set", "ΔT 200"), ("set", "ΔT 800")]
    light = [sum(to_rgb(style.color)) for style in found.values()]
    assert light == sorted(light)


@pytest.mark.parametrize("hue", HUES)
@pytest.mark.parametrize("count", [1, 2, 10])
def test_shades_of_a_colour_differ_and_none_is_too_pale_for_paper(hue: str, count: int) -> None:
    shades = ramp(hue, count)
    assert len(set(shades)) == count
    for shade in shades:
        red, green, blue = to_rgb(shade)
        assert 0.299 * red + 0.587 * green + 0.114 * blue < 0.8


@given(st.text(st.characters(codec="latin-1", exclude_categories=["C"]), max_size=60), st.floats(0.5, 3.0))
def test_folded_words_fit_and_lose_nothing_but_spaces(words: str, width: float) -> None:
    with applied():
        folded = fitted(words, width, 7.0)
        assert all(text_width(line, 7.0) <= width for line in folded.split("\n"))
    assert re.sub(r"\s", "", folded) == re.sub(r"\s", "", words)


@given(st.lists(st.floats(0, 1), max_size=20, unique=True).map(sorted), st.floats(0.01, 0.6))
def test_chosen_ticks_stand_apart(positions: list[float], least: float) -> None:
    kept = spaced(positions, least)
    assert all(positions[b] - positions[a] >= least for a, b in itertools.pairwise(kept))
    assert bool(kept) == bool(positions) and kept[:1] == [0][: len(kept)]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", NAMES)
def test_runs_of_a_single_interval_are_drawn_without_a_warning(name: str, width: str) -> None:
    made = material(study_runs([0.9, 0.95], {"static": [None], "set-itop": [1_000_000]}, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoded(picture(name, figure_records(name, made), Look(width)), "svg")
