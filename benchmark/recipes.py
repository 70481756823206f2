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
from dataclasses import dataclass, field
from typing import Any

from benchmark.errors import UserError, nearest
from benchmark.spec import RECIPES, RunSpec, Value

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
    trains_on_shots: bool = False
    """As many query images per class as there are shots in training too."""
    made_for: tuple[str, ...] = ()
    """Of the general recipe (``*``): the data sets whose own it is."""


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

# Published: by method; "*" is that of miniImageNet, and serves any data set for which the method's authors give none

_MAML: dict[str, Value] = {
    "channels": 32,
    "alpha": 0.05,
    "steps": 5,
    "eval_steps": 10,
    "clip": 10.0,
    "meta_lr": 1e-3,
    "meta_batch": 4,
    "iterations": 60_000,
    "tasks": 600,
}
_MAML_OMNIGLOT: dict[str, Value] = {
    **_MAML,
    "channels": 64,
    "alpha": 2.0,
    "steps": 1,
    "eval_steps": 3,
    "meta_batch": 32,
    "clip": 0.0,
}
_METAKFO: dict[str, Value] = {
    **_MAML,
    "network": "cnn2",
    "alpha": 0.001,
    "eval_steps": 5,
    "meta_lr": 5e-4,
    "meta_batch": 16,
    "iterations": 20_000,
    "clip": 0.0,
}
_MD: dict[str, Value] = {
    "channels": 64,
    "alpha": 0.01,
    "steps": 5,
    "eval_steps": 5,
    "meta_optimizer": "sgd",
    "meta_lr": 1e-3,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "lr_step": 20_000,
    "lr_gamma": 0.1,
    "meta_batch": 4,
    "iterations": 60_000,
    "tasks": 1_000,
}
_MAMLPP: dict[str, Value] = {
    "channels": 48,
    "alpha": 0.01,
    "steps": 5,
    "eval_steps": 5,
    "meta_lr": 1e-3,
    "meta_batch": 2,
    "iterations": 50_000,
    "clip": 10.0,
    "tasks": 600,
}
_NO_NORM = "[!n]*"
"""Parameters of CNN4 that are no batch norm's, which MAML++'s code and what was built on it do not adapt."""
_ANTONIOU = "Antoniou et al., ICLR 2019: the latest configuration of its code, without batch norm per step"
_FINN = "Finn et al., ICML 2017 (0.01 and 0.4 on the summed loss)"
_ZHANG = "Zhang et al., ICASSP 2024, and its code"


_MINI = ("miniimagenet",)


def _as_maml(
    source: str,
    own: Mapping[str, Value] | None = None,
    *,
    omniglot: Mapping[str, Value] | None = None,
    options: Mapping[str, Value] | None = None,
) -> dict[str, Recipe]:
    """MAML's recipe where a method's authors changed only the values `own`, and those of `omniglot` on Omniglot."""
    own = dict(own or {})
    how: dict[str, Any] = {"source": source, "options": options or {}, "query_is_shots": "query_test" not in own}
    return {
        "omniglot": Recipe(values=_MAML_OMNIGLOT | own | dict(omniglot or {}), trains_on_shots=True, **how),
        "*": Recipe(values=_MAML | own, made_for=_MINI, **how),
    }


PUBLISHED: dict[str, dict[str, Recipe]] = {
    "maml": _as_maml(_FINN),
    "metasgd": _as_maml(
        "Li et al., 2017: one step, rates of either sign",
        {"steps": 1, "eval_steps": 1, "clip": 0.0},
        options={"form": "free"},
    ),
    "mtnet": _as_maml("Lee & Choi, ICML 2018: MAML's recipe", omniglot={"iterations": 40_000}),
    "warpgrad": _as_maml(
        "Flennerhag et al., ICLR 2020; few-shot details from a third-party reproduction",
        {"channels": 128, "alpha": 0.1, "steps": 5, "eval_steps": 5, "query_test": 15},
        options={"warp_start": "random"},
    ),
    "metacurvature": _as_maml(
        "Park & Oliva, NeurIPS 2019 (0.01 on the summed loss)",
        {"channels": 128, "alpha": 0.05, "steps": 5, "eval_steps": 5, "query_test": 15},
    ),
    "metakfo": {
        "*": Recipe(source="Arnold et al., 2019, 5-shot: a two-layer network", values=_METAKFO, made_for=_MINI)
    },
    "ecml": _as_maml("reconstructed: γ and the residual are in no public text, the rest is MAML's", {"query_test": 15}),
    "md": {
        "omniglot": Recipe(
            source=f"{_ZHANG} (Adam without weight decay for Omniglot)",
            values=_MD | {"meta_optimizer": "adam", "momentum": 0.0, "weight_decay": 0.0},
            query_is_shots=True,
        ),
        "*": Recipe(source=_ZHANG, values=_MD, query_is_shots=True, made_for=_MINI),
    },
}
PUBLISHED["md-released"] = PUBLISHED["md"]
PUBLISHED["mamlpp"] = {
    "omniglot": Recipe(
        source=f"{_ANTONIOU}: its 20-way Omniglot configuration",
        values=_MAMLPP
        | {"channels": 64, "alpha": 0.1, "meta_batch": 8, "clip": 0.0, "lr_schedule": "cosine", "lr_min": 1e-5},
        options={"adapt": _NO_NORM, "multi_step": 0.1},
        query_is_shots=True,
        trains_on_shots=True,
    ),
    "*": Recipe(source=_ANTONIOU, values=_MAMLPP, options={"adapt": _NO_NORM}, made_for=_MINI),
}
PUBLISHED["alfa"] = PUBLISHED["alfa-released"] = {
    "*": Recipe(
        source="Baik et al., NeurIPS 2020: the 5-shot configuration of its code",
        values=_MAMLPP | {"clip": 0.0},
        options={"adapt": _NO_NORM},
        made_for=_MINI,
    )
}
PUBLISHED["momentum"] = _as_maml("never published: MAML's recipe, so that the two can be compared")
PUBLISHED["adam"] = _as_maml("never published: MAML's recipe, with one α everywhere", omniglot={"alpha": 0.05})
PUBLISHED["md-convex"] = PUBLISHED["md"]  # never published: what md was run with, so that the two can be compared


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
    values: dict[str, Any] = {**chosen.values, **protocol, **overrides}
    values["options"] = {**chosen.options, **overrides.get("options", {})}
    if "steps" in overrides and "eval_steps" not in overrides:
        values["eval_steps"] = overrides["steps"]
    return RunSpec(**values | {"method": method, "dataset": dataset, "shots": shots, "recipe": recipe_name})


def floor(spec: RunSpec) -> RunSpec:
    """The floor on the very tasks and by the protocol of `spec`."""
    kept = ("dataset", "ways", "shots", "seed", "recipe", "query_test", "tasks")
    values = {name: getattr(spec, name) for name in kept}
    return RunSpec(method=FLOOR, iterations=0, eval_steps=0, trace_steps=0, **values)
