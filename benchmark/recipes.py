"""Recipes and presets: the values of a run's knobs that are not given by hand.

Two recipes for every method. *controlled*: one network, one meta-optimizer, one budget and one protocol for all, so
that only the lower-level optimizer differs; its values depend on the data set, never on the method. *published*: what
each method's authors ran, width, meta-optimizer, schedule and protocol included, so that a row can be held against the
number in its paper. A *preset* sizes the controlled recipe: ``quick`` for a laptop, ``paper`` for the budget that the
published rows had. *Tuned* is the controlled recipe with what :mod:`benchmark.runs.tune` chose for each method.

All step sizes are for the *mean* support loss. Code that divides a summed cross-entropy by the shots, as MAML's does,
has an inner gradient `ways` times as large: its 0.01 is 0.05 here in 5-way tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.published import PUBLISHED, Recipe
from benchmark.spec import RECIPES, RunSpec, Value

PRESETS = ("quick", "paper")
BASELINE = "pixels"
"""Nearest centroid on raw pixels: no optimizer, no training, the baseline that stands beside the methods."""


SAME = {"omniglot-rotated": "omniglot"}
"""Data sets that have the recipe of another one."""

# Controlled: by preset and data set

_QUICK: dict[str, Value] = {"channels": 32, "alpha": 0.05, "validate_every": 250, "validation_tasks": 200}
_PAPER: dict[str, Value] = {
    "channels": 64,
    "alpha": 0.05,
    "iterations": 60_000,
    "validate_every": 2_000,
    "validation_tasks": 1_000,
}
_SINE: dict[str, Value] = {"network": "sine-mlp", "ways": 1, "channels": 40, "alpha": 0.01, "query_train": 10}

CONTROLLED: dict[str, dict[str, Recipe]] = {
    "quick": {
        "glyphs": Recipe(
            source="meta-validation, see docs/recipes.md", values=_QUICK | {"alpha": 0.1, "iterations": 500}
        ),
        "sine": Recipe(source="Finn et al., ICML 2017", values=_SINE | {"iterations": 3_000, "validate_every": 500}),
        "omniglot": Recipe(source="as glyphs", values=_QUICK | {"alpha": 0.1, "iterations": 1_000}),
        "*": Recipe(
            source="meta-validation on CIFAR-FS, see docs/recipes.md",
            values=_QUICK | {"iterations": 1_500},
            made_for=("cifar-fs",),
        ),
    },
    "paper": {
        "sine": Recipe(source="Finn et al., ICML 2017", values=_SINE | {"iterations": 60_000}),
        "*": Recipe(
            source="the budget of Zhang et al., ICASSP 2024, with Adam for all",
            values=_PAPER,
            made_for=("miniimagenet", "cifar-fs"),
        ),
    },
}


def _table(method: str, name: str, preset: str) -> dict[str, Recipe]:
    if name in ("controlled", "tuned"):
        if preset not in CONTROLLED:
            raise UserError(f"unknown preset {preset!r}{nearest(preset, PRESETS)}; expected {' or '.join(PRESETS)}")
        return CONTROLLED[preset]
    if name == "published":
        if method not in PUBLISHED:
            raise UserError(f"{method} has no published recipe; use --recipe controlled")
        return PUBLISHED[method]
    raise UserError(f"unknown recipe {name!r}{nearest(name, RECIPES)}; expected one of {', '.join(RECIPES)}")


def recipe(method: str, dataset: str, *, name: str = "controlled", preset: str = "quick") -> Recipe:
    """The recipe `name` of `method` on `dataset`; the general one (``*``) where the data set has none of its own."""
    table = _table(method, name, preset)
    return table.get(SAME.get(dataset, dataset), table["*"])


def is_general(method: str, dataset: str, *, name: str = "controlled", preset: str = "quick") -> bool:
    """Whether :func:`recipe` is one that was made for other data sets."""
    chosen = recipe(method, dataset, name=name, preset=preset)
    return chosen is _table(method, name, preset)["*"] and dataset not in chosen.made_for


def remark(specs: Sequence[RunSpec], preset: str) -> str:
    """One line that says which of `specs`, all of one data set, run by a general recipe; empty if none does."""
    found = [spec for spec in specs if is_general(spec.method, spec.dataset, name=spec.recipe, preset=preset)]
    if not found:
        return ""
    kind = found[0].recipe if found[0].recipe == "published" else f"{found[0].recipe}, {preset}"
    methods = ", ".join(dict.fromkeys(spec.method for spec in found)) if len(found) < len(specs) else ""
    return (
        f"{found[0].dataset} has no recipe of its own ({kind}{f': {methods}' if methods else ''}): "
        "it runs by the general one, see docs/recipes.md"
    )


def resolve(
    method: str, dataset: str, *, shots: int, recipe_name: str, preset: str, overrides: Mapping[str, Any]
) -> RunSpec:
    """The run that `overrides` (flags) on top of a recipe describe."""
    chosen = recipe(method, dataset, name=recipe_name, preset=preset)
    protocol = {"query_test": shots} if chosen.query_is_shots else {}
    if chosen.trains_on_shots:
        protocol["query_train"] = shots
    values: dict[str, Any] = {**chosen.values, **chosen.at_shots.get(shots, {}), **protocol, **overrides}
    values["options"] = {**chosen.options, **overrides.get("options", {})}
    if "steps" in overrides and "eval_steps" not in overrides:
        values["eval_steps"] = overrides["steps"]
    return RunSpec(**values | {"method": method, "dataset": dataset, "shots": shots, "recipe": recipe_name})


def baseline(spec: RunSpec) -> RunSpec:
    """The baseline on the very tasks and by the protocol of `spec`."""
    kept = ("dataset", "ways", "shots", "seed", "recipe", "query_test", "tasks")
    values = {name: getattr(spec, name) for name in kept}
    return RunSpec(method=BASELINE, iterations=0, eval_steps=0, trace_steps=0, **values)
