"""What YAML 1.1 reads otherwise than people write: one table of every such value, and what becomes of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from itopctl.config.expand import expand, parse_overrides
from itopctl.config.reading import read_file, read_text
from itopctl.config.slurm import SlurmOptions, parse_options, read_profile
from itopctl.config.sweep import parse_sweep
from itopctl.errors import UserError
from tests.config.build import spec_text

OCTAL = "begins with 0, which makes it octal in YAML 1.1 and not elsewhere"
OCTAL_2 = "is an octal number in YAML 1.2 and text in YAML 1.1"
UNSEEN = "would end the line here without being seen; take it out."

TAKEN: list[tuple[str, Any]] = [
    # integers
    ("0", 0), ("-0", 0), ("+1", 1), ("-7", -7), ("1_000", 1000), ("0x1F", 31), ("-0x10", -16), ("0b101", 5),
    ("0X1F", "0X1F"), ("0B1", "0B1"), ("0o8", "0o8"), ("1,000", "1,000"), ("1 000", "1 000"), ("٣", "٣"),
    ("５", "５"), ("−5", "−5"), ("10 # ten", 10), ("10#ten", "10#ten"),
    # octal-looking text, and floats that begin with 0
    ("'010'", "010"), ('"08"', "08"), ("!!str 010", "010"), ("010.5", 10.5), ("01e3", 1000.0), ("0.10", 0.1),
    ("0123abc", "0123abc"), ("00:10", "00:10"), ("01-02", "01-02"),
    # base 60, dates and times
    ("1:30", "1:30"), ("190:20:30", "190:20:30"), ("1:30.5", "1:30.5"), ("2020-01-02", "2020-01-02"),
    ("2020-01-02 03:04:05", "2020-01-02 03:04:05"), ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"),
    # floats
    ("1e3", 1e3), ("1E3", 1e3), ("1e-4", 1e-4), ("1e+4", 1e4), ("+1e3", 1e3), ("-1e-3", -1e-3), ("1.e3", 1e3),
    (".5", 0.5), ("5.", 5.0), ("-.5", -0.5), (".inf", math.inf), ("-.INF", -math.inf), ("+.Inf", math.inf),
    ("inf", "inf"), ("nan", "nan"), ("infinity", "infinity"), ("1e", "1e"), ("e3", "e3"), ("!!float 5", 5.0),
    # truth values and null
    ("yes", True), ("No", False), ("ON", True), ("off", False), ("TRUE", True), ("y", "y"), ("n", "n"), ("t", "t"),
    ("tRUE", "tRUE"), ("'no'", "no"), ("", None), ("~", None), ("null", None), ("NULL", None), ("none", "none"),
    ("None", "None"), ("nUll", "nUll"), ("''", ""), ("'~'", "~"),
    # marks with a meaning
    ("=", "="), ("<<", "<<"), ("-", [None]), ("a:b", "a:b"), ("{a, b}", {"a": None, "b": None}),
    ("{a:1}", {"a:1": None}), ("a\tb", "a\tb"), ("\t1", 1), ("1\t", 1), ("1\u00a0", "1\u00a0"), ("\ufeff1", "\ufeff1"),
    ('"a\\u2028b"', "a\u2028b"), ('"a\\Nb"', "a\x85b"), ("|\n  010\n", "010\n"), ("&x 5", 5), ("1\r", 1),
]  # fmt: skip

REFUSED: list[tuple[str, str]] = [
    # octal
    ("010", f"key: 010 {OCTAL}; write 10 or 8, or '010' with the quotes if it is text."),
    ("07", f"key: 07 {OCTAL}; write 7, or '07' with the quotes if it is text."),
    ("00", f"key: 00 {OCTAL}; write 0, or '00' with the quotes if it is text."),
    ("08", f"key: 08 {OCTAL}; write 8, or '08' with the quotes if it is text."),
    ("-010", f"key: -010 {OCTAL}; write -10 or -8, or '-010' with the quotes if it is text."),
    ("+09", f"key: +09 {OCTAL}; write 9, or '+09' with the quotes if it is text."),
    ("0_1", f"key: 0_1 {OCTAL}; write 1, or '0_1' with the quotes if it is text."),
    ("0o17", f"key: 0o17 {OCTAL_2}; write 15, or '0o17' with the quotes if it is text."),
    ("[1, 010]", f"key[1]: 010 {OCTAL}; write 10 or 8, or '010' with the quotes if it is text."),
    ("{010: 1}", f"010 {OCTAL}; write 10 or 8, or '010' with the quotes if it is text."),
    ("!!int 010", f"key: 010 {OCTAL}; write 10 or 8, or '010' with the quotes if it is text."),
    ("!!int '0o17'", f"key: 0o17 {OCTAL_2}; write 15, or '0o17' with the quotes if it is text."),
    ("!!float 010", f"key: 010 {OCTAL}; write 10 or 8, or '010' with the quotes if it is text."),
    (f"0{30 * '1'}",
     f"key: 0{30 * '1'} {OCTAL}; write it without the 0, or '0{30 * '1'}' with the quotes if it is text."),
    # tags that PyYAML takes for what was not written
    ("!!int 1:30", "'1:30' cannot be read as int."), ("!!float 1:30", "'1:30' cannot be read as float."),
    ("!!int ٣", "'٣' cannot be read as int."), ("!!null 5", "'5' cannot be read as null."),
    ("!!bool y", "'y' cannot be read as bool."), ("!!float inf", "'inf' cannot be read as float."),
    ("! 5", "the tag '!' is not allowed here; plain values only."),
    ("!!binary aGk=", "the tag 'tag:yaml.org,2002:binary' is not allowed here; plain values only."),
    # keys
    ("{on: 1}", "the key true is not text. It is read from 'on'; put that in quotes."),
    ("{No: 1}", "the key false is not text. It is read from 'No'; put that in quotes."),
    ("{~: 1}", "the key null is not text. It is read from '~'; put that in quotes."),
    ("{1e3: 1}", "the key 1000.0 is not text. It is read from '1e3'; put that in quotes."),
    ("{5: 1}", "the key 5 is not text."), ("{true: 1}", "the key true is not text."),
    ("{? [a]: 1}", "the key ['a'] is not text."),
    ("{a: 1, a: 2}", "key.a: the same key twice; it is already on line 1."),
    ("{<<: {a: 1}, <<: {a: 2}}", "'<<' twice; it is already on line 1. Write one: '<<: [*a, *b]'."),
    ("{<<: 5}", "'<<' merges a mapping, not 5."),
    # line ends that are not seen
    ("a\x85b", f"the character U+0085 (next line) {UNSEEN}"),
    ("'a\u2028b'", f"the character U+2028 (line separator) {UNSEEN}"),
    ("1 # a comment\u2029other: 2", f"the character U+2029 (paragraph separator) {UNSEEN}"),
    # marks
    ("@a", "not valid YAML: while scanning for the next token found character that cannot start any token."),
    ("*bias", "not valid YAML: found undefined alias."),
    ("a: b", "not valid YAML: mapping values are not allowed in this context."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), TAKEN, ids=lambda value: repr(value)[:40])
def test_a_value_that_has_one_evident_meaning_is_taken_so(text: str, value: Any) -> None:
    gap = "\n" if text == "-" else " "
    read = read_text(f"key:{gap}{text}\n", "spec.yaml").data["key"]
    assert (type(read), read) == (type(value), value)


def test_a_value_that_is_no_number_is_read_as_none() -> None:
    assert math.isnan(read_text("key: .nan\n", "spec.yaml").data["key"])


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=lambda text: repr(text)[:40])
def test_a_value_that_means_one_thing_to_yaml_and_another_to_people_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        read_text(f"first: 1\nkey: {text}\n", "spec.yaml")
    assert str(caught.value).replace("already on line 2", "already on line 1") == f"spec.yaml:2: {message}"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("010", f"010 {OCTAL}; write 10 or 8, or '010' with the quotes if it is text."),
        ("08", f"08 {OCTAL}; write 8, or '08' with the quotes if it is text."),
        ("'010'", "found '010'; a valid integer expected"), ("1:30", "found '1:30'; a valid integer expected"),
        ("yes", "found true; a valid integer expected"), (".inf", "found inf; a valid integer expected"),
        ("", "found null; a valid integer expected"), ("1e3", "found 1000.0; a valid integer expected"),
    ],
)  # fmt: skip
def test_a_setting_says_so_wherever_it_is_written(value: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(spec_text().replace("epochs: 2000", f"epochs: {value}"))
    with pytest.raises(UserError, match=r"spec.yaml:[0-9]+: base.epochs: ") as caught:
        expand(parse_sweep(read_file(path)))
    assert said in str(caught.value)
    with pytest.raises(UserError, match=rf"--set epochs={value}:") as caught:
        expand(parse_sweep(read_text(spec_text(), "spec.yaml")), parse_overrides([f"epochs={value}"]))
    assert said in str(caught.value)


@pytest.mark.parametrize("seeds", ["[00, 1]", "[1, 07]", "[08]", "010"])
def test_seeds_are_never_octal(seeds: str) -> None:
    with pytest.raises(UserError, match=r"grid.seed.*octal in YAML 1.1"):
        read_text(f"name: a\ngrid: {{seed: {seeds}}}\n", "spec.yaml")


@pytest.mark.parametrize(
    "option", ["timeout_min=010", "mem=0100", "cpus_per_task=08", "additional_parameters.nice=010", "runs_per_job=01"]
)
def test_an_option_of_slurm_is_never_octal(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=rf"--slurm {option}:1: .* octal in YAML 1.1"):
        parse_options([option])
    path = tmp_path / "profile.yaml"
    key, _, value = option.partition("=")
    path.write_text(f"{key}: {value}\n")
    monkeypatch.setenv("ITOPCTL_SLURM", str(path))
    with pytest.raises(UserError, match=rf"profile.yaml:1: {key}: .* octal in YAML 1.1"):
        read_profile()


@pytest.mark.parametrize(
    ("argument", "given"),
    [
        ("account=007", SlurmOptions(account="007")), ("account='007'", SlurmOptions(account="007")),
        ('partition="no"', SlurmOptions(partition="no")), ("qos=1:30", SlurmOptions(qos="1:30")),
        ("additional_parameters.comment='010'", SlurmOptions(additional_parameters={"comment": "010"})),
    ],
)  # fmt: skip
def test_a_name_that_looks_like_a_number_is_still_a_name_to_slurm(argument: str, given: SlurmOptions) -> None:
    assert parse_options([argument]) == given


@pytest.mark.parametrize("value", [".nan", ".inf", "1e999"])
def test_slurm_gets_no_number_that_is_not_finite(value: str) -> None:
    with pytest.raises(UserError, match=r"additional_parameters.nice: found (nan|inf); a number expected"):
        parse_options([f"additional_parameters.nice={value}"])


def test_what_the_command_line_gives_in_no_encoding_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match=r"^--set name=.: not UTF-8.$"):
        parse_overrides(["name=\udcff"])
