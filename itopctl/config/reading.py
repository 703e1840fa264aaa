"""YAML text to plain data, safely, with the line of every key; every complaint names file and line.

Nothing but plain mappings, lists, strings, numbers, booleans and null can come out. Duplicate keys, aliases
that multiply, deep nesting and oversized files are refused. So is what YAML 1.1 reads otherwise than people do: octal
numbers, and line ends that an editor does not show. Base-60 numbers and dates stay text.
`tests/config/test_yaml_surprises.py` lists all of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from itopctl.errors import UserError, quoted

MAX_BYTES = 1_000_000
MAX_NODES = 200_000
MAX_DEPTH = 20

KeyPath = tuple[str | int, ...]

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _PlainLoader(_Loader):
    """A safe loader that also reads `1e-3` as the number it is (YAML 1.1 asks for `1.0e-3`)."""


_PlainLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _without_base_60(loader: Any) -> None:
    """Leave out YAML 1.1's base-60 numbers: nobody who writes `1:00:00` means 3600 of anything but seconds."""
    for first, resolvers in list(loader.yaml_implicit_resolvers.items()):
        plain = [(tag, _NO_COLONS.get(tag, pattern)) for tag, pattern in resolvers]
        loader.yaml_implicit_resolvers[first] = plain


_INT, _FLOAT = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_NO_COLONS = {
    _INT: re.compile(r"^[-+]?(?:0b[0-1_]+|0[0-9_]+|0[oO][0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    _FLOAT: re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
}
_without_base_60(_PlainLoader)

_LEADING_ZERO = re.compile(r"([-+]?)0(?:([0-9_]+)|[oO]([0-7_]+))")
"""A number that is octal in YAML 1.1 (`010`), in YAML 1.2 (`0o17`), or would be if it had no 8 or 9 (`08`)."""

_MOST_DIGITS = 20  # of a number that a message spells out

_NULLS = ("", "~", "null", "Null", "NULL")

_UNSEEN_BREAKS = {"\x85": "next line", "\u2028": "line separator", "\u2029": "paragraph separator"}
"""Characters that end a line in YAML 1.1, and neither in YAML 1.2 nor in an editor."""

_UNFIT = re.compile(f"[{''.join(_UNSEEN_BREAKS)}\ud800-\udfff]")

_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
_KEY = "<key>"  # stands for a key in a path while the key itself is read
_MAPPING_TAG, _SEQUENCE_TAG = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
_MERGE_TAG = "tag:yaml.org,2002:merge"
_TEXT_TAGS = {"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:value", _MERGE_TAG}
"""Scalars that YAML gives a meaning of their own and a spec does not: they stay the text they are."""


@dataclass(frozen=True)
class Document:
    """What a file said, and where: `lines[path]` is the 1-based line of the key or item at `path`."""

    source: str
    text: str
    data: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def error(self, path: KeyPath, message: str) -> UserError:
        """A UserError that starts with file, line and key path; the nearest written ancestor gives the line."""
        line = next((self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines), None)
        where = f"{self.source}:{line}" if line else self.source
        key = dotted(path)
        return UserError(f"{where}: {key}: {message}" if key else f"{where}: {message}")


def dotted(path: KeyPath) -> str:
    """`('grid', 'sparsity', 1)` as `grid.sparsity[1]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part if part.isprintable() and len(part) <= 200 else quoted(part)
            text += f".{plain}" if text else plain
    return text


def read_file(path: Path) -> Document:
    """Read a YAML file. Raises UserError for whatever is wrong with the path, the bytes or the YAML."""
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise UserError(f"{path} is a folder; a spec is a YAML file.")
        if size > MAX_BYTES:
            raise UserError(f"{path}: {size:,} bytes; a spec has at most {MAX_BYTES:,}.")
        with path.open("rb") as file:  # a pipe or a device has no size of its own
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise UserError(f"{path}: too long; a spec has at most {MAX_BYTES:,} bytes.")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.{_neighbour(path)}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: not UTF-8 (byte 0x{raw[error.start]:02x} at offset {error.start}); save the file as UTF-8."
        ) from None
    return read_text(text, str(path))


def read_text(text: str, source: str) -> Document:
    """Parse YAML text. `source` is what messages call it."""
    _check_characters(text, source)
    try:
        _check_events(text, source)
        loader = _PlainLoader(text)
        try:
            node = loader.get_single_node()
            reader = _Reader(source, loader)
            data = reader.read(node, (), 0) if node is not None else None
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = " ".join(part for part in (error.context, error.problem) if part)
        if "nesting depth" in problem:  # the parser's own limit, from PyYAML 6.0.4 on
            raise UserError(f"{where}: nested deeper than {MAX_DEPTH}.") from None
        raise UserError(f"{where}: not valid YAML: {problem}.") from None
    except yaml.reader.ReaderError as error:
        line = text.partition(chr(error.character))[0].count("\n") + 1
        raise UserError(
            f"{source}:{line}: not valid YAML: the character #x{error.character:04x} is not allowed."
        ) from None
    except yaml.YAMLError as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{source}: not valid YAML: {first}.") from None
    return Document(source, text, data, reader.lines)


def _check_characters(text: str, source: str) -> None:
    """Refuse line ends that an editor does not show, and bytes of the command line that are no text."""
    found = _UNFIT.search(text)
    if found is None:
        return
    line, character = text.count("\n", 0, found.start()) + 1, found[0]
    if character not in _UNSEEN_BREAKS:
        raise UserError(f"{source.encode(errors='replace').decode()}: not UTF-8.")
    raise UserError(
        f"{source}:{line}: the character U+{ord(character):04X} ({_UNSEEN_BREAKS[character]}) would end the line here "
        "without being seen; take it out."
    )


def _check_events(text: str, source: str) -> None:
    """Refuse deep nesting and endless input before anything recursive sees it, and the tag `!`, which is lost later."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_PlainLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        line = event.start_mark.line + 1 if event.start_mark else 0
        if depth > MAX_DEPTH or count > MAX_NODES:
            limit = f"nested deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else f"more than {MAX_NODES:,} values"
            raise UserError(f"{source}:{line}: {limit}.")
        if isinstance(event, yaml.ScalarEvent) and event.tag == "!":
            raise UserError(f"{source}:{line}: the tag '!' is not allowed here; plain values only.")


def _fits_its_tag(node: yaml.ScalarNode) -> bool:
    """Whether a number or null is written as one; PyYAML takes more under a tag: `!!int 1:30`, `!!null 5`."""
    if node.tag == "tag:yaml.org,2002:null":
        return node.value in _NULLS
    patterns = {_INT: (_NO_COLONS[_INT],), _FLOAT: (_NO_COLONS[_FLOAT], _NO_COLONS[_INT])}.get(node.tag)
    return patterns is None or any(pattern.fullmatch(node.value) for pattern in patterns)


class _Reader:
    """Turns composed nodes into plain data, once for each place an alias stands in."""

    def __init__(self, source: str, loader: Any) -> None:
        self.source = source
        self.loader = loader
        self.lines: dict[KeyPath, int] = {}
        self.nodes = 0

    def read(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        self.nodes += 1
        line = node.start_mark.line + 1
        self.lines.setdefault(path, line)
        if self.nodes > MAX_NODES or depth > MAX_DEPTH:
            raise UserError(
                f"{self.source}:{line}: its aliases unfold to more than {MAX_NODES:,} values "
                f"or refer to themselves; write the values out."
            )
        if isinstance(node, yaml.MappingNode) and node.tag == _MAPPING_TAG:
            return self._read_mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == _SEQUENCE_TAG:
            return [self.read(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        if not isinstance(node, yaml.ScalarNode) or node.tag not in _PLAIN_TAGS | _TEXT_TAGS:
            raise UserError(f"{self.source}:{line}: the tag {node.tag!r} is not allowed here; plain values only.")
        if node.tag in _TEXT_TAGS:
            return node.value
        if node.tag in (_INT, _FLOAT):
            self._check_leading_zero(node, path)
        try:
            if not _fits_its_tag(node):
                raise ValueError
            return self.loader.construct_object(node)
        except (ValueError, OverflowError, LookupError):
            kind = node.tag.rsplit(":", 1)[-1]
            raise UserError(f"{self.source}:{line}: {quoted(node.value)} cannot be read as {kind}.") from None

    def _check_leading_zero(self, node: yaml.ScalarNode, path: KeyPath) -> None:
        """Raise UserError for `010`, which may mean 8 or 10, with what to write for either."""
        match = _LEADING_ZERO.fullmatch(node.value)
        if match is None:
            return
        sign, plain, octal = match[1].replace("+", ""), match[2] or "", match[3] or ""
        digits = (plain or octal).replace("_", "") or "0"
        numbers = [digits.lstrip("0") or "0"] if plain else []
        if not set(digits) & {"8", "9"} and len(digits) < _MOST_DIGITS:
            numbers.append(str(int(digits, 8)))
        write = " or ".join(dict.fromkeys(sign + number for number in numbers if len(number) < _MOST_DIGITS))
        written = quoted(node.value)
        why = "begins with 0, which makes it octal in YAML 1.1 and not elsewhere"
        if octal:
            why = "is an octal number in YAML 1.2 and text in YAML 1.1"
        place = "" if path[-1:] in ((), (_KEY,)) else f"{dotted(path)}: "
        raise UserError(
            f"{self.source}:{node.start_mark.line + 1}: {place}{written[1:-1]} {why}; "
            f"write {write or 'it without the 0'}, or {written} with the quotes if it is text."
        )

    def _read_mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        merged, merged_lines = self._read_merges(node, path, depth)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            line = key_node.start_mark.line + 1
            key_path = (*path, _KEY)
            key = self.read(key_node, key_path, depth + 1)
            self.lines.pop(key_path, None)
            if not isinstance(key, str):
                written = key_node.value if isinstance(key_node, yaml.ScalarNode) else ""
                as_written = f" It is read from {quoted(written)}; put that in quotes." * (
                    written not in ("", quoted(key))
                )
                raise UserError(f"{self.source}:{line}: the key {quoted(key)} is not text.{as_written}")
            here = (*path, key)
            if key in result:
                first = self.lines[here]
                raise UserError(
                    f"{self.source}:{line}: {dotted(here)}: the same key twice; it is already on line {first}."
                )
            self.lines[here] = line
            result[key] = self.read(value_node, here, depth + 1)
        for place, line in merged_lines.items():
            if len(place) > len(path) and place[len(path)] not in result:
                self.lines.setdefault(place, line)
        return {**merged, **result}

    def _read_merges(
        self, node: yaml.MappingNode, path: KeyPath, depth: int
    ) -> tuple[dict[str, Any], dict[KeyPath, int]]:
        """What the `<<` keys of a mapping bring, and its lines; the first of several sources wins."""
        merged: dict[str, Any] = {}
        own_lines, self.lines = self.lines, {}
        first: int | None = None
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE_TAG:
                continue
            line = key_node.start_mark.line + 1
            if first is not None:
                raise UserError(
                    f"{self.source}:{line}: '<<' twice; it is already on line {first}. Write one: '<<: [*a, *b]'."
                )
            first = line
            for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                values = self.read(source, path, depth + 1)
                if not isinstance(values, dict):
                    raise UserError(f"{self.source}:{line}: '<<' merges a mapping, not {quoted(values)}.")
                merged = {**values, **merged}
        merged_lines, self.lines = self.lines, own_lines
        return merged, merged_lines


def _neighbour(path: Path) -> str:
    """A hint at the file that was probably meant."""
    from itopctl.errors import nearest

    try:
        names = [p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml")]
    except OSError:
        return ""
    guess = nearest(path.name, names)
    return f" Did you mean {path.parent / guess}?" if guess else ""
