"""The language of `--where`: what it means, how it refuses, and that nothing makes it do anything else."""

from __future__ import annotations

import fnmatch
import operator
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.errors import UserError
from itopctl.report.conditions import And, Comparison, Condition, Membership, Not, Or, Value
from itopctl.report.fields import Fields
from itopctl.report.filters import DEEPEST, LONGEST, MOST, parse
from itopctl.report.table import Record
from tests.report.records import paper_runs, run

FIELDS = Fields((
    "run_id", "state", "method", "model", "dataset", "sparsity", "density", "seed", "test_accuracy", "exploration_rate",
    "test_accuracy_at_best_validation", "exploration_rate_at_best_validation", "update_interval", "optimizer.lr",
    "optimizer.nesterov", "lr_schedule.milestones", "augment", "redistribution",
))  # fmt: skip


def chosen(text: str, runs: list[Record], fields: Fields = FIELDS) -> list[Record]:
    condition = parse(text)
    condition.check(runs, fields)
    return condition.select(runs, fields)


def refused(text: str, runs: list[Record] | None = None) -> tuple[str, str]:
    """The sentence, and what of the text is marked from below."""
    with pytest.raises(UserError) as caught:
        condition = parse(text)
        condition.check(paper_runs() if runs is None else runs, FIELDS)
    sentence, *marked = str(caught.value).split("\n")
    assert sentence.startswith("--where: ")
    if not marked:
        return sentence, ""
    shown, carets = marked
    assert set(carets) <= {" ", "^"} and "^" in carets
    return sentence, "".join(char for char, mark in zip(shown.ljust(len(carets)), carets, strict=False) if mark == "^")


# What it means --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("method = dense", {"dense"}),
        ("method == dense or method = static", {"dense", "static"}),
        ("method in (dense, static)", {"dense", "static"}),
        ("method in (dense, static,)", {"dense", "static"}),
        ("method not in (dense, static)", {"set-itop", "rigl-itop"}),
        ("not method in (dense, static)", {"set-itop", "rigl-itop"}),
        ("method != set-itop", {"dense", "static", "rigl-itop"}),
        ("method ~ *-itop", {"set-itop", "rigl-itop"}),
        ("method ~ 's??-itop'", {"set-itop"}),
        ("method ~ *-itop and not method ~ set*", {"rigl-itop"}),
        ("sparsity>=90% and method in (set-itop, rigl-itop)", {"set-itop", "rigl-itop"}),
        ("sparsity >= 90 % AND method=\"set-itop\"", {"set-itop"}),
        ("sparsity=0.965", {"rigl-itop"}),
        ("density<4%", {"rigl-itop", "static", "set-itop"}),
        ("density≥1", {"dense"}),
        ("dataset != digits", {"rigl-itop"}),
        ("model = my_models:big_{net}", {"rigl-itop"}),
        ("seed > 1", {"set-itop"}),
        ("update_interval is none", {"dense", "static"}),
        ("update_interval is not none", {"set-itop", "rigl-itop"}),
        ("ΔT = none", {"dense", "static"}),
        ("update_interval in (none, 10)", {"dense", "static", "set-itop"}),
        ("lr_schedule.milestones = 0.5/0.75 and state = failed", {"static"}),
        ("(method = dense or method = static) and seed = 1 and sparsity < 0.5", {"dense"}),
        ("method = dense or method = static and seed = 7", {"dense"}),
    ],
)  # fmt: skip
def test_a_condition_chooses_the_runs_that_meet_it(text: str, expected: set[str]) -> None:
    assert {found["method"] for found in chosen(text, paper_runs())} == expected


@pytest.mark.parametrize("text", ["accuracy > 0.9", "accuracy <= 0.9", "accuracy = 0.9", "accuracy != 0.9"])
def test_a_run_without_a_value_answers_no_comparison(text: str) -> None:
    assert all(found["test_accuracy"] is not None for found in chosen(text, paper_runs()))
    missing = [found for found in paper_runs() if found["test_accuracy"] is None]
    assert chosen("accuracy is none", paper_runs()) == missing
    assert chosen(f"not {text}", missing) == missing


