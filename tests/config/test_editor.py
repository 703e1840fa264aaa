"""The JSON Schema for editors: valid, complete, described, and of one mind with what reads a spec."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from itopctl.catalogue import ALLOCATIONS, ARGS, DATASETS, DROPS, GROWTHS, METHODS, MODELS, REDISTRIBUTIONS
from itopctl.config.editor import json_schema
from itopctl.config.reading import read_file
from itopctl.config.slurm import SlurmOptions
from itopctl.config.sweep import PARTS, SETTINGS
from itopctl.errors import UserError
from tests.config.build import SPARSE, expanded, spec_text

SWEEPS = sorted((Path(__file__).parents[2] / "sweeps").glob("*.yaml"))
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def accepts(text: str) -> bool:
    return VALIDATOR.is_valid(yaml.safe_load(text))


def reader_accepts(text: str) -> bool:
    try:
        expanded(text)
    except UserError:
        return False
    return True


def test_the_schema_is_valid_json_schema() -> None:
    Draft202012Validator.check_schema(json.loads(json.dumps(SCHEMA)))
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_there_are_sweeps_to_check() -> None:
    assert {"digits.yaml", "fashion_mnist.yaml", "cifar10.yaml", "cifar100.yaml"} <= {path.name for path in SWEEPS}


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.name)
def test_every_sweep_that_comes_along_is_valid_and_expands(path: Path) -> None:
    assert [error.message for error in VALIDATOR.iter_errors(read_file(path).data)] == []
    assert reader_accepts(path.read_text())


def _properties(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(schema, dict):
        for name, inner in schema.get("properties", {}).items():
            yield f"{path}.{name}", inner
        for key, inner in schema.items():
            yield from _properties(inner, f"{path}.{key}")
    elif isinstance(schema, list):
        for item in schema:
            yield from _properties(item, path)


def test_every_property_has_a_description() -> None:
    found = dict(_properties(SCHEMA))
    assert len(found) > 300
    assert [name for name, schema in found.items() if len(schema.get("description", "")) < 5] == []


def test_every_reference_leads_somewhere() -> None:
    assert '"$ref"' not in json.dumps(SCHEMA)


@pytest.mark.parametrize("section", ["base", "grid", "zip"])
def test_every_setting_is_in_every_section(section: str) -> None:
    assert set(SCHEMA["properties"][section]["properties"]) == {*SETTINGS, *PARTS, *ARGS}


def test_an_included_block_has_the_same_sections_as_the_outer_one() -> None:
    block = SCHEMA["properties"]["include"]["items"]["properties"]
    assert set(block) == {"base", "grid", "zip", "exclude"}
    assert all(SCHEMA["properties"][name] == schema for name, schema in block.items())


def test_every_slurm_option_is_there() -> None:
    assert set(SCHEMA["properties"]["slurm"]["properties"]) == set(SlurmOptions.model_fields)


@pytest.mark.parametrize(
    ("name", "names"),
    [("method", METHODS.names()), ("dataset", DATASETS.names())],
)
def test_names_are_those_of_the_catalogue(name: str, names: list[str]) -> None:
    assert SCHEMA["properties"]["base"]["properties"][name]["enum"] == names


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("model", MODELS.names()), ("drop", DROPS.names()), ("growth", GROWTHS.names()),
        ("allocation", ALLOCATIONS.names()), ("redistribution", REDISTRIBUTIONS.names()),
    ],
)  # fmt: skip
def test_names_are_those_of_the_catalogue_or_a_function_of_the_users_own(name: str, names: list[str]) -> None:
    validator = Draft202012Validator(SCHEMA["properties"]["base"]["properties"][name])
    assert all(validator.is_valid(word) for word in [*names, "my_package.my_module:make"])
    assert not any(validator.is_valid(word) for word in ["nosuch", "module:", ":make", "a:b:c", "a b:c", 5])


GOOD = {
    "a base alone": spec_text(),
    "a description": spec_text(description="what for"),
    "a number of seeds": spec_text(grid={"seed": 3}),
    "a list of seeds": spec_text(grid={"seed": [3, 4]}),
    "an interval in epochs": spec_text(grid={"update_interval": ["1 epoch", "0.5 epochs", 7]}),
    "dotted names": spec_text({**SPARSE, "optimizer.lr": 0.1}, zip={"lr_schedule.warmup": [0, 0.1]}),
    "nested parts": spec_text({**SPARSE, "optimizer": {"name": "adam", "betas": [0.9, 0.99]}}),
    "parts as an axis": spec_text(grid={"optimizer": [{"lr": 1}, {"name": "adamw"}]}),
    "exclusions": spec_text(grid={"seed": 3}, exclude=[{"seed": 1}, {"seed": [2], "method": "rigl-itop"}]),
    "included blocks": spec_text(include=[{"base": {"method": "dense"}, "grid": {"seed": 2}}]),
    "density": spec_text({**{k: v for k, v in SPARSE.items() if k != "sparsity"}, "density": 0.1}),
    "globs": spec_text({**SPARSE, "keep_dense": ["conv*"]}),
    "slurm": spec_text(slurm={"partition": "gpu", "gpus_per_node": "a100:2", "additional_parameters": {"nice": 1}}),
}
BAD = {
    "no name": "base: {}",
    "a wrong name": spec_text(name="a b"),
    "an unknown key": spec_text(gird={"seed": [1]}),
    "an unknown setting in base": spec_text({**SPARSE, "epoch": 1}),
    "an unknown setting in grid": spec_text(grid={"epoch": [1]}),
    "an unknown setting in zip": spec_text(zip={"epoch": [1]}),
    "an unknown setting in exclude": spec_text(exclude=[{"epoch": 1}]),
    "an unknown setting in a part": spec_text({**SPARSE, "optimizer": {"lrr": 1}}),
    "an unknown dotted setting": spec_text({**SPARSE, "optimizer.lrr": 1}),
    "an unknown key in a block": spec_text(include=[{"bse": {}}]),
    "a name in a block": spec_text(include=[{"name": "a"}]),
    "an unknown slurm option": spec_text(slurm={"partitoin": "gpu"}),
    "an unknown method": spec_text({**SPARSE, "method": "rigl_itop"}),
    "an unknown data set": spec_text({**SPARSE, "dataset": "cifar11"}),
    "an unknown model": spec_text({**SPARSE, "model": "resnet35"}),
    "an unknown growth rule": spec_text(grid={"growth": ["gradients"]}),
    "a sparsity of 1": spec_text({**SPARSE, "sparsity": 1}),
    "a negative sparsity": spec_text(grid={"sparsity": [-0.1]}),
    "a density of 0": spec_text({**{k: v for k, v in SPARSE.items() if k != "sparsity"}, "density": 0}),
    "a truth value for a number": spec_text({**SPARSE, "epochs": True}),
    "text for a number": spec_text({**SPARSE, "optimizer": {"lr": "high"}}),
    "a number for a truth value": spec_text({**SPARSE, "compile": 1}),
    "a negative seed": spec_text({**SPARSE, "seed": -1}),
    "no seeds": spec_text(grid={"seed": 0}),
    "an interval in nothing": spec_text({**SPARSE, "update_interval": "often"}),
    "an interval of zero": spec_text({**SPARSE, "update_interval": 0}),
    "a single value in grid": spec_text(grid={"epochs": 5}),
    "an empty axis": spec_text(grid={"epochs": []}),
    "an empty grid": spec_text(grid={}),
    "a null grid": spec_text(grid=None),
    "no included block": spec_text(include=[]),
    "an empty exclude entry": spec_text(exclude=[{}]),
    "a list for base": spec_text(base=[]),  # type: ignore[arg-type]
    "no moments": spec_text({**SPARSE, "optimizer": {"name": "adam", "betas": [0.9]}}),
    "a time limit of zero": spec_text(slurm={"timeout_min": 0}),
    "an unknown device": spec_text({**SPARSE, "device": "gpu"}),
}


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_the_schema_and_the_reader_both_accept(text: str) -> None:
    assert reader_accepts(text)
    assert [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))] == []


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_the_schema_and_the_reader_both_refuse(text: str) -> None:
    assert not reader_accepts(text)
    assert not accepts(text)


@pytest.mark.parametrize(
    ("value", "right"),
    [({"reach": 0.95}, True), ({"reach": 1}, True), ({"reach": 0}, False), ({"reach": 1.2}, False), ({}, False),
     ({"rech": 0.9}, False), ({"reach": "0.9"}, False)],
    ids=str,
)  # fmt: skip
def test_an_exploration_rate_to_reach_stands_for_an_interval(value: Any, right: bool) -> None:
    assert accepts(spec_text({**SPARSE, "update_interval": value})) == right
    assert accepts(spec_text(grid={"update_interval": [value, 5]})) == right
    assert accepts(spec_text(grid={"seed": 2}, exclude=[{"update_interval": value}])) == right
