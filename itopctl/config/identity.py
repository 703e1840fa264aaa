"""The identity of a run: what makes two run configs the same experiment."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel

from itopctl.config.run_config import RunConfig, hashed_fields

SCHEMA_VERSION = 1
"""Raised only when a config means something else than before. A new field does not: see `identity_fields`."""

ID_LENGTH = 12


def run_id(config: RunConfig) -> str:
    """12 hex digits of SHA-256 over the canonical JSON of what defines the experiment."""
    canonical = json.dumps(
        {"schema": SCHEMA_VERSION, **identity_fields(config)},
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:ID_LENGTH]


def experiment_id(config: RunConfig) -> str:
    """What runs share that differ in the version of the user's own code alone; the id of one that records none."""
    return run_id(config if config.own_code is None else config.model_copy(update={"own_code": None}))


def identity_fields(part: BaseModel) -> dict[str, Any]:
    """The resolved fields that define the experiment; floats are floats, whatever was typed.

    Left out: fields declared with `identity: False`; null, which says "means nothing here"; and the declared
    `as_before` of a field, the value that says what was the case before the field existed. So old runs keep
    their identity when a version adds fields.
    """
    fields: dict[str, Any] = {}
    for name, as_before in hashed_fields(type(part)).items():
        value = getattr(part, name)
        if value is None or (as_before is not None and value == as_before):
            continue
        fields[name] = identity_fields(value) if isinstance(value, BaseModel) else _positive_zero(value)
    return fields


def _positive_zero(value: Any) -> Any:
    """0.0 for -0.0; anything else as it is."""
    return 0.0 if isinstance(value, float) and value == 0.0 else value
