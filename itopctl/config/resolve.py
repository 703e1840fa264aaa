"""What was written for one run, plus the presets of its method, optimizer and schedule: a full run config.

Order, later wins: defaults of the fields · the method's preset · base · grid and zip · `--set`. Settings that
mean nothing for the run (an update interval for `dense`, betas for `sgd`) are dropped and reported.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from itopctl.catalogue import (
    ALLOCATIONS,
    ARGS,
    DATASETS,
    DROP_SCHEDULES,
    DROPS,
    GROWTHS,
    METHODS,
    MODELS,
    REDISTRIBUTIONS,
    RULES,
    Catalogue,
    is_own_setting,
    is_user_function,
    own_settings,
    rule_settings,
    settings_of_rule,
)
from itopctl.config.reading import Document
from itopctl.config.run_config import RunConfig, steps_per_epoch, user_functions
from itopctl.config.sweep import PARTS, Settings
from itopctl.errors import UserError, nearest, plural, quoted
from itopctl.settings import filled

NAMED: dict[str, Catalogue] = {
    "dataset": DATASETS,
    "model": MODELS,
    "method": METHODS,
    "allocation": ALLOCATIONS,
    "drop": DROPS,
    "growth": GROWTHS,
    "redistribution": REDISTRIBUTIONS,
}
"""Settings whose value is a name in a catalogue."""

_EPOCHS = re.compile(r"(\d+(?:\.\d+)?)\s*epochs?")
_INTERVAL_EXPECTED = (
    "whole steps of at least 1 expected, such as 1500, or epochs, such as '1 epoch', or the exploration rate to reach, "
    "such as {reach: 0.95}"
)
_REACH_EXPECTED = "an exploration rate in (0, 1] expected, such as {reach: 0.95}"
_UNSOLVED = 10**12  # stands for an interval that is yet to be found; no training is as long

Solve = Callable[[RunConfig, float], int]
"""From a run, whose update interval is yet to be found, and the exploration rate to reach: the interval in steps.