def test_numbers_are_equal_up_to_the_dust_of_floating_point() -> None:
    dusty = [run(sparsity=1 - 0.1), run(sparsity=0.1 + 0.2), run(sparsity=0.9 - 1e-12)]
    assert len(chosen("sparsity = 0.9", dusty)) == len(chosen("sparsity >= 0.9", dusty)) == 2
    assert chosen("sparsity != 0.9", dusty) == chosen("sparsity < 0.9", dusty) == dusty[1:2]
    assert chosen("sparsity <= 30%", dusty) == chosen("sparsity = 30 %", dusty) == dusty[1:2]
    assert chosen("sparsity > 0.9", dusty) == []
    small = [run(settings={"optimizer.lr": 1e-12}), run(settings={"optimizer.lr": 1e-13})]
    assert chosen("lr = 1e-12", small) == small[:1]


def test_which_accuracy_counts_is_what_the_fields_say() -> None:
    two = [run(accuracy=0.5, test_accuracy_at_best_validation=0.7)]
    assert chosen("accuracy < 0.6", two) == two
    assert chosen("accuracy < 0.6", two, Fields(FIELDS.names, "validation")) == []


def test_none_without_quotes_is_also_a_value_that_is_called_so() -> None:
    runs = [run(settings={"augment": "none"}), run(settings={"augment": "crop-flip"}), run(settings={"augment": None})]
    assert chosen("augment = none", runs) == [runs[0], runs[2]]
    assert chosen("augment != none", runs) == [runs[1]]
    assert chosen("augment in (none)", runs) == [runs[0], runs[2]]
    assert chosen("augment = 'none'", runs) == [runs[0]]


def test_a_setting_that_is_as_it_was_before_it_existed_can_be_asked_for() -> None:
    fields = Fields(FIELDS.names, unsaid={"redistribution": "none", "seed": 7})
    runs = [run(), run(settings={"redistribution": "momentum"})]
    assert chosen("redistribution = 'none'", runs, fields) == runs[:1]


def test_truths_are_compared_as_such() -> None:
    runs = [run(settings={"optimizer.nesterov": True}), run(settings={"optimizer.nesterov": False})]
    assert chosen("optimizer.nesterov = true", runs) == chosen("optimizer.nesterov != False", runs) == runs[:1]


# How it refuses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "marked"),
    [
        ("sparcity >= 0.9", "unknown field 'sparcity'. Did you mean 'sparsity'? Allowed: accuracy", "sparcity"),
        ("sparsity >= 0.9 and 'no such' = 1", "unknown field 'no such'", "'no such'"),
        ("sparsity >= high", "sparsity is a number, 'high' is a text.", "high"),
        ("sparsity in (0.9, high)", "sparsity is a number, 'high' is a text.", "high"),
        ("sparsity = true", "sparsity is a number, true is true or false.", "true"),
        ("method = 5", "method is a text, 5 is a number. In quotes it is a text: '5'.", "5"),
        ("method > dense", "method is a text, which has no order", "dense"),
        ("sparsity ~ 0.9*", "sparsity is a number; `~` compares texts with a pattern.", "0.9*"),
        ("accuracy > 95", "accuracy is a fraction, from 0 to 1: 0.9, or 90%.", "95"),
        ("sparsity in (0.9, 95)", "sparsity is a fraction, from 0 to 1", "95"),
        ("(sparsity=0.9", "this parenthesis is not closed.", "("),
        ("(sparsity=0.9, 1)", "`and`, `or` or `)` expected, found ','.", ","),
        ("sparsity=0.9)", "a parenthesis is closed that was not opened.", ")"),
        ("sparsity", "=, !=, <, <=, >, >=, ~, `in` or `is` expected after 'sparsity', found the end.", " "),
        ("sparsity 0.9", "expected after 'sparsity', found '0.9'.", "0.9"),
        ("sparsity not 0.9", "`in` expected after 'sparsity', found '0.9'.", "0.9"),
        ("0.9 <= sparsity", "found '0.9'. The field comes first: sparsity >= 0.9.", "0.9"),
        ("sparsity =", "a value expected, found the end.", " "),
        ("sparsity = and", "a value expected, found 'and'.", "and"),
        ("sparsity = < 1", "a value expected, found '<'.", "<"),
        ("sparsity < none", "`none` is compared by `is`, `is not`, = and != alone.", "<"),
        ("sparsity is 5", "`none` expected after `is`, found '5'; other values are compared by =.", "5"),
        ("method in set", "`(` expected after `in`, found 'set': method in (one, another).", "set"),
        ("method in (set rigl)", "`,` or `)` expected, found 'rigl'.", "rigl"),
        ("method in ()", "a value expected, found ')'.", ")"),
        ("seed = 1 && seed = 2", "'&' has no meaning here; `and` expected.", "&"),
        ("!seed = 1", "'!' has no meaning here; `not` or != expected.", "!"),
        ("method = 'set", "a text begins with ' and does not end.", "'set"),
        ("model = wide resnet", "found 'resnet'. A text with spaces is put in quotes.", "resnet"),
        ("seed = 1 or", "the name of a field, `not` or `(` expected, found the end.", " "),
        ("and seed = 1", "the name of a field, `not` or `(` expected, found 'and'.", "and"),
        ("seed = 1e999", "a number as large as this is none that a run has.", "1e999"),
        ("模型 = 5", "unknown field '模型'", None),
    ],
)  # fmt: skip
def test_a_refusal_says_what_belongs_in_the_place_it_marks(text: str, words: str, marked: str | None) -> None:
    sentence, found = refused(text)
    assert words in sentence
    assert marked is None or found == marked


