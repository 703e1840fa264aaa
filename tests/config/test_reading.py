"""YAML in: plain values out with their lines, or one UserError; never anything else."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from itopctl.config.reading import MAX_BYTES, MAX_DEPTH, Document, dotted, read_file, read_text
from itopctl.errors import UserError

PLAIN = (dict, list, str, int, float, bool, type(None))

BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{', '.join([f'*{before}'] * 20)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def said(text: str) -> str:
    with pytest.raises(UserError) as caught:
        read_text(text, "spec.yaml")
    return str(caught.value)


def said_of_file(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        read_file(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("1E3", 1000.0), ("1e+3", 1000.0), ("-2e-1", -0.2), ("1.0e-3", 1e-3), ("0.10", 0.1),
        (".5", 0.5), ("5.", 5.0), ("7", 7), ("1_000", 1000), ("0x10", 16), ("true", True), ("no", False),
        ("null", None), ("~", None), ("", None), ("1 epoch", "1 epoch"), ("'1e-3'", "1e-3"), ("1e", "1e"),
        ("e3", "e3"), ("2020-01-01", "2020-01-01"), ("<<", "<<"), ("=", "="), ("!!str 5", "5"), ("!!float 5", 5.0),
    ],
)  # fmt: skip
def test_a_scalar_is_the_plain_value_it_looks_like(text: str, value: Any) -> None:
    read = read_text(f"key: {text}\n", "spec.yaml").data["key"]
    assert (type(read), read) == (type(value), value)


def test_every_key_and_item_has_its_line() -> None:
    document = read_text("a: 1\nb:\n  c:\n    - x\n    - y: 2\n", "spec.yaml")
    assert document.data == {"a": 1, "b": {"c": ["x", {"y": 2}]}}
    assert {path: document.lines[path] for path in [("a",), ("b", "c"), ("b", "c", 0), ("b", "c", 1, "y")]} == {
        ("a",): 1,
        ("b", "c"): 3,
        ("b", "c", 0): 4,
        ("b", "c", 1, "y"): 5,
    }


def test_a_complaint_starts_with_file_line_and_key_path() -> None:
    document = read_text("a:\n  b: [1, 2]\n", "spec.yaml")
    assert str(document.error(("a", "b", 1), "wrong.")) == "spec.yaml:2: a.b[1]: wrong."
    assert str(document.error((), "wrong.")) == "spec.yaml:1: wrong."


def test_a_complaint_about_a_key_that_is_missing_names_the_line_of_what_should_hold_it() -> None:
    document = read_text("x: 1\na:\n  b: 1\n", "spec.yaml")
    assert str(document.error(("a", "c", "d"), "wrong.")) == "spec.yaml:2: a.c.d: wrong."


def test_a_complaint_without_any_line_names_the_source_alone() -> None:
    assert str(Document("--set a=1", "1", {"a": 1}).error(("a",), "wrong.")) == "--set a=1: a: wrong."


def test_a_key_path_reads_like_an_expression() -> None:
    assert dotted(("include", 0, "grid", "optimizer.lr", 2)) == "include[0].grid.optimizer.lr[2]"


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n"])
def test_a_file_that_says_nothing_is_null(text: str) -> None:
    assert read_text(text, "spec.yaml").data is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "spec.yaml:3: a: the same key twice; it is already on line 1."),
        ("o:\n  a: 1\n  'a': 3\n", "spec.yaml:3: o.a: the same key twice; it is already on line 2."),
        ("o: {a: 1, a: 1}\n", "spec.yaml:1: o.a: the same key twice; it is already on line 1."),
        ("l:\n- a: 1\n  a: 1\n", "spec.yaml:3: l[0].a: the same key twice; it is already on line 2."),
    ],
)
def test_the_same_key_twice_in_one_mapping_is_refused_with_both_lines(text: str, message: str) -> None:
    assert said(text) == message


def test_the_same_key_in_two_mappings_is_fine() -> None:
    assert read_text("x: {a: 1}\ny: {a: 1}\n", "spec.yaml").data == {"x": {"a": 1}, "y": {"a": 1}}


@pytest.mark.parametrize(("text", "key"), [("1: x", "1"), ("true: x", "true"), ("? [a, b]\n: x", "['a', 'b']")])
def test_a_key_that_is_not_text_is_refused(text: str, key: str) -> None:
    assert said(text) == f"spec.yaml:1: the key {key} is not text."


def test_an_alias_stands_for_a_copy_of_what_it_names() -> None:
    data = read_text("a: &x {k: [1]}\nb: *x\n", "spec.yaml").data
    assert data["a"] == data["b"] == {"k": [1]}
    assert data["a"] is not data["b"]


def test_a_merge_key_fills_in_what_the_mapping_does_not_say_itself() -> None:
    data = read_text("a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc: {<<: [*a, *b], z: 3}\n", "spec.yaml").data
    assert data["c"] == {"x": 1, "y": 1, "z": 3}


def test_a_merge_key_takes_a_mapping_alone() -> None:
    assert said("a:\n  <<: 5\n") == "spec.yaml:2: '<<' merges a mapping, not 5."


def test_a_key_written_above_a_merge_key_keeps_its_own_line() -> None:
    document = read_text("a: &a\n  x: 1\nb:\n  x: 2\n  <<: *a\n", "spec.yaml")
    assert document.data["b"] == {"x": 2}
    assert document.lines["b", "x"] == 4


@pytest.mark.parametrize("text", [BOMB, MERGE_BOMB], ids=["aliases", "merge keys"])
def test_an_alias_bomb_is_refused_before_it_goes_off(text: str) -> None:
    start = time.process_time()  # of this process alone, whatever else the machine does
    message = said(text)
    assert message.startswith("spec.yaml:") and "aliases unfold to more than 200,000 values" in message
    assert time.process_time() - start < 5


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: &a {b: *a}\n", "a: &a {<<: *a}\n", "a: &a [[[*a]]]\n"])
def test_an_alias_that_refers_to_itself_is_refused(text: str) -> None:
    message = said(text)
    assert message.startswith("spec.yaml:1: ") and "refer to themselves" in message


@pytest.mark.parametrize("text", ["[" * 500, "{a: " * 500, "- " * 500, "? " * 500], ids=repr)
def test_deep_nesting_is_refused_with_its_line(text: str) -> None:
    assert said("x: 1\n---\n" + text).startswith("spec.yaml:3: nested deeper than 20.")


def test_nesting_up_to_the_limit_is_read() -> None:
    data = read_text("[" * MAX_DEPTH + "]" * MAX_DEPTH, "spec.yaml").data
    for _ in range(MAX_DEPTH - 1):
        (data,) = data
    assert data == []


def test_more_values_than_any_spec_needs_are_refused() -> None:
    assert "more than 200,000 values" in said("[" + "1," * 210_000 + "]")


@pytest.mark.parametrize(
    ("text", "line"),
    [("a: [1,\nb: 2\n", 3), ("a: 1\n\tb: 2\n", 2), ("a: *nowhere\n", 1), ("a: 1\n---\nb: 2\n", 2), ("a: 'x\n", 2)],
)
def test_what_is_not_yaml_is_refused_with_the_line_and_the_reason(text: str, line: int) -> None:
    message = said(text)
    assert message.startswith(f"spec.yaml:{line}: not valid YAML: ")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("character", ["\x00", "\x01", "\x7f"], ids=repr)
def test_a_control_character_is_refused_with_its_line(character: str) -> None:
    assert said(f"a: 1\nb: x{character}y\n").startswith("spec.yaml:2: not valid YAML: ")


@pytest.mark.parametrize(
    "value",
    [
        "!!python/name:os.system", "!!python/object/apply:os.getcwd []", "!!python/object:object {}",
        "!!python/tuple [1, 2]", "!!binary aGk=", "!!set {a, b}", "!!omap [a: 1]", "!mine [1]", "!mine {a: 1}",
        "!mine 1",
    ],
)  # fmt: skip
def test_a_tag_that_asks_for_an_object_is_refused(value: str) -> None:
    message = said(f"x: 1\na: {value}\n")
    assert message.startswith("spec.yaml:2: ") and "tag" in message


@pytest.mark.parametrize(
    "value",
    ["!!int abc", "!!int ''", "!!float ''", "!!float x", "!!bool maybe", "!!bool ''", "0x_", "0b_", "9" * 5000],
)
def test_a_value_that_does_not_fit_its_tag_is_refused_with_its_line(value: str) -> None:
    assert said(f"x: 1\na: {value}\n").startswith("spec.yaml:2: ")


def test_a_complaint_stays_short_however_much_was_written() -> None:
    assert len(said(f"a: {'9' * 5000}\n")) < 1000


def test_a_file_that_is_not_utf_8_is_refused_with_the_line_and_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes("name: a\ndescription: größer\n".encode("latin-1"))
    assert said_of_file(path) == f"{path}:2: not UTF-8 (byte 0xf6 at offset 23); save the file as UTF-8."


def test_a_file_in_utf_16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "wide.yaml"
    path.write_bytes("name: a\n".encode("utf-16"))
    assert said_of_file(path).startswith(f"{path}:1: not UTF-8")


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "mark.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: a\r\nx: 1\r\n")
    assert read_file(path).data == {"name": "a", "x": 1}


def test_a_path_that_does_not_exist_is_refused_and_a_near_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "digits.yaml").write_text("name: a\n")
    (tmp_path / "notes.txt").write_text("")
    path = tmp_path / "digts.yaml"
    assert said_of_file(path) == f"{path}: no such file. Did you mean {tmp_path / 'digits.yaml'}?"
    assert said_of_file(tmp_path / "nowhere" / "a.yaml") == f"{tmp_path / 'nowhere' / 'a.yaml'}: no such file."


def test_a_folder_is_no_spec(tmp_path: Path) -> None:
    assert said_of_file(tmp_path) == f"{tmp_path} is a folder; a spec is a YAML file."


def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    assert said_of_file(tmp_path / "a.yaml" / "b.yaml").startswith(f"{tmp_path / 'a.yaml' / 'b.yaml'}: ")


def test_a_file_too_large_to_be_a_spec_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
    assert said_of_file(path) == f"{path}: {1 << 40:,} bytes; a spec has at most 1,000,000."


def test_a_file_of_just_the_largest_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "full.yaml"
    path.write_bytes(b"a: 1\n#".ljust(MAX_BYTES, b"x"))
    assert read_file(path).data == {"a": 1}


def test_a_pipe_gives_no_more_than_a_file_may(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)

    def feed() -> None:
        with contextlib.suppress(BrokenPipeError), path.open("wb") as pipe:
            pipe.write(b"# nothing\n" * 300_000)

    threading.Thread(target=feed, daemon=True).start()
    assert "at most 1,000,000" in said_of_file(path)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(inner) for key, inner in value.items())
    if isinstance(value, list):
        return all(_is_plain(inner) for inner in value)
    return type(value) in PLAIN


YAML_PIECES = st.sampled_from(
    ["a", "b", ": ", ":", "\n", "  ", "- ", "[", "]", "{", "}", ", ", "&x ", "*x", "<<: ", "!!", "!!int ", "!!bool ",
     "!!float ", "!!null ", "!!set ", "!t ", "? ", "'", '"', "|\n", ">\n", "1", "0x", "0b", "_", ".", "e", "-", "%",
     "---\n", "...\n", "# ", "\t", "\x00", "\ufeff", "~", "true", ".inf", ".nan", "\\", "1:2", "é"]
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(st.one_of(st.text(max_size=60), st.lists(YAML_PIECES, max_size=25).map("".join)))
def test_any_text_is_plain_values_or_one_line_of_complaint(text: str) -> None:
    try:
        document = read_text(text, "spec.yaml")
    except UserError as error:
        assert str(error).startswith("spec.yaml") and len(str(error).splitlines()) == 1
    else:
        assert _is_plain(document.data)
        assert all(line >= 1 for line in document.lines.values())


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(raw)
    try:
        document = read_file(path)
    except UserError as error:
        assert str(error).startswith(str(path))
    else:
        assert _is_plain(document.data)


# Without e: a YAML 1.1 writer leaves the text `1e3` without quotes, and here that is a number.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="eE"), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(WORDS, VALUES, max_size=4))
def test_what_a_yaml_writer_wrote_is_read_back(data: dict[str, Any]) -> None:
    assert read_text(yaml.safe_dump(data), "spec.yaml").data == data
