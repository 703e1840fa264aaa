"""A spec and its `--set` overrides → the runs it asks for, each once."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from itopctl.config.identity import run_id
from itopctl.config.own_code import OwnCode
from itopctl.config.reading import Document, KeyPath, read_text
from itopctl.config.resolve import Solve, resolve, steps_of_epochs, with_interval
from itopctl.config.run_config import RunConfig
from itopctl.config.sweep import Block, Settings, SweepSpec, Written, overlay, settings_of
from itopctl.errors import UserError, plural

DEFAULT_LIMIT = 10_000
MOST_LISTED = 1_000_000
"""Values in the lists and mappings of settings and in `exclude`, counted once for every point they are read for."""

_COMPARABLE = 1e15  # above it, integers and floats are compared exactly or not at all


@dataclass(frozen=True)
class Expansion:
    """The runs of one spec.

    Attributes:
        runs: run id → config, in the order of the spec, each once.
        points: combinations before duplicates collapsed, those left out not counted.
        excluded: combinations left out by `exclude`.
        ignored: (`dense`, `adam`, …, settings that mean nothing for it) → how many points had them.
        warnings: sentences for a person.
        solved: exploration rate to reach → the update intervals, in steps, that were found for it.
    """

    runs: dict[str, RunConfig]
    points: int
    excluded: int
    ignored: Mapping[tuple[str, tuple[str, ...]], int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    solved: Mapping[float, tuple[int, ...]] = field(default_factory=dict)

    @property
    def duplicates(self) -> int:
        """Points that turned out to be a run already there."""
        return self.points - len(self.runs)


def parse_overrides(pairs: Sequence[str], option: str = "--set") -> Settings:
    """`key=value` arguments as settings; the value is YAML. The last of a key wins; `option`: for errors."""
    settings: Settings = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        source = f"{option} {pair}"
        if not equals or not key.strip():
            raise UserError(f"{source}: key=value expected, such as {option} epochs=1.")
        document = Document(source, text, {key.strip(): read_text(text, source).data})
        settings = overlay(settings, settings_of(document, (), document.data))
    return settings


def expand(
    spec: SweepSpec, overrides: Settings | None = None, limit: int = DEFAULT_LIMIT, solve: Solve | None = None,
    own_code: OwnCode | None = None,
) -> Expansion:  # fmt: skip
    """All runs of a spec.

    Args:
        spec: a parsed spec.
        overrides: settings that win over everything in the file.
        limit: the most points a spec may have.
        solve: finds the update interval that reaches an exploration rate; called only for runs that ask for one, and
            are not left out. A run is known by the interval that was found.
        own_code: the user's own modules, whose digests go into the configs; by default as they are now.

    Raises:
        UserError: a setting is wrong, there is nothing to run, or more than `limit` points.
    """
    total = sum(block.size for block in spec.blocks)
    if total > limit:
        raise spec.document.error(
            (),
            f"expands to {total:,} runs, more than the limit of {limit:,}; raise it with --max-runs {total}.",
        )
    _check_lists(spec, overrides or {})
    runs: dict[str, RunConfig] = {}
    ignored: Counter[tuple[str, tuple[str, ...]]] = Counter()
    points = excluded = 0
    warnings: list[str] = []
    solved: dict[float, dict[int, None]] = {}
    own_code = own_code or OwnCode()
    for block in spec.blocks:
        matched = [0] * len(block.exclude)
        for written in _points(block, overrides or {}):
            resolved = resolve(written, spec.document)
            hit = _left_out(block, resolved.config, written)
            if hit is None and resolved.reach is not None:
                reach, resolved = resolved.reach, with_interval(resolved, written, solve)
                hit = _left_out(block, resolved.config, written)
                if hit is None:
                    solved.setdefault(reach, {})[resolved.config.update_interval or 0] = None
            if hit is not None:
                matched[hit] += 1
                excluded += 1
                continue
            points += 1
            config = own_code.recorded_in(resolved.config)
            runs.setdefault(run_id(config), config)
            for reason in sorted(set(resolved.ignored.values())):
                names = tuple(sorted(name for name, why in resolved.ignored.items() if why == reason))
                ignored[reason, names] += 1
        warnings += _idle_excludes(spec, block, matched)
    if not runs:
        left_out = f": all {plural(excluded, 'point')} left out by exclude" if excluded else ""
        raise spec.document.error((), f"expands to no run at all{left_out}.")
    warnings += dict.fromkeys(text for config in runs.values() if (text := _never_updates(spec, config)))
    intervals = {reach: tuple(sorted(found)) for reach, found in solved.items()}
    return Expansion(runs, points, excluded, dict(ignored), tuple(warnings), intervals)


def _check_lists(spec: SweepSpec, overrides: Settings) -> None:
    """Raise UserError where long lists, or many of them, would take minutes to read for every point."""
    listed: Counter[KeyPath] = Counter()
    met: dict[KeyPath, Written] = {}

    def count(settings: Settings, points: int, least: int = 0) -> None:
        for one in settings.values():
            listed[one.path] += points * max(least, _length(one.value))
            met[one.path] = one

    for block in spec.blocks:
        count(block.base, block.size)
        count(overrides, block.size)
        for axis in block.axes:
            for point in axis:
                count(point, block.size // len(axis))
        for entry in block.exclude:
            count(entry, block.size, least=1)
    if listed.total() > MOST_LISTED:
        first = met[max(listed, key=listed.__getitem__)]
        raise first.document.error(
            first.path,
            f"the lists and mappings of this sweep, read for each of its runs, come to {listed.total():,} values, more "
            f"than {MOST_LISTED:,}; make them shorter, or several sweeps of this one.",
        )


def _length(value: Any) -> int:
    return len(value) if isinstance(value, (list, dict)) else 0


def _points(block: Block, overrides: Settings) -> Iterable[Settings]:
    for combination in itertools.product(*block.axes):
        written = block.base
        for point in combination:
            written = overlay(written, point)
        yield overlay(written, overrides)


def _left_out(block: Block, config: RunConfig, written: Settings) -> int | None:
    """Index of the first exclude entry that a run matches."""
    return next((i for i, entry in enumerate(block.exclude) if _matches(config, written, entry)), None)


def _matches(config: RunConfig, written: Settings, entry: Settings) -> bool:
    """Whether a run has every value of an exclude entry; a list stands for any of its values.

    A value may be given as it was typed for the run (`"1 epoch"`, milestones in epochs) or as it was resolved.
    """
    for name, wanted in entry.items():
        found = _setting(config, name)
        if found is None:
            return False
        typed = written[name].value if name in written else None
        values = wanted.value if isinstance(wanted.value, list) and not isinstance(found, tuple) else [wanted.value]
        if not any(_equal(found, _in_steps(config, name, value)) or _equal(typed, value) for value in values):
            return False
    return True


def _setting(config: RunConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else getattr(value, part, None)
    return value


def _in_steps(config: RunConfig, name: str, value: Any) -> Any:
    """An update interval in epochs as the steps it is for this run; anything else as it is."""
    if name != "update_interval" or not isinstance(value, str):
        return value
    return steps_of_epochs(value, config.steps_per_epoch)


def _equal(found: Any, wanted: Any) -> bool:
    """Equal as settings are: a truth value is no number, and 0.1 is 0.1 whatever its last bit."""
    if isinstance(found, bool) or isinstance(wanted, bool):
        return found is wanted
    if isinstance(found, (int, float)) and isinstance(wanted, (int, float)):
        return found == wanted or (abs(wanted) < _COMPARABLE and abs(found - wanted) < 1e-12)
    return bool((list(found) if isinstance(found, tuple) else found) == wanted)


def _never_updates(spec: SweepSpec, config: RunConfig) -> str | None:
    """A warning, where a dynamic method has no topology update within its training."""
    interval, schedule = config.update_interval, config.drop_schedule
    if interval is None or schedule is None or interval < schedule.stop * config.total_steps:
        return None
    total, end = config.total_steps, math.ceil(schedule.stop * config.total_steps)
    epochs = math.floor(interval / (schedule.stop * config.steps_per_epoch)) + 1
    never = f"{spec.name}: {config.method} with an update interval of {interval:,} steps never updates"
    remedy = f"it is a static network; an interval below {end:,} steps, or {epochs:,} epochs, would update it"
    if interval >= total:
        return f"{never} in {total:,} steps on {config.dataset}: {remedy}"
    return f"{never} on {config.dataset}, where ζ ends after {end:,} of {total:,} steps (drop_schedule.stop): {remedy}"


def _idle_excludes(spec: SweepSpec, block: Block, matched: list[int]) -> Iterable[str]:
    for entry, count in zip(block.exclude, matched, strict=True):
        if not count:
            first = next(iter(entry.values()))
            said = ", ".join(f"{name}: {written.value}" for name, written in entry.items())
            yield str(spec.document.error(first.path[:-1], f"{{{said}}} matches no run."))
