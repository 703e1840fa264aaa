"""The shape of a spec file: names of sections, what stands in them, and the blocks they make up.

Values of run settings are checked later, run by run, where the whole run is known (`resolve.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from itopctl.catalogue import ARGS, is_own_setting
from itopctl.config.reading import Document, KeyPath
from itopctl.config.run_config import DropScheduleConfig, LrScheduleConfig, OptimizerConfig, written_settings
from itopctl.config.slurm import SlurmOptions, options_of
from itopctl.errors import quoted, unknown

PARTS: dict[str, type[BaseModel]] = {
    "optimizer": OptimizerConfig,
    "lr_schedule": LrScheduleConfig,
    "drop_schedule": DropScheduleConfig,
}
"""Settings that are mappings themselves; their fields are reached by dotted path."""

SETTINGS: tuple[str, ...] = (
    *(name for name in written_settings() if name not in PARTS),
    "density",
    *(f"{part}.{name}" for part, model in PARTS.items() for name in model.model_fields),
)
"""Every name that may stand in base, grid, zip or exclude."""

SECTIONS = ("base", "grid", "zip", "exclude")
MAX_SEEDS = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Written:
    """A setting as somebody wrote it, and where."""

    value: Any
    path: KeyPath
    document: Document


Settings = dict[str, Written]


@dataclass(frozen=True)
class Block:
    """A base, the axes over it, and what is left out. Axes are lists of points; a point sets one or more settings."""

    base: Settings
    axes: list[list[Settings]] = field(default_factory=list)
    exclude: list[Settings] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Number of points before exclusion."""
        size = 1
        for axis in self.axes:
            size *= len(axis)
        return size


@dataclass(frozen=True)
class SweepSpec:
    """A spec file, checked for shape: its blocks expand into runs."""

    name: str
    description: str
    blocks: list[Block]
    slurm: SlurmOptions
    document: Document

    @property
    def text(self) -> str:
        """The file as it was written."""
        return self.document.text


def parse_sweep(document: Document) -> SweepSpec:
    """Check the shape of a spec. Raises UserError with file, line and key path."""
    data = document.data
    if not isinstance(data, dict):
        found = "nothing" if data is None else f"a {_kind(data)}"
        raise document.error((), f"a spec is a mapping with name, base, grid, …; found {found}.")
    _check_keys(document, (), data, ("name", "description", *SECTIONS, "include", "slurm"))
    name = data.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise document.error(
            ("name",) if "name" in data else (),
            f"a sweep needs a name of letters, digits, '.', '_' and '-' (at most 100); found {quoted(name)}.",
        )
    description = data.get("description", "")
    if not isinstance(description, str):
        raise document.error(("description",), f"text expected; found {quoted(description)}.")
    return SweepSpec(
        name, description, list(_blocks(document)), options_of(document, ("slurm",), data.get("slurm")), document
    )


