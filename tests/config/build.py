"""Small specs as text, and what becomes of them; shared by the tests of the spec and of the plan."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from itopctl.config.expand import DEFAULT_LIMIT, Expansion, expand, parse_overrides
from itopctl.config.reading import read_text
from itopctl.config.resolve import Resolved, resolve
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import parse_sweep, settings_of
from itopctl.errors import UserError

BASE: dict[str, Any] = {"dataset": "digits", "model": "lenet-300-100", "epochs": 2000}
"""Enough for a dense run; a sparse method needs a sparsity, too. Long enough for any method to update."""

SPARSE: dict[str, Any] = {**BASE, "method": "rigl-itop", "sparsity": 0.9}


def spec_text(base: dict[str, Any] | None = None, **sections: Any) -> str:
    """A spec file's text with these sections; `base` is SPARSE unless given."""
    whole = {"name": "tried", "base": SPARSE if base is None else base, **sections}
    return yaml.safe_dump(whole, sort_keys=False)


def expanded(text: str, *overrides: str, limit: int = DEFAULT_LIMIT) -> Expansion:
    """The runs of a spec text, with `--set` overrides."""
    return expand(parse_sweep(read_text(text, "spec.yaml")), parse_overrides(overrides), limit)


def expansion(base: dict[str, Any] | None = None, *, limit: int = DEFAULT_LIMIT, **sections: Any) -> Expansion:
    """The runs of a spec given as data."""
    return expanded(spec_text(base, **sections), limit=limit)


def resolved(text: str) -> Resolved:
    """One run from YAML text of its settings alone."""
    document = read_text(text, "spec.yaml")
    return resolve(settings_of(document, (), document.data), document)


def config(**settings: Any) -> RunConfig:
    """One run: SPARSE with some settings changed; a dotted name is written with two underscores."""
    written = {**SPARSE, **{name.replace("__", "."): value for name, value in settings.items()}}
    return resolved(yaml.safe_dump(written, sort_keys=False)).config


def complaint(text: str, *overrides: str, limit: int = DEFAULT_LIMIT) -> str:
    """What is said about a spec that is wrong."""
    with pytest.raises(UserError) as caught:
        expanded(text, *overrides, limit=limit)
    return str(caught.value)


def complaint_on(**settings: Any) -> str:
    """What is said about one run with a wrong setting."""
    with pytest.raises(UserError) as caught:
        config(**settings)
    return str(caught.value)