Raises UserError where no interval reaches it.
"""

_DENSITY_EXPECTED = "a density is a number in (0, 1], at least 1e-12"

_OPTIMIZER_PRESETS: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 5e-4},
    "adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
    "adamw": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01},
}
_OPTIMIZER_FIELDS = {"sgd": ("momentum", "nesterov"), "adam": ("betas", "eps"), "adamw": ("betas", "eps")}

_LR_PRESETS: dict[str, dict[str, Any]] = {
    "milestones": {"milestones": (0.5, 0.75), "gamma": 0.1, "warmup": 0.0},
    "cosine": {"warmup": 0.0},
    "one-cycle": {"peak": 0.3},
    "constant": {"warmup": 0.0},
}


@dataclass(frozen=True)
class Resolved:
    """A run config, and what is to be said of it.

    Attributes:
        config: the run.
        ignored: written settings that mean nothing for it: name → for what (`dense`, `adam`, `cosine`).
        reach: the exploration rate that its update interval is to reach, where that is yet to be found
            (`with_interval`).
    """

    config: RunConfig
    ignored: Mapping[str, str]
    reach: float | None = None


def resolve(written: Settings, document: Document) -> Resolved:
    """Resolve one run.

    Args:
        written: flat settings with where they stand.
        document: the file to name where a setting is missing altogether.

    Raises:
        UserError: with file, line and key path of the setting at fault.
    """
    for name, catalogue in NAMED.items():
        if name in written and not (written[name].value is None and name not in ("dataset", "model", "method")):
            _check_name(written, name, catalogue)
    for name in ("dataset", "model", "method"):
        if name not in written:
            raise document.error((), f"a run needs {name}; it is set nowhere.")
    flat = {name: entry.value for name, entry in written.items()}
    if "sparsity" in flat and "density" in flat:
        entry = written["density"]
        raise entry.document.error(entry.path, "sparsity and density both given; they say the same thing: keep one.")
    method = METHODS.get(flat["method"])
    flat, idle = _fill_method(flat, written, method.options, document)
    ignored = dict.fromkeys(idle, method.name)
    ignored |= _fill_rules(flat)
    ignored |= _fill_args(flat, written)
    for part, default, presets, relevant in (
        ("optimizer", "sgd", _OPTIMIZER_PRESETS, _optimizer_relevant),
        ("lr_schedule", "milestones", _LR_PRESETS, _lr_relevant),
    ):
        idle = _fill_part(flat, part, default, presets, relevant)
        ignored |= dict.fromkeys(idle, str(flat[f"{part}.name"]))
    if flat["optimizer.name"] == "sgd":
        flat.setdefault("optimizer.nesterov", bool(flat.get("optimizer.momentum")))
    flat.setdefault("augment", DATASETS.get(flat["dataset"]).options["augment"])
    _settle_positions(flat, written)
    reach = _settle_interval(flat, written)
    config = _validate(flat, written, document)
    for name in ignored:
        _check_idle(name, written, document)
    return Resolved(config, ignored, reach)


def with_interval(resolved: Resolved, written: Settings, solve: Solve | None) -> Resolved:
    """The run with the update interval that reaches the exploration rate it asks for.

    Raises:
        UserError: there is none, with file, line and key path of who asked for it.
    """
    assert resolved.reach is not None
    entry = written["update_interval"]
    if solve is None:
        raise entry.document.error(entry.path, f"found {quoted(entry.value)}; whole steps are needed here.")
    try:
        interval = solve(resolved.config, resolved.reach)
    except UserError as error:
        raise entry.document.error(entry.path, str(error)) from None
    config = resolved.config.model_copy(update={"update_interval": interval})
    _check_batches(config, written)
    return replace(resolved, config=config, reach=None)


def _check_name(written: Settings, name: str, catalogue: Catalogue) -> None:
    entry = written[name]
    if not isinstance(entry.value, str):
        raise entry.document.error(entry.path, f"the name of a {catalogue.kind} expected; found {quoted(entry.value)}.")
    if entry.value not in catalogue:
        try:
            catalogue.get(entry.value)
        except UserError as error:
            raise entry.document.error(entry.path, str(error)) from None


def _fill_method(
    flat: dict[str, Any], written: Settings, options: Mapping[str, Any], document: Document
) -> tuple[dict[str, Any], list[str]]:
    """Put the method's preset underneath, and take out what means nothing for it."""
    ignores = options["ignores"]
    preset: dict[str, Any] = {}
    for name, value in options["preset"].items():
        if name in PARTS:
            preset.update({f"{name}.{inner}": inner_value for inner, inner_value in value.items()})
        else:
            preset[name] = value
    ignored = [name for name in flat if name.split(".")[0] in ignores or (name == "density" and "sparsity" in ignores)]
    merged = {**preset, **{name: value for name, value in flat.items() if name not in ignored}}
    if "sparsity" in ignores:
        merged["sparsity"] = 0.0
    elif "density" in merged:
        entry, density = written["density"], merged.pop("density")
        if not _is_density(density):
            raise entry.document.error(entry.path, f"found {quoted(density)}; {_DENSITY_EXPECTED}.")
        merged["sparsity"] = round(1.0 - density, 12)
    elif "sparsity" not in merged:
        entry = written["method"]
        raise entry.document.error(entry.path, f"{entry.value} needs a sparsity (or density); it is set nowhere.")
    elif isinstance(merged["sparsity"], float):
        merged["sparsity"] = round(merged["sparsity"], 12)
    return merged, ignored


def _fill_rules(flat: dict[str, Any]) -> dict[str, str]:
    """Put in the defaults of the settings that the chosen rules have; returns (and removes) those they have not.

    A rule of the user's own may read any of them.
    """
    rules = {name: flat[name] for name in RULES if isinstance(flat.get(name), str)}
    known = [settings_of_rule(NAMED[kind], name) for kind, name in rules.items()]
    ignored = {}
    for setting in rule_settings():
        defaults = [settings[setting] for settings in known if settings is not None and setting in settings]
        if defaults:
            flat.setdefault(setting, defaults[0])
        elif setting in flat and None not in known:
            del flat[setting]
            ignored[setting] = ", ".join(name for kind, name in rules.items() if name != "none")
    schedule = flat.get("drop_schedule.name")
    if schedule == "constant":
        flat["drop_schedule.final"] = 0.0
    if schedule == "exponential":
        flat.setdefault("drop_schedule.power", DROP_SCHEDULES.get(schedule).options["power"])
    elif flat.pop("drop_schedule.power", None) is not None:
        ignored["drop_schedule.power"] = str(schedule)
    return ignored


