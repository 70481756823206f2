"""The published recipes: what each method's authors ran, and where every value is from.

By method and data set; ``*`` is the recipe of miniImageNet, and serves any data set for which the authors give none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmark.spec import Value


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
    at_shots: Mapping[int, Mapping[str, Value]] = field(default_factory=dict)
    """Values that another number of shots has instead."""
    made_for: tuple[str, ...] = ()
    """Of the general recipe (``*``): the data sets whose own it is."""


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
_GAP: dict[str, Value] = {
    **_MAML,
    "channels": 128,
    "alpha": 0.01,
    "meta_lr": 1e-4,
    "iterations": 80_000,
    "clip": 0.0,
    "query_test": 15,
}
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
_KANG = "Kang et al., CVPR 2023: the commands and defaults of its public code"
PUBLISHED["gap"] = PUBLISHED["gap-approx"] = {
    "*": Recipe(
        source=_KANG,
        values=_GAP | {"geometry_lr": 30.0},
        at_shots={5: {"geometry_lr": 1.0, "meta_batch": 2}},
        made_for=_MINI,
    )
}
PUBLISHED["gap-released"] = {  # where the rate of M is read and not used
    "*": Recipe(source=_KANG, values=_GAP, at_shots={5: {"meta_batch": 2}}, made_for=_MINI)
}
PUBLISHED["cavia"] = {
    "*": Recipe(
        source="Zintgraf et al., ICML 2019: the defaults of its public code, with 128 filters",
        values=_MAML
        | {"channels": 128, "alpha": 1.0, "steps": 2, "eval_steps": 2, "meta_batch": 16}
        | {"lr_step": 5_000, "lr_gamma": 0.9, "query_test": 15, "tasks": 1_000},
        made_for=_MINI,
    )
}
PUBLISHED["metaproxnet"] = {
    "*": Recipe(
        source="Zhang & Giannakis, ICLR 2024: the scripts of its public code",
        values=_MD | {"channels": 128},
        query_is_shots=True,
        made_for=_MINI,
    )
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
