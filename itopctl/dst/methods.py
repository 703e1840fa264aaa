"""The named methods: each a preset of rules, and the list of settings that mean nothing for it.

Light: data only. A preset's keys are the fields of `itopctl.dst.rules.Rules`; every one can be overridden.
"""

from __future__ import annotations

from itopctl.catalogue import METHODS, rule_settings
from itopctl.dst.rules import NEEDED_IF_DYNAMIC, OWN_ARGS

DYNAMIC = ("redistribution", *NEEDED_IF_DYNAMIC, *rule_settings(), *OWN_ARGS)
"""Settings of the topology update: they mean nothing where the topology never changes."""

SPARSE = (
    "sparsity",
    "allocation",
    "allocation_power",
    "allocation_args",
    "keep_dense",
    "layer_density",
    "dense_in_budget",
    *DYNAMIC,
)
"""Settings of a sparse network: they mean nothing for a dense one."""

_ERK = {"allocation": "erk", "allocation_power": 1.0, "keep_dense": (), "dense_in_budget": True}
_BY_MAGNITUDE = {**_ERK, "drop": "magnitude", "redistribution": "none"}
_RIGL = {
    **_BY_MAGNITUDE,
    "growth": "gradient",
    "drop_fraction": 0.3,
    "drop_schedule": {"name": "cosine", "final": 0.0, "stop": 0.75},
    "update_interval": 100,
    "update_replaces_step": True,
    "replace_rounding": "floor",
}
_ITOP = {
    **_BY_MAGNITUDE,
    "drop_fraction": 0.5,
    "drop_schedule": {"name": "cosine", "final": 0.005, "stop": 1.0},
    "update_replaces_step": False,
    "replace_rounding": "ceil",
}

METHODS.declare(
    "dense",
    summary="every weight is trained; the baseline",
    source="-",
    preset={},
    ignores=SPARSE,
)
METHODS.declare(
    "static",
    summary="a random sparse network whose topology never changes",
    source="Mocanu et al. 2018; Evci et al. 2020 (arXiv 1911.11134), 'Static'",
    preset=_ERK,
    ignores=DYNAMIC,
)
METHODS.declare(
    "set",
    summary="SET: drop the smallest weights, grow at random, once an epoch",
    source="Mocanu et al., Nature Communications 2018 (arXiv 1707.04780)",
    preset={
        **_BY_MAGNITUDE,
        "growth": "random",
        "drop_fraction": 0.3,
        "drop_schedule": {"name": "constant", "final": 0.0, "stop": 1.0},
        "update_interval": "1 epoch",
        "update_replaces_step": False,
        "replace_rounding": "ceil",
    },
    ignores=(),
)
METHODS.declare(
    "rigl",
    summary="RigL: drop the smallest weights, grow where the dense gradient is largest",
    source="Evci et al., ICML 2020 (arXiv 1911.11134)",
    preset=_RIGL,
    ignores=(),
)
METHODS.declare(
    "snfs",
    summary="SNFS: drop the smallest weights, grow and redistribute by the momentum of the dense gradient",
    source="Dettmers and Zettlemoyer 2019 (arXiv 1907.04840)",
    preset={**_ITOP, "growth": "momentum", "redistribution": "momentum", "update_interval": "1 epoch"},
    ignores=(),
)
METHODS.declare(
    "set-itop",
    summary="SET with ITOP's longer update interval: random growth, reliably explored",
    source="Liu et al., ICML 2021 (arXiv 2102.02887)",
    preset={**_ITOP, "growth": "random", "update_interval": 1500},
    ignores=(),
)
METHODS.declare(
    "rigl-itop",
    summary="RigL with ITOP's longer update interval: gradient growth, reliably explored",
    source="Liu et al., ICML 2021 (arXiv 2102.02887)",
    preset={**_ITOP, "growth": "gradient", "update_interval": 4000},
    ignores=(),
)
METHODS.declare(
    "mest",
    summary="MEST (its elastic mutation): drop by |w| + λ·|gradient|, grow at random, ever less of it",
    source="Yuan et al., NeurIPS 2021 (arXiv 2110.14032; intervals and fractions as in its released CIFAR scripts)",
    preset={
        **_BY_MAGNITUDE,
        "allocation": "uniform",
        "drop": "mest",
        "growth": "random",
        "drop_fraction": 0.2,
        "drop_schedule": {"name": "linear", "final": 0.0, "stop": 0.75},
        "update_interval": "5 epochs",
        "update_replaces_step": False,
        "replace_rounding": "floor",
    },
    ignores=(),
)
METHODS.declare(
    "dst-ee",
    summary="DST-EE: RigL that also grows what was seldom active, |gradient| + c·ln t / (N + ε)",
    source="Huang et al., DAC 2023 (arXiv 2211.16667; interval, fraction, c and ε are RigL's and ours: unverified)",
    preset={**_RIGL, "growth": "gradient-plus-exploration"},
    ignores=(),
)
METHODS.declare(
    "gse",
    summary="GSE: grow the largest gradients among as many random candidates as there are weights",
    source="Heddes et al. 2024 (arXiv 2401.06898), with uniform candidates; its code ranks over the whole network",
    preset={
        **_BY_MAGNITUDE,
        "allocation": "er",
        "growth": "sampled-gradient",
        "drop_fraction": 0.2,
        "drop_schedule": {"name": "cosine", "final": 0.0, "stop": 0.6},
        "update_interval": 1000,
        "update_replaces_step": False,
        "replace_rounding": "floor",
    },
    ignores=(),
)