def _fill_args(flat: dict[str, Any], written: Settings) -> dict[str, str]:
    """Put the settings of the user's own functions together, with their defaults; returns what means nothing here.

    Raises:
        UserError: a function has no such setting, or a value is of another type or out of range.
    """
    ignored: dict[str, str] = {}
    for args, named in ARGS.items():
        given = {name: flat.pop(name) for name in [*flat] if name.startswith(f"{args}.")}
        function = flat.get(named)
        if not isinstance(function, str) or not is_user_function(function):
            ignored |= dict.fromkeys(given, str(function))
            continue
        inner = {name.partition(".")[2]: value for name, value in given.items()}
        where = written[next(iter(given), named)]
        try:
            declared = own_settings(function, named)
            for name in inner:
                where = written[f"{args}.{name}"]
                filled(declared, {name: inner[name]}, args, function)
            if declared:
                flat[args] = filled(declared, inner, args, function)
        except UserError as error:
            raise where.document.error(where.path, str(error)) from None
    return ignored


def _is_density(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 1e-12 <= value <= 1.0


def _fill_part(
    flat: dict[str, Any], part: str, default: str, presets: dict[str, dict[str, Any]], relevant: Any
) -> list[str]:
    """Fill a part's preset by its `name`; returns (and removes) the settings another name would need."""
    name = flat.setdefault(f"{part}.name", default)
    if not isinstance(name, str) or name not in presets:
        return []
    ignored = [
        f"{part}.{inner}"
        for inner in PARTS[part].model_fields
        if f"{part}.{inner}" in flat and inner != "name" and not relevant(name, inner)
    ]
    for setting in ignored:
        del flat[setting]
    for inner, value in presets[name].items():
        flat.setdefault(f"{part}.{inner}", value)
    return ignored


def _optimizer_relevant(name: str, inner: str) -> bool:
    return inner in ("lr", "weight_decay") or inner in _OPTIMIZER_FIELDS[name]


def _lr_relevant(name: str, inner: str) -> bool:
    return inner in _LR_PRESETS[name]


def _settle_positions(flat: dict[str, Any], written: Settings) -> None:
    """Milestones in epochs become fractions of training; they must rise."""
    name = "lr_schedule.milestones"
    positions, epochs = flat.get(name), flat.get("epochs")
    if not isinstance(positions, (list, tuple)) or not isinstance(epochs, int) or epochs < 1:
        return
    numbers = [p for p in positions if isinstance(p, (int, float)) and not isinstance(p, bool)]
    if len(numbers) != len(positions):
        return  # the schema says what is wrong
    fractions = [round(p / epochs if 1 <= p < epochs else float(min(max(p, -1), 1)), 12) for p in numbers]
    rising = all(a < b for a, b in zip([0.0, *fractions], fractions, strict=False))
    if not rising or (fractions and fractions[-1] >= 1.0):
        entry = written[name]
        raise entry.document.error(
            entry.path,
            f"found {quoted(positions)} for {plural(epochs, 'epoch')}; rising positions inside training expected: "
            "epochs from 1 on, or fractions between 0 and 1, which stretch with epochs.",
        )
    flat[name] = tuple(fractions)


def _settle_interval(flat: dict[str, Any], written: Settings) -> float | None:
    """An update interval in epochs becomes steps; returns the exploration rate that one is to reach, if that is asked.

    What stands for the interval until it is found is longer than any training.
    """
    value = flat.get("update_interval")
    if isinstance(value, Mapping):
        flat["update_interval"] = _UNSOLVED
        return _reach(value, written)
    if not isinstance(value, str):
        return None
    try:
        validation, batch_size = (flat.get(n, RunConfig.model_fields[n].default) for n in ("validation", "batch_size"))
        per_epoch = steps_per_epoch(flat["dataset"], float(validation), int(batch_size))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        per_epoch = 1  # validation or batch_size is at fault, and the schema says so
    steps = steps_of_epochs(value, per_epoch)
    if steps is None:
        entry = written["update_interval"]
        raise entry.document.error(entry.path, f"found {quoted(value)}; {_INTERVAL_EXPECTED}.")
    flat["update_interval"] = steps
    return None


def _reach(value: Mapping[str, Any], written: Settings) -> float:
    """The exploration rate of `{reach: 0.95}`. Raises UserError where that is not what was written."""
    entry = written["update_interval"]
    rate = value.get("reach")
    is_number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if set(value) != {"reach"} or rate is None or not is_number or not 0.0 < rate <= 1.0:
        raise entry.document.error(entry.path, f"found {quoted(value)}; {_REACH_EXPECTED}.")
    return float(rate)


def steps_of_epochs(text: str, steps_per_epoch: int) -> int | None:
    """`"1.5 epochs"` as optimizer steps; None where it is not of that form, or less than a step."""
    match = _EPOCHS.fullmatch(text.strip())
    steps = float(match[1]) * steps_per_epoch if match else 0.0
    return round(steps) if math.isfinite(steps) and round(steps) >= 1 else None


def _validate(flat: dict[str, Any], written: Settings, document: Document) -> RunConfig:
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        part, _, inner = name.partition(".")
        if inner:
            nested.setdefault(part, {})[inner] = value
        else:
            nested[name] = value
    try:
        config = RunConfig.model_validate(nested)
    except ValidationError as error:
        raise _explain(error, written, document) from None
    for name in METHODS.get(config.method).options["preset"]:
        if getattr(config, name) is None:  # a preset is never null, so somebody wrote it
            entry = written[name]
            raise entry.document.error(entry.path, f"found null; {config.method} needs it ({describe(name)}).")
    if config.optimizer.nesterov and not config.optimizer.momentum:
        entry = written["optimizer.nesterov"]  # on its own it follows the momentum
        raise entry.document.error(entry.path, "nesterov needs a momentum above 0.")
    _check_batches(config, written)
    _check_compute(config, written)
    return config


def _check_batches(config: RunConfig, written: Settings) -> None:
    batches, interval = config.setting("gradient_batches") or 1, config.update_interval
    if batches > 1 and interval is not None and batches >= interval:
        entry = written["gradient_batches"]
        raise entry.document.error(entry.path, f"found {batches}; less than update_interval ({interval}) expected.")


def _check_compute(config: RunConfig, written: Settings) -> None:
    if config.compute != "sparse":
        return
    reads_momentum = config.setting("momentum_decay") is not None and not user_functions(config.model_dump())
    reasons = {
        "compile is true": config.compile,
        f"precision is {config.precision}": config.precision != "fp32",
        f"a rule of {config.method} reads the moving average of all weights' gradients": reads_momentum,
    }
    for reason, holds in reasons.items():
        if holds:
            entry = written["compute"]
            raise entry.document.error(entry.path, f"sparse is not possible where {reason}; auto or masked expected.")


def _check_idle(name: str, written: Settings, document: Document) -> None:
    """Raise UserError where a setting that means nothing for the run has a value that no run could have."""
    entry = written[name]
    if name == "density":
        if not _is_density(entry.value):
            raise entry.document.error(entry.path, f"found {quoted(entry.value)}; {_DENSITY_EXPECTED}.")
        return
    if name == "update_interval" and isinstance(entry.value, Mapping):
        _reach(entry.value, written)
        return
    if name == "update_interval" and isinstance(entry.value, str):
        if steps_of_epochs(entry.value, 1_000_000) is None:
            raise entry.document.error(entry.path, f"found {quoted(entry.value)}; {_INTERVAL_EXPECTED}.")
        return
    if is_own_setting(name):
        return
    try:
        _field_adapter(name).validate_python(entry.value)
    except ValidationError as error:
        raise _explain(error, written, document, name) from None


@functools.cache
def _field_adapter(name: str) -> TypeAdapter[Any]:
    """Checks one setting alone, as the schema of the whole run would."""
    part, _, inner = name.partition(".")
    field = (PARTS[part] if inner else RunConfig).model_fields[inner or part]
    annotation: Any = Annotated[field.annotation, field]
    return TypeAdapter(annotation, config=ConfigDict(strict=True, allow_inf_nan=False))


def _explain(error: ValidationError, written: Settings, document: Document, name: str | None = None) -> UserError:
    """The first complaint of the schema, as a sentence with a place; `name` where it is of one setting alone."""
    first = error.errors(include_url=False)[0]
    if name is None:
        parts = [str(part) for part in first["loc"]]
        name = ".".join(parts[:2]) if parts[0] in PARTS else parts[0]
    if first["type"] == "missing" and name not in written:
        return document.error((), f"a run needs {name}; it is set nowhere.")
    allowed = first["msg"].replace("Input should be", "").replace("a valid tuple", "a list").strip()
    found = first["input"]
    said = quoted(found)
    message = f"found {said}; {allowed} expected" if "Input should be" in first["msg"] else f"found {said}: {allowed}"
    if first["type"] == "literal_error" and isinstance(found, str):
        guess = nearest(found, re.findall(r"'([^']+)'", allowed))
        message += f". Did you mean {guess!r}?" if guess else "."
    else:
        message += f" ({describe(name)})."
    entry = written.get(name)
    return entry.document.error(entry.path, message) if entry else document.error((), f"{name}: {message}")


def describe(name: str) -> str:
    """The description of a setting, by its dotted name."""
    part, _, inner = name.partition(".")
    model = PARTS[part] if inner else RunConfig
    return model.model_fields[inner or part].description or ""