def settings_of(document: Document, path: KeyPath, data: Any) -> Settings:
    """A mapping of settings, nested or dotted, as flat dotted names. Raises UserError for an unknown one."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise document.error(path, f"a mapping of settings expected; found {_kind(data)} {quoted(data)}.")
    flat: Settings = {}
    for key, value in data.items():
        here = (*path, key)
        if (key in PARTS or key in ARGS) and isinstance(value, Mapping):
            for inner, inner_value in value.items():
                _put(flat, document, (*here, inner), f"{key}.{inner}", inner_value)
        elif key in ARGS:
            raise document.error(here, f"a mapping of settings of your own function expected; found {quoted(value)}.")
        elif key in PARTS:
            raise document.error(
                here, f"a mapping with {', '.join(PARTS[key].model_fields)} expected; found {quoted(value)}."
            )
        else:
            _put(flat, document, here, key, value)
    if "sparsity" in flat and "density" in flat:
        raise document.error((*path, "density"), "sparsity and density both given; they say the same thing: keep one.")
    return flat


def _put(flat: Settings, document: Document, path: KeyPath, name: str, value: Any) -> None:
    if name not in SETTINGS and not is_own_setting(name):
        raise document.error(path, unknown("setting", name, SETTINGS))
    if name in flat:
        raise document.error(path, f"{name} is given twice, dotted and nested.")
    flat[name] = Written(value, path, document)


def _blocks(document: Document) -> Iterator[Block]:
    data = document.data
    base = settings_of(document, ("base",), data.get("base"))
    include = data.get("include")
    if include is not None and (not isinstance(include, list) or not include):
        raise document.error(
            ("include",), f"a list of blocks with {', '.join(SECTIONS)} expected; found {quoted(include)}."
        )
    outer = _block(document, (), data, base)
    if include and outer.exclude and not outer.axes:
        raise document.error(
            ("exclude",), "there is no grid or zip beside it to leave runs out of; give it to the blocks of include."
        )
    if not include or outer.axes:
        yield outer
    for index, block in enumerate(include or []):
        path: KeyPath = ("include", index)
        if not isinstance(block, dict):
            raise document.error(path, f"a block with {', '.join(SECTIONS)} expected; found {quoted(block)}.")
        _check_keys(document, path, block, SECTIONS)
        own = settings_of(document, (*path, "base"), block.get("base"))
        yield _block(document, path, block, overlay(base, own))


def overlay(under: Settings, over: Settings) -> Settings:
    """Both together; `over` wins, and its sparsity replaces a density underneath (and the other way round)."""
    merged = {**under, **over}
    for one, other in (("sparsity", "density"), ("density", "sparsity")):
        if one in over and other in under:
            del merged[other]
    return merged


def _block(document: Document, path: KeyPath, data: dict[str, Any], base: Settings) -> Block:
    axes = [*_grid_axes(document, (*path, "grid"), data.get("grid"))]
    axes.extend(_zip_axis(document, (*path, "zip"), data.get("zip")))
    _check_apart(document, base, axes)
    exclude = data.get("exclude")
    if exclude is not None and not isinstance(exclude, list):
        raise document.error((*path, "exclude"), f"a list of mappings expected; found {quoted(exclude)}.")
    entries = []
    for index, entry in enumerate(exclude or []):
        where = (*path, "exclude", index)
        settings = settings_of(document, where, entry)
        if not settings:
            raise document.error(where, "an empty entry would leave out every run; name what it matches.")
        entries.append(settings)
    return Block(base, axes, entries)


def _grid_axes(document: Document, path: KeyPath, data: Any) -> Iterator[list[Settings]]:
    for name, values, here in _axis_items(document, path, data):
        if name == "seed" and isinstance(values, int) and not isinstance(values, bool):
            if not 1 <= values <= MAX_SEEDS:
                raise document.error(
                    here, f"found {values}; a number of seeds from 1 to {MAX_SEEDS:,} expected, or a list."
                )
            yield [{"seed": Written(seed, here, document)} for seed in range(values)]
            continue
        yield [
            _point(document, name, value, (*here, index))
            for index, value in enumerate(_axis_list(document, here, values))
        ]


def _zip_axis(document: Document, path: KeyPath, data: Any) -> Iterator[list[Settings]]:
    columns = [
        [
            _point(document, name, value, (*here, index))
            for index, value in enumerate(_axis_list(document, here, values))
        ]
        for name, values, here in _axis_items(document, path, data)
    ]
    if not columns:
        return
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        found = ", ".join(f"{name}: {len(values)}" for name, values in data.items())
        raise document.error(path, f"lists of one length expected, since they vary together; found {found}.")
    rows = []
    for row in zip(*columns, strict=True):
        merged: Settings = {}
        for point in row:
            for name, written in point.items():
                if name in merged:
                    raise document.error(written.path, f"{name} is given twice, dotted and nested.")
                merged[name] = written
        rows.append(merged)
    yield rows


def _axis_items(document: Document, path: KeyPath, data: Any) -> Iterator[tuple[str, Any, KeyPath]]:
    if data is None and path not in document.lines:
        return
    if not isinstance(data, dict) or not data:
        raise document.error(path, f"a mapping from settings to lists of values expected; found {quoted(data)}.")
    for name, values in data.items():
        here = (*path, name)
        if name not in SETTINGS and name not in PARTS and name not in ARGS and not is_own_setting(name):
            raise document.error(here, unknown("setting", name, SETTINGS))
        yield name, values, here


def _axis_list(document: Document, path: KeyPath, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise document.error(
            path, f"a list of values expected; found {quoted(values)}. For a single value write [{values}]."
        )
    if not values:
        raise document.error(path, "an empty list leaves nothing to run.")
    return values


def _point(document: Document, name: str, value: Any, path: KeyPath) -> Settings:
    """The settings one value of an axis sets: itself, or the fields of a part such as `optimizer`."""
    if name in PARTS or name in ARGS:
        if not isinstance(value, dict):
            what = f"with {', '.join(PARTS[name].model_fields)}" if name in PARTS else "of settings"
            raise document.error(path, f"a mapping {what} expected; found {quoted(value)}.")
        flat: Settings = {}
        for inner, inner_value in value.items():
            _put(flat, document, (*path, inner), f"{name}.{inner}", inner_value)
        return flat
    return {name: Written(value, path, document)}


def _check_apart(document: Document, base: Settings, axes: list[list[Settings]]) -> None:
    """No setting on two axes, and sparsity and density not both in one block."""
    twins = {"sparsity": "density", "density": "sparsity"}
    seen: set[str] = set()
    for axis in axes:
        names = {name: written.path for point in axis for name, written in point.items()}
        for name, path in names.items():
            twin = twins.get(name)
            if name in seen:
                raise document.error(path, f"{name} is on two axes; keep one.")
            if twin and (twin in seen or twin in names or twin in base):
                raise document.error(path, "sparsity and density both given; they say the same thing: keep one.")
        seen.update(names)


def _check_keys(document: Document, path: KeyPath, data: dict[str, Any], allowed: tuple[str, ...]) -> None:
    for key in data:
        if key not in allowed:
            raise document.error((*path, key), unknown("key", key, allowed))


def _kind(value: Any) -> str:
    names = {"dict": "mapping", "str": "text", "int": "number", "float": "number", "bool": "truth value"}
    return names.get(type(value).__name__, type(value).__name__)
