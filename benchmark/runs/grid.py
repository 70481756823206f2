"""Which runs a command or a study names: its methods, and the baseline beside them."""

from __future__ import annotations

from collections.abc import Sequence

from benchmark import recipes
from benchmark.errors import UserError
from benchmark.spec import RunSpec

LISTED = ("method", "options", "shots", "seed", "recipe")
"""Knobs with flags of their own, or none."""


def methods_named(words: Sequence[str], where: str = "--methods") -> list[str]:
    """Registry names of the methods, each once, in the order given; ``all`` is every one."""
    import optimizers

    words = [word.strip() for word in words if word.strip()]
    if not words:
        raise UserError(f"{where} is empty; name some, or all")
    known = optimizers.available()
    try:
        named = [optimizers.resolve(word) for word in words if word not in ("all", recipes.BASELINE)]
    except ValueError as error:
        raise UserError(str(error)) from None
    named = known if "all" in words else named
    if not named:
        raise UserError(
            f"{recipes.BASELINE} is measured beside every method and is none itself; name a method in {where}"
        )
    return list(dict.fromkeys(named))


def with_baseline(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """`specs`, each preceded by the baseline run of its protocol where none of those before has it.

    It classifies: a regression has none.
    """
    found: dict[RunSpec, None] = {}
    for spec in specs:
        found |= ({recipes.baseline(spec): None} if spec.tasks and spec.ways > 1 else {}) | {spec: None}
    return list(found)
