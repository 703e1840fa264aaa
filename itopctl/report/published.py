"""Published results (`published.yaml`), and how results of one's own compare with them.

Numbers are given as they were printed; what was not printed, or could not be read, is None and stays so.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import yaml

from itopctl.report.groups import Group, hashable, in_words, short_name
from itopctl.report.statistics import Summary
from itopctl.report.table import Record

_WORDS = {"training_multiplier": "training", "optimizer.weight_decay": "weight decay"}


@dataclass(frozen=True)
class Source:
    """Where numbers were published.

    Attributes:
        id: short name, for machine-readable output.
        short: its name in a legend.
        cite: authors, title, year, place.
        secondary: whether the numbers were read in another project's transcription, not in the work itself.
        seeds: runs behind each number; None where that is not known.
        remark: a sentence about the numbers, or "".
    """

    id: str
    short: str
    cite: str
    secondary: bool
    seeds: int | None
    remark: str


@dataclass(frozen=True)
class Published:
    """One published result. Accuracies, rates and ratios are fractions.

    Attributes:
        source: where it stands.
        dataset, model, method, sparsity: what was trained.
        settings: what is known of the recipe, by the dotted names of a run's settings.
        accuracy, std: mean and standard deviation of the test accuracy.
        exploration_rate, train_flops_ratio, inference_flops_ratio: as printed.
    """

    source: Source
    dataset: str
    model: str
    method: str
    sparsity: float
    settings: Mapping[str, Any]
    accuracy: float
    std: float | None = None
    exploration_rate: float | None = None
    train_flops_ratio: float | None = None
    inference_flops_ratio: float | None = None

    @property
    def variant(self) -> tuple[tuple[str, Any], ...]:
        """What tells results of one source and method apart, the sparsity aside."""
        names = ("allocation", "training_multiplier")
        return tuple((name, self.settings[name]) for name in names if name in self.settings)

    @property
    def label(self) -> str:
        """Source and variant as a legend names them, such as `RigL erk 5×`."""
        training = self.settings["training_multiplier"]
        parts = [self.source.short, self.settings.get("allocation", ""), f"{training:g}×" if training != 1 else ""]
        return " ".join(filter(None, parts))

    def differing(self, group: Group) -> dict[str, tuple[Any, Any]]:
        """Setting → (theirs, ours), where the recipes are known to differ.

        A setting that is different in several runs of the group, or means nothing for them, is passed over.
        """
        ours = group.runs[0]["settings"]
        found = {}
        for name, theirs in self.settings.items():
            mine = ours.get(name, 1.0 if name == "training_multiplier" else None)
            if mine is not None and hashable(mine) != hashable(theirs):
                found[name] = (theirs, mine)
        return found

    def nearest(self, groups: list[Group]) -> Group:
        """Of one's own groups of the same method and sparsity, the one whose recipe differs least."""
        return min(groups, key=lambda group: (len(self.differing(group)), not group.finished))


@dataclass(frozen=True)
class Comparison:
    """A result of one's own beside a published one.

    Attributes:
        difference: ours − theirs, in accuracy as a fraction.
        within_noise: whether that is at most two standard deviations of the difference between one run of ours and one
            of theirs, 2·√(s² + s²); None where either deviation is not known.
    """

    difference: float
    within_noise: bool | None


def compare(ours: Summary, theirs: Published) -> Comparison:
    """Compare the mean of one's own runs with a published mean."""
    difference = ours.mean - theirs.accuracy
    if ours.std is None or theirs.std is None:
        return Comparison(difference, None)
    return Comparison(difference, abs(difference) <= 2 * math.hypot(ours.std, theirs.std))


def differences_in_words(differing: Mapping[str, tuple[Any, Any]]) -> str:
    """`epochs 250 there, 10 here; ΔT 4000 there, 800 here`."""
    return "; ".join(
        f"{_WORDS.get(name, short_name(name))} {in_words(theirs)} there, {in_words(ours)} here"
        for name, (theirs, ours) in differing.items()
    )


def published_for(dataset: str, model: str) -> list[Published]:
    """Published results for a data set and a model, in the order of the file."""
    return [found for found in _everything()[1] if (found.dataset, found.model) == (dataset, model)]


def sources_for(dataset: str, model: str) -> list[Source]:
    """Sources that are about a data set and a model, those included whose numbers are not known."""
    about, results = _everything()
    named = [source for source, place in about if place == (dataset, model)]
    return list(dict.fromkeys([*named, *(r.source for r in results if (r.dataset, r.model) == (dataset, model))]))


@functools.cache
def _everything() -> tuple[list[tuple[Source, tuple[str, str]]], list[Published]]:
    text = files("itopctl.report").joinpath("published.yaml").read_text(encoding="utf-8")
    about, results = [], []
    for entry in yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        secondary = entry["transcription"] == "secondary"
        source = Source(
            entry["id"], entry["short"], entry["cite"], secondary, entry.get("seeds"), entry.get("remark", "")
        )
        about.append((source, (entry.get("dataset", ""), entry.get("model", ""))))
        results += [_published(source, entry, row) for row in entry["rows"]]
    return about, results


def _published(source: Source, entry: Record, row: Record) -> Published:
    settings = {}
    for name, value in entry["settings"].items():
        if not isinstance(value, dict):
            settings[name] = value
        elif row["method"] in value:
            settings[name] = value[row["method"]]
    if row["method"] == "dense":
        settings.pop("allocation", None)
    elif "allocation" in row:
        settings["allocation"] = row["allocation"]
    settings["training_multiplier"] = float(row.get("training", 1))
    std = row.get("std")
    return Published(
        source, row.get("dataset") or entry["dataset"], row.get("model") or entry["model"], row["method"],
        float(row["sparsity"]), settings, round(row["accuracy"] / 100, 6), None if std is None else round(std / 100, 6),
        row.get("rs"), row.get("train_flops"), row.get("test_flops"),
    )  # fmt: skip
