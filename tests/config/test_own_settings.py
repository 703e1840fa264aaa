"""Settings that functions of the user's own declare: read from the source, filled in, hashed, swept."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import itopctl
from itopctl.catalogue import comparable, rule_settings
from itopctl.config.editor import json_schema
from itopctl.config.identity import run_id
from itopctl.config.run_config import RunConfig, defining_settings
from itopctl.dst import Rules, SparseTraining
from itopctl.dst.rules import DropSchedule
from itopctl.errors import UserError
from itopctl.settings import Setting, read_declaration, setting

RULES = """
import torch
from itopctl.dst import model, rule, setting


@rule(needs=["gradient"], settings={
    "temperature": setting(1.0, "of the noise", above=0), "form": setting("flat", choices=("flat", "round")),
    "warm": True, "times": 2,
})
def noisy(layer, temperature, form, warm, times):
    assert (form, warm) == ("round", True) and isinstance(temperature, float) and times == 3
    return layer.gradient.abs() + temperature


@rule()
def plain(layer):
    return layer.weight.abs()


@rule(settings={"gradient_weight": 0.5})
def shared(layer, gradient_weight):
    return layer.weight.abs() * gradient_weight


@model(settings={"width": setting(16, at_least=1)})
def net(input_shape, classes, width):
    from torch import nn
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, classes))


@model(settings={"slope": 1.0})
def sloped(shape, power, slope):
    return slope / shape[0]


def configured(settings):
    return lambda function: function


@configured(settings=dict(width=3))
@model(settings={"drop_threshold": 0.5})
def threshold_net(input_shape, classes, drop_threshold):
    return net(input_shape, classes, 4) if drop_threshold == 0.25 else None


HALF = 0.5


@rule(settings={"share": HALF})
def computed(layer, share):
    return layer.weight
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands are typed in, with rules of the user's own."""
    (tmp_path / "own_rules.py").write_text(RULES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_rules", raising=False)
    return tmp_path


def spec(grid: dict[str, Any] | None = None, **base: Any) -> dict[str, Any]:
    return {
        "name": "own",
        "base": {"dataset": "digits", "model": "lenet-300-100", "method": "set-itop", "sparsity": 0.9, "epochs": 1,
                 "update_interval": 5, **base},
        "grid": {"seed": 1, **(grid or {})},
    }  # fmt: skip


@pytest.fixture
def project(here: Path) -> itopctl.Project:
    return itopctl.Project(here / "results")


def planned(project: itopctl.Project, grid: dict[str, Any] | None = None, **base: Any) -> list[RunConfig]:
    return list(project.plan(spec(grid, **base)).configs.values())


def refused(project: itopctl.Project, grid: dict[str, Any] | None = None, **base: Any) -> str:
    with pytest.raises(UserError) as caught:
        planned(project, grid, **base)
    return str(caught.value)


def test_a_rule_with_a_setting_of_its_own_costs_one_file_of_the_users(project: itopctl.Project) -> None:
    """From a spec to a column of the results, nothing but the user's file knows the setting."""
    outcome = project.run(
        spec(
            {"growth_args.temperature": [0.5, 2.0]},
            growth="own_rules:noisy",
            growth_args={"form": "round", "times": 3},
        ),
        workers=1,
    )
    assert outcome.ok, outcome.failed
    frame = project.runs()
    assert sorted(frame["growth_args.temperature"]) == [0.5, 2.0] and set(frame["growth_args.form"]) == {"round"}
    assert len(project.runs(where="growth_args.temperature > 1")) == 1
    [table] = project.report(table="pivot", rows="growth_args.temperature", cell="accuracy")
    assert len(table.records) == 2
    assert any("temperature" in str(record) for record in project.report(table="paper")[0].records)


def test_all_settings_stand_in_the_config_and_count_in_the_hash(project: itopctl.Project) -> None:
    [run] = planned(project, growth="own_rules:noisy")
    assert run.args("growth") == {"temperature": 1.0, "form": "flat", "warm": True, "times": 2}
    [same] = planned(project, growth="own_rules:noisy", growth_args={"temperature": 1, "warm": True})
    [other] = planned(project, growth="own_rules:noisy", growth_args={"temperature": 2})
    assert run_id(run) == run_id(same) != run_id(other)
    assert defining_settings(other.model_dump(mode="json"))["growth_args.temperature"] == 2.0
    assert comparable("growth_args.temperature", {"growth": "a:b"}) != comparable("growth_args.temperature", {})


def test_a_rule_without_settings_has_the_hash_it_had(project: itopctl.Project) -> None:
    [run] = planned(project, growth="own_rules:plain")
    stored = {name: value for name, value in run.model_dump(mode="json").items() if not name.endswith("_args")}
    assert run.args("growth") == {} and run_id(RunConfig.model_validate(stored)) == run_id(run)


def test_a_setting_of_this_packages_rules_stays_where_it_was(project: itopctl.Project) -> None:
    [run] = planned(project, drop="own_rules:shared", gradient_weight=0.25)
    assert run.setting("gradient_weight") == 0.25 and run.args("drop") == {}
    rules = Rules.of_settings(run.model_dump())
    from itopctl.catalogue import DROPS

    assert rules.settings_for("drop", DROPS, "own_rules:shared") == {"gradient_weight": 0.25}


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"temperture": 1}, "setting of own_rules:noisy in growth_args 'temperture'. Did you mean 'temperature'?"),
        ({"temperature": 0}, "growth_args.temperature is 0.0; it must be above 0."),
        ({"temperature": "hot"}, "growth_args.temperature is 'hot'; it must be a number."),
        ({"temperature": True}, "must be a number"),
        ({"times": 1.5}, "growth_args.times is 1.5; it must be a whole number."),
        ({"form": "rond"}, "Did you mean 'round'?"),
        ({"warm": 1}, "true or false"),
        ({"temperature": 10**400}, "growth_args.temperature is too large a number"),
        (3, "a mapping of settings of your own function expected; found 3."),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_told_where_it_stands(project: itopctl.Project, args: Any, said: str) -> None:
    message = refused(project, growth="own_rules:noisy", growth_args=args)
    assert said in message and "base.growth_args" in message


