"""YAML text to plain data, safely, with the line of every key; every complaint names file and line.

Nothing but plain mappings, lists, strings, numbers, booleans and null can come out. Duplicate keys, aliases
that multiply, deep nesting and oversized files are refused.
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


_NO_COLONS = {
    "tag:yaml.org,2002:int": re.compile(r"^[-+]?(?:0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$"),
    "tag:yaml.org,2002:float": re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?"
        r"|[0-9][0-9_]*[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
    ),
}
_without_base_60(_PlainLoader)

_PLAIN_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null")}
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


def _check_events(text: str, source: str) -> None:
    """Refuse deep nesting and endless input before anything recursive sees it."""
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=_PlainLoader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > MAX_NODES:
            line = event.start_mark.line + 1 if event.start_mark else 0
            limit = f"nested deeper than {MAX_DEPTH}" if depth > MAX_DEPTH else f"more than {MAX_NODES:,} values"
            raise UserError(f"{source}:{line}: {limit}.")


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
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError, LookupError):
            kind = node.tag.rsplit(":", 1)[-1]
            raise UserError(f"{self.source}:{line}: {quoted(node.value)} cannot be read as {kind}.") from None

    def _read_mapping(self, node: yaml.MappingNode, path: KeyPath, depth: int) -> dict[str, Any]:
        merged, merged_lines = self._read_merges(node, path, depth)
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE_TAG:
                continue
            line = key_node.start_mark.line + 1
            key_path = (*path, "<key>")
            key = self.read(key_node, key_path, depth + 1)
            self.lines.pop(key_path, None)
            if not isinstance(key, str):
                raise UserError(f"{self.source}:{line}: the key {quoted(key)} is not text.")
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
        for key_node, value_node in node.value:
            if key_node.tag != _MERGE_TAG:
                continue
            for source in value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]:
                values = self.read(source, path, depth + 1)
                if not isinstance(values, dict):
                    line = key_node.start_mark.line + 1
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