def test_a_mark_stands_right_below_wide_characters() -> None:
    with pytest.raises(UserError) as caught:
        parse("'模型' = 1 )")
    assert str(caught.value).split("\n")[1:] == ["    '模型' = 1 )", "               ^"]


def test_of_a_long_text_the_part_around_the_mistake_is_shown() -> None:
    text = "sparsity=0.9 and " * 50 + "sparsiti=0.9" + " or method=dense" * 50
    sentence, marked = refused(text)
    assert "Did you mean 'sparsity'?" in sentence and marked == "sparsiti"
    with pytest.raises(UserError) as caught:
        parse(text + ")")
    assert all(len(line) < 90 for line in str(caught.value).split("\n"))


def test_a_control_character_does_not_reach_the_terminal() -> None:
    with pytest.raises(UserError) as caught:
        parse("seed = 'a\x1b[31m\n' )")
    assert "\x1b" not in str(caught.value) and str(caught.value).count("\n") == 2


@pytest.mark.parametrize("text", ["", "   ", "\n"])
def test_nothing_is_no_condition(text: str) -> None:
    with pytest.raises(UserError, match="it is empty"):
        parse(text)


def test_a_text_that_no_run_has_is_pointed_out() -> None:
    (remark,) = parse("method in (set-itop, rigl-itpo)").check(paper_runs(), FIELDS)
    assert "no run has method 'rigl-itpo'. Did you mean 'rigl-itop'? There are: set-itop, static, dense" in remark
    assert parse("method = set-itop and seed = 99").check(paper_runs(), FIELDS) == []


def test_where_no_run_has_a_value_any_comparison_is_fine() -> None:
    nothing = [{**run(), "test_accuracy": None}]
    assert parse("accuracy > 0.5 or accuracy = high").check(nothing, FIELDS) == []
    assert parse("accuracy > 0.5").check([], FIELDS) == []


