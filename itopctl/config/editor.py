"""JSON Schema of a spec file, for editors: made from the schema of a run, so that it cannot fall behind."""

from __future__ import annotations

from typing import Any

from itopctl.catalogue import ARGS
from itopctl.config.resolve import NAMED
from itopctl.config.run_config import RunConfig, written_settings
from itopctl.config.slurm import SlurmOptions
from itopctl.config.sweep import PARTS


def json_schema() -> dict[str, Any]:
    """The schema of a spec file (JSON Schema, draft 2020-12); every property has a description."""
    settings = _settings()
    block = {
        "base": _mapping(settings, "settings shared by every run of the block"),
        "grid": {"minProperties": 1}
        | _mapping(
            {name: _axis(name, schema) for name, schema in settings.items()},
            "settings that vary, each with its list of values; every combination is a run",
        ),
        "zip": {"minProperties": 1}
        | _mapping(
            {name: _list(schema) for name, schema in settings.items()},
            "settings that vary together; lists of one length",
        ),
        "exclude": {
            "type": "array",
            "description": "a run that matches all keys of an entry is left out",
            "items": {
                **_mapping({name: _value_or_list(schema) for name, schema in settings.items()}, "what to match"),
                "minProperties": 1,
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "itopctl sweep",
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {
            "name": {
                "type": "string",
                "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
                "description": "name of the sweep",
            },
            "description": {"type": "string", "description": "what the sweep is for"},
            **block,
            "include": {
                "type": "array",
                "minItems": 1,
                "description": "further blocks, each on top of the outer base",
                "items": _mapping(block, "a block"),
            },
            "slurm": {
                **SlurmOptions.model_json_schema(),
                "title": "slurm",
                "description": "what a job asks of SLURM; it does not change the experiment",
            },
        },
    }


def _settings() -> dict[str, Any]:
    """Schema of every setting as it may be written: nested, and by dotted path."""
    full = RunConfig.model_json_schema()
    definitions = full["$defs"]
    settings: dict[str, Any] = {}
    for name, schema in ((name, full["properties"][name]) for name in written_settings()):
        if name in PARTS:
            part = definitions[PARTS[name].__name__]["properties"]
            settings[name] = _mapping(part, schema["description"])
            settings.update({f"{name}.{inner}": inner_schema for inner, inner_schema in part.items()})
        elif name in NAMED:
            settings[name] = {"description": schema["description"], **_names(name)}
        else:
            settings[name] = schema
    for args in ARGS:
        described = full["properties"][args]
        settings[args] = {"type": "object", "description": described["description"]}
        settings[rf"^{args}\.[A-Za-z_]\w*$"] = {
            "type": ["boolean", "number", "string"], "description": described["description"],
        }  # fmt: skip
    settings["density"] = {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": "1 − sparsity; instead of it, never both",
    }  # fmt: skip
    interval = settings["update_interval"]
    epochs = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*epochs?\s*$"}
    rate = {
        "type": "number", "exclusiveMinimum": 0, "maximum": 1,
        "description": "exploration rate R_s that random growth is to reach by the end of training",
    }  # fmt: skip
    reach = {"type": "object", "additionalProperties": False, "required": ["reach"], "properties": {"reach": rate}}
    settings["update_interval"] = {
        "description": interval["description"],
        "anyOf": [*interval["anyOf"], epochs, reach],
    }
    return settings


def _names(setting: str) -> dict[str, Any]:
    catalogue = NAMED[setting]
    named = {"enum": catalogue.names()}
    if not catalogue.user_functions:
        return named
    return {"anyOf": [named, {"type": "string", "pattern": r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"}]}


def _mapping(properties: dict[str, Any], description: str) -> dict[str, Any]:
    """`properties`: by name; those of the user's own functions by a pattern, which begins with ^."""
    patterns = {name: schema for name, schema in properties.items() if name.startswith("^")}
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: schema for name, schema in properties.items() if name not in patterns},
        **({"patternProperties": patterns} if patterns else {}),
        "description": description,
    }


def _list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": schema, "description": schema["description"]}


def _axis(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    if name != "seed":
        return _list(schema)
    count = {"type": "integer", "minimum": 1, "description": "so many seeds, from 0"}
    return {"anyOf": [_list(schema), count], "description": schema["description"]}


def _value_or_list(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, _list(schema)], "description": schema["description"]}