def test_decorators_of_others_are_not_ours_and_names_of_rules_are_free_for_models(project: itopctl.Project) -> None:
    written = spec(model="own_rules:threshold_net", model_args={"drop_threshold": 0.25})
    [run] = project.plan(written).configs.values()
    assert run.args("model") == {"drop_threshold": 0.25}
    project.forecast(written).check()
    assert planned(project, model="own_rules:threshold_net")[0].args("model") == {"drop_threshold": 0.5}


def test_a_function_that_a_module_imports_has_its_settings_all_the_same(project: itopctl.Project, here: Path) -> None:
    (here / "again.py").write_text("from own_rules import noisy as loud\n")
    [run] = planned(project, growth="again:loud", growth_args={"times": 5})
    assert run.args("growth")["times"] == 5 and len(run.args("growth")) == 4


def test_a_decorator_under_another_name_is_read(project: itopctl.Project, here: Path) -> None:
    (here / "renamed.py").write_text(
        "from itopctl import dst\nfrom itopctl.dst import rule as r, setting\n\n\n"
        "@r(settings={'a': setting(-1.5)})\ndef one(layer, a): ...\n\n\n"
        "@dst.rule(settings={'b': 2})\ndef two(layer, b): ...\n"
    )
    assert planned(project, growth="renamed:one")[0].args("growth") == {"a": -1.5}
    assert planned(project, growth="renamed:two", growth_args={"b": 3})[0].args("growth") == {"b": 3}


@pytest.mark.parametrize(
    "written", ["**{'a': 1}", "settings={'a-b': 1}", "settings={'a': setting(1, **{})}", "settings={1: 1}"]
)
def test_what_cannot_be_read_is_told_with_its_line(project: itopctl.Project, here: Path, written: str) -> None:
    (here / "odd.py").write_text(f"from itopctl.dst import rule, setting\n\n\n@rule({written})\ndef f(layer, a): ...\n")
    message = refused(project, growth="odd:f")
    assert "odd.py, line 4" in message and "settings" in message


def test_a_declaration_that_is_computed_cannot_be_read(project: itopctl.Project) -> None:
    message = refused(project, growth="own_rules:computed")
    assert "own_rules.py, line" in message and "must stand there as constants" in message


def test_what_another_rule_has_means_nothing_for_one_of_this_package(project: itopctl.Project) -> None:
    plan = project.plan(spec({"growth": ["random", "own_rules:noisy"]}, growth_args={"times": 3}))
    assert sorted(config.args("growth").get("times", 0) for config in plan.configs.values()) == [0, 3]
    assert any("growth_args.times means nothing for random" in note for note in plan.notes)


def test_settings_are_axes_of_a_grid_a_zip_and_excluded(project: itopctl.Project) -> None:
    grid = {"growth_args": [{"times": 2}, {"times": 3, "form": "round"}], "growth_args.temperature": [1.0, 2.0]}
    assert len(planned(project, grid, growth="own_rules:noisy")) == 4
    written = spec(growth="own_rules:noisy")
    written["zip"] = {"growth_args.times": [1, 2], "growth_args.temperature": [0.1, 0.2]}
    written["exclude"] = [{"growth_args.times": 1}]
    [run] = project.plan(written).configs.values()
    assert (run.args("growth")["times"], run.args("growth")["temperature"]) == (2, 0.2)
    [run] = project.plan(spec(growth="own_rules:noisy"), {"growth_args.times": 7}).configs.values()
    assert run.args("growth")["times"] == 7