# Hostile texts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opening", ["(", "not ", "not (", "( not "])
def test_nesting_has_a_limit(opening: str) -> None:
    fitting = DEEPEST // (("(" in opening) + ("not" in opening))
    closing = ")" * fitting * opening.count("(")
    assert parse(opening * fitting + "seed=1" + closing)
    with pytest.raises(UserError, match=f"at most {DEEPEST} parentheses"):
        parse(opening * (LONGEST // 10) + "seed=1")


def test_length_has_a_limit_and_below_it_any_list_is_read() -> None:
    ids = ", ".join(f"'{index:012d}'" for index in range(3000))
    assert len(chosen(f"run_id in ({ids})", [{**run(), "run_id": "000000002999"}])) == 1
    assert chosen(" and ".join(["seed=0"] * MOST), paper_runs()) == chosen("seed=0", paper_runs())
    with pytest.raises(UserError, match=rf"at most {MOST} comparisons are read"):
        parse(" and ".join(["seed=0"] * (MOST + 1)))
    with pytest.raises(UserError, match=r"at most 50,000 characters are read; found 1,000,000"):
        parse("a" * 1_000_000)


def test_a_pattern_of_many_stars_does_not_take_forever() -> None:
    assert chosen("model ~ '" + "*a" * 200 + "'", [run(model="a" * 199)]) == []


@given(st.text(max_size=60) | st.lists(
    st.sampled_from([
        "(", ")", ",", "and", "or", "not", "in", "is", "none", "true", "=", "!=", "<", "~", "0.9", "90%", "%", "'a b'",
        '"', "'", "sparsity", "method", "set-itop", "optimizer.lr", "__import__('os')", "\\", "1e5", "*", "!", "\n",
    ]),
    max_size=14,
).map(" ".join))  # fmt: skip
@settings(max_examples=250)
def test_any_text_is_a_condition_or_refused(text: str) -> None:
    try:
        condition = parse(text)
        condition.check(paper_runs(), FIELDS)
    except UserError:
        return
    assert parse(str(condition.condition)).condition == condition.condition
    condition.select(paper_runs(), FIELDS)


# Against an obvious reference -----------------------------------------------------------------------------------

NAMES = ("method", "sparsity", "seed", "optimizer.nesterov", "a b", "in")
VALUES = (None, True, False, 0, 1, -3, 0.5, 0.25, "0.5", "none", "true", "a", "set-itop", "A", 'it\'s \\ "so"', "")
values = st.sampled_from(VALUES) | st.text(max_size=8) | st.integers(-(10**14), 10**14) | st.floats(-1e9, 1e9)


def _comparisons() -> st.SearchStrategy[Condition]:
    names = st.sampled_from(NAMES)
    signs = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
    return (
        st.builds(Comparison, names, signs, values.filter(lambda value: value is not None))
        | st.builds(Comparison, names, st.sampled_from(["=", "!="]), st.none())
        | st.builds(Comparison, names, st.just("~"), st.text("ab*?[]-", max_size=5))
        | st.builds(Membership, names, st.lists(values, min_size=1, max_size=4).map(tuple), st.booleans())
    )


def _wider(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    parts = st.lists(inner, min_size=2, max_size=3).map(tuple)
    return st.builds(Not, inner) | st.builds(And, parts) | st.builds(Or, parts)


conditions = st.recursive(_comparisons(), _wider, max_leaves=8)

_OPERATORS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def _equal(found: Any, value: Value) -> bool:
    if value is None:
        return found is None or found == "none"
    return isinstance(found, bool) == isinstance(value, bool) and found == value


def reference(condition: Condition, run: Record) -> bool:
    """What a condition says of a run, case by case."""
    if isinstance(condition, Not):
        return not reference(condition.part, run)
    if isinstance(condition, And):
        return False not in [reference(part, run) for part in condition.parts]
    if isinstance(condition, Or):
        return True in [reference(part, run) for part in condition.parts]
    found = run.get(condition.field)
    if isinstance(condition, Membership):
        inside = True in [_equal(found, value) for value in condition.values]
        if condition.negated:
            return found is not None and not inside
        return inside
    if condition.sign == "=":
        return _equal(found, condition.value)
    if condition.sign == "!=":
        return found is not None and not _equal(found, condition.value)
    if condition.sign == "~":
        return isinstance(found, str) and bool(re.match(fnmatch.translate(str(condition.value)), found))
    if any(isinstance(value, (bool, str)) or value is None for value in (found, condition.value)):
        return False
    return _OPERATORS[condition.sign](found, condition.value)


@given(conditions)
@settings(max_examples=200)
def test_what_is_printed_of_a_condition_is_read_as_the_same(condition: Condition) -> None:
    assert parse(str(condition)).condition == condition


@given(conditions, st.fixed_dictionaries({}, optional={name: st.sampled_from(VALUES) for name in NAMES}))
@settings(max_examples=200)
def test_a_condition_holds_where_the_reference_says_so(condition: Condition, found: Record) -> None:
    assert condition.holds(found.get) == reference(condition, found)
