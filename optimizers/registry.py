"""The registry: a method is one file and one line here, or an entry point of somebody else's package.

A *factory* is an :class:`~optimizers.base.InnerOptimizer` class, or any callable ``factory(network, **options)`` that
returns an instance and has an attribute ``card``. Lines here and entry points hold ``"module:attribute"`` and are
imported when first asked for, so that listing needs no method's code. One broken plug-in is named by a
:class:`BrokenPlugin` warning and by :func:`broken`, and hides nothing else.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import TYPE_CHECKING, Any

from optimizers.errors import BadOption, UnknownMethod, nearest

if TYPE_CHECKING:
    from torch import nn

    from optimizers.base import Card, InnerOptimizer

GROUP = "inner_optimizers"
"""Entry-point group by which an installed package adds methods."""

Factory = Callable[..., "InnerOptimizer"]

_BUILTIN = {
    "maml": "optimizers.maml:GradientDescent",
    "metasgd": "optimizers.metasgd:MetaSGD",
    "mtnet": "optimizers.mtnet:MTNet",
    "warpgrad": "optimizers.warpgrad:WarpGrad",
    "metacurvature": "optimizers.metacurvature:MetaCurvature",
    "metakfo": "optimizers.metakfo:MetaKFO",
    "ecml": "optimizers.ecml:ECML",
    "md": "optimizers.md:MirrorDescent",
    "md-released": "optimizers.md:MirrorDescentReleased",
    "md-convex": "optimizers.md:MirrorDescentConvex",
    "mamlpp": "optimizers.mamlpp:MAMLPlusPlus",
    "alfa": "optimizers.alfa:ALFA",
    "alfa-released": "optimizers.alfa:ALFAReleased",
    "momentum": "optimizers.momentum:HeavyBall",
    "adam": "optimizers.adam:Adam",
    "gap": "optimizers.gap:GAP",
    "gap-released": "optimizers.gap:GAPReleased",
    "gap-approx": "optimizers.gap:GAPApprox",
    "cavia": "optimizers.cavia:CAVIA",
    "metaproxnet": "optimizers.metaproxnet:MetaProxNet",
}

aliases = {
    "gd": "maml",
    "mirror-descent": "md",
    "meta-sgd": "metasgd",
    "meta-curvature": "metacurvature",
    "heavy-ball": "momentum",
    "maml++": "mamlpp",
}
"""Other names by which a method is found; results always carry the method's own name."""

_registered: dict[str, Factory] = {}
_broken: dict[str, str] = {}


class BrokenPlugin(RuntimeWarning):
    """An entry point of the group ``inner_optimizers`` that cannot be used; the message names it and its package."""


def register(name: str, factory: Factory) -> None:
    """Add a method under `name` for this process. A name that is taken is an error."""
    if name in _BUILTIN or name in aliases or name in _registered:
        raise BadOption(f"the method name {name!r} is taken; register under another name")
    if not callable(factory) or not hasattr(factory, "card"):
        raise BadOption(f"{name!r} must be an InnerOptimizer class, or a callable with an attribute `card`")
    _registered[name] = factory


def unregister(name: str) -> None:
    """Take back what :func:`register` added."""
    if name not in _registered:
        raise UnknownMethod(f"{name!r} was not added by register()")
    del _registered[name]


def available() -> list[str]:
    """Names of all methods: the built-in ones in their order, then registered ones and plug-ins by name."""
    return [*_BUILTIN, *sorted({**_registered, **_plugins()})]


def builtin() -> list[str]:
    """Names of the methods of this package, in their order."""
    return list(_BUILTIN)


def broken() -> dict[str, str]:
    """Plug-ins that cannot be used: name → which package, and why."""
    _plugins()
    return dict(_broken)


def resolve(name: str) -> str:
    """The method's own name for `name` or an alias of it; :class:`UnknownMethod` names the nearest ones."""
    own = aliases.get(name, name)
    known = available()
    if own in known:
        return own
    if own in _broken:
        raise UnknownMethod(f"the plug-in method {own!r} cannot be used: {_broken[own]}")
    raise UnknownMethod(
        f"unknown method {name!r}{nearest(name, [*known, *aliases])}; the methods are {', '.join(known)}"
    )


def factory(name: str) -> Factory:
    """What makes the method `name`: its class, or a plug-in's factory."""
    own = resolve(name)
    if own in _BUILTIN:
        module, _, attribute = _BUILTIN[own].partition(":")
        return getattr(importlib.import_module(module), attribute)
    return _registered[own] if own in _registered else _plugins()[own]


def card(name: str) -> Card:
    """The method's :class:`~optimizers.base.Card`."""
    return factory(name).card  # type: ignore[attr-defined]


def options(name: str) -> dict[str, Any]:
    """Options of a method with their defaults, its own first, then those of every method."""
    make = factory(name)
    owners = [cls for cls in inspect.getmro(make) if "__init__" in vars(cls)] if inspect.isclass(make) else [make]
    found: dict[str, Any] = {}
    for owner in owners:
        signature = inspect.signature(owner.__init__ if inspect.isclass(owner) else owner)
        for parameter in signature.parameters.values():
            if parameter.kind is parameter.KEYWORD_ONLY:
                found.setdefault(parameter.name, parameter.default)
        if not any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values()):
            break
    return found


def create(name: str, network: nn.Module, **chosen: Any) -> InnerOptimizer:
    """The method `name` for `network`, with its options by keyword.

    Raises :class:`UnknownMethod` for a name, and :class:`BadOption` for an option or a value, that does not exist.
    """
    make = factory(name)
    known = options(name)
    takes_any = not inspect.isclass(make) and any(
        p.kind is p.VAR_KEYWORD for p in inspect.signature(make).parameters.values()
    )
    for option in chosen:
        if option not in known and not takes_any:
            own = [each for each in known if each != "alpha"]  # the run's, handed on
            which = f"its options are {', '.join(own)}" if own else "it has none"
            raise BadOption(f"{resolve(name)} has no option {option!r}{nearest(option, own)}; {which}")
        _check_kind(option, chosen[option], known.get(option))
    return make(network, **chosen)


def _check_kind(option: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the default: ``bool("no")`` would be true, and quietly."""
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    kind = type(default)
    fits = isinstance(value, (int, float) if kind is float else kind) and isinstance(value, bool) is (kind is bool)
    if kind in kinds and not fits:
        raise BadOption(f"{option} must be {kinds[kind]}, got {value!r}")


def _plugins() -> dict[str, Factory]:
    found: dict[str, Factory] = {}
    failed: dict[str, str] = {}
    for point in metadata.entry_points(group=GROUP):
        try:
            if point.name in (*_BUILTIN, *aliases, *_registered, *found):
                raise BadOption(f"the method name {point.name!r} is taken")
            loaded = point.load()
            if not callable(loaded) or not hasattr(loaded, "card"):
                raise BadOption(f"{point.value} is neither an InnerOptimizer class nor a callable with a `card`")
            found[point.name] = loaded
        except (Exception, SystemExit) as error:  # whatever a stranger's package raises, the others must be listed
            package = point.dist.name if point.dist else "an unnamed package"
            failed[point.name] = f"{point.value} of {package} failed with {type(error).__name__}: {error}"
    news = {name: reason for name, reason in failed.items() if _broken.get(name) != reason}
    _broken.clear()
    _broken.update(failed)
    for name, reason in news.items():
        warnings.warn(f"plug-in {name!r}: {reason}", BrokenPlugin, stacklevel=3)
    return found