def test_a_model_and_an_allocation_have_theirs(project: itopctl.Project) -> None:
    plain, wide = planned(project, {"model_args.width": [8, 32]}, model="own_rules:net", allocation="own_rules:sloped")
    forecast = project.forecast(spec({"model_args.width": [8, 32]}, model="own_rules:net"))
    assert sorted(forecast.to_frame()["maskable"]) == [64 * 8 + 8 * 10, 64 * 32 + 32 * 10]
    assert (plain.args("model"), wide.args("allocation")) == ({"width": 8}, {"slope": 1.0})
    assert project.run(spec(model="own_rules:net", model_args={"width": 4}), workers=1).ok


def test_a_spec_is_checked_without_running_the_file_or_importing_torch(here: Path) -> None:
    (here / "own_rules.py").write_text("raise SystemExit('this file was run')\n" + RULES)
    (here / "spec.yaml").write_text(
        "name: own\nbase: {dataset: digits, model: lenet-300-100, method: set-itop, sparsity: 0.9, epochs: 1,\n"
        "  update_interval: 5, growth: 'own_rules:noisy', growth_args: {times: 3}}\n"
    )
    code = (
        "import sys, itopctl\np = itopctl.Project('results').plan('spec.yaml')\n"
        "[c] = p.configs.values()\nassert c.args('growth')['times'] == 3\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_engine_takes_them_without_a_spec(here: Path) -> None:
    torch.manual_seed(0)
    net = nn.Linear(20, 20)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    sparse = SparseTraining(
        net, optimizer, "set-itop", sparsity=0.8, total_steps=4, update_interval=1, growth="own_rules:noisy",
        growth_args={"form": "round", "times": 3},
    )  # fmt: skip
    net(torch.ones(2, 20)).sum().backward()
    sparse.step()
    other = nn.Linear(20, 20)
    with pytest.raises(UserError, match=r"growth_args.times is 'many'; it must be a whole number"):
        SparseTraining(
            other, torch.optim.SGD(other.parameters(), lr=0.1), "set-itop", sparsity=0.8, total_steps=4,
            update_interval=1, growth="own_rules:noisy", growth_args={"times": "many"},
        )  # fmt: skip


def test_every_setting_of_a_rule_is_declared_once_and_described() -> None:
    schema = json_schema()["properties"]["base"]["properties"]
    for name, declared in rule_settings().items():
        assert schema[name]["description"] == declared.description != ""
        assert RunConfig.model_fields[name].default is None


def test_rules_are_values_that_can_be_compared_and_hashed() -> None:
    ours = Rules.of_method("mest", update_interval=5, gradient_weight=0.5)
    assert ours == Rules.of_method("mest", update_interval=5, gradient_weight=0.5) and hash(ours) == hash(ours)
    assert ours.drop_schedule == DropSchedule("linear", 0.0, 0.75)


numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


@given(low=numbers, span=st.floats(0.01, 5), value=numbers, open_low=st.booleans(), open_high=st.booleans())
def test_ranges_are_what_they_say(low: float, span: float, value: float, open_low: bool, open_high: bool) -> None:
    high = low + span
    limits = {"above" if open_low else "at_least": low, "below" if open_high else "at_most": high}
    declared = Setting(low + span / 2, **limits)  # type: ignore[arg-type]
    inside = (low < value if open_low else low <= value) and (value < high if open_high else value <= high)
    try:
        assert declared.check("it", value) == value and inside
    except UserError as error:
        assert not inside and declared.range in str(error)


@given(
    default=st.one_of(st.booleans(), st.integers(-99, 99), numbers, st.text(max_size=5)),
    description=st.text(max_size=10),
)
def test_what_is_read_from_the_source_is_what_is_declared(default: Any, description: str) -> None:
    written = f"@rule(settings={{'one': {default!r}, 'two': setting({default!r}, {description!r})}})\ndef f(): ..."
    read = read_declaration(ast.parse(written), "f")
    assert read == {"one": setting(default), "two": setting(default, description)}
    assert read_declaration(ast.parse(written), "g") is None


@pytest.mark.parametrize("default", [None, [1], float("nan")])
def test_a_default_that_is_no_value_is_refused(default: Any) -> None:
    with pytest.raises(UserError):
        Setting(default)
