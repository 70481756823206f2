"""Recipes and presets: the values of a run's knobs that are not given by hand.

Two recipes for every method. *controlled*: one network, one meta-optimizer, one budget and one protocol for all, so
that only the lower-level optimizer differs; its values depend on the data set, never on the method. *published*: what
each method's authors ran, width, meta-optimizer, schedule and protocol included, so that a row can be held against the
number in its paper. A *preset* sizes the controlled recipe: ``quick`` for a laptop, ``paper`` for the budget that the
published rows had.

All step sizes are for the *mean* support loss. Code that divides a summed cross-entropy by the shots, as MAML's does,
has an inner gradient `ways` times as large: its 0.01 is 0.05 here in 5-way tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.spec import RunSpec, Value

PRESETS = ("quick", "paper")
FLOOR = "pixels"
"""Nearest centroid on raw pixels: no optimizer, no training, the floor that stands beside the methods."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Values for some of :class:`RunSpec`'s knobs, and where they come from."""

    source: str
    values: Mapping[str, Value]
    options: Mapping[str, Value] = field(default_factory=dict)
    query_is_shots: bool = False
    """The protocol that tests on as many query images per class as there are shots."""


# Controlled: by preset and data set

_QUICK: dict[str, Value] = {"channels": 32, "alpha": 0.1, "validate_every": 250, "validation_tasks": 200}
_PAPER: dict[str, Value] = {"channels": 64, "alpha": 0.05, "iterations": 60_000, "validate_every": 2_000, "validation_tasks": 1_000}

CONTROLLED: dict[str, dict[str, Recipe]] = {
    "quick": {
        "glyphs": Recipe(source="meta-validation, see docs/recipes.md", values=_QUICK | {"iterations": 500}),
        "omniglot": Recipe(source="as glyphs", values=_QUICK | {"iterations": 1_000}),
        "*": Recipe(source="meta-validation on CIFAR-FS, see docs/recipes.md", values=_QUICK | {"iterations": 1_500}),
    },
    "paper": {
        "*": Recipe(source="the budget of Zhang et al., ICASSP 2024, with Adam for all", values=_PAPER),
    },
}

# Published: by method; "*" serves any data set that the method's authors did not report

_MAML: dict[str, Value] = {"channels": 32, "alpha": 0.05, "steps": 5, "eval_steps": 10, "clip": 10.0, "meta_lr": 1e-3, "meta_batch": 4,
         "iterations": 60_000, "tasks": 600}  # fmt: skip
_MAML_OMNIGLOT: dict[str, Value] = _MAML | {"channels": 64, "alpha": 2.0, "steps": 1, "eval_steps": 3, "meta_batch": 32, "clip": 0.0}
_FINN = "Finn et al., ICML 2017 (0.01 and 0.4 on the summed loss)"
_MD: dict[str, Value] = {"channels": 64, "alpha": 0.01, "steps": 5, "eval_steps": 5, "meta_optimizer": "sgd", "meta_lr": 1e-3,
       "momentum": 0.9, "weight_decay": 1e-4, "lr_step": 20_000, "lr_gamma": 0.1, "meta_batch": 4,
       "iterations": 60_000, "tasks": 1_000}  # fmt: skip
_MD_OMNIGLOT: dict[str, Value] = _MD | {"meta_optimizer": "adam", "momentum": 0.0}
_ZHANG = "Zhang et al., ICASSP 2024, and its code"

PUBLISHED: dict[str, dict[str, Recipe]] = {
    "maml": {
        "omniglot": Recipe(source=_FINN, values=_MAML_OMNIGLOT, query_is_shots=True),
        "*": Recipe(source=_FINN, values=_MAML, query_is_shots=True),
    },
    "metasgd": {
        "*": Recipe(source="Li et al., 2017: one step", values=_MAML | {"steps": 1, "eval_steps": 1, "clip": 0.0},
                    query_is_shots=True),
    },
    "metacurvature": {
        "*": Recipe(source="Park & Oliva, NeurIPS 2019", values=_MAML | {"channels": 128, "eval_steps": 5}),
    },
    "md": {
        "omniglot": Recipe(source=f"{_ZHANG} (Adam for Omniglot)", values=_MD_OMNIGLOT, query_is_shots=True),
        "*": Recipe(source=_ZHANG, values=_MD, query_is_shots=True),
    },
}  # fmt: skip
PUBLISHED["md-released"] = PUBLISHED["md"]


def recipe(method: str, dataset: str, *, name: str = "controlled", preset: str = "quick") -> Recipe:
    """The recipe `name` of `method` on `dataset`; the general one (``*``) where the data set has none of its own."""
    if name == "controlled":
        if preset not in CONTROLLED:
            raise UserError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; expected {' or '.join(PRESETS)}")
        table = CONTROLLED[preset]
    elif name == "published":
        if method not in PUBLISHED:
            raise UserError(f"{method} has no published recipe; use --recipe controlled")
        table = PUBLISHED[method]
    else:
        raise UserError(f"unknown recipe {name!r}{nearest(name, ('controlled', 'published'))}; "
                        "expected controlled or published")  # fmt: skip
    return table.get(dataset, table["*"])


def resolve(
    method: str, dataset: str, *, shots: int, recipe_name: str, preset: str, overrides: Mapping[str, Any]
) -> RunSpec:
    """The run that `overrides` (flags) on top of a recipe describe."""
    if method == FLOOR:
        measured = {key: overrides[key] for key in ("ways", "seed", "query_test", "tasks") if key in overrides}
        if recipe_name == "published":
            measured.setdefault("query_test", shots)
        values: dict[str, Any] = measured | {"iterations": 0, "eval_steps": 0, "trace_steps": 0}
    else:
        chosen = recipe(method, dataset, name=recipe_name, preset=preset)
        protocol = {"query_test": shots} if chosen.query_is_shots else {}
        values = {**chosen.values, **protocol, **overrides}
        values["options"] = {**chosen.options, **overrides.get("options", {})}
        if "steps" in overrides and "eval_steps" not in overrides:
            values["eval_steps"] = overrides["steps"]
    return RunSpec(**values | {"method": method, "dataset": dataset, "shots": shots, "recipe": recipe_name})
