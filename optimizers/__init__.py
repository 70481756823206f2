"""Lower-level optimizers: how the parameters of a network move on the support set of a task.

``available()`` lists the methods, ``create(name, network, **options)`` makes one and ``card(name)`` describes one.
A package adds a method of its own by an entry point in the group ``inner_optimizers`` (docs/plugin.md), a script or
notebook by ``register(name, cls_or_factory)``. The modules of the methods are imported when first asked for.
"""

from __future__ import annotations

from optimizers.errors import BadOption, UnknownMethod
from optimizers.registry import (
    GROUP,
    aliases,
    available,
    broken,
    card,
    create,
    options,
    register,
    resolve,
    unregister,
)

__all__ = [
    "GROUP",
    "BadOption",
    "UnknownMethod",
    "aliases",
    "available",
    "broken",
    "card",
    "create",
    "options",
    "register",
    "resolve",
    "unregister",
]
